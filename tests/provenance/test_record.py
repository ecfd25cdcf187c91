"""The record in a PNG: `show` prints it, `--from` repeats it, and nobody's record is trusted."""

import json
import shlex

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jaxstyle import JaxstyleError, Recipe
from jaxstyle.images import load_image, read_text, save_image
from jaxstyle.provenance.record import KEYWORD, read_record
from jaxstyle.weights import save_network

RECORD = {
    "schema": 1,
    "loss": 1.5,
    "steps": 3,
    "recipe": Recipe(steps=4, seed=7).as_dict(),
    "weights": {"given": "compact", "sha256": "ab" * 32},
    "images": {
        "content": {"path": "a.png", "sha256": "c"},
        "styles": [{"path": "b.png", "sha256": "d"}],
        "init": None,
    },
    "environment": {"jax": "0.10.1"},
}


@pytest.fixture
def written(tmp_path, make_image):
    """Write an image that carries a text, and give its path."""

    def write(text):
        path = tmp_path / "picture.png"
        save_image(path, make_image(16, 16), text={KEYWORD: text})
        return path

    return write


def test_what_is_written_is_read(written):
    record = read_record(written(json.dumps(RECORD)))
    assert record.recipe == Recipe(steps=4, seed=7)
    assert (record.steps, record.weights, record.content.sha256) == (3, "compact", "c")
    assert [str(style.path) for style in record.styles] == ["b.png"] and record.init is None
    assert record.everything == RECORD


def without(key):
    return {k: v for k, v in RECORD.items() if k != key}


@pytest.mark.parametrize(
    "damaged",
    [
        *(without(key) for key in RECORD),
        RECORD | {"schema": 2},
        RECORD | {"steps": -1},
        RECORD | {"steps": 1.5},
        RECORD | {"loss": "low"},
        RECORD | {"images": {"content": 3, "styles": []}},
        RECORD | {"weights": {"given": "a\x1b[31m", "sha256": ""}},
        RECORD | {"environment": ["jax"]},
        RECORD | {"recipe": {"color": "red"}},
        RECORD | {"recipe": {"steps": "many"}},
        RECORD | {"recipe": {"init": ["content"]}},
        RECORD | {"recipe": {"style_layers": {"relu9_9": 1}}},
        RECORD | {"recipe": {"upscale": 1}},
        RECORD | {"loss": 10**400},
        RECORD | {"terms": {"content": 10**400}},
        RECORD | {"loss": True},
        RECORD | {"recipe": {"style_weight": 10**400}},
        RECORD | {"recipe": {"style_blend": [10**400]}},
        RECORD | {"recipe": {"style_layers": {"relu1_1": 10**400}}},
        RECORD | {"recipe": {"scales": 2**31 - 1}},
        # Files without a digest.
        RECORD | {"recipe": {"init": "z.png"}},
        RECORD | {"recipe": {"content_mask": "z.png"}},
        RECORD | {"recipe": {"mask": [["z.png", "whole"]]}},
        [],
        "text",
    ],
)
def test_a_damaged_record_costs_one_line(written, damaged):
    with pytest.raises(JaxstyleError, match="record in .* is damaged"):
        read_record(written(json.dumps(damaged)))


def test_a_setting_by_a_name_of_two_lines_costs_one(written):
    """Found by fuzzing."""
    recipe = RECORD["recipe"] | {"cont\nent\x1b[2J": 1}
    with pytest.raises(JaxstyleError, match="is damaged") as caught:
        read_record(written(json.dumps(RECORD | {"recipe": recipe})))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "[" + "1," * 2**20 + "1]"])
def test_no_json(written, text):
    with pytest.raises(JaxstyleError, match="damaged|no record|not a whole PNG"):
        read_record(written(text))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from(sorted(RECORD)), name=st.sampled_from([*RECORD["recipe"], ""]), x=values)
def test_any_value_anywhere_is_read_or_refused(tmp_path_factory, key, name, x):
    changed = RECORD | {key: x}
    if key == "recipe" and name:
        changed = RECORD | {"recipe": RECORD["recipe"] | {name: x}}
    path = tmp_path_factory.getbasetemp() / "any.png"
    save_image(path, np.zeros((2, 2, 3), np.float32), text={KEYWORD: json.dumps(changed)})
    try:
        record = read_record(path)
    except JaxstyleError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(record.recipe, Recipe)


def test_other_files_have_no_record(tmp_path, make_image):
    for name in ("plain.png", "picture.jpg"):
        save_image(tmp_path / name, make_image(16, 16))
    with pytest.raises(JaxstyleError, match="carries no record"):
        read_record(tmp_path / "plain.png")
    with pytest.raises(JaxstyleError, match="not a whole PNG"):
        read_record(tmp_path / "picture.jpg")
    with pytest.raises(JaxstyleError, match="does not exist"):
        read_text(tmp_path / "none.png", KEYWORD)


@pytest.mark.parametrize(
    "recipe", [Recipe(), Recipe(style_layers="relu1_1:3,conv2_1", learning_rate=1, upscale=True)]
)
def test_a_recipe_survives_json(recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.as_dict()))) == recipe


