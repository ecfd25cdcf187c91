"""The style images that the project paints itself."""

import numpy as np
import pytest

from jaxstyle.images.painted import PALETTES, paint


@pytest.mark.parametrize("palette", PALETTES)
def test_equal_arguments_give_equal_images(palette):
    image = paint(40, 56, seed=3, palette=palette)
    assert image.shape == (40, 56, 3) and image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1
    np.testing.assert_array_equal(image, paint(40, 56, seed=3, palette=palette))
    assert np.abs(image - paint(40, 56, seed=4, palette=palette)).mean() > 0.02


def test_palettes_differ():
    images = [paint(40, 40, palette=palette) for palette in PALETTES]
    assert np.abs(images[0] - images[1]).mean() > 0.1 < np.abs(images[1] - images[2]).mean()
