"""The pairs of photograph and painting that recipes are compared on."""

from pathlib import Path

import numpy as np

from jaxstyle import images
from jaxstyle.images.painted import paint
from jaxstyle.images.samples import PHOTOGRAPHS, load_photograph

PAIRS = (
    ("tubingen", "starry_night"),
    ("tubingen", "the_scream"),
    ("tubingen", "shipwreck"),
    ("tubingen", "seated-nude"),
    ("golden_gate", "starry_night"),
    ("golden_gate", "the_scream"),
    ("golden_gate", "shipwreck"),
    ("cat", "night"),
    ("astronaut", "hills"),
)
"""Photograph and painting; names of files, of scikit-image's photographs, or of `PAINTED`."""
PAINTED = {"night": 0, "hills": 3}
"""Styles that the project paints itself, by their seed."""


def load(name: str, folder: Path | None) -> np.ndarray:
    """Load an image by name, RGB `[h, w, 3]` in [0, 1].

    Args:
      name: of a pair.
      folder: holds the files of the pairs that are neither scikit-image's nor painted.
    """
    if name in PAINTED:
        return paint(1024, 1024, seed=PAINTED[name])
    if name in PHOTOGRAPHS:
        return load_photograph(name)
    if folder is None:
        raise SystemExit(f"{name}: give the folder that holds {name}.jpg as --images")
    return images.load_image(folder / f"{name}.jpg")
