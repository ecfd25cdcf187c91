"""A preconditioner for L-BFGS from the spectrum of images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxstyle.nn.sharding import SpatialSharding

EXPONENT = 0.6
"""Found on the default objective: 0.4 to 0.7 were about as good."""
Preconditioner = Callable[[jax.Array], jax.Array]


def spectrum(x: jax.Array) -> jax.Array:
    """Return an image `[h, w, c]` whose frequencies f are multiplied by f**-0.6.

    Images, and so the steps between two of them, have amplitudes that fall with the
    frequency f (Field, Relations between the statistics of natural images and the response
    properties of cortical cells, 1987), while a gradient through a network is full of high
    ones. As a preconditioner this equals optimizing Fourier coordinates that are scaled by
    f**-0.3 (Olah et al., Feature Visualization, 2017, go to f**-1). The constant part is
    weighed as the lowest frequency. Linear, symmetric and positive definite.
    """
    h, w, _ = x.shape
    coefficients = jnp.fft.rfft2(x, axes=(0, 1)) * _gain(h, w)[..., None]
    return jnp.fft.irfft2(coefficients, s=(h, w), axes=(0, 1)).astype(x.dtype)


def _gain(h: int, w: int) -> jax.Array:
    """Return the gain of each coefficient of `rfft2`, `[h, w // 2 + 1]`."""
    frequency = jnp.hypot(jnp.fft.fftfreq(h)[:, None], jnp.fft.rfftfreq(w)[None])
    frequency = jnp.maximum(frequency, 1 / max(h, w))
    # 1 at the highest frequency of a row or column.
    return (frequency / 0.5) ** -EXPONENT


def spectrum_of_rows(rows: SpatialSharding) -> Preconditioner:
    """Return `spectrum` for an image sharded by rows, whose padding stays 0.

    Each device transforms its rows, exchanges them for columns, transforms these, and back: a
    device never has more than its part of the image.
    """
    count = len(rows.mesh.devices)

    def weigh(x: jax.Array) -> jax.Array:
        _, w, _ = x.shape
        frequencies = w // 2 + 1
        added = -frequencies % count
        gain = jnp.pad(_gain(rows.height, w), ((0, 0), (0, added)))[..., None]

        def of_part(x: jax.Array, gain: jax.Array) -> jax.Array:
            along = jnp.pad(jnp.fft.rfft(x, axis=1), ((0, 0), (0, added), (0, 0)))
            columns = lax.all_to_all(along, "rows", split_axis=1, concat_axis=0, tiled=True)
            columns = jnp.fft.fft(columns[: rows.height], axis=0) * gain
            columns = jnp.fft.ifft(columns, axis=0)
            columns = jnp.pad(columns, ((0, rows.padded - rows.height), (0, 0), (0, 0)))
            along = lax.all_to_all(columns, "rows", split_axis=0, concat_axis=1, tiled=True)
            return jnp.fft.irfft(along[:, :frequencies], n=w, axis=1).astype(x.dtype)

        return jax.shard_map(
            of_part,
            mesh=rows.mesh,
            in_specs=(PartitionSpec("rows"), PartitionSpec(None, "rows")),
            out_specs=PartitionSpec("rows"),
        )(x, gain)

    return weigh


def preconditioner(name: str, *, rows: SpatialSharding | None = None) -> Preconditioner | None:
    """Return the preconditioner that a recipe names, for positions sharded by `rows`."""
    if name == "none":
        return None
    return spectrum if rows is None else spectrum_of_rows(rows)
