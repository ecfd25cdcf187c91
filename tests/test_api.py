"""Rules for the public names, the names that the contract promises, and wrong arguments."""

import ast
import dataclasses
import inspect
import json

import api_shape
import numpy as np
import pytest

import jaxstyle
from jaxstyle import JaxstyleError, Recipe, weights
from jaxstyle.optim import registry

PROMISED = (
    "load_network",
    "Recipe",
    "presets",
    "stylize",
    "iterates",
    "make_objective",
    "gram_matrix",
    "content_loss",
    "style_loss",
    "total_variation",
    "lbfgs",
)

PUBLIC = {
    name: thing
    for name, thing in ((name, getattr(jaxstyle, name)) for name in dir(jaxstyle))
    if not name.startswith("_")
}
PUBLIC = {name: thing for name, thing in PUBLIC.items() if not inspect.ismodule(thing)}
FUNCTIONS = {
    f"{module.__name__}.{name}": thing
    for module in (jaxstyle, registry, weights)
    for name, thing in ((name, getattr(module, name)) for name in dir(module))
    if not name.startswith("_") and inspect.isfunction(thing)
}
CLASSES = {name: thing for name, thing in PUBLIC.items() if inspect.isclass(thing)}

every_function = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


@pytest.mark.parametrize("name", PROMISED)
def test_the_contracts_names_are_there(name):
    assert name in PUBLIC


def test_the_version_is_the_packages():
    from importlib.metadata import version

    assert jaxstyle.__version__ == version("jaxstyle")


def test_type_checkers_see_the_names_that_are_there():
    """The package lists its names twice: for type checkers, and to load them when asked for."""
    tree = ast.parse(inspect.getsource(jaxstyle))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: node.module for node in imports for alias in node.names}
    assert seen == jaxstyle._EXPORTS


@every_function
def test_functions_have_docstrings(function):
    first = inspect.getdoc(function).splitlines()[0]
    assert first.endswith((".", ":", ",")) or "\n" in inspect.getdoc(function)
    assert len(first) > 10


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_classes_and_their_methods_have_docstrings(kind):
    written = [kind, *(m for n, m in vars(kind).items() if inspect.isfunction(m) and n[0] != "_")]
    for thing in written:
        if thing.__module__.startswith("jaxstyle") and thing.__name__ not in (
            "tree_flatten",
            "tree_unflatten",
            "replace",
        ):
            doc = inspect.getdoc(thing) or ""
            # NamedTuples and dataclasses write `Name(field, ...)` themselves.
            assert doc and not doc.startswith(f"{thing.__name__}("), thing


@every_function
def test_defaults_are_keyword_only(function):
    """Options come after `*`; only what a call is about is positional."""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            # `load_network()` and `verify()` say "the usual one" and "all of them".
            if function.__name__ in ("load_network", "verify"):
                continue
            assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, parameter


def test_options_follow_the_arrays_and_are_keywords():
    signature = inspect.signature(jaxstyle.stylize)
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    assert list(kinds)[:2] == ["content", "style"]
    assert kinds["recipe"] is kinds["network"] is inspect.Parameter.KEYWORD_ONLY
    with pytest.raises(TypeError):
        jaxstyle.lbfgs(20)


@every_function
def test_every_parameter_is_annotated(function):
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
    assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", ["stylize", "stylize_batch", "prepare", "features", "lbfgs"])
def test_a_docstring_explains_every_parameter(name):
    function = PUBLIC[name]
    doc = inspect.getdoc(function)
    for parameter in inspect.signature(function).parameters:
        assert f"\n  {parameter}: " in doc, parameter


def test_the_recipes_fields_are_the_contracts_flags():
    fields = {field.name for field in dataclasses.fields(jaxstyle.Recipe)}
    assert fields >= {
        "size",
        "steps",
        "optimizer",
        "learning_rate",
        "history_size",
        "init",
        "noise_std",
        "seed",
        "content_layers",
        "style_layers",
        "content_weight",
        "style_weight",
        "tv_weight",
        "pooling",
    }
    recipe = jaxstyle.presets["default"]
    assert (recipe.size, recipe.optimizer, recipe.seed) == (512, "lbfgs", 0)


def test_results_have_what_the_contract_names():
    assert {"image", "loss", "terms", "history"} <= set(jaxstyle.Result._fields)
    assert jaxstyle.Terms._fields == ("content", "style", "tv")


def test_an_error_is_a_value_error():
    assert issubclass(jaxstyle.JaxstyleError, ValueError)


PINNED = json.loads(api_shape.PINNED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PINNED)
def test_the_public_shape_is_as_pinned(name):
    """What was there stays; more may come, with defaults. `tests/api_shape.py` pins anew."""
    pinned, now = PINNED[name], api_shape.shape()[name]
    assert now["kind"] == pinned["kind"]
    if pinned["kind"] == "function":
        assert now["positional"] == pinned["positional"]
        assert {k: now["keywords"].get(k) for k in pinned["keywords"]} == pinned["keywords"]
        added = {k: v for k, v in now["keywords"].items() if k not in pinned["keywords"]}
        assert "required" not in added.values()
    elif pinned["kind"] == "class":
        assert [field for field in now["fields"] if field in pinned["fields"]] == pinned["fields"]


def test_arguments_of_another_type_are_named(network, make_image):
    image = make_image(24, 24)
    with pytest.raises(JaxstyleError, match="^recipe: 'default' is not a Recipe"):
        jaxstyle.stylize_batch(image, image, recipe="default", network=network, starts=1)
    with pytest.raises(JaxstyleError, match="^recipe: 'default' is not a Recipe"):
        jaxstyle.evaluate(image, image, image, recipe="default", network=network)
    with pytest.raises(JaxstyleError, match="^network: 'compact' is not a network"):
        jaxstyle.evaluate(image, image, image, recipe=Recipe(), network="compact")
    with pytest.raises(JaxstyleError, match=r"^size: 32 is not a pair; give \(height, width\)"):
        jaxstyle.texture(image, size=32, network=network)
    with pytest.raises(JaxstyleError, match="^content_weight: 5 has no effect on a texture"):
        jaxstyle.texture(image, size=(32, 32), network=network, content_weight=5)


def test_the_batch_size_may_be_numpys(network, make_image):
    recipe = Recipe(
        content_layers="relu2_1", style_layers="relu1_1", style_loss="gram", steps=1, size=24
    )
    image = make_image(24, 24)
    results = jaxstyle.stylize_batch(
        image, image, recipe=recipe, network=network, starts=np.int64(2)
    )
    assert len(results) == 2
