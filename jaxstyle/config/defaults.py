"""Default values that depend on the network or the optimizer; style losses define their own."""

from typing import TYPE_CHECKING, NamedTuple

from jaxstyle.config.layers import stride

if TYPE_CHECKING:
    from jaxstyle.nn.network import Network

# Step sizes in units of the image (0..1), chosen on the default objective.
DEFAULT_LEARNING_RATES: dict[str, float] = {
    "adam": 0.02,
    "rmsprop": 0.005,
    "momentum": 1e-5,
    "sgd": 1e-5,
}
DEFAULT_HISTORY_SIZE = 20
WIDE_HISTORY_SIZE = 50
"""Of networks as wide as VGG, beside whose activations 50 pairs are small: the loss after 100
evaluations is up to 5 % lower than with 20. More pairs gain less; narrow networks gain nothing."""
WIDE_NETWORK = 150
"""Activations per pixel, summed over all layers, from which a network counts as wide."""
MIN_HISTORY_SIZE = 5
"""Least history size chosen to save memory; with fewer pairs L-BFGS is much slower."""
MAX_HISTORY_SIZE = 1000
"""Largest history size; the inner products of all pairs are stored, so that memory is quadratic."""
MAX_SCALES = 16
SCALE_SIDE = 256
"""Least longer side, in pixels, of the smallest scale."""
DEFAULT_MARGIN = 8
"""Least number of mirrored pixels beyond each edge; sides become multiples of 16."""
PYRAMID_SIDE = 128
"""Least longer side, in pixels, of the coarsest resolution of the image pyramid."""
DEFAULT_STRENGTH = 0.5
STRENGTH_EXPONENTS = 4.0, 5.0
"""Exponents of `style_factor` below and above the default strength, chosen on two pairs so that
equal differences of the strength look more equal than with one exponent (`docs/quality.md`)."""


def default_history_size(network: "Network") -> int:
    """Return the default number of L-BFGS pairs for a network."""
    activations = sum(network.channels(layer) / stride(layer) ** 2 for layer in network.layers)
    return WIDE_HISTORY_SIZE if activations >= WIDE_NETWORK else DEFAULT_HISTORY_SIZE


class TermDefaults(NamedTuple):
    """Default weights of the content loss and of the total variation for one kind of network."""

    content_weight: float
    tv_weight: float


# By whether the network is normalized to a mean activation of 1. Chosen at 512 pixels on several
# pairs (`experiments/quality`), for a total variation that is a mean of squares: a sum would have a
# larger effect in larger images and turn their skies gray. Other networks have the weights of
# neural-style, without its total variation. The style losses define the style weights.
TERM_DEFAULTS: dict[bool, TermDefaults] = {
    True: TermDefaults(3.5, 4e-4),
    False: TermDefaults(5.0, 0.0),
}


def style_factor(strength: float) -> float:
    """Return the factor of the default style weight for a strength in [0, 1].

    0 at 0, 1 at the default and 32 at 1.

    Example:
      >>> style_factor(0.5)
      1.0
    """
    below, above = STRENGTH_EXPONENTS
    ratio = strength / DEFAULT_STRENGTH
    return ratio ** (below if ratio < 1 else above)
