"""Values kept in [0, 1]: the change of variables, and what it does for a saved image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import STYLE_LOSS
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxstyle
from jaxstyle import Recipe
from jaxstyle.images.pixel_range import BOUNDS, EDGE, MARGIN, soft_clip, soft_clip_inverse


@settings(deadline=None)
@given(st.floats(-50, 50, width=32), st.floats(-50, 50, width=32))
def test_soft_clip_is_monotone_and_within(one, other):
    low, high = sorted((one, other))
    values = np.asarray(soft_clip(jnp.array([low, high], jnp.float32)))
    assert 0 <= values[0] <= values[1] <= 1


def test_soft_clip_leaves_the_middle_alone():
    middle = jnp.linspace(MARGIN, 1 - MARGIN, 101)
    np.testing.assert_array_equal(soft_clip(middle), middle)


def test_the_inverse_leads_back():
    x = jnp.linspace(0, 1, 1001)
    there = soft_clip(soft_clip_inverse(x))
    np.testing.assert_allclose(there, np.clip(x, EDGE, 1 - EDGE), atol=1e-6)
    # What is saved in 8 bits is the same image.
    eighths = jnp.arange(256) / 255
    np.testing.assert_array_equal(
        np.round(soft_clip(soft_clip_inverse(eighths[1:-1])) * 255), np.arange(1, 255)
    )


def test_value_and_slope_are_continuous():
    for z in (MARGIN, 1 - MARGIN):
        below, above = jnp.float32(z - 1e-6), jnp.float32(z + 1e-6)
        assert abs(soft_clip(above) - soft_clip(below)) < 1e-5
        assert abs(jax.grad(soft_clip)(above) - jax.grad(soft_clip)(below)) < 1e-3
    for z in (-1.0, 0.0, 0.01, 0.5, 0.99, 1.0, 2.0):
        slope = (soft_clip(z + 1e-3) - soft_clip(z - 1e-3)) / 2e-3
        np.testing.assert_allclose(jax.grad(soft_clip)(z), slope, atol=2e-3)


@pytest.fixture(scope="module")
def results(make_network, make_image):
    """A strong style, which drives values out of [0, 1]."""
    recipe = Recipe(
        size=0,
        steps=20,
        content_layers="relu2_1",
        style_layers="relu1_1,relu2_1",
        style_weight=1e4,
        style_loss=STYLE_LOSS,
    )
    content, style = make_image(24, 28), np.round(make_image(24, 24, seed=1))
    network = make_network(blocks=2)
    return {
        name: jaxstyle.stylize(
            content, style, recipe=dataclasses.replace(recipe, bounds=name), network=network
        )
        for name in BOUNDS
    }


def test_the_image_saved_is_the_one_optimized(results):
    soft, none = results["soft"], results["none"]
    assert soft.image.min() >= 0 and soft.image.max() <= 1
    np.testing.assert_allclose(soft.loss, soft.history.loss.min(), rtol=1e-5)
    # Without bounds clipping undoes some of the work.
    assert none.loss > 1.05 * none.history.loss.min()
    assert soft.loss < none.loss


def test_both_start_from_the_same_image(results):
    np.testing.assert_allclose(
        results["soft"].initial_loss, results["none"].initial_loss, rtol=1e-3
    )
