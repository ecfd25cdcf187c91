"""`Recipe`: every setting of a run with its default, its range and its help text.

The command line builds its flags from these fields; Python callers and grid files use the same
names.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxstyle.config.choices import (
    BOUNDS,
    COLOR_MATCHES,
    GRAM_NORMALIZATIONS,
    INPUTS,
    OPTIMIZERS,
    POOLINGS,
    POSITION_MEAN_LOSSES,
    PRECISIONS,
    PRECONDITIONERS,
    REDUCTIONS,
    SCHEDULES,
    STYLE_LOSSES,
    VARIATIONS,
)
from jaxstyle.config.content_terms import content_losses, split_content_losses
from jaxstyle.config.defaults import (
    DEFAULT_HISTORY_SIZE,
    DEFAULT_LEARNING_RATES,
    DEFAULT_MARGIN,
    DEFAULT_STRENGTH,
    MAX_HISTORY_SIZE,
    MAX_SCALES,
    MIN_HISTORY_SIZE,
    PYRAMID_SIDE,
    SCALE_SIDE,
    TERM_DEFAULTS,
    WIDE_HISTORY_SIZE,
    style_factor,
)
from jaxstyle.config.layers import LayerWeights, layer_weights
from jaxstyle.config.validation import (
    Check,
    blend_weights,
    boolean,
    choice,
    file_name,
    integer,
    mask_pairs,
    number,
)
from jaxstyle.errors import JaxstyleError, shortened

if TYPE_CHECKING:
    from jaxstyle.nn.network import Network


# Of networks normalized to a mean activation of 1, then of others.
_BY_NETWORK = TERM_DEFAULTS[True], TERM_DEFAULTS[False]


def _setting(default: Any, help: str, check: Check, **metadata: Any) -> Any:
    """Return a dataclass field.

    Args:
      default: None where the network or the images of a run decide.
      help: text for the command line.
      check: converts a value, or raises; None passes where it is the default.
      metadata: for the command line, such as a `metavar`.
    """
    return dataclasses.field(default=default, metadata={"help": help, "check": check, **metadata})


def _choice(default: str | None, help: str, choices: tuple[str, ...]) -> Any:
    """Return the field of a setting with a few named values."""
    return _setting(default, help, choice(choices), choices=choices)


def _term_weight(description: str, normalized: float, other: float) -> Any:
    """Return the field of a term's weight, with its defaults in the help text."""
    help = f"{description}; default: {normalized:g}, or {other:g} likewise."
    return _setting(None, help, number())


