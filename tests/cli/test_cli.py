"""The command line: what it writes, what it says, and that bad input costs one line."""

import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxstyle import Recipe, evaluate, load_network, presets
from jaxstyle.cli import main
from jaxstyle.images import load_image
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.weights import save_network

COMMAND = Path(sys.executable).with_name("jaxstyle")
PREFIX = "jaxstyle: error: "


def strict(text):
    def refuse(name):
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture(scope="module")
def first(files, tmp_path_factory):
    """One plain run whose image and report several tests look at."""
    folder = tmp_path_factory.mktemp("first")
    arguments = [
        "stylize", files["content"], files["style"], "-o", folder / "out.png",
        "--report", folder / "out.json", "--weights", files["weights"], "--content-layers",
        "relu2_2", "--style-layers", "relu1_1,relu2_1:2", "--style-weight", "200",
        "--steps", "3", "--tv-weight", "1e-4",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    assert not ended.value.code
    return folder / "out.png", strict((folder / "out.json").read_text()), arguments


class TestStylize:
    def test_writes_an_image_and_nothing_else(self, first):
        path, _, _ = first
        assert sorted(p.name for p in path.parent.iterdir()) == ["out.json", "out.png"]
        with Image.open(path) as image:
            assert image.format == "PNG" and image.size == (40, 32) and image.mode == "RGB"

    def test_the_report_has_the_contracts_keys(self, first, files):
        path, report, _ = first
        assert set(report) == {
            "schema", "loss", "terms", "initial", "steps", "evaluations", "history", "seconds",
            "recipe", "weights", "images", "environment", "diverged", "layers", "asked",
        }  # fmt: skip
        assert report["schema"] == 1 and report["steps"] == 3 and report["evaluations"] == 4
        assert set(report["terms"]) == set(report["initial"]["terms"]) == {"content", "style", "tv"}
        assert set(report["initial"]) == {"loss", "terms"}
        assert set(report["history"]) == {"step", "loss", "content", "style", "tv"}
        assert report["history"]["step"] == [0, 1, 2, 3]
        assert all(len(values) == 4 for values in report["history"].values())
        assert set(report["seconds"]) == {"compile", "run"}
        assert set(report["weights"]) == {"name", "sha256", "source", "given"}
        assert report["weights"]["source"] == "random"
        assert set(report["environment"]) == {"jaxstyle", "jax", "jaxlib", "python", "device"}
        assert set(report["images"]) == {"content", "styles", "init", "output"}
        images = {
            files["content"]: (report["images"]["content"], [40, 32]),
            files["style"]: (report["images"]["styles"][0], [33, 36]),
            path: (report["images"]["output"], [40, 32]),
        }
        for file, (entry, size) in images.items():
            assert entry == {
                "path": str(file),
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "size": size,
            }
        recipe = report["recipe"]
        assert recipe["style_layers"] == {"relu1_1": 1, "relu2_1": 2}
        assert recipe["optimizer"] == "lbfgs" and recipe["steps"] == 3 and recipe["seed"] == 0

    def test_terms_sum_to_the_loss_and_the_loss_fell(self, first):
        _, report, _ = first
        for numbers in (report, report["initial"]):
            assert sum(numbers["terms"].values()) == pytest.approx(numbers["loss"], rel=1e-6)
            assert all(term >= 0 for term in numbers["terms"].values())
        assert report["loss"] < report["initial"]["loss"] == report["history"]["loss"][0]

    def test_evaluate_agrees_with_the_report(self, first, files, objective, run):
        path, report, _ = first
        flags = [*objective, "--tv-weight", "1e-4", "--style-loss", report["recipe"]["style_loss"]]
        code, out, err = run(
            "evaluate", path, "--content", files["content"], "--style", files["style"], *flags,
            "--json",
        )  # fmt: skip
        assert code == 0 and err == ""
        scored = strict(out)
        assert set(scored) == {"loss", "terms", "layers", "weights", "recipe"}
        assert scored["weights"].items() < report["weights"].items()
        # The file has 8 bits a channel, the report speaks of the image before.
        assert scored["loss"] == pytest.approx(report["loss"], rel=0.05)
        assert sum(scored["terms"].values()) == pytest.approx(scored["loss"], rel=1e-6)
        code, out, _ = run(
            "evaluate", path, "--content", files["content"], "--style", files["style"], *flags
        )
        # Layers are indented under their term.
        names = [line.split()[0] for line in out.splitlines() if line[0] != " "]
        assert names == ["loss", "content", "style", "tv"]
        assert float(out.split()[1]) == pytest.approx(scored["loss"], rel=1e-4)

    @pytest.mark.parametrize("command", ["stylize", "evaluate", "plan", "grid"])
    def test_images_are_bounded_wherever_they_are_read(self, command, files, run, tmp_path):
        frames = tmp_path / "frames.tiff"
        pages = [Image.new("RGB", (40, 32), color) for color in ("red", "blue")]
        pages[0].save(frames, save_all=True, append_images=pages[1:])

        def read(image, *flags):
            (tmp_path / "grid.toml").write_text(
                f"[base]\ncontent = '{image}'\nstyle = '{image}'\nsize = 2\n"
            )
            # Something else is wrong after the images have been read: nothing is to run here.
            arguments = {
                "stylize": (image, image, "-o", tmp_path / "o.png", "--size", 2),
                "evaluate": (image, "--content", image, "--style", image, "--size", 2),
                "plan": ("--content", image, "--size", 2),
                "grid": (tmp_path / "grid.toml", "-o", tmp_path / "out"),
            }[command]
            weights = () if command == "grid" else ("--weights", files["weights"])
            code, _, err = run(command, *arguments, *weights, *flags)
            assert code == 2 and err.count("\n") == 1
            return err

        assert "--max-pixels" in read(files["content"], "--max-pixels", 1000)
        assert "--max-pixels" not in read(files["content"], "--max-pixels", 2000)
        assert "--first-frame" in read(frames)
        assert "--first-frame" not in read(frames, "--first-frame")
        assert "--max-pixels" in read(frames, "--max-pixels", 0)

    def test_evaluate_of_the_content_image_itself(self, files, objective, run):
        arguments = ("--content", files["content"], "--style", files["style"], "--json")
        code, out, _ = run("evaluate", files["content"], *arguments, *objective)
        terms = strict(out)["terms"]
        assert code == 0 and terms["content"] < 1e-6 < terms["style"]

    def test_the_installed_command_writes_the_same_bytes(self, first, tmp_path, environment):
        path, report, arguments = first
        arguments = [str(a).replace(str(path.parent), str(tmp_path)) for a in arguments]
        done = subprocess.run(
            [COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0 and done.stdout == "", done.stderr
        assert "Traceback" not in done.stderr and "step 3/3" in done.stderr
        assert (tmp_path / "out.png").read_bytes() == path.read_bytes()
        again = strict((tmp_path / "out.json").read_text())
        for key in ("loss", "terms", "initial", "history", "recipe", "weights", "environment"):
            assert again[key] == report[key], key

    def test_progress_goes_to_standard_error(self, stylize, tmp_path):
        err = stylize(tmp_path / "o.png")
        assert err.splitlines()[0] == "compiling …"
        assert err.splitlines()[1].startswith("step 0/3  loss ")
        assert err.splitlines()[-2].startswith("step 3/3  loss ") and "\r" not in err
        assert err.splitlines()[-1] == f"jaxstyle: wrote {tmp_path / 'o.png'}"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this machine")
    def test_a_full_standard_output_costs_one_line(self):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [COMMAND, "weights", "list"], stdout=full, stderr=subprocess.PIPE, text=True,
                timeout=200,
            )  # fmt: skip
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert "standard output" in done.stderr

    def test_a_photograph_that_is_not_enlarged_is_pointed_out(self, stylize, tmp_path):
        assert "--upscale" not in stylize(tmp_path / "o.png", "--size", 32)
        assert "--upscale enlarges it" in stylize(tmp_path / "o.png", "--size", 400)
        assert "--upscale" not in stylize(tmp_path / "o.png", "--size", 40, "--upscale")

    def test_a_score_takes_the_size_from_the_record(self, stylize, files, run, tmp_path):
        stylize(tmp_path / "o.png", "--size", 24)
        of = ("evaluate", tmp_path / "o.png", "--content", files["content"], "--json")
        of += ("--style", files["style"], "--weights", files["weights"])
        of += ("--content-layers", "relu1_1", "--style-layers", "relu1_1")
        scores = {}
        for size, words in (
            ((), "--size 24, with which "),
            (("--size", 24), ""),
            (("--size", 33), ""),
        ):
            code, out, err = run(*of, *size)
            assert code == 0 and words in err and ("style images have" in err) == bool(words), err
            scores[size] = strict(out)["loss"]
        # The style in the file is 36 pixels high.
        assert scores[()] == scores["--size", 24] != scores["--size", 33]

    def test_quiet_prints_nothing(self, stylize, tmp_path):
        assert stylize(tmp_path / "o.png", "--quiet") == ""

    def test_snapshots(self, stylize, tmp_path):
        stylize(tmp_path / "o.jpg", "--save-every", 3, "--steps", 9, "--quiet")
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["o-step0003.jpg", "o-step0006.jpg", "o-step0009.jpg", "o.jpg"]
        assert (tmp_path / "o-step0009.jpg").read_bytes() == (tmp_path / "o.jpg").read_bytes()

    def test_batch(self, stylize, tmp_path, files):
        flags = ("--style-loss", Recipe().style_loss)
        flags += ("--init", "noise", "--noise-std", 30, "--seed", 4, "--quiet")
        stylize(tmp_path / "o.png", "--batch", 2, "--report", tmp_path / "o.json", *flags)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["o-000.png", "o-001.png", "o.json"]
        report = strict((tmp_path / "o.json").read_text())
        assert set(report) == {"schema", "runs"} and len(report["runs"]) == 2
        for k, element in enumerate(report["runs"]):
            assert element["recipe"]["seed"] == 4 + k
            assert element["images"]["output"]["path"] == str(tmp_path / f"o-00{k}.png")
            assert sum(element["terms"].values()) == pytest.approx(element["loss"], rel=1e-6)
            assert element["history"]["step"] == [0, 1, 2, 3]
        stylize(tmp_path / "alone.png", *flags[:-2], 5, "--quiet")
        difference = pixels(tmp_path / "alone.png") - pixels(tmp_path / "o-001.png").astype(int)
        assert np.abs(difference).max() <= 3
        assert (pixels(tmp_path / "o-000.png") != pixels(tmp_path / "o-001.png")).any()

    def test_a_batch_of_equal_starts_is_pointed_out(self, stylize, tmp_path):
        err = stylize(tmp_path / "o.png", "--batch", 2)
        assert "--init noise" in err.splitlines()[0]
        assert err.splitlines()[-2].startswith("step 3/3  best of 2: loss ")
        # The files differ in their records, which name another seed.
        first, second = (np.asarray(Image.open(tmp_path / f"o-00{k}.png")) for k in range(2))
        assert (first == second).all()

    def test_every_start(self, stylize, tmp_path, files):
        results = {}
        for init in ("content", "noise", "style", files["start"]):
            stylize(tmp_path / "o.png", "--init", init, "--report", tmp_path / "o.json", "--quiet")
            report = strict((tmp_path / "o.json").read_text())
            assert report["recipe"]["init"] == str(init)
            results[init] = report["initial"]["terms"]["content"]
        assert results.pop("content") < 1e-6
        assert len(set(results.values())) == 3 and min(results.values()) > 1e-3

    def test_several_styles(self, stylize, tmp_path, files):
        paths = {}
        for styles in (("style",), ("style", "style2"), ("style2", "style")):
            path = paths[styles] = tmp_path / ("-".join(styles) + ".png")
            stylize(path, "--quiet", "--report", tmp_path / "r.json", styles=styles)
            report = strict((tmp_path / "r.json").read_text())
            named = [entry["path"] for entry in report["images"]["styles"]]
            assert named == [str(files[s]) for s in styles]
        one, both, turned = (pixels(path).astype(int) for path in paths.values())
        assert (one != both).any() and np.abs(both - turned).max() <= 1

    def test_size_and_upscale(self, run, files, tmp_path):
        shallow = [
            *("--weights", files["weights"], "--content-layers", "relu1_1"),
            *("--style-layers", "relu1_1", "--steps", 1, "--quiet"),
        ]
        for flags, size in (
            (["--size", 512], (40, 32)),
            (["--size", 60, "--upscale"], (60, 48)),
        ):
            code, _, err = run(
                "stylize", files["content"], files["style"], "-o", tmp_path / "o.png",
                *shallow, *flags,
            )  # fmt: skip
            assert code == 0, err
            assert Image.open(tmp_path / "o.png").size == size

    def test_auto_says_once_how_to_get_vgg19(self, run, files, tmp_path, monkeypatch):
        monkeypatch.setenv("JAXSTYLE_CACHE", str(tmp_path / "cache"))
        arguments = ["stylize", files["content"], files["style"], "-o", tmp_path / "o.png"]
        shallow = ["--content-layers", "relu1_1", "--style-layers", "relu1_1", "--steps", 1]
        assert run(*arguments, *shallow, "--quiet") == (0, "", "")
        code, _, err = run(*arguments, *shallow)
        assert code == 0
        assert "jaxstyle weights fetch vgg19" in err.splitlines()[0]
        assert sum("fetch" in line for line in err.splitlines()) == 1
        scored = ("--content", files["content"], "--style", files["style"], *shallow[:4])
        code, _, err = run("evaluate", files["content"], *scored)
        assert code == 0 and err == ""

    def test_an_existing_image_is_replaced(self, stylize, tmp_path, files):
        path = tmp_path / "o.png"
        path.write_bytes(b"old")
        stylize(path, "--quiet")
        assert Image.open(path).size == (40, 32)
        assert [p.name for p in tmp_path.iterdir()] == ["o.png"]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("moment", ["compiling", "running"])
def test_ctrl_c_keeps_the_best_image(files, objective, tmp_path, environment, moment):
    if moment == "compiling":
        environment = {**environment, "JAX_ENABLE_COMPILATION_CACHE": "0"}
    arguments = [
        "stylize", files["content"], files["style"], "-o", tmp_path / "o.png",
        "--report", tmp_path / "o.json", *objective, "--steps", 6000, "--history-size", 21,
    ]  # fmt: skip
    with subprocess.Popen(
        [COMMAND, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr.readline().startswith("compiling")
        assert process.stderr.readline().startswith("step 0/6000")
        if moment == "compiling":
            time.sleep(0.5)
        else:
            assert process.stderr.readline().startswith("step 600/6000")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == "" and "Traceback" not in err
    assert "stopped at step" in err.splitlines()[-1] and "o.png" in err.splitlines()[-1]
    report = strict((tmp_path / "o.json").read_text())
    assert (0 if moment == "compiling" else 600) <= report["steps"] < 6000
    assert len(report["history"]["step"]) == report["steps"] + 1
    assert report["loss"] <= report["initial"]["loss"] * 1.0001
    assert Image.open(tmp_path / "o.png").size == (40, 32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.json", "o.png"]


def test_the_page_has_the_last_iterate_after_ctrl_c(
    run, interrupted, files, objective, tmp_path, monkeypatch
):
    seen, told = [], []
    view = types.SimpleNamespace(live=types.SimpleNamespace(tick=seen.append))
    page = types.SimpleNamespace(view=view, stopped=False, finish=told.append)
    monkeypatch.setattr("jaxstyle.cli.run._open_page", lambda *_: page)
    code, _, err = run(
        "stylize", files["content"], files["style"], "-o", tmp_path / "o.png", *objective
    )
    assert code == 130 and "stopped at step 0" in err, err
    assert [iterate.step for iterate in seen] == [0] and told[0].startswith("stopped; the image")


def spoiled(folder, files):
    """Bad images and weights, by name."""
    good = files["weights"].read_bytes()
    made = {
        "text.png": b"this is not an image\n",
        "empty.png": b"",
        "truncated.jpg": files["style"].read_bytes()[:500],
        "flipped.safetensors": good[:-1] + bytes([good[-1] ^ 1]),
        "short.safetensors": good[: len(good) // 2],
        "text.safetensors": b"weights\n",
        "other.npz": b"PK",
        "file": b"",
    }
    for name, data in made.items():
        (folder / name).write_bytes(data)
    Image.new("RGB", (1, 1)).save(folder / "dot.png")
    # Fifty megapixels in six kilobytes.
    Image.new("1", (10000, 8000)).save(folder / "bomb.png")


C, S = "{content}", "{style}"
BAD = {
    "missing content": (["{bad}/none.png", S], ["CONTENT", "none.png", "does not exist"]),
    "missing style": ([C, "{bad}/none.png"], ["STYLE", "none.png"]),
    "missing second style": ([C, S, "{bad}/none.png"], ["STYLE", "none.png"]),
    "missing init": ([C, S, "--init", "{bad}/none.png"], ["--init", "none.png"]),
    "unknown init": ([C, S, "--init", "contents"], ["--init", "contents"]),
    "not an image": (["{bad}/text.png", S], ["CONTENT", "text.png"]),
    "empty file": ([C, "{bad}/empty.png"], ["STYLE", "empty.png"]),
    "folder": ([C, "{bad}"], ["STYLE", "folder"]),
    "truncated JPEG": ([C, "{bad}/truncated.jpg"], ["STYLE", "truncated.jpg"]),
    "1x1 image": (["{bad}/dot.png", S], ["CONTENT", "1x1"]),
    "1x1 style": ([C, "{bad}/dot.png"], ["STYLE", "1x1"]),
    "bomb": (["{bad}/bomb.png", S], ["CONTENT", "megapixels"]),
    "size too small": ([C, S, "--size", "4"], ["size 4", "20 or more"]),
    "unknown layer": ([C, S, "--style-layers", "relu6_1"], ["--style-layers", "relu6_1"]),
    "unknown content layer": ([C, S, "--content-layers", "fc7"], ["--content-layers", "fc7"]),
    "bad layer weight": ([C, S, "--style-layers", "relu1_1:x"], ["--style-layers", "'x'"]),
    "NaN layer weight": ([C, S, "--style-layers", "relu1_1:nan"], ["--style-layers", "nan"]),
    "layer twice": ([C, S, "--style-layers", "relu1_1,relu1_1"], ["--style-layers", "twice"]),
    "no layers": ([C, S, "--style-layers", "", "--content-layers", ""], ["layers"]),
    "unknown preset": ([C, S, "--preset", "nice"], ["preset", "nice", "default"]),
    "unknown optimizer": ([C, S, "--optimizer", "newton"], ["--optimizer", "newton", "adam"]),
    "unknown pooling": ([C, S, "--pooling", "median"], ["--pooling", "median", "avg"]),
    "unknown schedule": ([C, S, "--schedule", "step"], ["--schedule", "step", "cosine"]),
    "NaN weight": ([C, S, "--style-weight", "nan"], ["--style-weight", "nan"]),
    "infinite weight": ([C, S, "--tv-weight", "inf"], ["--tv-weight", "inf"]),
    "negative weight": ([C, S, "--content-weight", "-1"], ["--content-weight", "-1"]),
    "negative noise": ([C, S, "--noise-std", "-1"], ["--noise-std", "-1"]),
    "no learning rate": ([C, S, "--learning-rate", "0"], ["--learning-rate", "0"]),
    "no history": ([C, S, "--history-size", "0"], ["--history-size", "0"]),
    "negative seed": ([C, S, "--seed", "-1"], ["--seed", "-1"]),
    "not a number": ([C, S, "--steps", "many"], ["--steps", "many"]),
    "no batch": ([C, S, "--batch", "0"], ["--batch", "0"]),
    "huge batch": ([C, S, "--batch", "500000000"], ["--batch", "500000000", "10000"]),
    "huge history": ([C, S, "--history-size", "100000"], ["--history-size", "100000", "1000"]),
    "huge scales": ([C, S, "--scales", "2147483647"], ["--scales", "2147483647", "16"]),
    "no steps": ([C, S, "--steps", "0"], ["--steps", "0"]),
    "save every none": ([C, S, "--save-every", "0"], ["--save-every", "0"]),
    "corrupt weights": ([C, S, "--weights", "{bad}/flipped.safetensors"], ["flipped"]),
    "short weights": ([C, S, "--weights", "{bad}/short.safetensors"], ["short"]),
    "text as weights": ([C, S, "--weights", "{bad}/text.safetensors"], ["text.safetensors"]),
    "unconverted weights": ([C, S, "--weights", "{bad}/other.npz"], ["weights convert"]),
    "missing weights": ([C, S, "--weights", "{bad}/no.safetensors"], ["no.safetensors"]),
    "unknown weights": ([C, S, "--weights", "vgg99"], ["vgg99", "compact"]),
    "weights not fetched": ([C, S, "--weights", "vgg16"], ["vgg16", "weights fetch vgg16"]),
    "missing layer": ([C, S], ["--content-layers", "relu4_2", "conv1_1, conv1_2, conv2_1"]),
    "no styles": ([C], ["STYLE"]),
    "nothing": ([], ["CONTENT"]),
    "unknown flag": ([C, S, "--fast"], ["--fast"]),
    "flag without value": ([C, S, "--steps"], ["--steps"]),
    "two outputs": ([C, S, "-o", "{out}/a.gif"], ["-o", "a.gif"]),
    "unknown ending": ([C, S, "-o", "{out}/a.xyz"], ["-o", ".xyz", ".png"]),
    "no ending": ([C, S, "-o", "{out}/a"], ["-o", "{out}/a"]),
    "folder as output": ([C, S, "-o", "{out}"], ["-o", "folder"]),
    "output folder missing": ([C, S, "-o", "{out}/none/a.png"], ["-o", "does not exist"]),
    "output under a file": ([C, S, "-o", "{bad}/file/a.png"], ["-o", "not a folder"]),
    "report folder missing": ([C, S, "--report", "{out}/none/a.json"], ["--report", "exist"]),
    "report is a folder": ([C, S, "--report", "{out}"], ["--report", "folder"]),
}
# Those that are about layers or weights need the others to be right.
OWN = {"missing layer": ["--weights", "{weights}"]}


@pytest.fixture(scope="module")
def places(files, tmp_path_factory):
    bad = tmp_path_factory.mktemp("bad")
    spoiled(bad, files)
    return {**files, "bad": bad}


class TestBadInput:
    @pytest.mark.parametrize("name", BAD)
    def test_one_line_and_nothing_written(self, run, places, tmp_path, name):
        arguments, words = BAD[name]
        places = {**places, "out": tmp_path}
        old = tmp_path / "old.png"
        old.write_bytes(b"what was there")
        if "-o" not in arguments:
            arguments = [*arguments, "-o", "{out}/old.png"]
        before = {path: path.read_bytes() for path in places["bad"].iterdir()}
        code, out, err = run(
            "stylize", *(a.format(**places) for a in [*arguments, *OWN.get(name, [])])
        )
        assert code == 2, err
        assert out == "" and err.startswith(PREFIX) and err.count("\n") == 1, err
        for word in words:
            assert word.format(**places) in err
        assert list(tmp_path.iterdir()) == [old] and old.read_bytes() == b"what was there"
        assert {path: path.read_bytes() for path in places["bad"].iterdir()} == before

    @pytest.mark.parametrize("name", ["no steps", "corrupt weights", "bomb"])
    def test_the_installed_command_says_the_same(self, run, places, tmp_path, environment, name):
        arguments = [a.format(**places, out=tmp_path) for a in BAD[name][0]]
        arguments = ["stylize", *arguments, "-o", str(tmp_path / "o.png")]
        done = subprocess.run(
            [COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout, done.stderr) == run(*arguments)
        assert done.returncode == 2 and list(tmp_path.iterdir()) == []

    def test_without_an_output(self, run, files, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        code, out, err = run("stylize", files["content"], files["style"])
        assert code == 2 and out == "" and err.count("\n") == 1 and "--output" in err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["{bad}/none.png", "--content", C, "--style", S], ["IMAGE", "none.png"]),
            ([C, "--content", "{bad}/text.png", "--style", S], ["--content", "text.png"]),
            ([C, "--content", C, "--style", "{bad}/dot.png"], ["--style", "1x1"]),
            ([C, "--content", C], ["--style"]),
            ([C, "--style", S], ["--content"]),
            ([C, "--content", C, "--style", S, "--pooling", "x"], ["--pooling", "x"]),
            ([C, "--content", C, "--style", S, "--steps", "3"], ["--steps"]),
            ([C, "--content", C, "--style", S, "--weights", "{weights}"], ["relu4_2"]),
            ([C, "--content", C, "--style", S, "--tv-weight", "nan"], ["--tv-weight"]),
        ],
        ids=lambda value: " ".join(value[1:]),
    )
    def test_evaluate(self, run, places, arguments, words):
        code, out, err = run("evaluate", *(a.format(**places) for a in arguments), "--json")
        assert code == 2 and out == ""
        assert err.startswith(PREFIX) and err.count("\n") == 1
        for word in words:
            assert word in err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["path", "vgg99"], ["vgg99", "compact"]),
            (["path", "vgg19"], ["vgg19", "fetch"]),
            (["verify", "vgg99"], ["vgg99"]),
            (["fetch", "vgg99"], ["vgg99"]),
            (["fetch", "vgg19-gatys"], ["vgg19-gatys"]),
            (["fetch"], ["NAME"]),
            (["convert", "{bad}/none.pth", "-o", "{out}/n.safetensors"], ["none.pth"]),
            (["convert", "{bad}/other.npz", "-o", "{out}/n.safetensors"], ["other.npz"]),
            (["convert", "{bad}/text.png", "-o", "{out}/n.safetensors"], ["text.png"]),
            (["convert", "{bad}/other.npz", "-o", "{out}/none/n.safetensors"], ["-o"]),
            (["convert", "{weights}"], ["--output"]),
            (["convert", "{weights}", "-o", "{out}/n.safetensors", "--network", "x"], ["x"]),
            (["train"], ["train"]),
        ],
        ids=lambda value: " ".join(value),
    )
    def test_weights(self, run, places, tmp_path, arguments, words):
        arguments = (a.format(**places, out=tmp_path) for a in arguments)
        code, out, err = run("weights", *arguments)
        assert code == 2 and out == "", err
        assert err.startswith(PREFIX) and err.count("\n") == 1, err
        for word in words:
            assert word in err
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [(), ("weights",)])
def test_no_command_is_a_short_error(run, arguments):
    code, _, err = run(*arguments)
    assert code == 2 and err.startswith(PREFIX) and len(err) < 200


def test_a_batch_whose_seeds_run_out_fails_early(run, files, objective, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxstyle.api.iterates", lambda *a, **k: pytest.fail("it ran"))
    flags = ("--seed", 2**31 - 1, "--batch", 2, "--init", "noise", "--quiet", "--steps", 3)
    code, _, err = run(
        "stylize", files["content"], files["style"], "-o", tmp_path / "o.png", *objective, *flags
    )
    assert code == 2 and "--seed" in err


def test_every_file_of_a_batch_is_checked_before_it_runs(
    run, files, objective, tmp_path, monkeypatch
):
    def batch():
        return run(
            "stylize", files["content"], files["style"], "-o", tmp_path / "o.png", *objective,
            "--batch", 2, "--steps", 1, "--quiet",
        )  # fmt: skip

    monkeypatch.setattr("jaxstyle.cli.run.iterates", lambda *a, **k: pytest.fail("it ran"))
    (tmp_path / "o-001.png").mkdir()
    code, _, err = batch()
    assert code == 2 and "-o " in err and "o-001.png" in err and err.count("\n") == 1
    # OUTPUT itself is not written.
    monkeypatch.undo()
    (tmp_path / "o-001.png").rmdir()
    (tmp_path / "o.png").mkdir()
    assert batch() == (0, "", "")


def test_a_weight_above_float32_is_refused(run, files, objective, tmp_path):
    code, _, err = run(
        "stylize", files["content"], files["style"], "-o", tmp_path / "o.png", *objective,
        "--content-weight", "1e39", "--steps", 3, "--quiet",
    )  # fmt: skip
    assert code == 2 and "--content-weight" in err


def test_output_and_report_are_two_files(run, files, objective, tmp_path):
    code, _, err = run(
        "stylize", files["content"], files["style"], "-o", tmp_path / "o.png", *objective,
        "--report", tmp_path / "o.png", "--steps", 3, "--quiet",
    )  # fmt: skip
    assert code == 2 and "--report" in err


def test_the_photograph_is_never_replaced(run, files, objective, tmp_path):
    image = tmp_path / "photo.png"
    image.write_bytes(before := files["content"].read_bytes())
    (tmp_path / "link.png").symlink_to(image)
    for name in ("photo.png", "link.png"):
        code, _, err = run(
            "stylize", image, files["style"], "-o", tmp_path / name, *objective, "--steps", 3
        )
        assert code == 2 and "is the file of CONTENT too; choose another" in err, err
    assert image.read_bytes() == before


class TestWeights:
    def test_list(self, run, cache_folder):
        code, out, err = run("weights", "list")
        assert code == 0 and err == ""
        for name in "medium compact vgg19 vgg16 vgg19-torchvision vgg16-torchvision".split():
            assert any(line.split()[:1] == [name] for line in out.splitlines()), name
        assert "embedded" in out and "not fetched" in out and str(cache_folder) in out

    def test_path_and_verify(self, run, cache_folder):
        chunk_size = ""
        for name in ("medium", "compact"):
            code, out, _ = run("weights", "path", name)
            assert code == 0 and Path(out.strip()).is_file()
            code, out, err = run("weights", "verify", name)
            assert code == 0 and err == "" and out.startswith(f"{name}: good, ")
            assert len(out.split()[-1]) == 64
            chunk_size += out
        assert run("weights", "verify")[:2] == (0, chunk_size)

    def test_convert_and_use(self, run, files, tmp_path, make_network):
        network = make_network("vgg16", blocks=1)
        arrays = {}
        for layer, params in network.params.items():
            arrays[f"{layer}.weight"] = np.transpose(params["kernel"], (3, 2, 0, 1))
            arrays[f"{layer}.bias"] = np.asarray(params["bias"])
        np.savez(tmp_path / "first.npz", **arrays)
        target = tmp_path / "first.safetensors"
        code, out, err = run(
            "weights", "convert", tmp_path / "first.npz", "-o", target, "--network", "vgg16",
            "--convention", "caffe", "--padding", "reflect",
        )  # fmt: skip
        assert code == 0 and err == "" and out.count("\n") == 1, err
        assert "vgg16" in out and "conv1_1 to conv1_2" in out
        deep = ["evaluate", files["content"], "--content", files["content"], "--style"]
        deep += [files["style"], "--weights", target, "--json", "--content-layers", "relu1_2"]
        digest = out.split()[-1]
        code, out, _ = run(*deep, "--style-layers", "relu1_1")
        assert code == 0 and strict(out)["weights"]["sha256"] == digest
        code, _, err = run(*deep, "--style-layers", "relu2_1")
        assert code == 2 and "conv1_1, conv1_2" in err


@pytest.fixture(scope="module")
def deep_weights(files, make_network):
    path = files["weights"].with_name("deep.safetensors")
    save_network(make_network(blocks=5).replace(source="random"), path)
    return path


class TestPresets:
    @pytest.mark.parametrize("name", ["neural-style", "crowson"])
    def test_evaluate_scores_under_a_presets_objective(self, run, files, deep_weights, name):
        asked = [
            *("evaluate", files["start"], "--content", files["content"]),
            *("--style", files["style"], "--weights", deep_weights, "--preset", name, "--size", 0),
        ]
        code, out, err = run(*asked, "--json")
        assert code == 0, err
        # One line says that these are not the weights of the preset.
        assert err.count("\n") == 1 and name in err and "weights fetch vgg19" in err
        report = strict(out)
        network = load_network(str(deep_weights))
        start, content, style = (load_image(files[i]) for i in ("start", "content", "style"))
        recipe = dataclasses.replace(presets[name], size=0)
        loss, terms = evaluate(start, content, style, recipe=recipe, network=network)
        assert report["loss"] == pytest.approx(loss, rel=1e-5)
        assert report["terms"] == pytest.approx(terms._asdict(), rel=1e-5)
        used = dataclasses.replace(resolve_recipe(recipe, network), margin=0)
        assert report["recipe"] == json.loads(json.dumps(used.as_dict()))
        # Flags given beside it win.
        code, out, _ = run(*asked, "--json", "--tv-weight", 0, "--content-weight", 7)
        beside = strict(out)
        assert code == 0 and beside["terms"]["tv"] == 0
        assert beside["terms"]["style"] == pytest.approx(terms.style, rel=1e-5)
        assert beside["terms"]["content"] == pytest.approx(
            terms.content * 7 / recipe.content_weight, rel=1e-5
        )

    def test_stylize_takes_a_presets_optimizer(self, run, files, deep_weights, tmp_path):
        code, out, err = run(
            *("stylize", files["content"], files["style"], "-o", tmp_path / "o.png"),
            *("--weights", deep_weights, "--preset", "gatys-notebook", "--steps", 2),
            *("--report", tmp_path / "o.json"),
        )
        assert code == 0 and out == "" and "'vgg19'" in err
        report = strict((tmp_path / "o.json").read_text())
        assert report["recipe"]["optimizer"] == "lbfgs-fixed" and report["steps"] == 2
        assert report["loss"] < report["initial"]["loss"] and report["terms"]["tv"] == 0


class TestHelp:
    FLAGS = {
        "stylize": [
            "--output", "--preset", "--weights", "--size", "--upscale", "--steps", "--optimizer",
            "--learning-rate", "--history-size", "--init", "--noise-std", "--seed", "--batch",
            "--content-layers", "--style-layers", "--content-weight", "--style-weight",
            "--tv-weight", "--pooling", "--save-every", "--report", "--quiet",
        ],
        "evaluate": [
            "--content", "--style", "--json", "--preset", "--weights", "--content-layers",
            "--style-layers", "--content-weight", "--style-weight", "--tv-weight", "--pooling",
            "--size",
        ],
        "weights": ["list", "fetch", "verify", "convert", "path"],
        "weights list": [],
        "weights fetch": ["NAME"],
        "weights verify": ["[NAME]"],
        "weights path": ["NAME"],
        "weights convert": ["SOURCE", "--output", "--network", "--convention", "--padding"],
        "": ["stylize", "evaluate", "weights", "--version"],
    }  # fmt: skip

    @pytest.mark.parametrize("command", FLAGS)
    def test_help_names_every_flag(self, run, command):
        code, out, err = run(*command.split(), "--help")
        assert code == 0 and err == "" and out.startswith("Usage: jaxstyle")
        for flag in self.FLAGS[command]:
            assert flag in out

    def test_help_explains_a_dozen_flags_and_help_all_the_rest(self, run):
        short, whole = run("stylize", "--help")[1], run("stylize", "--help-all")[1]
        # One screen of a large terminal, where all flags take three.
        assert short.count("\n") < 75 < 150 < whole.count("\n")
        for flag in ("--output", "--size", "--strength", "--seed", "--weights", "--serve"):
            assert flag in short.partition("Explained by --help-all:")[0]
        assert "--gram-normalization" in short.partition("Explained by --help-all:")[2]
        assert re.search(r"  --gram-normalization NAME +Divisor of Gram", whole)
        assert "Explained by" not in whole

    def test_help_shows_the_recipes_defaults(self, run):
        out = " ".join(run("stylize", "--help-all")[1].split())
        for default in (
            "[default: 512]",
            "[default: lbfgs]",
            "[default: 150]",
            "[default: max]",
        ):
            assert default in out

    def test_version(self, run):
        from jaxstyle import __version__

        assert run("--version") == (0, f"jaxstyle {__version__}\n", "")
        module = [sys.executable, "-m", "jaxstyle", "--version"]
        assert subprocess.check_output(module, text=True) == f"jaxstyle {__version__}\n"


def test_progress_for_programs(stylize, tmp_path):
    lines = [json.loads(line) for line in stylize(tmp_path / "o.png", "--log-json").splitlines()]
    # The first step is shown at once.
    assert [line["step"] for line in lines] == [0, 1, 3] and lines[0]["steps"] == 3
    assert lines[2]["loss"] == pytest.approx(sum(lines[2]["terms"].values()), rel=1e-5)
    assert lines[2]["loss"] < lines[0]["loss"] and lines[2]["evaluations"] == 4
    elements = stylize(tmp_path / "o.png", "--log-json", "--init", "noise", "--batch", 2)
    assert [len(json.loads(line)["loss"]) for line in elements.splitlines()] == [2, 2, 2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(environment, shell):
    asked = {"_JAXSTYLE_COMPLETE": f"{shell}_source"}
    done = subprocess.run(
        [COMMAND], env=environment | asked, capture_output=True, text=True, check=True
    )
    assert f"_JAXSTYLE_COMPLETE={shell}_complete" in done.stdout


def test_what_is_completed(environment):
    asked = {"COMP_WORDS": "jaxstyle stylize --optimizer optax", "COMP_CWORD": "3"}
    asked["_JAXSTYLE_COMPLETE"] = "bash_complete"
    found = subprocess.run(
        [COMMAND], env=environment | asked, capture_output=True, text=True, check=False
    )
    assert found.stdout.split() == ["plain,optax-lbfgs"]
