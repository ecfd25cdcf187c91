"""The recipe: reading layers, ranges, identity, and what recompiles."""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxstyle import JaxstyleError, Recipe, make_optimizer, presets
from jaxstyle.config.choices import OPTIMIZERS
from jaxstyle.config.defaults import DEFAULT_LEARNING_RATES
from jaxstyle.config.layers import parse_layers
from jaxstyle.config.numbers import Numbers, static_part
from jaxstyle.config.presets import preset
from jaxstyle.losses.resolve import resolve_recipe

FIELDS = {field.name: field for field in dataclasses.fields(Recipe)}
LAYERS = [f"{kind}{b}_{i}" for kind in ("conv", "relu") for b in range(1, 6) for i in range(1, 5)]

layer_weights = st.dictionaries(
    st.sampled_from([*LAYERS, "all"]), st.floats(0, 1e6, allow_subnormal=False), min_size=1
).map(lambda d: tuple(d.items()))


def written(pairs):
    return ",".join(f"{layer}:{weight!r}" for layer, weight in pairs)


def resolved(**settings):
    return Recipe(**dict(content_weight=1, style_weight=1, style_layers="relu1_1") | settings)


@given(layer_weights)
def test_layers_survive_writing_and_reading(pairs):
    assert parse_layers(written(pairs)) == pairs
    assert parse_layers(" , ".join(written([pair]) for pair in pairs) + ",") == pairs
    assert Recipe(style_layers=written(pairs)) == Recipe(style_layers=pairs)
    assert Recipe(style_layers=dict(pairs)) == Recipe(style_layers=list(pairs))


@given(st.lists(st.sampled_from(LAYERS), unique=True, min_size=1))
def test_a_weight_not_given_is_one(layers):
    assert parse_layers(",".join(layers)) == tuple((layer, 1.0) for layer in layers)
    assert Recipe(content_layers=layers).content_layers == parse_layers(",".join(layers))


@settings(max_examples=300)
@given(st.text(alphabet="relucon12345_:.,- al9einf\n", max_size=20))
def test_any_text_is_layers_or_a_named_error(text):
    try:
        pairs = parse_layers(text, argument="--style-layers")
    except JaxstyleError as error:
        assert str(error).startswith("--style-layers: ")
    else:
        for layer, weight in pairs:
            assert layer == "all" or layer in LAYERS
            assert math.isfinite(weight) and weight >= 0


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("relu9_1", "relu9_1"),
        ("relu1_1:x", "'x'"),
        ("relu1_1:nan", "nan"),
        ("relu1_1:inf", "inf"),
        ("relu1_1:-1", "-1"),
        ("relu1_1:1:2", "'1:2'"),
        ("relu1_1,relu1_1:2", "twice"),
        ("every", "every"),
    ],
)
@pytest.mark.parametrize("field", ["content_layers", "style_layers"])
def test_bad_layers_name_the_field(field, text, word):
    with pytest.raises(JaxstyleError, match=f"^{field}: ") as caught:
        Recipe(**{field: text})
    assert word in str(caught.value)


NAN, INF = float("nan"), float("inf")
OUT_OF_RANGE = {
    "content_weight": [-1, NAN, INF, "x", []],
    "style_weight": [-0.5, NAN, -INF, [1]],
    "tv_weight": [-1e-9, NAN, INF],
    "noise_std": [-1, NAN, None],
    "style_blend": ["", "1,x", (1, NAN), (1, INF), [0, 0], (-1, 2), 3, [[1]]],
    "style_scale": [0, -1, 8.1, NAN],
    "scales": [0, -1, 1.5],
    "scale_content": [0, 17, NAN],
    "scale_side": [15, 1.5],
    "pyramid": [0, -1, 1.5],
    "average": [-0.1, 1, NAN, "x"],
    "noise_blend": [-0.1, 1.1, NAN],
    "content_mask": ["", 3, "a\0b"],
    "init": ["", 3, None],
    "upscale": [1, "yes", None],
    "content_layers": [3, None, [3], [("relu1_1",)]],
    "mask": ["a.png", 3, [("a", "")]],
    "preserve_color": ["yes"],
    "learning_rate": [0, -1, NAN, INF],
    "decay": [0, -1, 1.5, NAN],
    "momentum": [-0.1, 1.1, NAN],
    "steps": [0, -3, 1.5, True, "3", 2**31],
    "size": [-1, 2.0, None],
    "history_size": [0, -1, 2.5],
    "preconditioner": ["fourier", ""],
    "seed": [-1, 2**31, 0.5],
    "pooling": ["median", "", None],
    "content_loss": ["edges", None],
    "style_loss": ["mean", None],
    "gram_normalization": ["none"],
    "variation": ["l1"],
    "convention": ["keras", ""],
    "adam_b2": [-0.1, 1.5],
    "optimizer": ["newton", "LBFGS"],
    "schedule": ["step"],
    "precision": ["half", None],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in OUT_OF_RANGE.items() for value in values],
    ids=str,
)
def test_a_value_out_of_range_names_its_field(field, value):
    with pytest.raises(JaxstyleError, match=f"^{field}: ") as caught:
        Recipe(**{field: value})
    message = str(caught.value)
    assert repr(value) in message and "\n" not in message


