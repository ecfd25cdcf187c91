"""A preconditioner for L-BFGS with the spectrum of images."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxstyle.nn.sharding import SpatialSharding

EXPONENT = 0.6
"""Exponent of the frequency, chosen on the default objective; 0.4 to 0.7 were about as good."""
Preconditioner = Callable[[jax.Array], jax.Array]
"""A linear, symmetric and positive definite map of positions."""


def spectrum(x: jax.Array) -> jax.Array:
    """Return an image `[h, w, c]` with its Fourier components of frequency f multiplied by f**-0.6.

    The amplitudes of images, and of differences of images, decrease with the frequency (Field,
    Relations between the statistics of natural images and the response properties of cortical
    cells, 1987), whereas the gradient of a network has large high-frequency components. As a
    preconditioner this map equals optimization over Fourier coefficients scaled by f**-0.3 (Olah
    et al., Feature Visualization, 2017, scale by f**-1). The mean is multiplied like the lowest
    frequency. The map is linear, symmetric and positive definite.
    """
    # TPU compilation takes half a minute for a Fourier transform, but seconds for products.
    return lax.platform_dependent(x, tpu=_by_products, default=_by_fourier)


def _by_fourier(x: jax.Array) -> jax.Array:
    """Compute `spectrum` by Fourier transforms."""
    h, w, _ = x.shape
    gain = _gain(jnp.fft.fftfreq(h), jnp.fft.rfftfreq(w), max(h, w))
    coefficients = jnp.fft.rfft2(x, axes=(0, 1)) * gain[..., None]
    return jnp.fft.irfft2(coefficients, s=(h, w), axes=(0, 1)).astype(x.dtype)


def _by_products(x: jax.Array) -> jax.Array:
    """Compute `spectrum` by products with the matrices of the Hartley transform.

    As the gain is even in both frequencies, it is the same for sine and cosine, and the basis of
    the Hartley transform is as good as that of the Fourier transform. It is its own inverse.
    """
    h, w, _ = x.shape
    rows, columns = _hartley(h, x.dtype), _hartley(w, x.dtype)
    gain = _gain(jnp.fft.fftfreq(h), jnp.fft.fftfreq(w), max(h, w))

    def transformed(channel: jax.Array) -> jax.Array:
        along = jnp.matmul(rows, channel, precision="highest")
        return jnp.matmul(along, columns, precision="highest")

    # One channel at a time, for a third of the program's size.
    channels = lax.map(
        lambda channel: transformed(transformed(channel) * gain.astype(x.dtype)),
        jnp.moveaxis(x, -1, 0),
    )
    return jnp.moveaxis(channels, 0, -1)


def _hartley(size: int, dtype: jnp.dtype) -> jax.Array:
    """Return the matrix of the discrete Hartley transform, orthogonal and symmetric.

    Reference:
      Bracewell, Discrete Hartley transform, 1983.
    """
    # Integer multiples of 2π are removed in integer arithmetic.
    index = jnp.arange(size)
    turns = (jnp.outer(index, index) % size).astype(dtype) / size
    return jnp.sqrt(2 / size).astype(dtype) * jnp.cos(2 * jnp.pi * (turns - 1 / 8))


def _gain(vertical: jax.Array, horizontal: jax.Array, longest: int) -> jax.Array:
    """Return the gain at each pair of frequencies, `[n, m]`.

    Args:
      vertical: frequencies in cycles per pixel, `[n]`.
      horizontal: frequencies in cycles per pixel, `[m]`.
      longest: longer side of the image in pixels.
    """
    frequency = jnp.hypot(vertical[:, None], horizontal[None])
    frequency = jnp.maximum(frequency, 1 / longest)
    # The gain is 1 at the highest frequency of a row or column.
    return (frequency / 0.5) ** -EXPONENT


def spectrum_of_rows(rows: SpatialSharding) -> Preconditioner:
    """Return `spectrum` for an image sharded by rows, whose padding stays 0.

    Each device transforms its rows, exchanges them for columns, transforms these, and transforms
    back, so that it never has more than its share of the image.
    """
    count = len(rows.mesh.devices)

    def apply(x: jax.Array) -> jax.Array:
        _, w, _ = x.shape
        frequencies = w // 2 + 1
        added = -frequencies % count
        gain = _gain(jnp.fft.fftfreq(rows.height), jnp.fft.rfftfreq(w), max(rows.height, w))
        gain = jnp.pad(gain, ((0, 0), (0, added)))[..., None]

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

    return apply


def preconditioner(name: str, *, rows: SpatialSharding | None = None) -> Preconditioner | None:
    """Return the preconditioner of a name (`Recipe.preconditioner`), or None for `"none"`."""
    if name == "none":
        return None
    return spectrum if rows is None else spectrum_of_rows(rows)
