"""Functions for whole runs: `stylize`, `stylize_batch`, `texture`, `evaluate` and `measure`."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxstyle import images
from jaxstyle.config.numbers import Numbers, static_part
from jaxstyle.config.presets import preset as named_recipe
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.compute_targets import compute_targets
from jaxstyle.engine.loop import iterates
from jaxstyle.engine.preparation import prepare
from jaxstyle.engine.program import Program, values
from jaxstyle.engine.results import Result, collect_iterates, finish
from jaxstyle.engine.sizes import ImageLike, as_image, as_images, margin_of, style_images
from jaxstyle.errors import JaxstyleError, memory_errors, shortened
from jaxstyle.losses.balance import balance_recipe
from jaxstyle.losses.masks import Masks
from jaxstyle.losses.metrics import Metrics, compute_metrics
from jaxstyle.losses.objective import LayerLosses, Terms
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.monitor.pace import Course
from jaxstyle.monitor.progress import progress as shown_progress
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import Devices
from jaxstyle.weights import load_network


def stylize_batch(
    content: ImageLike,
    style: ImageLike | Sequence[ImageLike],
    *,
    recipe: Recipe,
    network: Network,
    starts: Sequence[ArrayLike | str] | int,
    masks: Masks | None = None,
    devices: Devices = None,
) -> list[Result]:
    """Stylize from several initial images in parallel, as a batch of one vmapped program.

    Args:
      content: as in `stylize`.
      style: as in `stylize`.
      recipe: settings of all batch elements; batch element i has seed `recipe.seed + i`.
      network: weights.
      starts: the batch size, to start every element from `recipe.init`; or one initial image per
        batch element, each an image or one of `"content"`, `"noise"`, `"style"`, `"recolored"`.
      masks: as in `stylize`.
      devices: number of `jax.devices()` that share the batch, `"all"`, or a list of devices. Their
        number must divide the batch size.

    Returns:
      One `Result` per batch element, in order.

    Raises:
      JaxstyleError: an argument is not valid; the message names it.
    """
    # Checks both arguments before they are used.
    resolve_recipe(recipe, network)
    elements = [recipe.init] * int(starts) if isinstance(starts, int | np.integer) else starts
    problem = prepare(
        content,
        style,
        recipe=recipe,
        network=network,
        elements=elements,
        masks=masks,
        devices=devices,
    )
    return finish(problem, collect_iterates(iterates(problem)))


def evaluate(
    image: ImageLike,
    content: ImageLike,
    styles: ImageLike | Sequence[ImageLike],
    *,
    recipe: Recipe,
    network: Network,
    masks: Masks | None = None,
) -> tuple[float, Terms]:
    """Compute the loss and the weighted terms of any image under a recipe.

    Args:
      image: the image to evaluate, RGB `[h, w, 3]` in [0, 1], or a file or Pillow image.
      content: content image; resized to the size of `image`.
      styles: one style image or several; their longest sides are at most `recipe.size`.
      recipe: settings of the objective.
      network: weights.
      masks: as in `stylize`.

    Returns:
      The loss and its `Terms`.

    Raises:
      JaxstyleError: an argument is not valid; the message names it.

    Example:
      >>> import numpy as np
      >>> import jaxstyle
      >>> content, style = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
      >>> network = jaxstyle.load_network("compact")
      >>> loss, terms = jaxstyle.evaluate(
      ...     content, content, style, recipe=jaxstyle.Recipe(), network=network
      ... )
      >>> float(terms.content)
      0.0
    """
    result = score(image, content, styles, recipe=recipe, network=network, masks=masks)
    return result.loss, result.terms


class Score(NamedTuple):
    """The value of the objective at one image."""

    loss: float
    """The sum of the terms."""
    terms: Terms
    """The weighted terms."""
    layers: LayerLosses
    """Parts of the content and style terms, by layer."""
    recipe: Recipe
    """Settings, with the default weights for these images."""


def score(
    image: ImageLike,
    content: ImageLike,
    styles: ImageLike | Sequence[ImageLike],
    *,
    recipe: Recipe,
    network: Network,
    masks: Masks | None = None,
) -> Score:
    """Compute the loss and its terms like `evaluate`, and the parts of each layer."""
    image = as_image(image, "image")
    unresolved = recipe
    recipe = dataclasses.replace(resolve_recipe(recipe, network), margin=margin_of(recipe))
    resized = jnp.asarray(images.resize(as_image(content, "content"), *image.shape[:2]))
    targets = compute_targets(network, resized, style_images(styles, recipe), recipe, masks=masks)
    recipe = balance_recipe(unresolved, recipe, network, targets, resized)
    loss, terms, layers = jax.device_get(
        values(
            network,
            targets,
            Numbers.of(recipe),
            jnp.asarray(image),
            program=Program(static_part(recipe)),
        )
    )
    terms, layers = jax.tree.map(float, (terms, layers))
    return Score(float(loss), terms, layers, recipe)


def measure(
    image: ImageLike,
    content: ImageLike,
    styles: ImageLike | Sequence[ImageLike],
    *,
    network: Network,
    recipe: Recipe | None = None,
) -> Metrics:
    """Compute metrics of the quality of any image, which do not depend on the objective.

    Some metrics are best for the photograph and some for the painting itself: compare them with
    those of both. The documentation has formulas and sources (`docs/metrics.md`).

    Args:
      image: RGB `[h, w, 3]` in [0, 1], with sides of at least 32 pixels.
      content: content image; resized to the size of `image`.
      styles: one style image or several; their longest sides are at most `recipe.size`.
      network: weights; metrics of different networks are not comparable.
      recipe: settings, of which the content layers and sizes are used; the default recipe if not
        given.

    Returns:
      `Metrics`.

    Raises:
      JaxstyleError: an image is too small.
    """
    recipe = resolve_recipe(recipe or Recipe(), network)
    image = as_image(image, "image")
    return compute_metrics(
        recipe.configure_network(network),
        jnp.asarray(image),
        jnp.asarray(images.resize(as_image(content, "content"), *image.shape[:2])),
        style_images(styles, recipe),
        content_layers=recipe.content_names or ["relu1_1"],
    )


def stylize(
    content: ImageLike,
    style: ImageLike | Sequence[ImageLike],
    *,
    recipe: Recipe | str | None = None,
    network: Network | str | None = None,
    preset: str | None = None,
    weights: str = "auto",
    start: ArrayLike | str | None = None,
    masks: Masks | None = None,
    devices: Devices = None,
    progress: bool = False,
    **settings: Any,
) -> Result:
    """Stylize a content image.

    Images are file names, Pillow images, or RGB arrays `[h, w, 3]` of uint8 or of floats in [0, 1].

    Args:
      content: content image.
      style: one style image or several, of any size.
      recipe: settings, or the name of a preset; `jaxstyle.presets["default"]` if not given.
      network: weights from `jaxstyle.load_network`, or their name; those of `weights` if not given.
      preset: name of a recipe in `jaxstyle.presets`, instead of `recipe`.
      weights: argument of `load_network`, instead of `network`.
      start: initial image, instead of the recipe's `init`.
      masks: where the content is kept and which region takes which style; required if the recipe
        names files of masks.
      devices: number of `jax.devices()` that share the rows of the image, `"all"`, or a list of
        devices.
      progress: whether to show progress on standard error.
      settings: fields of `Recipe`, which override those of the recipe.

    Returns:
      `Result`; its `image` has the aspect ratio of the content and a longest side of at most
      `recipe.size`.

    Raises:
      JaxstyleError: an argument is not valid; the message names it.

    Example:
      >>> import numpy as np
      >>> import jaxstyle
      >>> content, style = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
      >>> result = jaxstyle.stylize(content, style, weights="compact", steps=2)
      >>> result.image.shape
      (32, 32, 3)
      >>> result.to_pil().size
      (32, 32)
    """
    chosen = _recipe(recipe, preset, settings)
    if isinstance(network, str) or network is None:
        if network is not None and weights != "auto":
            raise JaxstyleError(
                f"network: {network!r} and weights {weights!r} both name weights; give one"
            )
        network = load_network(network or weights)
    elif weights != "auto":
        raise JaxstyleError(f"weights: {weights!r} is given beside a network; give one")
    with memory_errors():
        # Files are read once for all scales.
        problem = prepare(
            as_image(content, "content"),
            as_images(style),
            recipe=chosen,
            network=network,
            start=start,
            masks=masks,
            devices=devices,
        )
        with shown_progress(Course.of(problem), quiet=not progress) as show:
            collected = collect_iterates(iterates(problem), show=show)
        return finish(problem, collected)[0]


def texture_inputs(recipe: Recipe, size: tuple[int, int]) -> tuple[np.ndarray, Recipe]:
    """Return the content image and the settings of texture synthesis: the style term alone.

    A gray content image without a layer determines the size of the output.

    Args:
      recipe: settings, with a `content_weight` of 0.
      size: height and width of the output in pixels.
    """
    gray = np.full((*size, 3), 0.5, np.float32)
    return gray, dataclasses.replace(recipe, size=max(size), content_layers=())


def texture(
    style: ImageLike | Sequence[ImageLike],
    *,
    size: tuple[int, int] = (512, 512),
    network: Network | None = None,
    weights: str = "auto",
    **settings: Any,
) -> Result:
    """Synthesize an image with the texture of a style, from noise.

    The texture model of Gatys et al., Texture Synthesis Using Convolutional Neural Networks, 2015:
    the style term without content.

    Args:
      style: one style image or several, as in `stylize`.
      size: height and width of the output in pixels.
      network: weights from `jaxstyle.load_network`; those of `weights` if not given.
      weights: argument of `load_network`, instead of `network`.
      settings: fields of `Recipe`, which override the defaults.

    Returns:
      `Result`.

    Raises:
      JaxstyleError: an argument is not valid; the message names it.

    Example:
      >>> import numpy as np
      >>> import jaxstyle
      >>> style = np.random.default_rng(0).random((32, 32, 3), np.float32)
      >>> jaxstyle.texture(style, size=(32, 48), weights="compact", steps=2).image.shape
      (32, 48, 3)
    """
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise JaxstyleError(f"size: {shortened(size)} is not a pair; give (height, width)")
    if settings.get("content_weight"):
        raise JaxstyleError(
            f"content_weight: {settings['content_weight']!r} has no effect on a texture, which has "
            "no content image; leave it out"
        )
    recipe = _recipe(None, None, {"init": "noise", **settings, "content_weight": 0.0})
    gray, recipe = texture_inputs(recipe, size)
    problem = prepare(gray, style, recipe=recipe, network=network or load_network(weights))
    return finish(problem, collect_iterates(iterates(problem)))[0]


def _recipe(recipe: Recipe | str | None, preset: str | None, settings: dict[str, Any]) -> Recipe:
    """Return a recipe, or the recipe of a preset, with some settings changed."""
    if recipe is not None and preset is not None:
        raise JaxstyleError(
            f"recipe and preset {preset!r} both give all settings; give one of them"
        )
    base = recipe if recipe is not None else preset or "default"
    if not isinstance(base, str | Recipe):
        raise JaxstyleError(
            f"recipe: {shortened(base)} is not a Recipe; give one, or the name of a preset"
        )
    return named_recipe(base, settings) if isinstance(base, str) else base.updated(settings)
