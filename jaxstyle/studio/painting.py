"""One run of the studio, from settings to stored images."""

import dataclasses
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle import images
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine import planning
from jaxstyle.engine.iterate import Iterate
from jaxstyle.engine.loop import iterates
from jaxstyle.engine.preparation import prepare
from jaxstyle.engine.problem import Problem
from jaxstyle.engine.results import Result, append_iterate, finish
from jaxstyle.engine.sizes import output_size, resolve_scales
from jaxstyle.errors import memory_errors
from jaxstyle.files import StrPath
from jaxstyle.monitor.live import Live
from jaxstyle.monitor.pace import Course
from jaxstyle.nn.network import Network
from jaxstyle.provenance.inputs import InputImage, Inputs
from jaxstyle.provenance.record import as_text
from jaxstyle.provenance.report import record
from jaxstyle.provenance.unresolved import unresolved_settings
from jaxstyle.studio.folder import Folder
from jaxstyle.studio.settings import Settings


class Watcher(NamedTuple):
    """The callbacks of a run."""

    begin: Callable[[Live, images.Array], None]
    """Called once at the start, with the state of the run and the content image at the size of the
    result."""
    stopping: Callable[[], bool]
    """Called after each chunk of steps; returns whether to stop and keep the image so far."""


def run(
    settings: Settings,
    folder: Folder,
    *,
    network: Network,
    weights: str,
    first: int,
    watcher: Watcher,
) -> dict[int, dict[str, Any]]:
    """Run the optimizer and store each image in the folder, with its record.

    Args:
      settings: settings of the run.
      folder: folder of the studio.
      network: weights.
      weights: requested name or file of the weights.
      first: number of the first image; the others have the numbers after it.
      watcher: callbacks.

    Returns:
      Description of each image, by number.

    Raises:
      JaxstyleError: an image cannot be read or written, the settings do not work with the images,
        or the run does not fit into memory.
      LookupError: an input image is no longer in the folder.
    """
    with memory_errors():
        inputs, alpha = _read(settings, folder)
        problem = _prepare(settings, inputs, network)
        live = Live(Course.of(problem), labels=_labels(settings))
        watcher.begin(live, images.resize(inputs.content.pixels, *problem.size))
        collected: list[Iterate] = []
        stopped = False
        for iterate in iterates(problem, first=1):
            append_iterate(collected, iterate._replace(carry=None))
            live.tick(iterate)
            if stopped := watcher.stopping():
                break
        results = finish(problem, collected)
    descriptions = {}
    curves = live.curves(width=640, height=200)
    for element, result in enumerate(results):
        number = first + element
        if settings.continues is None:
            recipe = dataclasses.replace(result.recipe, init=settings.starts[element])
            result = result._replace(recipe=recipe)
        made = record(
            result, network=network, weights=weights, inputs=inputs.report(),
            unresolved=unresolved_settings(_unresolved(settings, result), result.recipe),
        )  # fmt: skip
        _save(folder.image(number), result, alpha, as_text(made))
        height, width = result.image.shape[:2]
        descriptions[number] = {
            "settings": settings.of_image(element).as_dict(),
            "run": first,
            "photo": folder.find("photos", settings.photo).name,
            "styles": [folder.find("styles", style).name for style in settings.styles],
            "width": width,
            "height": height,
            "loss": made["loss"],
            "steps": result.steps,
            "stopped": stopped and result.steps < problem.recipe.total_steps,
            "diverged": result.diverged,
            "seconds": result.compile_seconds + result.run_seconds,
            "made": datetime.now().isoformat(timespec="seconds"),
        }
        folder.keep(number, descriptions[number], curves)
    return descriptions


def _read(settings: Settings, folder: Folder) -> tuple[Inputs, images.Array | None]:
    """Read the images of a run, and the alpha channel of the photograph (None if opaque)."""
    alpha: images.Array | None = None

    def load(key: str, file: StrPath) -> InputImage:
        nonlocal alpha
        pixels, opacity = images.load_with_alpha(file, argument=key)
        if key == "content":
            alpha = opacity
        return InputImage.of(Path(file), pixels)

    recipe = settings.recipe()
    if settings.continues is not None:
        recipe = dataclasses.replace(recipe, init=str(folder.image(settings.continues)))
    styles = [folder.find("styles", style).file for style in settings.styles]
    return Inputs.read(folder.find("photos", settings.photo).file, styles, recipe, load), alpha


def _prepare(settings: Settings, inputs: Inputs, network: Network) -> Problem:
    content, styles = inputs.content.pixels, [style.pixels for style in inputs.styles]
    count = len(settings.starts)
    recipe = settings.recipe()
    starts: list[Any] = list(settings.starts)
    if inputs.init is not None:
        recipe = dataclasses.replace(recipe, init=inputs.init.report["path"], upscale=True)
        starts = [inputs.init.pixels] * count
    recipe = resolve_scales(recipe, content.shape, [style.shape for style in styles])
    if inputs.init is not None:
        # The initial image already has the result of the smaller scales.
        recipe = dataclasses.replace(recipe, scales=1)
    height, width = output_size(content.shape[0], content.shape[1], recipe)
    recipe = planning.fit_into_memory(height, width, recipe=recipe, network=network, batch=count)
    return prepare(
        content, styles, recipe=recipe, network=network,
        start=starts[0], elements=starts if count > 1 else None,
    )  # fmt: skip


def _unresolved(settings: Settings, result: Result) -> Recipe:
    """Return the recipe of one image before defaults were resolved."""
    own = {name: getattr(result.recipe, name) for name in ("init", "seed", "upscale")}
    if settings.continues is not None:
        own["scales"] = 1
    return dataclasses.replace(settings.recipe(), **own)


def _labels(settings: Settings) -> list[str]:
    """Return the label of each image of a run."""
    if len(set(settings.starts)) == len(settings.starts) > 1:
        return [f"from {start}" for start in settings.starts]
    seeds = range(settings.seed, settings.seed + len(settings.starts))
    return [f"seed {seed}" for seed in seeds] if len(seeds) > 1 else ["loss"]


def _save(file: Path, result: Result, alpha: images.Array | None, text: dict[str, str]) -> None:
    image = result.image
    if alpha is not None:
        alpha = images.resize(alpha[..., None], *image.shape[:2])[..., 0]
        image = images.remove_white_background(image, alpha)
    images.save_image(file, image, argument="results", text=text, alpha=alpha)
