"""Initial images of the optimization."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle import images
from jaxstyle.config.choices import INITS
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.sizes import as_image
from jaxstyle.errors import JaxstyleError
from jaxstyle.images import color_transfer
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import Preprocessing


def start_image(
    start: ArrayLike | str,
    content: np.ndarray,
    style: jax.Array,
    *,
    seed: int,
    recipe: Recipe,
    network: Network,
) -> jax.Array:
    """Return the initial image of a batch element, blended with the recipe's share of noise.

    Args:
      start: an image, or a name as in `initial_image`.
      content: content image `[h, w, 3]` at the size of the output.
      style: first style image, of any size.
      seed: seed of the noise.
      recipe: resolved settings.
      network: weights, for its mean color.
    """
    by_name = partial(
        initial_image, content=content, convention=recipe.configure_network(network).convention,
        noise_std=recipe.noise_std, seed=seed,
    )  # fmt: skip
    if not isinstance(start, str):
        image = as_image(start, "start")
        # Resizing must not clip values outside [0, 1].
        inside = bool(image.min() >= 0 and image.max() <= 1)
        clean = jnp.asarray(images.resize(image, *content.shape[:2], clip=inside))
    elif start in ("style", "recolored"):
        match = color_transfer.MATCHES[recipe.preserve_color]
        clean = by_name(start, style=match(style, jnp.asarray(content)))
    else:
        clean = by_name(start, style=style)
    share = recipe.noise_blend
    return (1 - share) * clean + share * by_name("noise", style=style) if share else clean


def initial_image(
    init: str,
    *,
    content: ArrayLike,
    style: ArrayLike,
    convention: Preprocessing,
    noise_std: float,
    seed: int,
) -> jax.Array:
    """Return the initial image of a name, RGB `[h, w, 3]`.

    Args:
      init: `"content"`; `"style"`, resized to the content; `"recolored"`, the content with the mean
        and covariance of the style's colors; or `"noise"`, normal noise around the network's mean
        color, as in the papers.
      content: RGB `[h, w, 3]` in [0, 1].
      style: RGB `[h', w', 3]` in [0, 1], of any size.
      convention: preprocessing of the network, with its mean color.
      noise_std: standard deviation of the noise on the 0–255 scale.
      seed: seed of the noise.

    Raises:
      JaxstyleError: another name; the caller loads files.
    """
    content = jnp.asarray(content, jnp.float32)
    if init == "content":
        return content
    if init == "style":
        height, width = content.shape[:2]
        return jnp.asarray(images.resize(np.asarray(style), height, width))
    if init == "recolored":
        return color_transfer.match_cholesky(content, jnp.asarray(style))
    if init == "noise":
        mean = np.asarray(convention.mean, np.float32) / np.float32(convention.scale)
        if convention.channel_order == "bgr":
            mean = mean[::-1]
        noise = jax.random.normal(
            jax.random.key(seed, impl="threefry2x32"), content.shape, jnp.float32
        )
        return noise * (noise_std / 255) + mean[None, None]
    raise JaxstyleError(
        f"init: {init!r} is none of {', '.join(INITS)}; to start from an image, load it "
        "and give it as `start`"
    )
