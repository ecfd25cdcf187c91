"""Flags for the fields of `Recipe`, and recipes from the flags that were given."""

import contextlib
import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from jaxstyle.config.choices import LBFGS_OPTIMIZERS
from jaxstyle.config.defaults import DEFAULT_LEARNING_RATES
from jaxstyle.config.layers import format_layers
from jaxstyle.config.presets import preset, presets
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError

Command = TypeVar("Command", bound=Callable[..., Any])
# Fields of `Recipe` that define the objective, not its optimization.
OBJECTIVE = (
    "content_layers",
    "style_layers",
    "content_weight",
    "style_weight",
    "tv_weight",
    "style_blend",
    "style_scale",
    "content_mask",
    "mask",
    "preserve_color",
    "content_loss",
    "style_loss",
    "turn_style",
    "gram_normalization",
    "style_reduction",
    "content_reduction",
    "variation",
    "pooling",
    "convention",
    "tile",
    "size",
)
IMAGE = click.Path(path_type=Path)
MAX_IMAGES = 10_000
"""Largest value of `--batch`."""


def _completes(words: Iterable[str]) -> Callable[[Any, Any, str], list[str]]:
    """Return a shell completion that offers the given words."""
    return lambda context, parameter, begun: [w for w in words if w.startswith(begun)]


preset_option = click.option(
    "--preset",
    "preset_name",
    metavar="NAME",
    default=None,
    shell_complete=_completes(presets),
    help=f"Named recipe: {', '.join(presets)}. Other flags override its settings.  "
    "[default: default]",
)
weights_option = click.option(
    "--weights",
    "weights_name",
    metavar="NAME|FILE",
    default="auto",
    show_default=True,
    help="Network: `medium` or the faster `compact` (both embedded), another name of `jaxstyle "
    "weights list`, or a converted .safetensors file; `auto` is vgg19 if it has been fetched, else "
    "medium.",
)


class _Port(click.IntRange):
    """A port number, with advice in the error if the next argument was taken for it."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the port number."""
        if isinstance(value, str) and not value.lstrip("-").isdecimal():
            self.fail(
                f"{value!r} is not a port; put --serve last, or give a number after it.", param, ctx
            )
        return super().convert(value, param, ctx)


serve_option = click.option(
    "--serve",
    "port",
    type=_Port(0, 65535),
    is_flag=False,
    flag_value=0,
    default=None,
    metavar="[PORT]",
    help="Show the run on a local web page at this port; a free port if none is given. Requires "
    "the extra `serve`.",
)
devices_option = click.option(
    "--devices",
    metavar="N|all",
    callback=lambda context, parameter, given: _count_or_all(given),
    help="Number of devices that share the images of a batch, the cells of a grid, or the rows of "
    "one image.  [default: 1]",
)


def _count_or_all(given: str | None) -> int | str | None:
    if given is None or given == "all":
        return given
    try:
        return int(given)
    except ValueError:
        raise JaxstyleError(
            f"--devices: {given!r} is neither a number nor 'all'; see `jaxstyle doctor` for the "
            "devices"
        ) from None


def bounds_options(command: Command) -> Command:
    """Decorate a command with `--max-pixels` and `--first-frame`, for the images that it reads."""
    first_frame = click.option(
        "--first-frame",
        is_flag=True,
        help="Use the first frame of an animated image instead of refusing the file.",
    )
    max_pixels = click.option(
        "--max-pixels",
        type=click.IntRange(1),
        metavar="N",
        help="Largest number of pixels of an input image.  [default: 64000000]",
    )
    return max_pixels(first_frame(command))


def bounds(max_pixels: int | None, first_frame: bool) -> dict[str, Any]:
    """Return the flags of `bounds_options` as keyword arguments of `images.load_image`."""
    from jaxstyle.images import MAX_PIXELS

    return {"max_pixels": max_pixels or MAX_PIXELS, "first_frame": first_frame}


def check_batch(count: int) -> None:
    """Raise a `JaxstyleError` for an invalid `--batch`."""
    if not 1 <= count <= MAX_IMAGES:
        raise JaxstyleError(
            f"--batch: {count} is out of range; give a whole number from 1 to {MAX_IMAGES}"
        )


def recipe_options(names: Sequence[str] | None = None) -> Callable[[Command], Command]:
    """Decorate a command with a flag for each field of `Recipe`, or each of `names`.

    Flags that are not given are None; these settings come from the preset.
    """
    hints = typing.get_type_hints(Recipe)

    def decorate(command: Command) -> Command:
        for field in reversed(dataclasses.fields(Recipe)):
            if names is None or field.name in names:
                command = _option(field, hints[field.name])(command)
        return command

    return decorate


