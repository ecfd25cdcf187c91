"""Tiling is exact: means, maps, values and gradients are those of the whole image."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import STYLE_LOSS

import jaxstyle
from jaxstyle import JaxstyleError, Recipe
from jaxstyle.nn.geometry import receptive_margin
from jaxstyle.nn.preprocessing import preprocess
from jaxstyle.nn.tiling import feature_maps, mean_statistics
from jaxstyle.nn.vgg import activations

LAYERS = ("conv1_2", "relu2_1", "relu2_2")
TILE = 32


def statistic(layer, act, target):
    gram = jnp.einsum("hwa,hwb->ab", act, act) / (act.shape[0] * act.shape[1])
    return gram if target is None else (gram, jnp.mean(jnp.abs(act - target)))


def means_and_gradient(network, x, maps, tile):
    def scalar(x):
        found = mean_statistics(network, x, LAYERS, statistic, maps, pooling="max", tile=tile)
        weighted = [jnp.sum(leaf * (k + 1.3)) for k, leaf in enumerate(jax.tree.leaves(found))]
        return sum(weighted), found

    return jax.jit(jax.value_and_grad(scalar, has_aux=True))(x)


@pytest.mark.parametrize(
    ("padding", "height", "width", "tile"),
    [
        ("zeros", 21, 30, 8),
        ("reflect", 29, 11, 12),
        ("edge-first", 19, 21, 8),
    ],
)
def test_tiles_add_up_to_the_image(make_network, make_image, padding, height, width, tile):
    network = make_network(padding=padding, blocks=2)
    x, other = (
        preprocess(network.convention, jnp.asarray(make_image(height, width, seed=seed)))
        for seed in (0, 1)
    )
    maps = partial(jax.jit(feature_maps, static_argnames=("layers", "pooling", "tile")), network)
    whole, tiled = (
        maps(other, layers=("conv1_2", "relu2_2"), pooling="max", tile=t) for t in (0, tile)
    )
    for layer in whole:
        # A position that saw a wrong neighbor is off by its whole value.
        np.testing.assert_allclose(tiled[layer], whole[layer], atol=1e-5 * abs(whole[layer]).max())
    (value, found), grad = means_and_gradient(network, x, whole, 0)
    (tiled_value, tiled_found), tiled_grad = means_and_gradient(network, x, whole, tile)
    np.testing.assert_allclose(tiled_value, value, rtol=1e-6)
    for mine, theirs in zip(jax.tree.leaves(tiled_found), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5 * abs(theirs).max())
    np.testing.assert_allclose(tiled_grad, grad, atol=2e-6 * abs(grad).max())


@pytest.fixture(scope="module")
def problems(make_network, make_image):
    """An image of odd size, whole and in tiles; the start is another."""
    network = make_network(blocks=3)
    recipe = Recipe(
        style_loss=STYLE_LOSS,
        size=0,
        tv_weight=0.01,
        content_layers="relu3_1",
        style_layers="relu1_1,relu2_1,relu3_1",
    )

    def problem(tile):
        return jaxstyle.prepare(
            make_image(37, 135),
            make_image(45, 100, seed=1),
            recipe=dataclasses.replace(recipe, tile=tile),
            network=network,
            start=make_image(37, 135, seed=2),
        )

    return problem(0), problem(TILE)


@jax.jit
def value_and_grad(problem, image):
    objective = jaxstyle.make_objective(problem.network, problem.targets, problem.recipe)
    return jax.value_and_grad(objective, has_aux=True)(image)


def test_objective_and_targets_are_the_same_in_tiles(problems):
    whole, tiled = problems
    for mine, theirs in zip(
        jax.tree.leaves(tiled.targets), jax.tree.leaves(whole.targets), strict=True
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)
    (loss, terms), grad = value_and_grad(whole, whole.start)
    (tiled_loss, tiled_terms), tiled_grad = value_and_grad(tiled, whole.start)
    np.testing.assert_allclose(tiled_loss, loss, rtol=1e-6)
    np.testing.assert_allclose(tiled_terms, terms, rtol=1e-5)
    assert abs(tiled_grad - grad).max() < 2e-6 * abs(grad).max()


def test_tiles_leave_no_seam(problems):
    whole, tiled = problems
    (_, _), grad = value_and_grad(whole, whole.start)
    (_, _), tiled_grad = value_and_grad(tiled, whole.start)
    error = np.abs(np.asarray(tiled_grad - grad)).max(-1)
    # Columns beside the edges of tiles are no worse than the rest.
    seams = np.zeros(error.shape[1], bool)
    for edge in range(TILE, 135, TILE):
        seams[edge - 1 : edge + 1] = True
    assert error[:, seams].max() <= 3 * error[:, ~seams].max()


def test_vmap_over_tiled_objectives(problems):
    _, tiled = problems
    starts = jnp.stack([tiled.start, tiled.start[:, ::-1] * 0.9])
    (loss, _), grad = jax.jit(jax.vmap(value_and_grad, in_axes=(None, 0)))(tiled, starts)
    for k, start in enumerate(starts):
        (alone, _), grad_alone = value_and_grad(tiled, start)
        np.testing.assert_allclose(loss[k], alone, rtol=1e-5)
        assert abs(grad[k] - grad_alone).max() < 1e-5 * abs(grad_alone).max()


def test_a_run_in_tiles_follows_the_whole_run(make_network, make_image):
    network = make_network(blocks=2)
    recipe = Recipe(
        size=0,
        steps=5,
        content_layers="relu2_1",
        style_layers="relu1_1,relu2_1",
        tv_weight=0.01,
    )
    images = make_image(40, 52), make_image(33, 47, seed=1)
    whole = jaxstyle.stylize(*images, recipe=recipe, network=network)
    tiled = jaxstyle.stylize(*images, recipe=dataclasses.replace(recipe, tile=16), network=network)
    np.testing.assert_allclose(tiled.history.loss, whole.history.loss, rtol=1e-4)
    assert tiled.loss < 0.7 * tiled.initial_loss


def test_a_tile_keeps_less_than_the_image(make_network, make_image):
    network = make_network(blocks=2)

    def bytes_of(tile):
        recipe = Recipe(
            size=0,
            scales=1,
            content_layers="relu2_1",
            style_layers="relu1_2,relu2_2",
            style_loss=STYLE_LOSS,
            tile=tile,
        )
        image = make_image(512, 512)
        problem = jaxstyle.prepare(image, image[:64, :64], recipe=recipe, network=network)
        compiled = value_and_grad.lower(problem, problem.start).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert bytes_of(64) < 0.6 * bytes_of(0)


def test_receptive_margin_is_how_far_a_change_is_felt(make_network):
    network = make_network()
    layers = ("relu4_1",)
    x = jnp.ones((256, 256, 3))

    def middle(x):
        return jnp.sum(activations(network, x, layers, pooling="avg")["relu4_1"][16, 16])

    felt = np.flatnonzero(np.abs(jax.jit(jax.grad(middle))(x)).sum((1, 2)))
    margin = receptive_margin(network.topology, layers)
    # The middle cell is rows 128 to 135; the bound is met exactly, below and above.
    assert felt.min() >= 128 - margin and felt.max() <= 135 + margin
    assert felt.max() - felt.min() + 1 > 2 * margin


def test_an_image_too_small_is_refused_in_tiles_too(make_network, make_image):
    network = make_network()
    with pytest.raises(JaxstyleError, match="too small for layer"):
        jaxstyle.prepare(
            make_image(6, 300),
            make_image(64, 64),
            recipe=Recipe(size=0, scales=1, tile=64),
            network=network,
        )