@given(
    st.sampled_from(["content_weight", "style_weight", "tv_weight", "noise_std", "learning_rate"]),
    st.floats(allow_nan=True, allow_infinity=True),
)
def test_weights_are_finite_and_not_negative(field, value):
    low = value > 0 if field == "learning_rate" else value >= 0
    # Beyond float32 the device has only infinity.
    if low and value <= 3e38:
        assert getattr(Recipe(**{field: value}), field) == value
    else:
        with pytest.raises(JaxstyleError, match=f"^{field}: "):
            Recipe(**{field: value})


def test_no_layers_at_all():
    with pytest.raises(JaxstyleError, match="both empty"):
        Recipe(content_layers=(), style_layers=())
    assert Recipe(content_layers=()).content_layers == ()


def test_every_field_has_a_default_and_help():
    assert Recipe() == presets["default"] == preset("default")
    for name, field in FIELDS.items():
        assert field.default is not dataclasses.MISSING, name
        assert field.metadata["help"].endswith("."), name


def test_unknown_preset_lists_the_presets():
    with pytest.raises(JaxstyleError, match="'nope'.*default"):
        preset("nope")


def test_a_recipe_is_a_frozen_hashable_value():
    one, same = (
        Recipe(steps=7, style_layers="relu1_1:2"),
        Recipe(steps=7, style_layers={"relu1_1": 2}),
    )
    assert one == same and hash(one) == hash(same) and len({one, same, Recipe()}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.steps = 3
    assert dataclasses.replace(one, steps=3).steps == 3
    with pytest.raises(JaxstyleError, match="^steps"):
        dataclasses.replace(one, steps=0)


# Other values of these share a program.
NUMBERS = {
    "content_weight": 2.0,
    "style_weight": 3.0,
    "tv_weight": 0.5,
    "steps": 5,
    "decay": 0.5,
    "momentum": 0.1,
    "adam_b2": 0.9,
    "content_layers": "relu4_2:3",
    "learning_rate": 2.0,
    "average": 0.8,
}
HOST = {
    "scale_content": 2.0,
    "noise_std": 2.0,
    "noise_blend": 0.5,
    "seed": 4,
    "size": 99,
    "init": "noise",
    "upscale": True,
    "style_blend": (3, 1),
    "style_scale": 2.0,
    "content_mask": "mask.png",
    "mask": [("-", "-")],
    "preserve_color": "histogram",
}
STRUCTURE = {
    "scales": 2,
    "pyramid": 2,
    "margin": 16,
    "scale_side": 64,
    "scale_ratio": 1.5,
    "scale_detail": False,
    "average": None,
    "preserve_color": "luminance",
    "content_loss": "laplacian",
    "style_loss": "moments",
    "turn_style": True,
    "gram_normalization": "positions",
    "style_reduction": "sum",
    "content_reduction": "sum",
    "variation": "squared",
    "convention": "caffe-256",
    "pooling": "avg",
    "optimizer": "adam",
    "history_size": 3,
    "preconditioner": "none",
    "bounds": "none",
    "schedule": "cosine",
    "content_layers": "relu3_1",
    "style_layers": "relu1_1",
    "tile": 64,
    "remat": True,
    "precision": "bfloat16",
    "learning_rate": None,
}


def test_numbers_do_not_recompile_and_structure_does():
    traces = 0

    @partial(jax.jit, static_argnames="recipe")
    def loss(numbers, *, recipe):
        nonlocal traces
        traces += 1
        return sum(numbers.content_layers.values()) * numbers.style_weight + numbers.steps

    def of(**settings):
        recipe = dataclasses.replace(base, **settings)
        return loss(Numbers.of(recipe), recipe=static_part(recipe))

    base = Recipe(
        style_loss="gram",
        content_weight=1.0, style_weight=1.0, tv_weight=1.0, style_layers="relu2_1",
        learning_rate=1.0, average=0.9,
    )  # fmt: skip
    of()
    for field, value in (NUMBERS | HOST).items():
        of(**{field: value})
        assert traces == 1, field
    # A whole number is the float of its value.
    of(style_weight=3, tv_weight=np.float32(2), content_layers={"relu4_2": np.int64(2)})
    assert of(style_weight=3.0, content_layers="relu4_2:2", steps=4) == 10
    assert traces == 1
    for count, (field, value) in enumerate(STRUCTURE.items(), start=2):
        of(**{field: value})
        assert traces == count, field
    # The strength is gone once the weights are resolved.
    assert {*NUMBERS, *HOST, *STRUCTURE, "strength"} == set(FIELDS)


def test_vmap_over_numbers():
    numbers = Numbers.stack([resolved(tv_weight=w, steps=s) for w, s in ((1.0, 4), (2.0, 5))])
    assert numbers.steps.dtype == np.int32 and numbers.tv_weight.dtype == np.float32
    found = jax.vmap(lambda n: n.tv_weight * n.steps)(numbers)
    np.testing.assert_array_equal(found, [4, 10])


def test_a_recipe_is_static_for_jit():
    value = jax.jit(lambda recipe, x: recipe.tv_weight * x)
    assert value(Recipe(tv_weight=2.0), 3.0) == 6 and not jax.tree.leaves(Recipe())


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [
        ("style_weight", np.float64(2), 2.0),
        ("style_weight", "2", 2.0),
        ("steps", np.int64(2), 2),
        ("upscale", np.True_, True),
        ("pooling", np.str_("avg"), "avg"),
        ("init", Path("x.png"), "x.png"),
        ("content_layers", [("relu1_1", np.float32(2))], (("relu1_1", 2.0),)),
    ],
)
def test_what_a_recipe_keeps_is_plain_python(field, given, kept):
    value = getattr(Recipe(**{field: given}), field)
    assert value == kept and type(value) is type(kept)
    assert json.loads(json.dumps(Recipe(**{field: given}).as_dict()))