@dataclass(frozen=True)
class Recipe:
    """The settings of one stylization: plain Python values, immutable, compared by value.

    `jaxstyle.Numbers` are those of its numbers that compiled programs take as arguments: changing
    them does not recompile, and grids `vmap` over them.

    Raises:
      JaxstyleError: a value outside its range; the message names field, value and range.
    """

    content_layers: LayerWeights = _setting(
        (("relu4_2", 1.0),),
        "Layers that keep the content, comma-separated `layer[:weight]`; `all` = every layer.",
        layer_weights,
    )
    style_layers: LayerWeights | None = _setting(
        None,
        "Layers whose Gram matrices carry the style, written likewise; default: "
        "relu1_1,relu2_1:4,relu3_1:16,relu4_1:64,relu5_1:64 for networks normalized as `compact` "
        "is, weighed alike for others.",
        layer_weights,
    )
    strength: float | None = _setting(
        None,
        "How much of the style: 0 is the photograph, 1 the painting's texture with hints of the "
        "photograph; in the place of --content-weight and --style-weight, whose defaults are those "
        f"of {DEFAULT_STRENGTH:g}.",
        number(high=1),
    )
    content_weight: float | None = _term_weight(
        "alpha, weight of the content term", *(d.content_weight for d in _BY_NETWORK)
    )
    style_weight: float | None = _setting(
        None,
        "beta, weight of the style term; default: chosen for the photograph and the painting, so "
        "that pale and strong paintings are followed alike.",
        number(),
    )
    tv_weight: float | None = _term_weight(
        "Weight of the total variation", *(d.tv_weight for d in _BY_NETWORK)
    )
    style_blend: tuple[float, ...] | None = _setting(
        None,
        "Weights of several style images, one each, comma-separated; only their ratios count; "
        "default: equal.",
        blend_weights,
        metavar="X,X",
    )
    style_scale: float = _setting(
        1.0,
        "Size of the style images: their longest side is X times what it would be; beyond 1 "
        "enlarges them, up to 8.",
        number(above=0, high=8),
    )
    content_mask: str | None = _setting(
        None,
        "Gray image that says where the content is kept: white as without it, black not at all.",
        file_name,
        metavar="FILE",
    )
    mask: tuple[tuple[str, str], ...] = _setting(
        (),
        "Gray images, white where a style goes to in the output and where it is taken from in "
        "the style image; once a style, in their order; `-` for the whole.",
        mask_pairs,
        metavar="REGION STYLE_REGION",
    )
    preserve_color: str = _choice(
        "none",
        "Keep the content's colors: paint the luminance alone, or give the style the content's "
        "colors before.",
        COLOR_MATCHES,
    )
    content_loss: str = _setting(
        "features",
        "What is compared of the content, comma-separated `loss[:weight]`: `features` of the "
        "content layers, their `self-similarity`, or the image's `laplacian`.",
        content_losses,
        metavar="LOSSES",
    )
    style_loss: str = _choice("gram", "What is compared of the style.", STYLE_LOSSES)
    turn_style: bool = _setting(
        False, "Take the style images also turned by 90, 180 and 270 degrees.", boolean
    )
    gram_normalization: str = _choice(
        "elements",
        "What Gram matrices are divided by: elements or positions of the map, or pixels.",
        GRAM_NORMALIZATIONS,
    )
    style_reduction: str = _choice(
        "mean", "How squared differences of Gram matrices are put together.", REDUCTIONS
    )
    content_reduction: str = _choice(
        "mean", "How squared differences of features are put together.", REDUCTIONS
    )
    variation: str = _choice(
        "mean-squared",
        "Form of the total variation; by default its weight is 0 for the others.",
        VARIATIONS,
    )
    pooling: str = _choice("max", "How the network halves its maps.", POOLINGS)
    convention: str | None = _choice(
        None,
        "How images become the network's input, where not as the weights say: as in the programs "
        "that presets follow.",
        tuple(INPUTS),
    )
    init: str = _setting(
        "content",
        "Initial image: `content`, `noise`, `style`, `recolored` (the content in the style's "
        "colors) or an image file.",
        file_name,
    )
    noise_std: float = _setting(
        1.0,
        "Standard deviation of the initial noise, on the 0-255 scale of the network's input; "
        "with --bounds soft the start is then brought into [0, 1].",
        number(),
    )
    noise_blend: float = _setting(
        0.0,
        "Share of noise in the initial image: (1 - X) of --init and X of noise.",
        number(high=1),
    )
    seed: int = _setting(0, "Seed of the initial noise.", integer())
    size: int = _setting(
        512, "Longest side of the output in pixels; 0 keeps the content image's.", integer()
    )
    upscale: bool = _setting(False, "Let --size enlarge a smaller content image.", boolean)
    margin: int | None = _setting(
        None,
        "Pixels by which the image is mirrored beyond its edges for the network, so that edges "
        f"look like the inside; default: {DEFAULT_MARGIN}, or 0 where --scales 1 is given.",
        integer(high=256),
    )
    steps: int = _setting(150, "Optimizer steps; of each scale.", integer(low=1))
    scales: int | None = _setting(
        None,
        "Sizes at which the image is optimized one after the other, up to --size; default: as many "
        "as leave --scale-side pixels on the longer side of the first.",
        integer(low=1, high=MAX_SCALES),
    )
    scale_side: int = _setting(
        SCALE_SIDE,
        "Least pixels on the longer side of the first scale, where --scales is not given.",
        integer(low=16),
    )
    scale_ratio: float = _setting(
        2.0, "Each size of --scales is X times the one before.", number(above=1, high=16)
    )
    scale_detail: bool = _setting(
        True,
        "At each larger scale, add the detail of the initial image that the smaller one lacked.",
        boolean,
    )
    scale_content: float = _setting(
        1.0,
        "Each smaller scale weighs the content X times as much as the next.",
        number(above=0, high=16),
    )
    pyramid: int | None = _setting(
        None,
        "Resolutions at which the style is compared, each half the one before; default: down to "
        f"{PYRAMID_SIDE} pixels on the longer side, or 1 where --scales 1 is given.",
        integer(low=1, high=MAX_SCALES),
    )
    average: float | None = _setting(
        None,
        "Give the mean of all steps' images instead of the best one, a step's share falling by "
        "this factor with every later step.",
        number(high=0.9999),
    )
    optimizer: str = _choice("lbfgs", "How the image descends.", OPTIMIZERS)
    learning_rate: float | None = _setting(
        None,
        "Step size of first-order methods, in image units (0..1); default: "
        + ", ".join(f"{name} {rate:g}" for name, rate in DEFAULT_LEARNING_RATES.items())
        + ".",
        number(above=0),
    )
    schedule: str = _choice("constant", "How the learning rate falls over the run.", SCHEDULES)
    decay: float = _setting(
        0.01,
        "Fraction of the learning rate that a schedule but `constant` ends at.",
        number(above=0, high=1),
    )
    momentum: float = _setting(0.9, "Momentum of the optimizer `momentum`.", number(high=1))
    adam_b2: float = _setting(
        0.999, "Decay of the second moment of the optimizer `adam`.", number(high=1)
    )
    history_size: int | None = _setting(
        None,
        "Pairs that L-BFGS keeps; each takes the memory of two images; default: "
        f"{DEFAULT_HISTORY_SIZE}, or {WIDE_HISTORY_SIZE} for networks as wide as VGG, or as many "
        f"as memory allows, at least {MIN_HISTORY_SIZE}.",
        integer(low=1, high=MAX_HISTORY_SIZE),
    )
    preconditioner: str = _choice(
        "spectrum",
        "What the optimizer `lbfgs` starts from: the spectrum of images, or `none`.",
        PRECONDITIONERS,
    )
    bounds: str = _choice(
        "soft",
        "How the image's values are kept in [0, 1]: by a change of variables, or `none` until it "
        "is saved.",
        BOUNDS,
    )
    tile: int = _setting(
        0,
        "Compute the network on tiles of N pixels a side, exactly, for images too large for "
        "memory; 0: on the whole image.",
        integer(),
    )

    remat: bool = _setting(
        False,
        "Save memory: keep only what goes from block to block of the network, and compute each "
        "again for the gradient.",
        boolean,
    )
    precision: str = _choice(
        "tf32",
        "Numbers in the network: products by TF32 on GPUs that have it (elsewhere float32; TPUs "
        "bfloat16), float32 everywhere, or bfloat16 maps. Losses and the optimizer are float32's.",
        PRECISIONS,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                object.__setattr__(self, field.name, field.metadata["check"](field.name, value))
        self._check_combinations()

    def _check_combinations(self) -> None:
        """Raise a `JaxstyleError` for settings that exclude each other."""
        for name in ("content_weight", "style_weight"):
            if self.strength is not None and getattr(self, name) is not None:
                raise JaxstyleError(
                    f"strength: {self.strength!r} and {name} {getattr(self, name)!r} are two ways "
                    "to say one thing; give one of them"
                )
        object.__setattr__(self, "content_loss", content_losses("content_loss", self.content_loss))
        if self.content_mask is not None and not self._compares_features_alone:
            raise JaxstyleError(
                f"content_mask: {self.content_mask!r} weighs positions of the content loss "
                f"'features', and content_loss is {self.content_loss!r}; use content_loss "
                "'features', or no mask"
            )
        if self.style_loss != "gram" and (
            self.gram_normalization != "elements" or self.style_reduction != "mean"
        ):
            raise JaxstyleError(
                f"style_loss: {self.style_loss!r} has no Gram matrix; gram_normalization and "
                "style_reduction belong to 'gram' and stay as they are"
            )
        if self.tile and not self.is_separable:
            raise JaxstyleError(
                f"tile: {self.tile} does not work with content_loss {self.content_loss!r}, "
                f"style_loss {self.style_loss!r} and pooling {self.pooling!r}; tiles need losses "
                "of means over positions and a pooling that drops odd rows; use tile 0"
            )
        if self.mask and self.style_loss not in POSITION_MEAN_LOSSES:
            raise JaxstyleError(
                f"mask: regions do not work with style_loss {self.style_loss!r}, which is no mean "
                "over positions; choose another style loss"
            )
        if self.mask and self.turn_style:
            raise JaxstyleError(
                "turn_style: turned images do not work with masks, whose regions would have to "
                "turn too; use one of them"
            )
        if not self.content_layers and self.style_layers == ():
            raise JaxstyleError(
                "content_layers and style_layers are both empty; name at least one layer"
            )

    @property
    def _compares_features_alone(self) -> bool:
        """Whether `features` is the only content loss."""
        return set(split_content_losses(self.content_loss)) == {"features"}

    @property
    def is_separable(self) -> bool:
        """Whether the objective of an image is a sum over parts of it."""
        means = self._compares_features_alone and self.style_loss in POSITION_MEAN_LOSSES
        return means and self.pooling != "max-ceil"

    def updated(self, settings: Mapping[str, Any]) -> "Recipe":
        """Return the recipe with some settings changed.

        A strength replaces the weights; where the recipe has weights, as presets have, it scales
        the style weight. Another optimizer has its own default learning rate.

        Raises:
          JaxstyleError: a value out of range, or both a strength and a weight.
        """
        strength = settings.get("strength")
        if strength is not None and self.style_weight is not None:
            # Checks the range, and that no weight is given beside it.
            Recipe(**{k: v for k, v in settings.items() if k == "strength" or k.endswith("weight")})
            weight = self.style_weight * style_factor(strength)
            settings = {**settings, "strength": None, "style_weight": weight}
        elif self.strength is not None and {"content_weight", "style_weight"} & set(settings):
            settings = {"strength": None, **settings}
        if settings.get("optimizer", self.optimizer) != self.optimizer:
            settings = {"learning_rate": None, **settings}
        return dataclasses.replace(self, **settings)

    @property
    def content_names(self) -> tuple[str, ...]:
        """Names of the content layers."""
        return tuple(layer for layer, _ in self.content_layers)

    @property
    def style_names(self) -> tuple[str, ...]:
        """Names of the style layers; none while `style_layers` is None."""
        return tuple(layer for layer, _ in self.style_layers or ())

    @property
    def total_steps(self) -> int:
        """Steps of all scales together; of one scale while `scales` is None."""
        return self.steps * (self.scales or 1)

    def configure_network(self, network: "Network") -> "Network":
        """Return the network with the preprocessing and the precision of the recipe."""
        changes = INPUTS[self.convention] if self.convention else {}
        convention = dataclasses.replace(network.convention, **changes)
        return dataclasses.replace(network, convention=convention, precision=self.precision)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as values for JSON; layers as `{"relu4_2": 1.0}`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in _LAYERS:
            values[name] = None if values[name] is None else dict(values[name])
        if self.style_blend is not None:
            values["style_blend"] = list(self.style_blend)
        values["mask"] = [list(pair) for pair in self.mask]
        return values

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Recipe":
        """Build a recipe from the values of `as_dict`, which may come from an untrusted file.

        Raises:
          JaxstyleError: a setting that does not exist, has the wrong type or is out of range.
        """
        hints = typing.get_type_hints(cls)
        for name, value in settings.items():
            if name not in hints:
                raise JaxstyleError(
                    f"{name!r}: not a setting of a recipe; there are {', '.join(hints)}"
                )
            types, wanted = _json_types(name, hints[name])
            if type(value) not in types:
                raise JaxstyleError(
                    f"{name}: {shortened(value)} is of the wrong type; give {wanted}"
                )
        return cls(**settings)


_LAYERS = ("content_layers", "style_layers")


def _json_types(name: str, hint: Any) -> tuple[set[type], str]:
    """Return the types of a setting's values in JSON, and what errors call them.

    Args:
      name: of the setting.
      hint: its type in `Recipe`, perhaps with None.
    """
    kinds = set(typing.get_args(hint)) or {hint}
    optional = kinds & {type(None)}
    if name in _LAYERS:
        return optional | {str, dict}, "a text"
    if name == "style_blend":
        return optional | {str, list}, "a text"
    if name == "mask":
        return {list}, "a list of pairs"
    if float in kinds:
        return kinds | {int}, "a number"
    if bool in kinds:
        return kinds, "true or false"
    return kinds, "a whole number" if int in kinds else "a text"
