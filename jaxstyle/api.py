"""`stylize`: from whatever holds two images to a stylized one, in one call."""

import contextlib
import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from jax.typing import ArrayLike

from jaxstyle.checks import memory_errors
from jaxstyle.descent import Iterate, iterates
from jaxstyle.errors import JaxstyleError, shortened
from jaxstyle.masks import Masks
from jaxstyle.peers import preset as named_recipe
from jaxstyle.prepare import prepare
from jaxstyle.progress import progress as shown_progress
from jaxstyle.recipe import Recipe
from jaxstyle.run import Result, finish
from jaxstyle.sharding import Devices
from jaxstyle.sizing import Picture, picture, pictures
from jaxstyle.vgg import Network
from jaxstyle.weights import load_network


def stylize(
    content: Picture,
    style: Picture | Sequence[Picture],
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
    """Paint the content image in the style of another.

    An image is a file, an image of Pillow's, or an array `[h, w, 3]`, RGB, of uint8 or of floats
    in [0, 1].

    Args:
      content: the image that keeps its content.
      style: one image or several, of any size.
      recipe: the settings; `jaxstyle.presets["default"]` if not given.
      network: weights, from `jaxstyle.load_network`; those of `weights` if not given.
      preset: name of a recipe in `jaxstyle.presets`, instead of `recipe`.
      weights: what `load_network` is given.
      start: initial picture instead of the recipe's `init`.
      masks: where the content is kept and which region takes which style; needed where the recipe
        names files of masks.
      devices: how many of `jax.devices()` share the rows of the picture, `"all"`, or a list.
      progress: show on standard error how the run goes.
      settings: fields of `Recipe`, in the place of the recipe's.

    Returns:
      `Result`; its `image` has the content's proportions and a longest side of at most
      `recipe.size`.

    Raises:
      JaxstyleError: what does not fit, by name.

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
    asked = _recipe(recipe, preset, settings)
    if isinstance(network, str) or network is None:
        if network is not None and weights != "auto":
            raise JaxstyleError(
                f"network: {network!r} and weights {weights!r} both name weights; give one"
            )
        network = load_network(network or weights)
    elif weights != "auto":
        raise JaxstyleError(f"weights: {weights!r} is given beside a network; give one")
    with memory_errors():
        # Files are read once, however many scales there are.
        job = prepare(
            picture(content, "content"),
            pictures(style),
            recipe=asked,
            network=network,
            start=start,
            masks=masks,
            devices=devices,
        )
        seen: list[Iterate] = []
        with contextlib.ExitStack() as stack:
            show = stack.enter_context(shown_progress(job.recipe.total_steps, quiet=not progress))
            for iterate in iterates(job):
                # Of each but the last only the numbers are needed.
                if seen:
                    seen[-1] = seen[-1]._replace(image=None)  # type: ignore[arg-type]
                seen.append(iterate._replace(carry=None))
                show(iterate)
        return finish(job, seen)[0]


def _recipe(recipe: Recipe | str | None, preset: str | None, settings: dict[str, Any]) -> Recipe:
    """Lay settings over a recipe or a preset."""
    if recipe is not None and preset is not None:
        raise JaxstyleError(
            f"recipe and preset {preset!r} both give all settings; give one of them"
        )
    base = recipe if recipe is not None else preset or "default"
    if isinstance(base, str):
        base = named_recipe(base)
    if not isinstance(base, Recipe):
        raise JaxstyleError(
            f"recipe: {shortened(base)} is no Recipe; give one, or the name of a preset"
        )
    fields = [field.name for field in dataclasses.fields(Recipe)]
    for name in settings:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(fields)}"
            raise JaxstyleError(f"{name}: not a setting of a recipe; {hint}")
    return base.updated(settings)
