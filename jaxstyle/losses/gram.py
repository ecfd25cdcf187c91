"""Gram matrices, and the style loss of Gatys et al. (2016) on them."""

import jax
import jax.numpy as jnp

from jaxstyle.config.layers import first_of_blocks
from jaxstyle.losses.base import EQUAL_LAYERS, StyleDefaults, StyleLoss


def gram_matrix(features: jax.Array, *, weights: jax.Array | None = None) -> jax.Array:
    """Compute the Gram matrix of a feature map: products of channels, averaged over positions.

    G[a, b] = Σ over (y, x) of F[y, x, a] · F[y, x, b] / (c · h · w), the product
    `F.T @ F / F.size` of the positions-by-channels matrix. Because of the division,
    images of different sizes are comparable. Gatys et al. (2016, eq. 3) divide in
    the loss instead (eq. 4).

    Args:
      features: F, `[h, w, c]`.
      weights: factors of the products at each position, `[h, w, 1]`, at least 0. With a
        mean of 1 and 0 outside a region the matrix is that of the region (the square of
        the guidance channel of Gatys, Ecker, Bethge, Hertzmann & Shechtman, Controlling
        Perceptual Factors in Neural Style Transfer, 2017, section 4).

    Returns:
      Symmetric float32 `[c, c]`.

    Example:
      >>> import jax.numpy as jnp
      >>> gram_matrix(jnp.ones((2, 3, 4))).shape
      (4, 4)
    """
    h, w, c = features.shape
    if weights is not None:
        features = features * jnp.sqrt(weights)
    return _with_itself(features.reshape(h * w, c)) / (c * h * w)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute aᵀb."""
    return jnp.matmul(a.T, b, precision="highest", preferred_element_type=jnp.float32)


@jax.custom_jvp
def _with_itself(flat: jax.Array) -> jax.Array:
    """Compute the product XᵀX of a matrix `[n, c]`."""
    return _product(flat, flat)


@_with_itself.defjvp
def _tangent(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Compute value and tangent, whose two terms are each other's transposes.

    The gradient then takes one product of matrices instead of two.
    """
    half = _product(tangents[0], primals[0])
    return _with_itself(*primals), half + half.T


def style_loss(gram: jax.Array, target: jax.Array) -> jax.Array:
    """Compute the mean squared difference of two Gram matrices of one layer.

    mean over (a, b) of (G − A)². With the division of `gram_matrix` this is 4/c²
    times the E_l of Gatys et al. (2016, eq. 4).

    Args:
      gram: G, `[c, c]`, of the image.
      target: A, `[c, c]`, of the style image.

    Returns:
      Float32 scalar, ≥ 0.

    Example:
      >>> import jax.numpy as jnp
      >>> float(style_loss(jnp.eye(2), jnp.zeros((2, 2))))
      0.5
    """
    return jnp.mean(jnp.square(gram - target), dtype=jnp.float32)


GRAM = StyleLoss(
    gram_matrix,
    style_loss,
    # Chosen at 512 pixels on several pairs (`experiments/quality`). The weights of the layers
    # compensate for the division of Gram matrices by the number of channels.
    normalized=StyleDefaults(5e3, first_of_blocks(1.0, 4.0, 16.0, 64.0, 64.0)),
    # The values of neural-style. Gram matrices grow with the square of the activations, so that
    # networks with activations of another scale need other weights.
    unnormalized=StyleDefaults(100.0, EQUAL_LAYERS),
    balance=20.0,
)