@pytest.mark.parametrize("text", ["relu2_1:3,all:2", "all:2,relu2_1:3"])
def test_a_named_layer_keeps_its_weight_beside_all(network, text):
    weights = dict(resolve_recipe(Recipe(style_layers=text), network).style_layers)
    assert weights.pop("relu2_1") == 3 and set(weights.values()) == {2} and len(weights) == 15


def test_all_expands_to_every_convolution(network, make_network):
    resolved = resolve_recipe(Recipe(style_layers="all:0.5", content_layers="all"), network)
    assert resolved.style_layers == tuple((c.replace("conv", "relu"), 0.5) for c in network.layers)
    assert len(resolved.content_layers) == 16
    part = make_network(blocks=2)
    resolved = resolve_recipe(Recipe(style_layers="all", content_layers="conv2_2"), part)
    assert [layer for layer, _ in resolved.style_layers] == [
        "relu1_1",
        "relu1_2",
        "relu2_1",
        "relu2_2",
    ]
    assert resolved.content_layers == (("conv2_2", 1.0),)


@pytest.mark.parametrize("field", ["content_layers", "style_layers"])
def test_resolving_refuses_layers_that_the_network_lacks(make_network, field):
    other = {"content_layers": "style_layers", "style_layers": "content_layers"}[field]
    recipe = Recipe(**{field: "relu1_1,relu4_2", other: "relu1_1"})
    with pytest.raises(JaxstyleError, match=f"^{field}: .*relu4_2.*conv2_2"):
        resolve_recipe(recipe, make_network(blocks=2))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_learning_rate_is_resolved_by_optimizer(network, optimizer):
    resolved = resolve_recipe(Recipe(optimizer=optimizer), network)
    assert resolved.learning_rate == DEFAULT_LEARNING_RATES.get(optimizer)
    assert (
        resolve_recipe(Recipe(optimizer=optimizer, learning_rate=0.7), network).learning_rate == 0.7
    )
    assert resolve_recipe(resolved, network) == resolved
    make_optimizer(resolved)


def test_as_dict_is_json_and_comes_back():
    recipe = Recipe(style_layers="relu1_1:2,relu2_1", steps=3, style_blend="3, 1")
    values = json.loads(json.dumps(recipe.as_dict(), allow_nan=False))
    assert set(values) == set(FIELDS)
    assert values["style_layers"] == {"relu1_1": 2.0, "relu2_1": 1.0}
    assert values["style_blend"] == [3.0, 1.0]
    assert Recipe(**values) == recipe == Recipe.from_dict(values)