class TestCommands:
    def test_from_repeats_byte_for_byte(self, stylize, run, tmp_path):
        first, second = tmp_path / "first.png", tmp_path / "second.png"
        stylize(first, "--init", "noise", "--seed", 5, styles=("style", "style2"))
        before = first.read_bytes()
        code, _, err = run("stylize", "--from", first, "-o", second)
        assert code == 0, err
        assert second.read_bytes() == before

        other = tmp_path / "other.png"
        code, _, err = run("stylize", "--from", first, "-o", other, "--seed", 6)
        assert code == 0, err
        assert read_record(other).recipe.seed == 6
        assert (load_image(other) != load_image(first)).any()

    @pytest.mark.parametrize(
        ("flags", "steps"),
        [
            ((), [2]),
            (("--optimizer", "adam", "--schedule", "cosine"), [2]),
            (("--scales", 2, "--optimizer", "adam", "--schedule", "linear"), [2, 6]),
        ],
    )
    def test_snapshots_are_repeated_byte_for_byte_too(self, flags, steps, stylize, run, tmp_path):
        out, again = tmp_path / "out.png", tmp_path / "again.png"
        stylize(out, "--save-every", 2, "--steps", 4, *flags)
        for step in steps:
            snapshot = tmp_path / f"out-step000{step}.png"
            record = read_record(snapshot)
            assert (record.steps, record.recipe.steps) == (step, 4)
            code, _, err = run("stylize", "--from", snapshot, "-o", again)
            assert code == 0 and f"is of step {step} of " in err and "--steps 4" in err, err
            assert again.read_bytes() == snapshot.read_bytes()
        # Steps that are asked for are all made, and snapshots do not change the image.
        code, _, err = run("stylize", "--from", snapshot, "-o", again, "--steps", 4, "--quiet")
        assert code == 0 and again.read_bytes() == out.read_bytes(), err

    def test_defaults_follow_what_is_changed_beside_from(self, run, files, tmp_path):
        layers = ("--content-layers", "relu2_2", "--style-layers", "relu1_1")
        words = ("--weights", files["weights"], *layers, "--steps", 1, "--quiet")

        def made(name, *flags):
            output = tmp_path / name
            code, _, err = run("stylize", files["content"], files["style"], "-o", output, *flags)
            assert code == 0, err
            return read_record(output)

        def changed(name, *flags):
            output = tmp_path / "changed.png"
            code, _, err = run("stylize", "--from", tmp_path / name, "-o", output, *flags)
            assert code == 0, err
            return read_record(output)

        first = made("first.png", *words, "--optimizer", "adam", "--strength", 0.7)
        assert first.recipe.learning_rate == 0.02 and first.unresolved["learning_rate"] is None
        assert first.unresolved["strength"] == 0.7 and first.recipe.strength is None
        assert changed("first.png", "--optimizer", "rmsprop").recipe.learning_rate == 0.005
        direct = made("direct.png", *words, "--style-loss", "gram", "--strength", 0.7)
        again = changed("first.png", "--style-loss", "gram")
        assert again.recipe.style_weight == direct.recipe.style_weight != first.recipe.style_weight
        # The strength is of the default weight, not of the weight that it came to.
        weaker = made("weaker.png", *words, "--strength", 0.4)
        assert changed("first.png", "--strength", 0.4).recipe.style_weight == (
            weaker.recipe.style_weight
        )
        # What was asked for stays.
        made("given.png", *words, "--style-weight", 200)
        kept = changed("given.png", "--style-loss", "gram")
        assert kept.recipe.style_weight == 200 and "style_weight" not in kept.unresolved

    def test_an_older_record_does_not_say_what_was_a_default(self, run, files, tmp_path):
        layers = ("--content-layers", "relu2_2", "--style-layers", "relu1_1")
        words = ("--weights", files["weights"], *layers, "--steps", 1, "--quiet")
        run("stylize", files["content"], files["style"], "-o", tmp_path / "new.png", *words)
        record = dict(read_record(tmp_path / "new.png").everything)
        record.pop("asked")
        with Image.open(tmp_path / "new.png") as image:
            text = PngInfo()
            text.add_itxt(KEYWORD, json.dumps(record))
            image.save(tmp_path / "old.png", pnginfo=text)
        words = ("stylize", "--from", tmp_path / "old.png", "-o", tmp_path / "again.png")
        code, _, err = run(*words, "--style-loss", "gram")
        assert code == 0 and "does not say what was a default" in err
        assert "--style-weight" in err and "--style-loss" not in err
        code, _, err = run(*words, "--save-every", 1)
        assert code == 0 and "a default" not in err

    def test_other_weights_beside_from_have_their_own_defaults(
        self, run, files, make_network, tmp_path
    ):
        save_network(
            make_network(blocks=2).replace(source="random", normalized=True),
            tmp_path / "normalized.safetensors",
        )
        words = ("--content-layers", "relu2_2", "--style-layers", "relu1_1", "--steps", 1)
        output, again = tmp_path / "out.png", tmp_path / "again.png"
        sources = ("stylize", files["content"], files["style"], "-o", output, "--quiet")
        assert run(*sources, *words, "--weights", tmp_path / "normalized.safetensors")[0] == 0
        assert read_record(output).recipe.content_weight == 3.5
        code, _, err = run("stylize", "--from", output, "-o", again, "--weights", files["weights"])
        assert code == 0, err
        assert read_record(again).recipe.content_weight == 5

    def test_show_names_the_strength_that_was_asked_for(self, run, files, tmp_path):
        words = (files["content"], files["style"], "--weights", files["weights"], "--steps", 1)
        layers = ("--content-layers", "relu2_2", "--style-layers", "relu1_1", "--quiet")
        assert run("stylize", *words, *layers, "-o", tmp_path / "out.png")[0] == 0
        out = run("show", tmp_path / "out.png")[1]
        assert "style_weight" not in out and "--strength" not in out
        used = read_record(tmp_path / "out.png").recipe.style_weight
        assert f"weight of style    {used:.6g}\n" in out
        code, _, err = run(
            "stylize", "--from", tmp_path / "out.png", "-o", tmp_path / "more.png",
            "--strength", 0.75, "--quiet",
        )  # fmt: skip
        assert code == 0, err
        out = run("show", tmp_path / "more.png")[1]
        assert "strength           0.75\n" in out and "--strength 0.75" in out
        assert "style_weight" not in out
        weights = [read_record(tmp_path / f"{n}.png").recipe.style_weight for n in ("out", "more")]
        assert weights[1] == pytest.approx(1.5**5 * weights[0], rel=1e-3)

    def test_show_names_what_differs_and_the_command_that_makes_it(
        self, stylize, run, tmp_path, files
    ):
        stylize(tmp_path / "out.png", "--tv-weight", 0.25, "--optimizer", "adam", "--no-upscale")
        code, out, _ = run("show", tmp_path / "out.png")
        assert code == 0
        rows = {line[:18].strip(): line[19:] for line in out.splitlines()}
        assert rows["tv_weight"] == "0.25" and rows["optimizer"] == "adam"
        # What nobody changed is listed by --all.
        assert "pooling" not in rows and "learning_rate" not in rows and "margin" not in rows
        assert len(rows) < 30
        everything = run("show", tmp_path / "out.png", "--all")[1]
        assert "\npooling            max\n" in everything
        command = shlex.split(rows["command"])
        assert command[:2] == ["jaxstyle", "stylize"]
        again = [str(tmp_path / "again.png") if word == "OUT.png" else word for word in command[1:]]
        assert run(*again, "--quiet")[0] == 0
        assert np.array_equal(load_image(tmp_path / "again.png"), load_image(tmp_path / "out.png"))

    def test_show(self, stylize, run, tmp_path, files):
        stylize(tmp_path / "out.png", "--seed", 9)
        code, out, _ = run("show", tmp_path / "out.png")
        lines = dict(line.split(maxsplit=1) for line in out.splitlines() if " " in line)
        assert code == 0 and lines["seed"] == "9" and lines["content"] == str(files["content"])
        assert lines["style_layers"] == "relu1_1, relu2_1:2"
        code, out, _ = run("show", tmp_path / "out.png", "--json")
        assert json.loads(out)["recipe"]["seed"] == 9 and "seconds" not in json.loads(out)

    def test_images_that_changed_are_refused(self, stylize, run, files, tmp_path, make_image):
        content = tmp_path / "content.png"
        save_image(content, make_image(20, 24, seed=1))
        output = tmp_path / "out.png"
        flags = ["--weights", files["weights"], "--content-layers", "relu2_2"]
        flags += ["--style-layers", "relu1_1", "--steps", 1]
        assert run("stylize", content, files["style"], "-o", output, *flags)[0] == 0
        save_image(content, make_image(20, 24, seed=2))
        again = ["stylize", "--from", output, "-o", tmp_path / "again.png"]
        code, _, err = run(*again)
        assert code == 2 and "no longer the image" in err
        assert not (tmp_path / "again.png").exists()
        # Another image, asked for, is no mistake.
        code, _, err = run(*again, files["style2"], files["style"])
        assert code == 0, err

    def test_weights_that_changed_are_refused(self, run, stylize, files, tmp_path):
        output = tmp_path / "out.png"
        stylize(output)
        recorded = read_record(output).everything
        recorded["weights"] = {"given": "compact", "sha256": "0" * 64}
        save_image(output, load_image(output), text={KEYWORD: json.dumps(recorded)})
        code, _, err = run("stylize", "--from", output, "-o", tmp_path / "again.png")
        assert code == 2 and "other weights named 'compact'" in err

    def test_usage(self, run, stylize, files, tmp_path):
        stylize(tmp_path / "out.png")
        code, _, err = run(
            "stylize", "--from", tmp_path / "out.png", "--preset", "default", "-o", "x.png"
        )
        assert code == 2 and "--preset" in err and "--from" in err
        code, _, err = run("stylize", "--from", files["content"], "-o", tmp_path / "x.png")
        assert code == 2 and "carries no record" in err
        code, _, err = run("show", files["style"])
        assert code == 2 and "not a whole PNG" in err
