"""Tests for divergence of a run."""

import numpy as np

EXPLOSION = 1e4
"""Multiple of the initial loss. Adam at a rate of 1, far too high, passes 200 and comes back; at 10
it passes 80000 within three steps and does not."""
OVERSHOOTING = ("lbfgs-fixed",)
"""Optimizers whose first steps may pass any multiple and come back: full L-BFGS steps without a
line search overshoot in the second step, by up to 6e8 times the first loss."""


def divergence_bound(optimizer: str) -> float:
    """Return the multiple of the initial loss at which a run is stopped."""
    return np.inf if optimizer in OVERSHOOTING else EXPLOSION


def ended_above(losses: np.ndarray) -> bool:
    """Return whether a complete run diverged without being stopped.

    It did if its last loss exceeds the bound, or exceeds the first loss and no loss was below the
    first. Where values are kept in [0, 1] (`pixel_range`) no loss explodes: too high a rate drives
    the image to black and white, where it stays.

    Args:
      losses: of one image, from the start to the last step, `[steps + 1]`.
    """
    # Python's floats: a multiple of a float32 loss may be beyond float32.
    start, end = float(losses[0]), float(losses[-1])
    return bool(end > start == losses.min() or (start > 0 and end > EXPLOSION * start))


def diverged(initial: np.ndarray, losses: np.ndarray, *, bound: float = EXPLOSION) -> np.ndarray:
    """Return for each image of a batch whether a loss is not finite or has exploded.

    Args:
      initial: loss of the start, `[...]`; with 0 only what is not finite counts.
      losses: of some steps, `[..., steps]`.
      bound: multiple of the initial loss (`divergence_bound`).

    Returns:
      bool `[...]`.
    """
    initial = np.asarray(initial, np.float64)
    largest = np.full_like(initial, np.inf)
    if np.isfinite(bound):
        largest = np.where(initial > 0, bound * initial, np.inf)
    return np.any(~np.isfinite(losses) | (losses > largest[..., None]), -1)
