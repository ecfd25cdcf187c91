"""Tests for divergence of a run."""

import numpy as np

EXPLOSION = 1e4
"""Multiple of the initial loss at which a run has diverged. With Adam at a learning rate of 1, far
too high, the loss exceeds 200 times the initial one and decreases again; at a rate of 10 it exceeds
80000 times within three steps and does not."""
OVERSHOOTING = ("lbfgs-fixed",)
"""Optimizers whose loss may exceed any multiple in the first steps and decrease again: full L-BFGS
steps without a line search overshoot in the second step, by up to 6e8 times the first loss."""


def divergence_bound(optimizer: str) -> float:
    """Return the multiple of the initial loss at which a run is stopped."""
    return np.inf if optimizer in OVERSHOOTING else EXPLOSION


def ended_above(losses: np.ndarray) -> bool:
    """Return whether a complete run diverged without being stopped.

    It did if its last loss exceeds `EXPLOSION` times the first one, or exceeds the first loss and
    no loss was below it. With values kept in [0, 1] (`pixel_range`) no loss explodes: too high a
    learning rate drives the image to black and white, where it stays.

    Args:
      losses: losses of one image, from the initial one to the last, `[steps + 1]`.
    """
    # Python floats: a multiple of a float32 loss may exceed the range of float32.
    start, end = float(losses[0]), float(losses[-1])
    return bool(end > start == losses.min() or (start > 0 and end > EXPLOSION * start))


def diverged(initial: np.ndarray, losses: np.ndarray, *, bound: float = EXPLOSION) -> np.ndarray:
    """Return for each image of a batch whether its loss is not finite or has exploded.

    Args:
      initial: initial losses, `[...]`; for a loss of 0 only values that are not finite count.
      losses: losses of some steps, `[..., steps]`.
      bound: multiple of the initial loss (`divergence_bound`).

    Returns:
      bool `[...]`.
    """
    initial = np.asarray(initial, np.float64)
    largest = np.full_like(initial, np.inf)
    if np.isfinite(bound):
        largest = np.where(initial > 0, bound * initial, np.inf)
    return np.any(~np.isfinite(losses) | (losses > largest[..., None]), -1)
