"""Winograd's filtering is the direct convolution, forward and backward."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import STYLE_LOSS
from scipy.signal import correlate

import jaxstyle
from jaxstyle.engine.program import common_arguments
from jaxstyle.nn import convolution, winograd
from jaxstyle.nn.convolution import convolve, use_winograd
from jaxstyle.nn.vgg import add_winograd_kernels


def reference(x, kernel):
    """Of SciPy, in float64."""
    return np.stack(
        [
            sum(
                correlate(x[..., i], kernel[..., i, o], mode="same", method="direct")
                for i in range(x.shape[-1])
            )
            for o in range(kernel.shape[-1])
        ],
        -1,
    )


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 5), (1, 6)])
def test_both_ways_against_scipy(height, width):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(height, width, 5)), rng.normal(size=(3, 3, 5, 7))
    back = rng.normal(size=(height, width, 7))
    transformed = winograd.transform(jnp.asarray(kernel, jnp.float32))
    assert transformed.shape == (36, 5, 7)
    found = winograd.convolve(jnp.asarray(x, jnp.float32), transformed)
    wanted = reference(x, kernel)
    np.testing.assert_allclose(found, wanted, atol=3e-6 * abs(wanted).max())
    found = winograd.convolve(jnp.asarray(back, jnp.float32), transformed, flipped=True)
    wanted = reference(back, kernel[::-1, ::-1].swapaxes(2, 3))
    np.testing.assert_allclose(found, wanted, atol=3e-6 * abs(wanted).max())


def test_it_is_chosen_by_channels_and_size():
    assert (
        use_winograd(64, 64, 256, 256)
        and use_winograd(128, 128, 64, 128)
        and use_winograd(512, 512, 128, 128)
    )
    assert (
        not use_winograd(256, 256, 3, 64)
        and not use_winograd(256, 256, 64, 64)
        and not use_winograd(8, 8, 512, 512)
    )


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_what_is_for_the_cpu_is_chosen_where_the_program_is_lowered(precision):
    x, kernel = jnp.zeros((16, 16, 64)), jnp.zeros((3, 3, 64, 64))

    def gradient(x, kernel, transformed):
        return jax.vjp(lambda x: convolve(x, kernel, transformed, precision), x)[1](x)

    traced = jax.jit(jax.vmap(gradient, (0, None, None))).trace(
        x[None], kernel, winograd.transform(kernel)
    )
    texts = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert "stablehlo.convolution" not in texts["cpu"]
    for platform in ("cuda", "tpu"):
        assert texts[platform].count("stablehlo.convolution") == 1
        assert "optimization_barrier" not in texts[platform]
    alone = jax.jit(lambda x, kernel: gradient(x, kernel, None)).trace(x, kernel)
    assert "optimization_barrier" in alone.lower(lowering_platforms=("cpu",)).as_text()


def test_gradients_by_map_and_kernel():
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (16, 18, 64))
    kernel = jax.random.normal(keys[1], (3, 3, 64, 65)) / 24
    back = jax.random.normal(keys[2], (16, 18, 65))

    @jax.jit
    def both(x, kernel, transformed):
        y, vjp = jax.vjp(lambda x, kernel: convolve(x, kernel, transformed), x, kernel)
        return y, *vjp(back)

    fast = both(x, kernel, winograd.transform(kernel))
    for mine, theirs in zip(fast, both(x, kernel, None), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=4e-6 * float(abs(theirs).max()))


def test_a_run_uses_it_and_keeps_to_the_objective(make_network, make_image, monkeypatch):
    """Loss and gradient are those of the direct convolutions to float precision."""
    network = make_network(blocks=2, widths=(64, 72))
    recipe = jaxstyle.Recipe(
        size=0,
        scales=1,
        content_layers="relu2_1",
        style_layers="relu1_1,relu2_2",
        style_loss=STYLE_LOSS,
        variation="absolute",
        tv_weight=1e-3,
    )
    images = make_image(38, 34), make_image(32, 32, seed=1)
    problem = jaxstyle.prepare(*images, recipe=recipe, network=network)
    assert not problem.network.transformed
    fast = add_winograd_kernels(network, ["relu2_2"], 38, 34)
    assert set(fast.transformed) == {"conv1_2", "conv2_1", "conv2_2"}
    assert set(add_winograd_kernels(network, ["relu2_1"], 24, 24).transformed) == {"conv1_2"}
    assert not add_winograd_kernels(network, ["relu2_2"], 38, 34, platform="gpu").transformed

    def first(iterates):
        point = next(iterates).carry.state.point
        return float(point.value), np.asarray(point.grad)

    seen = []
    chosen = convolution.use_winograd
    monkeypatch.setattr(convolution, "use_winograd", lambda *a: seen.append(a) or chosen(*a))
    value, gradient = first(jaxstyle.iterates(problem))
    assert sum(chosen(*a) for a in seen) >= 6, "three convolutions, forward and backward"
    jax.clear_caches()
    monkeypatch.setattr(convolution, "use_winograd", lambda *a: False)
    expected, expected_gradient = first(jaxstyle.iterates(problem))
    assert value == pytest.approx(expected, rel=1e-5)
    scale = abs(expected_gradient).max()
    np.testing.assert_allclose(gradient, expected_gradient, atol=2e-5 * scale)


def test_a_tile_with_its_margin_decides(make_network, make_image):
    """A map too large for 64 channels is not, in tiles."""
    network = make_network(blocks=1, widths=(64,))
    recipe = jaxstyle.Recipe(
        size=0, content_layers="relu1_2", style_layers="relu1_1", style_loss=STYLE_LOSS
    )
    image = make_image(140, 130)
    for tile, transformed in ((0, set()), (64, {"conv1_2"})):
        tiled = dataclasses.replace(recipe, tile=tile)
        problem = jaxstyle.prepare(image, image, recipe=tiled, network=network)
        assert set(common_arguments(problem)[0][0].transformed) == transformed
