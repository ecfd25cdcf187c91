"""Masks: their way down to the layers, and what the objective makes of them, in NumPy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxstyle
from jaxstyle import JaxstyleError, Masks, Recipe, compute_targets, make_objective
from jaxstyle.losses.gram import gram_matrix
from jaxstyle.losses.masks import downsample_mask, resize_mask
from jaxstyle.losses.style_losses import STYLE_LOSSES

RECIPE = Recipe(
    style_loss="gram",
    content_layers="relu2_1,conv1_1:0.5",
    style_layers="relu1_1:2,relu2_2",
    content_weight=2.0,
    style_weight=30.0,
    tv_weight=0.0,
)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network(make_network):
    return make_network(blocks=2)


@pytest.fixture(scope="module")
def images(make_image):
    """An image, the content and two styles."""
    sizes = ((26, 40), (26, 40), (31, 22), (24, 36))
    return [make_image(*size, seed=seed) for seed, size in enumerate(sizes)]


@pytest.fixture(scope="module")
def masks():
    """Soft masks of the content and of regions, the second of which has the whole style."""
    return Masks(
        RNG.random((26, 40), np.float32),
        [
            (RNG.random((26, 40), np.float32), RNG.random((31, 22), np.float32)),
            (RNG.random((26, 40), np.float32), None),
        ],
    )


@jax.jit
def value_and_grad(network, targets, recipe, image):
    return jax.value_and_grad(make_objective(network, targets, recipe), has_aux=True)(image)


def down(mask, block):
    """A mask averaged over cells, `[h, w]`."""
    for _ in range(block - 1):
        rows, columns = (side // 2 for side in mask.shape)
        mask = mask[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))
    return mask


def features(network, image, layer):
    return np.asarray(jaxstyle.features(network, image, [layer])[layer], np.float64)


def region_gram(act, mask):
    weights = mask / mask.sum()
    return np.einsum("yx,yxa,yxb->ab", weights, act, act) / act.shape[-1]


def test_terms_are_those_of_the_formulas(network, images, masks):
    image, content, *styles = images
    recipe = dataclasses.replace(RECIPE, style_blend=(3, 1))
    targets = compute_targets(network, content, styles, recipe, masks=masks)
    (loss, terms), _ = value_and_grad(network, targets, recipe, image)
    expected = 0.0
    for layer, weight in recipe.content_layers:
        squares = (features(network, image, layer) - features(network, content, layer)) ** 2
        expected += weight * np.mean(down(masks.content, int(layer[4]))[..., None] * squares)
    np.testing.assert_allclose(terms.content, 2 * expected, rtol=1e-4)
    expected = 0.0
    for layer, weight in recipe.style_layers:
        for (region, of_style), style, blend in zip(masks.regions, styles, (1.5, 0.5), strict=True):
            block = int(layer[4])
            of_style = np.ones(style.shape[:2]) if of_style is None else of_style
            mine = region_gram(features(network, image, layer), down(region, block))
            theirs = region_gram(features(network, style, layer), down(of_style, block))
            expected += weight * blend * region.mean() * np.mean((mine - theirs) ** 2)
    np.testing.assert_allclose(terms.style, 30 * expected, rtol=1e-4)
    np.testing.assert_allclose(loss, sum(terms), rtol=1e-6)


def test_white_masks_change_nothing(network, images):
    image, content, style, _ = images
    white = np.ones((26, 40), np.float32)
    plain = compute_targets(network, content, [style], RECIPE)
    whole = compute_targets(
        network, content, [style], RECIPE, masks=Masks(white, [(white, np.ones((31, 22)))])
    )
    (loss, terms), grad = value_and_grad(network, plain, RECIPE, image)
    (masked, parts), other = value_and_grad(network, whole, RECIPE, image)
    np.testing.assert_allclose(parts, terms, rtol=1e-5)
    np.testing.assert_allclose(other, grad, rtol=1e-3, atol=1e-5 * abs(grad).max())


@pytest.mark.parametrize(
    "name", [name for name, loss in STYLE_LOSSES.items() if loss.is_mean_over_positions]
)
def test_a_regions_statistics_are_those_of_its_positions(name):
    act = RNG.random((8, 6, 3), np.float32)
    weights = np.zeros((8, 6, 1), np.float32)
    weights[:, :3] = 2.0
    loss = STYLE_LOSSES[name]
    for masked, alone in zip(
        jax.tree.leaves(loss.statistics(act, weights=weights)),
        jax.tree.leaves(loss.statistics(act[:, :3])),
        strict=True,
    ):
        np.testing.assert_allclose(masked, alone, rtol=1e-5)


def test_regions_that_part_the_image_part_its_gram_matrix():
    act, mask = RNG.random((8, 6, 3), np.float32), RNG.random((8, 6, 1), np.float32)
    parts = [m.mean() * gram_matrix(act, weights=m / m.mean()) for m in (mask, 1 - mask)]
    np.testing.assert_allclose(parts[0] + parts[1], gram_matrix(act), rtol=1e-5)


def test_gradient_matches_finite_differences(network, images, masks):
    image, content, *styles = images
    targets = compute_targets(network, content, styles, RECIPE, masks=masks)
    _, grad = value_and_grad(network, targets, RECIPE, image)
    direction = np.asarray(grad) / np.linalg.norm(grad)
    up, down = (
        value_and_grad(network, targets, RECIPE, image + h * direction)[0][0] for h in (1e-2, -1e-2)
    )
    assert (up - down) / 2e-2 == pytest.approx(float(np.vdot(grad, direction)), rel=1e-2)


def test_masks_in_tiles(network, images, masks):
    image, content, *styles = images
    found = []
    for tile in (0, 16):
        recipe = dataclasses.replace(RECIPE, tile=tile)
        targets = compute_targets(network, content, styles, recipe, masks=masks)
        found.append(value_and_grad(network, targets, recipe, image))
    (_, terms), grad = found[0]
    (_, tiled), tiled_grad = found[1]
    np.testing.assert_allclose(tiled, terms, rtol=1e-5)
    np.testing.assert_allclose(tiled_grad, grad, atol=1e-5 * np.abs(grad).max())


def test_a_black_part_of_the_content_has_no_pull(network, images):
    image, content, style, _ = images
    mask = np.zeros((26, 40), np.float32)
    mask[:, :12] = 1
    recipe = dataclasses.replace(RECIPE, content_layers="relu1_1", style_weight=0.0)
    targets = compute_targets(network, content, [style], recipe, masks=Masks(mask))
    _, grad = value_and_grad(network, targets, recipe, image)
    # A 3x3 convolution sees one pixel further.
    assert np.abs(grad[:, :12]).max() > 0 and np.abs(grad[:, 13:]).max() == 0


@pytest.mark.parametrize("pooling", ["max", "max-ceil"])
def test_a_mask_goes_down_as_the_maps_do(network, pooling):
    mask = RNG.random((13, 18), np.float32)
    found = downsample_mask(mask, ["relu3_1", "conv1_2"], pooling=pooling, argument="m")
    assert found["conv1_2"].shape == (13, 18, 1)
    if pooling == "max":
        np.testing.assert_allclose(found["relu3_1"][..., 0], down(mask, 3), rtol=1e-6)
    else:
        wide = np.pad(mask, ((0, 1), (0, 0)), mode="edge")
        assert found["relu3_1"].shape == (4, 5, 1)
        last = np.pad(down(wide, 2), ((0, 1), (0, 1)), mode="edge")
        np.testing.assert_allclose(found["relu3_1"][..., 0], down(last, 2), rtol=1e-6)


def test_masks_are_resized_and_may_be_color():
    mask = np.zeros((10, 20), np.float32)
    mask[:, 10:] = 1
    np.testing.assert_allclose(resize_mask(mask, 10, 20, argument="m"), mask)
    half = resize_mask(np.repeat(mask[..., None], 3, -1), 30, 61, argument="m")
    assert half.shape == (30, 61) and half[:, :25].max() < 0.1 and half[:, 40:].min() > 0.9


@pytest.mark.parametrize(
    ("mask", "word"),
    [
        (np.ones((20, 20), np.float32), "20x20"),
        (np.ones((10, 20), np.uint8), "uint8"),
        (np.full((10, 20), 1.5), r"outside \[0, 1\]"),
        (np.full((10, 20), np.nan), "outside"),
        (np.zeros((10, 20)), "black"),
        (np.ones((10, 20, 4)), "not a mask"),
    ],
)
def test_what_is_no_mask(mask, word):
    with pytest.raises(JaxstyleError, match=f"^content_mask: .*{word}"):
        resize_mask(mask, 26, 52, argument="content_mask")


def test_files_named_in_the_recipe_must_be_given(network, images):
    _, content, style, _ = images
    for setting in ({"content_mask": "m.png"}, {"mask": [("m.png", "-")]}):
        recipe = dataclasses.replace(RECIPE, **setting)
        with pytest.raises(JaxstyleError, match=f"^{next(iter(setting))}: .*m.png"):
            compute_targets(network, content, [style], recipe)


def test_vmap_over_masks(network, images, masks):
    image, content, *styles = images
    several = [
        compute_targets(network, content, styles, RECIPE, masks=Masks(m, masks.regions))
        for m in (masks.content, masks.content[::-1])
    ]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    losses = jax.vmap(value_and_grad, (None, 0, None, None))(network, stacked, RECIPE, image)[0][0]
    for loss, targets in zip(losses, several, strict=True):
        np.testing.assert_allclose(
            loss, value_and_grad(network, targets, RECIPE, image)[0][0], rtol=1e-5
        )
    assert losses[0] != losses[1]
