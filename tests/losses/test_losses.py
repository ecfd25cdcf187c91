"""The losses against numpy in float64, their gradients and their invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxstyle import content_loss, gram_matrix, style_loss, total_variation

H, W, C = 5, 7, 4


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def numpy_content(f, p):
    return np.mean((f.astype(float) - p) ** 2)


def numpy_gram(f):
    flat = f.astype(float).reshape(-1, f.shape[-1])
    return flat.T @ flat / flat.size


def numpy_tv(x):
    total, (h, w, c) = 0.0, x.shape
    for i in range(h):
        for j in range(w):
            for k in range(c):
                if i + 1 < h:
                    total += abs(float(x[i + 1, j, k]) - float(x[i, j, k]))
                if j + 1 < w:
                    total += abs(float(x[i, j + 1, k]) - float(x[i, j, k]))
    return total


CASES = {
    "content": (content_loss, numpy_content, (random(H, W, C), random(H, W, C, seed=1))),
    "gram": (gram_matrix, numpy_gram, (random(H, W, C),)),
    "style": (style_loss, numpy_content, (random(C, C), random(C, C, seed=1))),
    "tv": (total_variation, numpy_tv, (random(H, W, 3),)),
}
every_loss = pytest.mark.parametrize(
    ("function", "expected", "arguments"), CASES.values(), ids=CASES.keys()
)


@every_loss
def test_value_eager_and_jitted(function, expected, arguments):
    for variant in (function, jax.jit(function)):
        value = variant(*arguments)
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, expected(*arguments), rtol=2e-6, atol=1e-7)


@every_loss
def test_half_precision_features_are_summed_in_float32(function, expected, arguments):
    half = [jnp.asarray(a, jnp.bfloat16) for a in arguments]
    value = function(*half)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(
        value, expected(*(np.asarray(a, np.float32) for a in half)), rtol=2e-2, atol=1e-2
    )


@every_loss
def test_gradient_matches_finite_differences(function, expected, arguments, x64):
    with x64():
        # Large values keep a small step off the kinks of the absolute differences.
        scale = 100 if function is total_variation else 1
        doubles = [scale * np.asarray(a, float) for a in arguments]
        weights = random(C, C, seed=9) if function is gram_matrix else 1.0
        # The sums are float32 by design, which bounds what a difference can show.
        check_grads(
            lambda *a: jnp.sum(function(*a) * weights), doubles, 1, ["rev"], 2e-2, 2e-2, eps=1e-2
        )


@every_loss
def test_gradient_by_hand(function, expected, arguments):
    grad = jax.grad(lambda first, *rest: jnp.sum(function(first, *rest)))(*arguments)
    first = arguments[0].astype(float)
    if function is gram_matrix:
        hand = 2 * first.sum(-1, keepdims=True) / first.size + 0 * first
    elif function is total_variation:
        hand = np.zeros_like(first)
        for axis in (0, 1):
            sign = np.sign(np.diff(first, axis=axis))
            before, after = [(0, 0)] * 3, [(0, 0)] * 3
            before[axis], after[axis] = (1, 0), (0, 1)
            hand += np.pad(sign, before) - np.pad(sign, after)
    else:
        hand = 2 * (first - arguments[1]) / first.size
    np.testing.assert_allclose(grad, hand, rtol=1e-5, atol=1e-6)


@every_loss
def test_vmap_equals_a_loop(function, expected, arguments):
    batches = [np.stack([a, 2 * a, a - 1]) for a in arguments]
    loop = [function(*element) for element in zip(*batches, strict=True)]
    np.testing.assert_allclose(jax.vmap(function)(*batches), np.stack(loop), rtol=1e-6, atol=1e-7)


@every_loss
def test_nothing_is_lost_to_low_precision(function, expected, arguments):
    text = str(jax.make_jaxpr(function)(*arguments))
    assert "bf16" not in text
    if function is gram_matrix:
        assert "HIGHEST" in text


def test_equal_images_cost_nothing():
    f = random(H, W, C)
    assert content_loss(f, f) == 0 and style_loss(gram_matrix(f), gram_matrix(f)) == 0
    assert total_variation(jnp.ones((H, W, 3))) == 0


def test_values_by_hand():
    assert content_loss(jnp.zeros((1, 2, 1)), jnp.array([[[3.0], [1.0]]])) == 5
    # Two positions of two channels: FᵀF = [[10, 14], [14, 20]], divided by 4.
    f = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])
    np.testing.assert_allclose(gram_matrix(f), [[2.5, 3.5], [3.5, 5.0]])
    assert style_loss(jnp.zeros((2, 2)), jnp.array([[1.0, 0.0], [0.0, 3.0]])) == 2.5
    x = jnp.array([[[0.0], [2.0]], [[5.0], [1.0]]])
    assert total_variation(x) == 5 + 1 + 2 + 4


def test_gram_forgets_where_features_are():
    f = random(6, 4, C)
    shuffled = np.random.default_rng(3).permutation(f.reshape(-1, C)).reshape(4, 6, C)
    np.testing.assert_allclose(gram_matrix(shuffled), gram_matrix(f), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(gram_matrix(f), gram_matrix(f).T)
    assert (np.linalg.eigvalsh(np.asarray(gram_matrix(f), float)) > -1e-6).all()


def test_gram_does_not_depend_on_the_images_size():
    f = random(H, W, C)
    np.testing.assert_allclose(gram_matrix(np.tile(f, (3, 2, 1))), gram_matrix(f), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_scaling(scale):
    f, p = random(H, W, C), random(H, W, C, seed=1)
    np.testing.assert_allclose(
        content_loss(scale * f, scale * p), scale**2 * content_loss(f, p), 1e-5
    )
    np.testing.assert_allclose(gram_matrix(scale * f), scale**2 * gram_matrix(f), 1e-5)
    np.testing.assert_allclose(total_variation(scale * f), scale * total_variation(f), 1e-5)


class TestEquivalences:
    """Other programs' style terms, as multiples of ours for one layer."""

    f, p = random(H, W, C).astype(float), random(3, 11, C, seed=1).astype(float)

    @property
    def ours(self):
        return float(style_loss(gram_matrix(self.f), gram_matrix(self.p)))

    def test_gatys_2016(self):
        p = random(H, W, C, seed=1).astype(float)
        m = H * W
        g, a = (x.reshape(m, C).T @ x.reshape(m, C) for x in (self.f, p))
        e = np.sum((g - a) ** 2) / (4 * C**2 * m**2)
        ours = style_loss(gram_matrix(self.f), gram_matrix(p))
        np.testing.assert_allclose(e, C**2 / 4 * ours, rtol=1e-5)
        content = 0.5 * np.sum((self.f - p) ** 2)
        np.testing.assert_allclose(content, self.f.size / 2 * content_loss(self.f, p), rtol=1e-5)

    def test_gatys_notebook(self):
        def gram(x):
            return x.reshape(-1, C).T @ x.reshape(-1, C) / (x.shape[0] * x.shape[1])

        notebook = 1e3 / C**2 * np.mean((gram(self.f) - gram(self.p)) ** 2)
        np.testing.assert_allclose(notebook, 1e3 * self.ours, rtol=1e-5)

    def test_neural_style(self):
        def gram(x):
            return x.reshape(-1, C).T @ x.reshape(-1, C) / x.size

        np.testing.assert_allclose(
            100 * np.mean((gram(self.f) - gram(self.p)) ** 2), 100 * self.ours, rtol=1e-5
        )

    def test_gordic_sums_the_squares(self):
        # 6000·C²·ms: the sum over C² entries in place of their mean.
        def gram(x):
            return x.reshape(-1, C).T @ x.reshape(-1, C) / x.size

        total = 6000 * np.sum((gram(self.f) - gram(self.p)) ** 2)
        np.testing.assert_allclose(total, 6000 * C**2 * self.ours, rtol=1e-5)
