"""Color mathematics against NumPy."""

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from jaxstyle.images import color_transfer

RNG = np.random.default_rng(1)
LUMA = np.array(color_transfer.LUMA)
images = arrays.arrays(np.float32, (2, 3, 3), elements=st.floats(0, 1, width=32))


def test_luminance_is_that_of_rec_601():
    image = RNG.random((4, 5, 3))
    np.testing.assert_allclose(color_transfer.luminance(image), image @ LUMA, rtol=1e-5)
    assert LUMA.sum() == pytest.approx(1) and color_transfer.gray(image).shape == (4, 5, 3)


TINY = np.full((2, 3, 3), 1e-45, np.float32)
TINY[0, 0, 0] = 0


@settings(deadline=None)
@given(images, images)
@example(np.zeros_like(TINY), TINY)
def test_chroma_comes_back_and_the_luminance_stays(image, content):
    found = np.asarray(color_transfer.with_chroma(image, content))
    assert found.min() >= 0 and found.max() <= 1
    np.testing.assert_allclose(found @ LUMA, image @ LUMA, atol=2e-6)
    # The hue is the content's: chroma along one ray, never the opposite one.
    mine, theirs = found - (found @ LUMA)[..., None], content - (content @ LUMA)[..., None]
    assert (mine * theirs).sum() >= -1e-5
    np.testing.assert_allclose(np.cross(mine, theirs), 0, atol=1e-5)


def test_an_image_with_its_own_chroma_is_itself():
    image = RNG.random((6, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(color_transfer.with_chroma(image, image), image, atol=1e-6)


def test_the_luminance_has_the_contents_mean_and_deviation():
    style, content = RNG.random((9, 8, 3)), 0.3 + 0.2 * RNG.random((5, 7, 3))
    found = np.asarray(color_transfer.match_luminance(style, content))
    np.testing.assert_allclose(found[..., 0], found[..., 2])
    theirs = content @ LUMA
    np.testing.assert_allclose(
        [found.mean(), found.std()], [theirs.mean(), theirs.std()], rtol=1e-4
    )
    assert np.corrcoef(found[..., 0].ravel(), (style @ LUMA).ravel())[0, 1] > 0.9999


def test_cholesky_matches_mean_and_covariance():
    mix = np.array([[0.1, 0.02, 0], [0.05, 0.08, 0.01], [0.03, 0.02, 0.06]])
    style, content = RNG.random((40, 30, 3)), 0.5 + RNG.normal(size=(30, 50, 3)) @ mix.T * 0.5
    found = np.asarray(color_transfer.match_cholesky(style, content)).reshape(-1, 3)
    wanted = content.reshape(-1, 3)
    np.testing.assert_allclose(found.mean(0), wanted.mean(0), atol=1e-3)
    np.testing.assert_allclose(np.cov(found.T), np.cov(wanted.T), atol=2e-4)


def test_histograms_become_the_contents():
    style, content = RNG.random((12, 10, 3)), RNG.random((12, 10, 3)) ** 2
    found = np.asarray(color_transfer.match_histogram(style, content))
    for k in range(3):
        np.testing.assert_allclose(
            np.sort(found[..., k], None), np.sort(content[..., k], None), atol=1e-5
        )
        assert (np.argsort(found[..., k], None) == np.argsort(style[..., k], None)).all()


def test_equal_values_stay_equal():
    style = np.where(RNG.random((8, 8, 3)) < 0.5, 0.25, 0.75)
    for match in (
        color_transfer.match_histogram,
        color_transfer.match_cholesky,
        color_transfer.match_luminance,
    ):
        found = np.asarray(match(style, RNG.random((6, 6, 3))))
        rounded = {tuple(np.round(pixel, 4)) for pixel in found.reshape(-1, 3)}
        assert len(rounded) <= 8


@pytest.mark.parametrize("name", color_transfer.MATCHES)
def test_jit_is_eager_and_flat_images_are_fine(name):
    match = color_transfer.MATCHES[name]
    style, content = RNG.random((7, 6, 3)), RNG.random((5, 6, 3))
    np.testing.assert_allclose(jax.jit(match)(style, content), match(style, content), atol=1e-4)
    flat = np.full((4, 4, 3), 0.5, np.float32)
    assert np.isfinite(match(flat, content)).all() and np.isfinite(match(style, flat)).all()
