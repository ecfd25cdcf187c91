"""The style term on an image pyramid, and how many scales and resolutions a run has."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxstyle import (
    JaxstyleError,
    Recipe,
    compute_targets,
    evaluate,
    features,
    gram_matrix,
    make_objective,
    presets,
    stylize,
)
from jaxstyle.engine.sizes import pyramid_levels, resolve_scales
from jaxstyle.losses.masks import Masks, halve_mask
from jaxstyle.losses.pyramid import halve, mirrored
from jaxstyle.losses.resolve import resolve_recipe

LAYERS = ("relu1_1", "relu2_1")
RECIPE = Recipe(
    content_layers="relu2_1", style_layers="relu1_1:2,relu2_1", style_weight=50.0, tv_weight=0.0,
    style_loss="gram", size=0, scales=1, pyramid=3, margin=0, steps=3,
)  # fmt: skip
WEIGHTS = {"relu1_1": 2.0, "relu2_1": 1.0}


@pytest.fixture(scope="module")
def network(make_network):
    return make_network(blocks=2)


@pytest.fixture(scope="module")
def images(make_image):
    # Odd sides at several resolutions.
    return make_image(39, 45, seed=1), make_image(34, 51, seed=2), make_image(39, 45, seed=3)


def mean_of_cells(image):
    """Halve an image in NumPy; an odd last row or column counts twice."""
    image = np.asarray(image, np.float64)
    image = np.concatenate([image, image[-1:]], 0) if len(image) % 2 else image
    image = np.concatenate([image, image[:, -1:]], 1) if image.shape[1] % 2 else image
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def test_halving_averages_cells(images):
    np.testing.assert_allclose(halve(jnp.asarray(images[0])), mean_of_cells(images[0]), atol=1e-6)
    mask = np.asarray(images[0])[..., 0]
    np.testing.assert_allclose(halve_mask(mask, 2), mean_of_cells(mean_of_cells(mask)), atol=1e-6)


def test_style_term_is_the_mean_over_resolutions_by_their_pixels(network, images):
    content, style, image = images
    targets = compute_targets(network, content, [style], RECIPE)
    _, terms = make_objective(network, targets, RECIPE)(image)
    total = 0.0
    for pixels in (16, 4, 1):
        mine, theirs = (
            features(network, jnp.asarray(i, jnp.float32), LAYERS) for i in (image, style)
        )
        for layer, weight in WEIGHTS.items():
            grams = [np.asarray(gram_matrix(f[layer]), np.float64) for f in (mine, theirs)]
            total += weight * np.mean((grams[0] - grams[1]) ** 2) * pixels / 21
        image, style = mean_of_cells(image), mean_of_cells(style)
    np.testing.assert_allclose(float(terms.style), 50.0 * total, rtol=1e-4)


def test_gradient_is_that_of_finite_differences(network, images):
    content, style, image = (jnp.asarray(p) for p in images)
    targets = compute_targets(network, content, [style], RECIPE)
    value = jax.jit(lambda x: make_objective(network, targets, RECIPE)(x)[0])
    direction = jax.random.normal(jax.random.key(0), image.shape)
    step = 1e-2 / jnp.linalg.norm(direction)
    slope = (value(image + step * direction) - value(image - step * direction)) / (2 * step)
    np.testing.assert_allclose(jnp.vdot(jax.grad(value)(image), direction), slope, rtol=1e-2)


def test_a_style_scores_zero_at_every_resolution(network, images):
    recipe = dataclasses.replace(RECIPE, content_weight=0.0)
    loss, _ = evaluate(images[1], images[0], images[1], recipe=recipe, network=network)
    assert loss < 1e-6


def test_tiles_change_nothing(network, images):
    loss, _ = evaluate(images[2], *images[:2], recipe=RECIPE, network=network)
    tiled = dataclasses.replace(RECIPE, tile=16)
    np.testing.assert_allclose(
        evaluate(images[2], *images[:2], recipe=tiled, network=network)[0], loss, rtol=1e-4
    )


def test_regions_follow_the_resolutions(network, images):
    content, style, image = images
    whole = dataclasses.replace(RECIPE, mask=(("-", "-"),))
    masks = Masks(regions=[(None, None)])
    loss, _ = evaluate(image, content, style, recipe=RECIPE, network=network)
    masked, _ = evaluate(image, content, style, recipe=whole, network=network, masks=masks)
    np.testing.assert_allclose(masked, loss, rtol=1e-5)


def test_runs_with_a_pyramid_lower_the_loss(network, images):
    result = stylize(*images[:2], recipe=dataclasses.replace(RECIPE, steps=5), network=network)
    assert result.loss < result.initial_loss and result.recipe.pyramid == 3


class TestResolveScales:
    @pytest.mark.parametrize(
        ("size", "expected"), [(128, 1), (256, 2), (512, 3), (1000, 3), (1024, 4)]
    )
    def test_the_coarsest_resolution_has_128_pixels(self, size, expected):
        shape = (size * 3 // 4, size, 3)
        recipe = resolve_scales(Recipe(size=0), shape, [shape])
        assert recipe.pyramid == expected

    def test_a_small_style_has_fewer(self):
        assert resolve_scales(Recipe(), (384, 512, 3), [(200, 250, 3)]).pyramid == 1

    def test_one_scale_has_one_resolution(self):
        assert resolve_scales(Recipe(scales=1), (768, 1024, 3), [(768, 1024, 3)]).pyramid == 1

    def test_smaller_scales_have_fewer(self):
        levels = [pyramid_levels(Recipe(pyramid=3), [], level=level) for level in range(6)]
        assert levels == [3, 2, 1, 1, 1, 1]

    def test_presets_of_other_programs_have_one(self):
        for name, recipe in presets.items():
            if name != "default":
                assert resolve_scales(recipe, (1024, 1024, 3), [(1024, 1024, 3)]).pyramid == 1


class TestStrength:
    def test_it_takes_the_place_of_the_weights(self, network):
        default = Recipe(content_layers="relu2_1", style_layers="relu1_1")
        half, none, full = (
            resolve_recipe(dataclasses.replace(default, strength=s), network)
            for s in (0.5, 0.0, 1.0)
        )
        assert half == resolve_recipe(default, network)
        assert none.style_weight == 0 and full.style_weight > half.style_weight

    @pytest.mark.parametrize("name", ["content_weight", "style_weight"])
    def test_both_are_refused(self, name):
        with pytest.raises(JaxstyleError, match=f"strength: 0.5 and {name} 2.0"):
            Recipe(strength=0.5, **{name: 2.0})
        with pytest.raises(JaxstyleError, match="strength"):
            presets["neural-style"].updated({"strength": 0.5, name: 2.0})

    def test_it_scales_the_weights_of_presets(self):
        preset = presets["neural-style"]
        assert preset.updated({"strength": 0.5}) == preset
        assert preset.updated({"strength": 0.25}).style_weight < preset.style_weight

    @pytest.mark.parametrize("value", [-0.1, 1.01, "much", float("nan")])
    def test_out_of_range(self, value):
        with pytest.raises(JaxstyleError, match="strength"):
            Recipe(strength=value)


class TestMargin:
    """The image mirrored beyond its edges, so that no fringe falls into it."""

    def test_sides_become_multiples_of_16(self, images):
        padded = mirrored(jnp.asarray(images[0]), 8)
        assert padded.shape == (64, 64, 3)
        expected = np.pad(images[0], ((8, 17), (8, 11), (0, 0)), mode="symmetric")
        np.testing.assert_array_equal(padded, expected)
        assert mirrored(images[0], 0) is images[0]

    def test_style_term_is_that_of_mirrored_images(self, network, images):
        content, style, image = images
        recipe = dataclasses.replace(RECIPE, pyramid=1, margin=8)
        _, terms = evaluate(image, content, style, recipe=recipe, network=network)
        larger = [mirrored(np.asarray(i, np.float32), 8) for i in (image, content, style)]
        plain = dataclasses.replace(recipe, margin=0)
        _, expected = evaluate(*larger, recipe=plain, network=network)
        np.testing.assert_allclose(terms, expected, rtol=1e-5)

    def test_every_pixel_of_an_odd_image_has_a_gradient(self, network, images):
        content, style, image = (jnp.asarray(i) for i in images)
        deep = dataclasses.replace(RECIPE, style_layers="relu2_1", content_weight=0.0, pyramid=1)
        counts = []
        for margin in (0, 8):
            recipe = dataclasses.replace(deep, margin=margin)
            targets = compute_targets(network, content, [style], recipe)
            grad = jax.grad(lambda x, t=targets, r=recipe: make_objective(network, t, r)(x)[0])(
                image
            )
            counts.append(float(jnp.abs(grad[-1]).mean() / jnp.abs(grad[10:-10]).mean()))
        assert counts[0] < 0.5 < counts[1]

    def test_masks_are_mirrored_too(self, network, images):
        content, style, image = images
        recipe = dataclasses.replace(RECIPE, margin=8, mask=(("-", "-"),), content_mask="-")
        masks = Masks(content=np.ones(content.shape[:2], np.float32), regions=[(None, None)])
        loss, _ = evaluate(image, content, style, recipe=recipe, network=network, masks=masks)
        plain = dataclasses.replace(recipe, mask=(), content_mask=None)
        expected, _ = evaluate(image, content, style, recipe=plain, network=network)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)

    def test_one_scale_has_none(self):
        shape = (512, 512, 3)
        assert resolve_scales(Recipe(scales=1), shape, [shape]).margin == 0
        assert resolve_scales(Recipe(), shape, [shape]).margin == 8
