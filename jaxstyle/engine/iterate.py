"""What a run yields between chunks of steps, and the state from which it can be resumed."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxstyle.losses.objective import Terms


class History(NamedTuple):
    """The objective after each step, arrays `[steps + 1]` or, in a batch, `[k, steps + 1]`."""

    step: np.ndarray
    """Number of steps, `[steps + 1]`; 0 is the initial image."""
    loss: np.ndarray
    """The sum of the terms."""
    content: np.ndarray
    """The weighted content term, as in `Terms`."""
    style: np.ndarray
    """The weighted style term."""
    tv: np.ndarray
    """The weighted total variation."""


class Iterate(NamedTuple):
    """State of a run between chunks. In a batch every array has the batch axis first."""

    step: int
    """Number of steps so far, over all scales."""
    image: jax.Array | np.ndarray
    """The best image so far, RGB `[h, w, 3]`, clipped to [0, 1]; the average so far if
    `Recipe.average` is set. On the host if several devices share one image."""
    loss: np.ndarray
    """Loss of the best image so far, before clipping."""
    terms: Terms
    """Terms of that loss."""
    evaluations: np.ndarray
    """Evaluations of the objective and its gradient so far."""
    history: History
    """History of the steps since the last iterate."""
    compile_seconds: float
    """Seconds of tracing and compiling since the last iterate."""
    run_seconds: float
    """Seconds of running since the last iterate."""
    carry: Any = None
    """State on the device; valid until the generator is resumed (`run_state` copies it)."""


class RunState(NamedTuple):
    """State of a run between two chunks, on the host, from which it can be resumed."""

    step: int
    """Number of steps so far, over all scales."""
    carry: Any
    """State of the optimizer and best point, with the shapes and types of `carry_shapes`."""
    history: History
    """History from step 0."""
    compile_seconds: float
    """Seconds of tracing and compiling so far."""
    run_seconds: float
    """Seconds of running so far."""


def run_state(collected: Sequence[Iterate]) -> RunState:
    """Return a run's state on the host, from which it can be resumed.

    Args:
      collected: the iterates so far, in order; the last one with its `carry`.
    """
    joined = [
        np.concatenate(parts, -1) for parts in zip(*(i.history for i in collected), strict=True)
    ]
    return RunState(
        step=collected[-1].step,
        carry=jax.device_get(collected[-1].carry),
        history=History(*joined),
        compile_seconds=sum(i.compile_seconds for i in collected),
        run_seconds=sum(i.run_seconds for i in collected),
    )
