"""Sample photographs from scikit-image."""

from typing import NamedTuple

import numpy as np

from jaxstyle.errors import JaxstyleError
from jaxstyle.images.array import Array


class Photograph(NamedTuple):
    """A free photograph in scikit-image's wheel."""

    name: str
    """Name of the function in `skimage.data`, whose docstring has the source of the photograph."""
    credit: str
    """Author and license."""


PHOTOGRAPHS = {
    "cat": Photograph("chelsea", "Stéfan van der Walt, CC0"),
    "coffee": Photograph("coffee", "Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0"),
    "astronaut": Photograph("astronaut", "NASA Great Images, public domain"),
    "rocket": Photograph("rocket", "SpaceX, public domain"),
}


def load_photograph(name: str) -> Array:
    """Return a photograph of `PHOTOGRAPHS`, RGB `[h, w, 3]` in [0, 1].

    Raises:
      JaxstyleError: scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError:
        raise JaxstyleError(
            "the sample photographs come with scikit-image, which is not installed; "
            "`pip install 'jaxstyle[demo]'`"
        ) from None
    image = getattr(data, PHOTOGRAPHS[name].name)()
    return np.asarray(image / 255, np.float32)
