"""The default style weight, from the images of a run."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import make_image, make_network

import jaxstyle
from jaxstyle import Recipe
from jaxstyle.losses.style_losses import STYLE_LOSSES

BALANCED = [name for name, loss in STYLE_LOSSES.items() if loss.balance is not None]
CONTENT, STYLE = make_image(64, 48), make_image(48, 64, seed=1)
RECIPE = Recipe(size=0, steps=2, scales=1)


def prepared(style=STYLE, *, network=None, **settings):
    recipe = dataclasses.replace(RECIPE, **settings)
    return jaxstyle.prepare(CONTENT, style, recipe=recipe, network=network or make_network())


def balanced_term(problem):
    objective = jaxstyle.make_objective(problem.network, problem.targets, problem.recipe)
    flat = np.full_like(CONTENT, 0.5)
    of_content, of_flat = (float(objective(jnp.asarray(x))[1].style) for x in (CONTENT, flat))
    return max(of_content, 0.25 * of_flat)


def expected_term(problem):
    """From the formula of the module, in float64."""
    recipe = problem.recipe
    scale = sum(
        weight * np.mean(np.asarray(problem.targets.content[layer], np.float64) ** 2)
        for layer, weight in recipe.content_layers
    )
    return STYLE_LOSSES[recipe.style_loss].balance * 5.0 * scale


@pytest.mark.parametrize("style_loss", BALANCED)
def test_the_style_term_at_the_content_image(style_loss):
    problem = prepared(style_loss=style_loss)
    assert balanced_term(problem) == pytest.approx(expected_term(problem), rel=1e-3)


def test_other_activations_change_nothing_but_the_weight():
    bright, dark = prepared(STYLE), prepared(0.5 * STYLE)
    assert bright.recipe.style_weight != dark.recipe.style_weight
    assert balanced_term(bright) == pytest.approx(balanced_term(dark), rel=1e-3)


def test_strength_scales_it():
    weights = [prepared(strength=s).recipe.style_weight for s in (0, 0.5, 1)]
    assert weights[0] == 0
    assert weights[1] == prepared().recipe.style_weight
    assert weights[2] == pytest.approx(32 * weights[1], rel=1e-3)


def test_a_content_weight_of_the_user_does_not_change_it():
    assert prepared(content_weight=50.0).recipe.style_weight == prepared().recipe.style_weight


def test_an_explicit_weight_stays():
    assert prepared(style_weight=123.0).recipe.style_weight == 123.0


def test_all_scales_have_one():
    problem = prepared(scales=2, size=48)
    assert len({scale.recipe.style_weight for scale in problem.scales}) == 1


def test_the_same_image_as_style_has_a_finite_one():
    problem = prepared(CONTENT)
    assert balanced_term(problem) == pytest.approx(expected_term(problem), rel=1e-3)


def test_gray_images_keep_the_weight_without_images():
    gray = np.full((32, 32, 3), 0.5, np.float32)
    problem = jaxstyle.prepare(gray, gray, recipe=RECIPE, network=make_network())
    assert problem.recipe.style_weight == STYLE_LOSSES[RECIPE.style_loss].unnormalized.weight


def test_evaluate_takes_the_weight_of_the_run():
    problem = prepared()
    (result,) = jaxstyle.finish(problem, list(jaxstyle.iterates(problem)))
    loss, _ = jaxstyle.evaluate(result.image, CONTENT, STYLE, recipe=RECIPE, network=make_network())
    assert loss == pytest.approx(result.loss, rel=1e-4)
