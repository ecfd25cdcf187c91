"""Numbers in the network: what is promised of each precision, measured against float32."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxstyle
from jaxstyle import Recipe
from jaxstyle.engine.program import common_arguments
from jaxstyle.nn.convolution import PRECISIONS
from jaxstyle.nn.preprocessing import preprocess
from jaxstyle.nn.vgg import activations

RECIPE = Recipe(size=48, steps=25, tv_weight=1e-6)


@jax.jit
def value_and_grad(network, targets, recipe, image):
    objective = jaxstyle.make_objective(network, targets, recipe)
    return jax.value_and_grad(objective, has_aux=True)(image)


@pytest.fixture(scope="module")
def compact():
    return jaxstyle.load_network("compact")


@pytest.fixture(scope="module")
def problems(compact, make_image):
    """The same images in every precision; the start is another."""
    return {
        precision: jaxstyle.prepare(
            make_image(48, 48),
            make_image(48, 40, seed=1),
            recipe=dataclasses.replace(RECIPE, precision=precision),
            network=compact,
            start=make_image(48, 48, seed=2),
        )
        for precision in PRECISIONS
    }


def evaluated(problem, image=None):
    (network, targets, _), _ = common_arguments(problem)
    image = problem.start if image is None else image
    (loss, terms), grad = value_and_grad(network, targets, problem.recipe, image)
    return loss, terms, grad


def test_a_cpu_has_float32_whatever_is_allowed(problems):
    for mine, theirs in zip(
        jax.tree.leaves(evaluated(problems["tf32"])),
        jax.tree.leaves(evaluated(problems["float32"])),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_the_precision_reaches_every_convolution(problems):
    def text(precision):
        problem = problems[precision]
        arguments = (
            problem.recipe.configure_network(problem.network),
            problem.targets,
            problem.recipe,
            problem.start,
        )
        return value_and_grad.lower(*arguments).as_text()

    lines = [line for line in text("float32").splitlines() if "stablehlo.convolution" in line]
    assert len(lines) > 20 and all("HIGHEST" in line for line in lines)
    lines = [line for line in text("bfloat16").splitlines() if "stablehlo.convolution" in line]
    assert len(lines) > 20
    # The image, and the gradient that comes back to it, are float32.
    assert sum("bf16" not in line for line in lines) == 2
    lines = [line for line in text("tf32").splitlines() if "stablehlo.convolution" in line]
    assert not any("HIGHEST" in line or "bf16" in line for line in lines)


def test_bfloat16_is_near_float32(problems):
    loss, terms, grad = evaluated(problems["float32"])
    mine, my_terms, my_grad = evaluated(problems["bfloat16"])
    assert mine != loss
    np.testing.assert_allclose(mine, loss, rtol=0.01)
    np.testing.assert_allclose(my_terms.content, terms.content, rtol=0.02)
    assert my_terms.tv == terms.tv
    assert my_grad.dtype == jnp.float32
    cosine = jnp.vdot(my_grad, grad) / jnp.linalg.norm(my_grad) / jnp.linalg.norm(grad)
    # Measured: 0.989. In float32 it is 1 to six digits.
    assert cosine > 0.98


def test_only_the_maps_are_bfloat16(compact, make_image):
    network = dataclasses.replace(compact, precision="bfloat16")
    x = preprocess(network.convention, make_image())
    found = activations(network, x, ("relu1_1", "conv3_1"), pooling="max")
    for act in found.values():
        # As the losses see them: float32 numbers that bfloat16 has.
        assert act.dtype == jnp.float32
        np.testing.assert_array_equal(act, act.astype(jnp.bfloat16).astype(jnp.float32))
    # Differences of the image finer than bfloat16's are felt.
    finer = activations(network, x.at[8, 8].add(1e-2), ("relu1_1",), pooling="max")["relu1_1"]
    assert (finer != found["relu1_1"]).any()


def test_a_run_descends_as_far(problems):
    losses = {}
    for precision in ("float32", "bfloat16"):
        problem = problems[precision]
        (result,) = jaxstyle.finish(
            problem, [i._replace(carry=None) for i in jaxstyle.iterates(problem)]
        )
        assert result.image.dtype == np.float32
        losses[precision], _, _ = evaluated(problems["float32"], result.image)
    initial, _, _ = evaluated(problems["float32"])
    assert losses["bfloat16"] < 0.2 * initial
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=0.2)
