"""The parts of the loss by layer."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import STYLE_LOSS

from jaxstyle import Recipe, evaluate, stylize_batch
from jaxstyle.api import score

RECIPE = Recipe(
    style_weight=100.0,
    content_layers="relu1_2:2,relu2_2",
    style_layers="relu1_1,relu2_1:4",
    style_loss=STYLE_LOSS,
    size=0,
    steps=2,
    scales=1,
)


@pytest.fixture(scope="module")
def images(make_image):
    return make_image(24, 32, seed=1), make_image(24, 32, seed=2), make_image(30, 28, seed=3)


def test_they_add_up_to_the_terms_and_are_those_of_the_layer_alone(network, images):
    loss, terms, layers, _ = score(*images, recipe=RECIPE, network=network)
    assert (loss, terms) == evaluate(*images, recipe=RECIPE, network=network)
    assert sum(layers.content.values()) == pytest.approx(terms.content, rel=1e-5)
    assert sum(layers.style.values()) == pytest.approx(terms.style, rel=1e-5)
    alone = dataclasses.replace(RECIPE, style_layers="relu2_1:4", content_layers="relu1_2:2")
    terms = score(*images, recipe=alone, network=network).terms
    assert layers.style["relu2_1"] == pytest.approx(terms.style, rel=1e-5)
    assert layers.content["relu1_2"] == pytest.approx(terms.content, rel=1e-5)


def test_those_of_a_result_are_of_its_image(network, images):
    content, style = images[1:]
    batch = stylize_batch(
        content, style, recipe=RECIPE, network=network, starts=["content", "noise"]
    )
    for result in batch:
        found = score(result.image, content, style, recipe=RECIPE, network=network).layers
        jax.tree.map(
            lambda mine, theirs: np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-6),
            result.layers, found,
        )  # fmt: skip


def test_a_loss_of_all_layers_together_has_no_parts(network, images):
    recipe = dataclasses.replace(RECIPE, style_loss="remd")
    _, terms, layers, _ = score(*images, recipe=recipe, network=network)
    assert layers.style == {} and terms.style > 0
