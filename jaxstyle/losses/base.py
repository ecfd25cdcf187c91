"""What a style loss is: statistics of a feature map and a distance between them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

EXACT = lax.Precision.HIGHEST


def weighted_mean(targets: Sequence[Any], shares: Sequence[float]) -> Any:
    """Return the weighted mean of statistics that are means over positions."""
    if len(targets) == 1:
        # Its share is 1: nothing to compile, for every shape of a layer, at the start of a run.
        return targets[0]
    return jax.tree.map(
        lambda *leaves: sum(share * leaf for share, leaf in zip(shares, leaves, strict=True)),
        *targets,
    )


class StyleLoss(NamedTuple):
    """One notion of style."""

    statistics: Callable[..., Any]
    distance: Callable[[Any, Any], jax.Array]
    is_mean_over_positions: bool = True
    """Whether the statistics are means over positions."""
    blend: Callable[[Sequence[Any], Sequence[float]], Any] = weighted_mean
    """`(statistics of several styles, their shares, which sum to 1) -> statistics`."""


def mean_over_positions(features: jax.Array, weights: jax.Array | None) -> jax.Array:
    weighted = features if weights is None else weights * features
    return jnp.mean(weighted, (0, 1), dtype=jnp.float32)
