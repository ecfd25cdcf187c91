"""When a descent has gone wrong for good."""

import numpy as np

EXPLOSION = 1e4
"""Times the initial loss. Adam at a rate of 1, far too high, passes 200 times and comes back; at
10 it passes 80000 times within three steps and does not."""


def only_rose(losses: np.ndarray) -> bool:
    """Say whether a run that has made all its steps ended above its start and was never below it.

    Where values are kept in [0, 1] (`bounds`) nothing explodes: too high a rate drives the image
    to black and white, where it stays.

    Args:
      losses: of one batch element, from the start to the last step, `[steps + 1]`.
    """
    return bool(losses[-1] > losses[0] == losses.min())


def diverged(initial: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Say of each batch element whether one of its losses is not finite or has exploded.

    Args:
      initial: loss of the start, `[...]`; 0 is no measure, then only what is not finite counts.
      losses: of some steps, `[..., steps]`.

    Returns:
      bool `[...]`.
    """
    bound = np.where(initial > 0, EXPLOSION * np.asarray(initial, np.float64), np.inf)
    return np.any(~np.isfinite(losses) | (losses > bound[..., None]), -1)
