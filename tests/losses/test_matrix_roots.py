"""Polar factors, and the trace of the root of two covariance matrices, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxstyle.losses.matrix_roots import polar_factor
from jaxstyle.losses.wasserstein import (
    LEAST_EIGENVALUE,
    RIDGE,
    root_trace,
    root_trace_by_products,
    root_trace_by_svd,
)

METHODS = (root_trace_by_svd, root_trace_by_products)


def matrix(size, *, decades, seed=0):
    """Return a matrix with singular values from 1 to 10^-decades."""
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(2))
    return (left * np.logspace(0, -decades, size)) @ right


def covariance(size, *, seed):
    """Return a covariance matrix with eigenvalues from 1e2 to RIDGE, as of features."""
    factor = matrix(size, decades=3, seed=seed) * 10
    return factor @ factor.T


def reference(a, b):
    """Return the trace of (b^½ a b^½)^½ and its derivative, in float64."""
    root = scipy.linalg.sqrtm(b).real
    product = scipy.linalg.sqrtm(root @ a @ root).real
    return np.trace(product), root @ np.linalg.inv(product) @ root / 2


@pytest.mark.parametrize("decades", [0, 2, 4, 6])
def test_polar_factors(decades):
    a = matrix(24, decades=decades)
    ours = jax.jit(polar_factor)(jnp.asarray(3e3 * a, jnp.float32))
    expected = scipy.linalg.polar(a)[0]
    # Rounding of float32 is amplified by the condition.
    np.testing.assert_allclose(ours, expected, atol=3e-4 + 1e-7 * 10**decades)
    np.testing.assert_allclose(ours, jnp.linalg.inv(ours).T, atol=3e-4 + 2e-7 * 10**decades)


def test_the_polar_factor_of_0_is_0():
    np.testing.assert_array_equal(polar_factor(jnp.zeros((3, 3))), 0)


@pytest.mark.parametrize("method", METHODS)
def test_the_trace_and_its_derivative(method):
    a, b = (covariance(32, seed=seed) for seed in (1, 2))
    root = jnp.asarray(scipy.linalg.sqrtm(b).real, jnp.float32)
    value, slope = jax.jit(method)(jnp.asarray(a, jnp.float32), root)
    assert value == pytest.approx(reference(a, b)[0], rel=3e-4)
    expected, of_a = reference(a + LEAST_EIGENVALUE * np.trace(a) * np.eye(32), b)
    assert value == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(slope, of_a, atol=1e-2 * abs(of_a).max())


@pytest.mark.parametrize("method", METHODS)
def test_vmap_is_a_loop(method):
    several = jnp.asarray([covariance(16, seed=seed) for seed in range(3)], jnp.float32)
    root = jnp.asarray(scipy.linalg.sqrtm(covariance(16, seed=5)).real, jnp.float32)
    values, slopes = jax.jit(jax.vmap(method, (0, None)))(several, root)
    for a, value, slope in zip(several, values, slopes, strict=True):
        alone, of_a = method(a, root)
        assert value == pytest.approx(float(alone), rel=1e-5)
        np.testing.assert_allclose(slope, of_a, atol=2e-3 * abs(of_a).max())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("positions", [3, 40])
def test_covariances_of_few_positions(method, positions):
    """Singular but for the ridge, as in coarse layers of small images."""
    rng = np.random.default_rng(0)
    features = np.maximum(rng.normal(size=(positions, 64)), 0) * rng.lognormal(0, 2, 64)
    a = np.cov(features.T, bias=True) + RIDGE * np.eye(64)
    root = jnp.asarray(scipy.linalg.sqrtm(covariance(64, seed=1)).real, jnp.float32)
    value, slope = method(jnp.asarray(a, jnp.float32), root)
    a += LEAST_EIGENVALUE * np.trace(a) * np.eye(64)
    assert value == pytest.approx(reference(a, np.asarray(root, float) @ root)[0], rel=1e-3)
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_map(method):
    value, slope = method(jnp.zeros((3, 3)), jnp.zeros((3, 3)))
    assert value == 0 and np.isfinite(slope).all()


def test_the_method_is_chosen_where_the_program_is_lowered():
    shape = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    traced = jax.jit(root_trace).trace(shape, shape)
    on_cpu, on_tpu = (traced.lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu"))
    assert "gesdd" in on_cpu and "gesdd" not in on_tpu


def test_batches_on_a_cpu_have_no_batched_decomposition():
    """Several of these at a time deadlock in jaxlib, if they occupy all threads of the CPU."""
    batch, root = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3, 4, 4), (4, 4)))
    text = jax.jit(jax.vmap(root_trace, (0, None))).lower(batch, root).as_text()
    calls = [line for line in text.splitlines() if "custom_call" in line and "lapack" in line]
    svd = [line for line in calls if "gesdd" in line]
    assert svd and all("tensor<4x4xf32>" in line and "tensor<3x4x4" not in line for line in svd)
