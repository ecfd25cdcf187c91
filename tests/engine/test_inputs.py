"""What people give `jaxstyle.stylize`: files, Pillow's images, arrays of every kind, settings."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import STYLE_LOSS
from PIL import Image

import jaxstyle
from jaxstyle import JaxstyleError, Recipe, images
from jaxstyle.engine.sizes import as_image
from jaxstyle.losses.resolve import resolve_recipe

SMALL = dict(
    content_layers="relu1_2",
    style_layers="relu1_1",
    style_weight=200,
    style_loss=STYLE_LOSS,
    steps=2,
)


@pytest.fixture(scope="module")
def small(make_network):
    return make_network(blocks=1)


def test_paths_to_a_file_in_one_line(small, make_image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images.save_image("photo.png", make_image(32, 40, seed=1))
    images.save_image("painting.png", make_image(30, 30, seed=2))
    jaxstyle.stylize("photo.png", "painting.png", size=20, network=small, **SMALL).save("out.png")
    assert Image.open("out.png").size == (20, 16)


def test_files_pillow_and_arrays_give_the_same(small, make_image, tmp_path):
    arrays = [np.rint(make_image(24, 20, seed=n) * 255).astype(np.uint8) for n in (1, 2)]
    pillows = [Image.fromarray(array) for array in arrays]
    for number, pillow in enumerate(pillows):
        pillow.save(tmp_path / f"{number}.png")
    given = {
        "uint8": arrays,
        "float": [array / 255 for array in arrays],
        "jax": [jnp.asarray(array / 255, jnp.float32) for array in arrays],
        "Pillow": pillows,
        "path": [tmp_path / f"{n}.png" for n in range(2)],
        "text": [str(tmp_path / f"{n}.png") for n in range(2)],
    }
    found = {
        name: jaxstyle.stylize(*pair, network=small, **SMALL).image for name, pair in given.items()
    }
    several = jaxstyle.stylize(pillows[0], [arrays[1]], network=small, **SMALL).image
    for image in (*found.values(), several):
        np.testing.assert_array_equal(image, found["uint8"])


def test_a_result_is_saved_and_shown(small, make_image, tmp_path):
    pair = make_image(24, 20, seed=1), make_image(20, 20, seed=2)
    result = jaxstyle.stylize(*pair, network=small, **SMALL)
    eight = np.rint(result.image * 255)
    np.testing.assert_array_equal(np.asarray(result.to_pil()), eight)
    shown = Image.open(io.BytesIO(result._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), eight)
    result.save(tmp_path / "deep.png", bit_depth=16)
    np.testing.assert_allclose(images.load_image(tmp_path / "deep.png"), result.image, atol=1e-5)
    with pytest.raises(JaxstyleError, match="path"):
        result.save(tmp_path / "out.gif")


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("RGBA", (0, 0, 0, 51), 0.8),
        ("L", 51, 0.2),
        ("I;16", 13107, 0.2),
        ("P", 0, 0.0),
        ("CMYK", (0, 0, 0, 255), 0.0),
    ],
)
def test_modes_of_pillow(mode, value, expected):
    found = as_image(Image.new(mode, (20, 18), value), "content")
    assert found.shape == (18, 20, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_pillows_orientation_is_followed(tmp_path, make_image):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "in.png", exif=exif)
    assert as_image(Image.open(tmp_path / "in.png"), "content").shape == (30, 20, 3)


RGB = np.random.default_rng(0).random((18, 20, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (RGB * 255, "divided by 255"),
        (RGB * 2, "[0, 1]"),
        (RGB * 2 - 1, "x / 2 + 0.5"),
        ((RGB - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], "x * std + mean"),
        ((RGB * 65_535).astype(np.uint16), "uint16"),
        ((RGB * 255).astype(np.int64), "int64"),
        (RGB > 0.5, "bool"),
        (RGB * np.nan, "not finite"),
        (RGB[None], "x[0]"),
        (RGB.transpose(2, 0, 1), "transpose(1, 2, 0)"),
        (np.dstack([RGB, RGB[..., :1]]), "[..., :3]"),
        (RGB[..., 0], "gray"),
        (np.zeros((0, 5, 3)), "(0, 5, 3)"),
        ([[1.0], [1.0, 2.0]], "[h, w, 3]"),
        ("nowhere.png", "does not exist"),
        (None, "[h, w, 3]"),
    ],
)
def test_what_is_no_image_is_refused_by_name(small, array, words):
    for name, pair in (("content", (array, RGB)), ("style", (RGB, [array]))):
        with pytest.raises(JaxstyleError) as refused:
            jaxstyle.stylize(*pair, network=small, **SMALL)
        message = str(refused.value)
        assert message.startswith(name) and words in message and "\n" not in message


def test_a_little_overshoot_is_clipped():
    found = as_image(RGB * 1.2 - 0.1, "content")
    assert found.min() == 0 and found.max() == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"sise": 3}, "did you mean 'size'"),
        ({"recipe": "default", "preset": "default"}, "give one of them"),
        ({"preset": "none-such"}, "none-such"),
        ({"recipe": 3}, "recipe: 3"),
        ({"network": 3}, "network: 3"),
        ({"weights": "none-such", "network": None}, "none-such"),
        ({"weights": "compact"}, "give one"),
        ({"style": []}, "at least one"),
    ],
)
def test_settings_are_refused_by_name(small, given, words):
    arguments = {"content": RGB, "style": RGB, "network": small} | given
    with pytest.raises(JaxstyleError) as refused:
        jaxstyle.stylize(**arguments)
    assert words in str(refused.value)


def test_names_stand_for_recipes_and_networks():
    flags = dict(steps=1, content_layers="relu1_1", style_layers="relu1_1")
    by_name = jaxstyle.stylize(RGB, RGB, recipe="default", network="compact", **flags)
    network = jaxstyle.load_network("compact")
    recipe = jaxstyle.presets["default"]
    given = jaxstyle.stylize(RGB, RGB, recipe=recipe, network=network, **flags)
    np.testing.assert_array_equal(by_name.image, given.image)
    with pytest.raises(JaxstyleError, match="recipe: 'default' is not a Recipe"):
        jaxstyle.prepare(RGB, RGB, recipe="default", network=network)
    with pytest.raises(JaxstyleError, match="recipe: 'default' is not a Recipe"):
        jaxstyle.make_objective(network, None, "default")
    with pytest.raises(JaxstyleError, match="network: 'compact' is not a network"):
        jaxstyle.prepare(RGB, RGB, recipe=recipe, network="compact")


def test_progress_is_shown_on_request(small, capsys):
    jaxstyle.stylize(RGB, RGB, network=small, **SMALL)
    assert capsys.readouterr() == ("", "")
    jaxstyle.stylize(RGB, RGB, network=small, progress=True, **SMALL)
    out, err = capsys.readouterr()
    assert out == "" and "step 2/2" in err


def test_numbers_become_pythons():
    recipe = Recipe(
        style_weight="1e4",
        content_weight=10**10,
        tv_weight=np.float32(0.5),
        size=np.int64(256),
        steps=np.int32(7),
        upscale=np.bool_(True),
    )
    found = (recipe.style_weight, recipe.content_weight, recipe.tv_weight, recipe.size)
    assert found == (1e4, 1e10, 0.5, 256)
    assert [type(value) for value in found] == [float, float, float, int]
    assert type(recipe.steps) is int and recipe.upscale is True


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"size": 256.5}, "size"),
        ({"size": True}, "size"),
        ({"style_weight": "much"}, "style_weight"),
        ({"upscale": "no"}, "upscale"),
        ({"style_layers": ""}, "style_layers"),
        ({"content_layers": " , "}, "content_layers"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(settings, words):
    with pytest.raises(JaxstyleError, match=words):
        Recipe(**settings)


def test_an_objective_of_nothing_is_refused(small):
    recipe = Recipe(**(SMALL | dict(content_weight=0, style_weight=0, tv_weight=0)))
    with pytest.raises(JaxstyleError, match="all 0"):
        resolve_recipe(recipe, small)
