"""The constants that the objective compares an image with."""

from typing import Any, NamedTuple

import jax

JOINT = "joint"
"""Key in the place of a layer, for style losses that take the layers together."""


class StyleTargets(NamedTuple):
    """Targets of the style loss at one resolution of the image pyramid."""

    style: dict[str, Any]
    """Statistics by layer, as in `Targets`."""
    regions: dict[str, jax.Array] | None = None
    """Region masks by layer, as in `Targets`."""


class Targets(NamedTuple):
    """The constants of a run's objective, an argument of the compiled programs."""

    content: dict[str, jax.Array]
    """Features of the content image by layer, P_l `[h, w, c]`; empty without the content loss
    `features`."""
    style: dict[str, Any]
    """Statistics of the style images by layer: for the Gram loss A_l, `[c, c]`. With region masks,
    a tuple of the statistics of each region. For a loss that takes the layers together, one entry
    `JOINT`."""
    content_weights: dict[str, jax.Array] | None = None
    """The content mask at each content layer, `[h, w, 1]`."""
    regions: dict[str, jax.Array] | None = None
    """The region masks at each style layer, `[h, w, r]`, each with a mean of 1."""
    region_weights: jax.Array | None = None
    """Factor a_r · b_r of each region's style loss, `[r]`."""
    coarse: tuple[StyleTargets, ...] = ()
    """Style targets at the lower resolutions of the image pyramid, each half of the previous
    one."""
    structure: dict[str, jax.Array] | None = None
    """Descriptors of the other content losses, by name (`content`)."""
