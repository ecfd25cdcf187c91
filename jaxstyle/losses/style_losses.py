"""Style losses by name, as in `Recipe.style_loss`."""

from jaxstyle.losses.base import StyleLoss
from jaxstyle.losses.covariance import COVARIANCE
from jaxstyle.losses.gram import GRAM
from jaxstyle.losses.moments import MOMENTS
from jaxstyle.losses.neural_neighbor import NEURAL_NEIGHBOR
from jaxstyle.losses.patches import PATCHES
from jaxstyle.losses.remd import REMD
from jaxstyle.losses.sliced_wasserstein import SLICED_WASSERSTEIN
from jaxstyle.losses.wasserstein import ITERATED_WASSERSTEIN, WASSERSTEIN

STYLE_LOSSES: dict[str, StyleLoss] = {
    "gram": GRAM,
    "covariance": COVARIANCE,
    "moments": MOMENTS,
    "wasserstein": WASSERSTEIN,
    "wasserstein-newton-schulz": ITERATED_WASSERSTEIN,
    "sliced-wasserstein": SLICED_WASSERSTEIN,
    "patches": PATCHES,
    "remd": REMD,
    "neural-neighbor": NEURAL_NEIGHBOR,
}
"""Style losses by the value of `Recipe.style_loss`."""