def build_recipe(base: str | Recipe | None, flags: dict[str, Any]) -> Recipe:
    """Build a recipe from a recipe or a preset (`default` if None), updated by the given flags.

    Raises:
      JaxstyleError: a value is out of range; the message names its flag.
    """
    given = {name: value for name, value in flags.items() if value is not None and value != ()}
    with errors_by_flag():
        if isinstance(base, Recipe):
            return base.updated(given)
        return preset(base or "default", given)


@contextlib.contextmanager
def errors_by_flag() -> Iterator[None]:
    """Replace field names by flags in each `JaxstyleError` of the block."""
    try:
        yield
    except JaxstyleError as error:
        raise JaxstyleError(as_flags(str(error))) from None


def as_flags(message: str) -> str:
    """Return a message with its leading field name replaced by the flag."""
    name, colon, rest = message.partition(":")
    fields = {field.name for field in dataclasses.fields(Recipe)}
    if name in {"preset", "start", "devices", *fields}:
        name = "--" + {"start": "init"}.get(name, name).replace("_", "-")
    elif name in ("content", "style"):
        name = name.upper()
    return name + colon + rest


def _option(field: dataclasses.Field[Any], hint: Any) -> Callable[[Command], Command]:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    default: Any = field.default
    settings: dict[str, Any] = {}
    if field.name == "mask":
        settings.update(type=(str, str), multiple=True, metavar=field.metadata["metavar"])
        default = None
    elif field.name.endswith("_layers"):
        settings.update(type=str, metavar="LAYERS")
        default = None if default is None else format_layers(default)
    elif bool in kinds:
        settings.update(is_flag=True)
        default = None
    elif float in kinds:
        settings.update(type=float, metavar="X")
        default = None if default is None else f"{default:g}"
    elif int in kinds:
        settings.update(type=int, metavar="N")
    else:
        settings.update(type=str, metavar=field.metadata.get("metavar", "NAME"))
    help = field.metadata["help"]
    if choices := field.metadata.get("choices"):
        settings["shell_complete"] = _completes(choices)
        help += f" One of {', '.join(choices)}."
    if default is not None:
        help += f"  [default: {default}]"
    flag = "--" + field.name.replace("_", "-")
    if bool in kinds:
        flag += f"/--no-{flag[2:]}"
    return click.option(flag, field.name, default=None, help=help, **settings)


def unused_notices(recipe: Recipe, given: dict[str, Any]) -> list[str]:
    """Return a notice for each given flag that has no effect.

    Args:
      recipe: recipe of the run.
      given: values of the flags of `recipe_options`; None where not given.
    """
    optimizer, noisy = recipe.optimizer, recipe.init == "noise" or recipe.noise_blend > 0
    noiseless = f"--init {recipe.init} without --noise-blend has no noise"
    uses = {
        "learning_rate": (
            optimizer in DEFAULT_LEARNING_RATES,
            f"--optimizer {optimizer} has no learning rate",
        ),
        "schedule": (
            optimizer in DEFAULT_LEARNING_RATES,
            f"--optimizer {optimizer} has no learning rate",
        ),
        "decay": (
            optimizer in DEFAULT_LEARNING_RATES and recipe.schedule != "constant",
            "the learning rate is constant; choose a --schedule",
        ),
        "momentum": (optimizer == "momentum", f"--optimizer is {optimizer}"),
        "adam_b2": (optimizer == "adam", f"--optimizer is {optimizer}"),
        "history_size": (
            optimizer in LBFGS_OPTIMIZERS,
            f"--optimizer {optimizer} has no history of pairs",
        ),
        "preconditioner": (optimizer == "lbfgs", f"--optimizer is {optimizer}"),
        "scale_ratio": ((recipe.scales or 1) > 1, "the run has one scale"),
        "scale_detail": (
            (recipe.scales or 1) > 1 and recipe.init != "noise",
            "the run has one scale" if (recipe.scales or 1) == 1 else "noise has no detail to add",
        ),
        "upscale": (recipe.size > 0, "--size 0 keeps the content image's size"),
        "seed": (noisy, noiseless),
        "noise_std": (noisy, noiseless),
    }
    return [
        f"{_flag(name, given[name])} has no effect: {why}"
        for name, (used, why) in uses.items()
        if given.get(name) is not None and not used
    ]


def _flag(name: str, value: Any) -> str:
    """Return a flag with its value, as on the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value:g}" if isinstance(value, float) else f"--{flag} {value}"
