"""What L-BFGS may know of pictures before it has seen a pair: their spectrum."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

EXPONENT = 0.6
"""Found on the default objective: 0.4 to 0.7 were about as good."""


def spectrum(x: jax.Array) -> jax.Array:
    """Weigh the frequencies of a picture `[h, w, c]` as pictures have them: by f**-0.6.

    Pictures, and so the steps between two of them, have amplitudes that fall with the
    frequency f (Field, Relations between the statistics of natural images and the response
    properties of cortical cells, 1987), while a gradient through a network is full of high
    ones. As a preconditioner this equals optimising Fourier coordinates that are scaled by
    f**-0.3 (Olah et al., Feature Visualization, 2017, go to f**-1). The constant part is
    weighed as the lowest frequency. Linear, symmetric and positive definite.
    """
    h, w, _ = x.shape
    frequency = jnp.hypot(jnp.fft.fftfreq(h)[:, None], jnp.fft.rfftfreq(w))
    frequency = jnp.maximum(frequency, 1 / max(h, w))
    # 1 at the highest frequency of a row or column.
    gain = (frequency / 0.5) ** -EXPONENT
    coefficients = jnp.fft.rfft2(x, axes=(0, 1)) * gain[..., None]
    return jnp.fft.irfft2(coefficients, s=(h, w), axes=(0, 1)).astype(x.dtype)


PRECONDITIONERS: dict[str, Callable[[jax.Array], jax.Array] | None] = {
    "spectrum": spectrum,
    "none": None,
}
