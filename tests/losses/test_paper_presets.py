"""The presets `nnst` and `strotss`, and what they brought: initial colors, content by scale."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxstyle
from jaxstyle import JaxstyleError, Recipe, compute_targets, make_objective, prepare, presets
from jaxstyle.engine.sizes import resolve_scales
from jaxstyle.losses.resolve import resolve_recipe


@pytest.mark.parametrize(("name", "topology"), [("nnst", "vgg16"), ("strotss", "vgg19")])
def test_a_preset_descends(name, topology, make_network, make_image):
    result = jaxstyle.stylize(
        make_image(48, 64), make_image(52, 40, seed=1),
        preset=name, size=64, steps=3, network=make_network(topology),
    )  # fmt: skip
    assert result.loss < result.initial_loss and np.isfinite(result.image).all()
    assert result.terms.content > 0 and result.terms.style > 0 and result.terms.tv > 0


@pytest.mark.parametrize("name", ["nnst", "strotss"])
def test_the_first_of_the_sizes_has_64_pixels(name):
    for size, count in ((512, 4), (128, 2), (40, 1)):
        recipe = dataclasses.replace(presets[name], size=size)
        assert resolve_scales(recipe, (600, 800, 3), [(600, 800, 3)]).scales == count


@pytest.mark.parametrize(("size", "count"), [(100, 1), (128, 1), (300, 3), (512, 5), (1024, 7)])
def test_the_sizes_of_crowson(size, count):
    """`gen_scales` of the program: size / 2^(i / 2), rounded, while it is at least 128."""
    recipe = dataclasses.replace(presets["crowson"], size=size, upscale=True)
    assert resolve_scales(recipe, (600, 800, 3), [(600, 800, 3)]).scales == count


def test_the_objective_of_strotss_has_the_papers_weights(make_network, make_image):
    """alpha · l_C + l_m + l_r + l_p / alpha with alpha = 2 at the largest scale."""
    network, recipe = make_network(), resolve_recipe(presets["strotss"], make_network())
    content, style = make_image(48, 64), make_image(52, 40, seed=1)
    targets = compute_targets(network, content, [style], dataclasses.replace(recipe, margin=0))
    one = dataclasses.replace(recipe, margin=0, content_weight=1.0)
    image = jnp.asarray(make_image(48, 64, seed=2))
    whole, alone = (
        jax.jit(make_objective(network, targets, r))(image)[1]
        for r in (dataclasses.replace(recipe, margin=0), one)
    )
    assert float(whole.content) == pytest.approx(2 * float(alone.content), rel=1e-5)
    assert float(whole.style) == pytest.approx(float(alone.style), rel=1e-5)
    assert recipe.style_weight == 1


def test_the_content_weighs_more_at_smaller_scales(make_network, make_image):
    recipe = Recipe(
        scales=3, scale_content=2.0, content_weight=0.5, content_layers="relu1_1",
        style_layers="relu1_1", size=0,
    )  # fmt: skip
    problem = prepare(
        make_image(64, 72), make_image(72, 64), recipe=recipe, network=make_network(blocks=1)
    )
    assert [scale.recipe.content_weight for scale in problem.scales] == [2.0, 1.0, 0.5]
    assert problem.recipe.content_weight == 0.5
    (term, smaller) = (
        jaxstyle.evaluate(
            make_image(64, 72, seed=3), make_image(64, 72), make_image(),
            recipe=scale.recipe, network=make_network(blocks=1),
        )[1].content
        for scale in problem.scales[1:]
    )  # fmt: skip
    assert term == pytest.approx(2 * smaller)


def test_a_recolored_start_has_the_mean_and_covariance_of_the_style(make_network, make_image):
    # Few colors, so that nothing is clipped.
    content = 0.4 + 0.2 * make_image(40, 48)
    style = 0.3 + 0.3 * make_image(44, 32, seed=1)
    recipe = Recipe(
        init="recolored", scales=1, size=0, content_layers="relu1_1", style_layers="relu1_1"
    )
    start = prepare(content, style, recipe=recipe, network=make_network(blocks=1)).start
    mine, theirs = (np.asarray(x, np.float64).reshape(-1, 3) for x in (start, style))
    np.testing.assert_allclose(mine.mean(0), theirs.mean(0), atol=1e-5)
    np.testing.assert_allclose(np.cov(mine.T), np.cov(theirs.T), atol=2e-5)


def test_the_content_weight_of_scales_is_bounded():
    with pytest.raises(JaxstyleError, match="^scale_content: 0"):
        Recipe(scale_content=0)
