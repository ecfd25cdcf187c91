"""Blocks computed again for the gradient: the same numbers, less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxstyle
from jaxstyle import Recipe
from jaxstyle.masks import Masks

RECIPE = Recipe(
    size=0, steps=4, tv_weight=0.01,
    content_layers="relu3_1", style_layers="relu1_1,relu2_1,conv3_2",
)  # fmt: skip


@jax.jit
def value_and_grad(job, image):
    objective = jaxstyle.make_objective(job.network, job.targets, job.recipe)
    return jax.value_and_grad(objective, has_aux=True)(image)


@pytest.fixture(scope="module")
def network(make_network):
    return make_network(blocks=3)


def pair(network, make_picture, masks=None, **changes):
    """The same job without and with."""
    recipe = dataclasses.replace(RECIPE, **changes)
    return [
        jaxstyle.prepare(
            make_picture(36, 45),
            make_picture(40, 33, seed=1),
            recipe=dataclasses.replace(recipe, remat=remat),
            network=network,
            start=make_picture(36, 45, seed=2),
            masks=masks,
        )
        for remat in (False, True)
    ]


def masked(make_picture):
    grey = np.asarray(make_picture(36, 45, seed=5))[..., 0], np.ones((40, 33), np.float32)
    return {"mask": (("a", "b"),), "content_mask": "a"}, Masks(grey[0], (grey,))


@pytest.mark.parametrize("case", ["plain", "masks", "tiles"])
def test_values_and_gradients_are_the_same(case, network, make_picture):
    changes, masks = masked(make_picture) if case == "masks" else ({}, None)
    changes = {"tile": 16} if case == "tiles" else changes
    plain, again = pair(network, make_picture, masks, **changes)
    (loss, terms), grad = value_and_grad(plain, plain.start)
    (mine, my_terms), my_grad = value_and_grad(again, plain.start)
    np.testing.assert_allclose(mine, loss, rtol=1e-6)
    np.testing.assert_allclose(my_terms, terms, rtol=1e-6)
    assert abs(my_grad - grad).max() < 1e-6 * abs(grad).max()


def test_vmap_over_pictures_and_targets(network, make_picture):
    _, job = pair(network, make_picture)
    doubled = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf * 1.1]), job.targets)
    starts = jnp.stack([job.start, job.start[:, ::-1]])
    mapped = jax.vmap(lambda targets, x: value_and_grad(job._replace(targets=targets), x))
    (loss, _), grad = jax.jit(mapped)(doubled, starts)
    for k, start in enumerate(starts):
        targets = jax.tree.map(lambda leaf: leaf[k], doubled)  # noqa: B023
        (alone, _), grad_alone = value_and_grad(job._replace(targets=targets), start)
        np.testing.assert_allclose(loss[k], alone, rtol=1e-5)
        assert abs(grad[k] - grad_alone).max() < 1e-5 * abs(grad_alone).max()


def test_gradients_with_respect_to_the_weights_stay_whole(network, make_picture):
    plain, again = pair(network, make_picture)

    def of_weights(job):
        def loss(params):
            changed = dataclasses.replace(job.network, params=params)
            return jaxstyle.make_objective(changed, job.targets, job.recipe)(job.start)[0]

        return jax.jit(jax.grad(loss))(job.network.params)

    for mine, theirs in zip(*map(jax.tree.leaves, map(of_weights, (again, plain))), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5 * abs(theirs).max())


def test_a_picture_that_is_no_number_gives_none(network, make_picture):
    _, job = pair(network, make_picture)
    (loss, _), grad = value_and_grad(job, job.start.at[3, 4].set(jnp.nan))
    assert jnp.isnan(loss) and jnp.isnan(grad).any()


def test_it_takes_less_memory(make_network, make_picture):
    network = make_network(blocks=4)

    def bytes_of(remat):
        recipe = Recipe(
            size=0, content_layers="relu4_1", style_layers="relu1_1,relu2_1", remat=remat
        )
        picture = make_picture(256, 256)
        job = jaxstyle.prepare(picture, picture[:64, :64], recipe=recipe, network=network)
        compiled = value_and_grad.lower(job, job.start).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # Not merged away by the compiler: the barrier of `jax.checkpoint` is, on CPUs.
    assert bytes_of(True) < 0.95 * bytes_of(False)


def test_a_run_follows_the_run_without(network, make_picture):
    plain, again = pair(network, make_picture)
    ours, theirs = (
        jaxstyle.finish(job, [i._replace(carry=None) for i in jaxstyle.iterates(job)])[0]
        for job in (again, plain)
    )
    np.testing.assert_allclose(ours.history.loss, theirs.history.loss, rtol=1e-4)
