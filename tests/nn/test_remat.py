"""Blocks computed again for the gradient: the same numbers, less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import STYLE_LOSS

import jaxstyle
from jaxstyle import Recipe
from jaxstyle.losses.masks import Masks

RECIPE = Recipe(
    size=0, steps=4, tv_weight=0.01,
    content_layers="relu3_1", style_layers="relu1_1,relu2_1,conv3_2", style_loss=STYLE_LOSS,
)  # fmt: skip


@jax.jit
def value_and_grad(problem, image):
    objective = jaxstyle.make_objective(problem.network, problem.targets, problem.recipe)
    return jax.value_and_grad(objective, has_aux=True)(image)


@pytest.fixture(scope="module")
def network(make_network):
    return make_network(blocks=3)


def pair(network, make_image, masks=None, **changes):
    """The same problem without and with."""
    recipe = dataclasses.replace(RECIPE, **changes)
    return [
        jaxstyle.prepare(
            make_image(36, 45),
            make_image(40, 33, seed=1),
            recipe=dataclasses.replace(recipe, remat=remat),
            network=network,
            start=make_image(36, 45, seed=2),
            masks=masks,
        )
        for remat in (False, True)
    ]


def masked(make_image):
    gray = np.asarray(make_image(36, 45, seed=5))[..., 0], np.ones((40, 33), np.float32)
    return {"mask": (("a", "b"),), "content_mask": "a"}, Masks(gray[0], (gray,))


@pytest.mark.parametrize("case", ["plain", "masks", "tiles"])
def test_values_and_gradients_are_the_same(case, network, make_image):
    changes, masks = masked(make_image) if case == "masks" else ({}, None)
    changes = {"tile": 16} if case == "tiles" else changes
    plain, again = pair(network, make_image, masks, **changes)
    (loss, terms), grad = value_and_grad(plain, plain.start)
    (mine, my_terms), my_grad = value_and_grad(again, plain.start)
    np.testing.assert_allclose(mine, loss, rtol=1e-6)
    np.testing.assert_allclose(my_terms, terms, rtol=1e-6)
    assert abs(my_grad - grad).max() < 1e-6 * abs(grad).max()


def test_vmap_over_images_and_targets(network, make_image):
    _, problem = pair(network, make_image)
    doubled = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf * 1.1]), problem.targets)
    starts = jnp.stack([problem.start, problem.start[:, ::-1]])
    mapped = jax.vmap(lambda targets, x: value_and_grad(problem._replace(targets=targets), x))
    (loss, _), grad = jax.jit(mapped)(doubled, starts)
    for k, start in enumerate(starts):
        targets = jax.tree.map(lambda leaf: leaf[k], doubled)  # noqa: B023
        (alone, _), grad_alone = value_and_grad(problem._replace(targets=targets), start)
        np.testing.assert_allclose(loss[k], alone, rtol=1e-5)
        assert abs(grad[k] - grad_alone).max() < 1e-5 * abs(grad_alone).max()


def test_gradients_with_respect_to_the_weights_stay_whole(network, make_image):
    plain, again = pair(network, make_image)

    def of_weights(problem):
        def loss(params):
            changed = dataclasses.replace(problem.network, params=params)
            return jaxstyle.make_objective(changed, problem.targets, problem.recipe)(problem.start)[
                0
            ]

        return jax.jit(jax.grad(loss))(problem.network.params)

    for mine, theirs in zip(*map(jax.tree.leaves, map(of_weights, (again, plain))), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * abs(theirs).max())


def test_an_image_that_is_no_number_gives_none(network, make_image):
    _, problem = pair(network, make_image)
    (loss, _), grad = value_and_grad(problem, problem.start.at[3, 4].set(jnp.nan))
    assert jnp.isnan(loss) and jnp.isnan(grad).any()


def test_it_takes_less_memory(make_network, make_image):
    network = make_network(blocks=4, widths=(8, 16, 32, 64))

    def bytes_of(remat):
        recipe = Recipe(
            size=0,
            scales=1,
            content_layers="relu4_1",
            style_layers="relu1_1,relu2_1",
            style_loss=STYLE_LOSS,
            remat=remat,
        )
        image = make_image(256, 256)
        problem = jaxstyle.prepare(image, image[:64, :64], recipe=recipe, network=network)
        compiled = value_and_grad.lower(problem, problem.start).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Not merged away by the compiler: the barrier of `jax.checkpoint` is, on CPUs.
    assert bytes_of(True) < 0.85 * bytes_of(False)


def test_a_run_follows_the_run_without(network, make_image):
    plain, again = pair(network, make_image)
    ours, theirs = (
        jaxstyle.finish(problem, [i._replace(carry=None) for i in jaxstyle.iterates(problem)])[0]
        for problem in (again, plain)
    )
    np.testing.assert_allclose(ours.history.loss, theirs.history.loss, rtol=1e-4)
