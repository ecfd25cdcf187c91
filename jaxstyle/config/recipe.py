"""`Recipe`: every setting of a run with its default, its range and its help text.

The command line builds its flags from these fields; Python callers and grid files use the same
names.
"""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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
from jaxstyle.config.validation import LARGEST_INTEGER as _LARGEST_INTEGER
from jaxstyle.config.validation import WHOLE, is_file_name, parse_blend_weights, parse_mask_pairs
from jaxstyle.config.validation import check_integer as _check_integer
from jaxstyle.config.validation import check_number as _check_number
from jaxstyle.errors import JaxstyleError, shortened

if TYPE_CHECKING:
    from jaxstyle.nn.network import Network


# Of networks normalized to a mean activation of 1, then of others.
_BY_NETWORK = TERM_DEFAULTS[True], TERM_DEFAULTS[False]


def _setting(default: Any, help: str, **metadata: Any) -> Any:
    """Return a dataclass field with a help text, and perhaps `choices` or a `metavar`."""
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


def _term_weight(description: str, normalized: float, other: float) -> Any:
    """Return the field of a term's weight, with its defaults in the help text."""
    return _setting(None, f"{description}; default: {normalized:g}, or {other:g} likewise.")


@dataclass(frozen=True)
class Recipe:
    """The settings of one stylization; immutable, hashable, compared by value.

    A pytree whose leaves are the numbers that scale the objective or the steps: changing them
    does not recompile, and grids `vmap` over them. Settings that shape the program (layers,
    pooling, optimizer, history size) are static.

    Raises:
      JaxstyleError: a value outside its range; the message names field, value and range.
    """

    content_layers: LayerWeights = _setting(
        (("relu4_2", 1.0),),
        "Layers that keep the content, comma-separated `layer[:weight]`; `all` = every layer.",
    )
    style_layers: LayerWeights | None = _setting(
        None,
        "Layers whose Gram matrices carry the style, written likewise; default: "
        "relu1_1,relu2_1:4,relu3_1:16,relu4_1:64,relu5_1:64 for networks normalized as `compact` "
        "is, weighed alike for others.",
    )
    strength: float | None = _setting(
        None,
        "How much of the style: 0 is the photograph, 1 the painting's texture with hints of the "
        "photograph; in the place of --content-weight and --style-weight, whose defaults are those "
        f"of {DEFAULT_STRENGTH:g}.",
    )
    content_weight: float | None = _term_weight(
        "alpha, weight of the content term", *(d.content_weight for d in _BY_NETWORK)
    )
    style_weight: float | None = _term_weight("beta, weight of the style term", 5e3, 100)
    tv_weight: float | None = _term_weight(
        "Weight of the total variation", *(d.tv_weight for d in _BY_NETWORK)
    )
    style_blend: tuple[float, ...] | None = _setting(
        None,
        "Weights of several style images, one each, comma-separated; only their ratios count; "
        "default: equal.",
        metavar="X,X",
    )
    style_scale: float = _setting(
        1.0,
        "Size of the style images: their longest side is X times what it would be; beyond 1 "
        "enlarges them, up to 8.",
    )
    content_mask: str | None = _setting(
        None,
        "Gray image that says where the content is kept: white as without it, black not at all.",
        metavar="FILE",
    )
    mask: tuple[tuple[str, str], ...] = _setting(
        (),
        "Gray images, white where a style goes to in the output and where it is taken from in "
        "the style image; once a style, in their order; `-` for the whole.",
        metavar="REGION STYLE_REGION",
    )
    preserve_color: str = _setting(
        "none",
        "Keep the content's colors: paint the luminance alone, or give the style the content's "
        "colors before.",
        choices=COLOR_MATCHES,
    )
    content_loss: str = _setting(
        "features",
        "What is compared of the content, comma-separated `loss[:weight]`: `features` of the "
        "content layers, their `self-similarity`, or the image's `laplacian`.",
        metavar="LOSSES",
    )
    style_loss: str = _setting(
        "gram", "What is compared of the style, layer by layer.", choices=STYLE_LOSSES
    )
    turn_style: bool = _setting(
        False, "Take the style images also turned by 90, 180 and 270 degrees."
    )
    gram_normalization: str = _setting(
        "elements",
        "What Gram matrices are divided by: elements or positions of the map, or pixels.",
        choices=GRAM_NORMALIZATIONS,
    )
    style_reduction: str = _setting(
        "mean", "How squared differences of Gram matrices are put together.", choices=REDUCTIONS
    )
    content_reduction: str = _setting(
        "mean", "How squared differences of features are put together.", choices=REDUCTIONS
    )
    variation: str = _setting(
        "mean-squared",
        "Form of the total variation; by default its weight is 0 for the others.",
        choices=VARIATIONS,
    )
    pooling: str = _setting("max", "How the network halves its maps.", choices=POOLINGS)
    convention: str | None = _setting(
        None,
        "How images become the network's input, where not as the weights say: as in the programs "
        "that presets follow.",
        choices=tuple(INPUTS),
    )
    init: str = _setting(
        "content",
        "Initial image: `content`, `noise`, `style`, `recolored` (the content in the style's "
        "colors) or an image file.",
    )
    noise_std: float = _setting(
        1.0,
        "Standard deviation of the initial noise, on the 0-255 scale of the network's input; "
        "with --bounds soft the start is then brought into [0, 1].",
    )
    noise_blend: float = _setting(
        0.0, "Share of noise in the initial image: (1 - X) of --init and X of noise."
    )
    seed: int = _setting(0, "Seed of the initial noise.")
    size: int = _setting(512, "Longest side of the output in pixels; 0 keeps the content image's.")
    upscale: bool = _setting(False, "Let --size enlarge a smaller content image.")
    margin: int | None = _setting(
        None,
        "Pixels by which the image is mirrored beyond its edges for the network, so that edges "
        f"look like the inside; default: {DEFAULT_MARGIN}, or 0 where --scales 1 is given.",
    )
    steps: int = _setting(150, "Optimizer steps; of each scale.")
    scales: int | None = _setting(
        None,
        "Sizes at which the image is optimized one after the other, up to --size; default: as many "
        f"as leave {SCALE_SIDE} pixels on the longer side of the first.",
    )
    scale_ratio: float = _setting(2.0, "Each size of --scales is X times the one before.")
    scale_detail: bool = _setting(
        True,
        "At each larger scale, add the detail of the initial image that the smaller one lacked.",
    )
    scale_content: float = _setting(
        1.0, "Each smaller scale weighs the content X times as much as the next."
    )
    pyramid: int | None = _setting(
        None,
        "Resolutions at which the style is compared, each half the one before; default: down to "
        f"{PYRAMID_SIDE} pixels on the longer side, or 1 where --scales 1 is given.",
    )
    average: float | None = _setting(
        None,
        "Give the mean of all steps' images instead of the best one, a step's share falling by "
        "this factor with every later step.",
    )
    optimizer: str = _setting("lbfgs", "How the image descends.", choices=OPTIMIZERS)
    learning_rate: float | None = _setting(
        None,
        "Step size of first-order methods, in image units (0..1); default: "
        + ", ".join(f"{name} {rate:g}" for name, rate in DEFAULT_LEARNING_RATES.items())
        + ".",
    )
    schedule: str = _setting(
        "constant", "How the learning rate falls over the run.", choices=SCHEDULES
    )
    decay: float = _setting(
        0.01, "Fraction of the learning rate that a schedule but `constant` ends at."
    )
    momentum: float = _setting(0.9, "Momentum of the optimizer `momentum`.")
    adam_b2: float = _setting(0.999, "Decay of the second moment of the optimizer `adam`.")
    history_size: int | None = _setting(
        None,
        "Pairs that L-BFGS keeps; each takes the memory of two images; default: "
        f"{DEFAULT_HISTORY_SIZE}, or {WIDE_HISTORY_SIZE} for networks as wide as VGG, or as many "
        f"as memory allows, at least {MIN_HISTORY_SIZE}.",
    )
    preconditioner: str = _setting(
        "spectrum",
        "What the optimizer `lbfgs` starts from: the spectrum of images, or `none`.",
        choices=PRECONDITIONERS,
    )
    bounds: str = _setting(
        "soft",
        "How the image's values are kept in [0, 1]: by a change of variables, or `none` until it "
        "is saved.",
        choices=BOUNDS,
    )
    tile: int = _setting(
        0,
        "Compute the network on tiles of N pixels a side, exactly, for images too large for "
        "memory; 0: on the whole image.",
    )

    remat: bool = _setting(
        False,
        "Save memory: keep only what goes from block to block of the network, and compute each "
        "again for the gradient.",
    )
    precision: str = _setting(
        "tf32",
        "Numbers in the network: products by TF32 on GPUs that have it (elsewhere float32; TPUs "
        "bfloat16), float32 everywhere, or bfloat16 maps. Losses and the optimizer are float32's.",
        choices=PRECISIONS,
    )

    def __post_init__(self) -> None:
        for name in _LAYERS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, layer_weights(getattr(self, name), name))
        for name in ("content_weight", "style_weight", "tv_weight", "learning_rate"):
            self._number(name, low=0, exclusive=name == "learning_rate")
        if self.strength is not None:
            self._number("strength", low=0, high=1)
            for name in ("content_weight", "style_weight"):
                if getattr(self, name) is not None:
                    raise JaxstyleError(
                        f"strength: {self.strength!r} and {name} {getattr(self, name)!r} are two "
                        "ways to say one thing; give one of them"
                    )
        self._number("average", low=0, high=0.9999)
        if self.style_blend is not None:
            object.__setattr__(self, "style_blend", parse_blend_weights(self.style_blend))
        self._number("style_scale", low=0, exclusive=True, high=8)
        self._number("scale_ratio", low=1, exclusive=True, high=16)
        self._number("scale_content", low=0, exclusive=True, high=16)
        self._number("noise_std", low=0)
        self._number("noise_blend", low=0, high=1)
        if self.content_mask is not None and not is_file_name(self.content_mask):
            raise JaxstyleError(f"content_mask: {self.content_mask!r} is not the name of a file")
        object.__setattr__(self, "mask", parse_mask_pairs(self.mask))
        self._number("decay", low=0, exclusive=True, high=1)
        self._number("momentum", low=0, high=1)
        self._number("adam_b2", low=0, high=1)
        for name, low, high in (
            ("steps", 1, _LARGEST_INTEGER),
            ("size", 0, _LARGEST_INTEGER),
            ("history_size", 1, MAX_HISTORY_SIZE),
            ("seed", 0, _LARGEST_INTEGER),
            ("tile", 0, _LARGEST_INTEGER),
            ("scales", 1, MAX_SCALES),
            ("pyramid", 1, MAX_SCALES),
            ("margin", 0, 256),
        ):
            if getattr(self, name) is not None or name not in _OPTIONAL_INTEGERS:
                value = _check_integer(name, getattr(self, name), low=low, high=high)
                object.__setattr__(self, name, value)
        for name in ("upscale", "remat", "scale_detail", "turn_style"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise JaxstyleError(f"{name}: {shortened(value)} is neither True nor False")
            object.__setattr__(self, name, bool(value))
        for field in dataclasses.fields(self):
            choices = field.metadata.get("choices")
            value = getattr(self, field.name)
            if choices and value not in choices and value is not field.default:
                raise JaxstyleError(
                    f"{field.name}: {value!r} does not exist; choose from {', '.join(choices)}"
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
        # Each on its own: the weights of equal layers cannot be compared under a trace.
        if self.content_layers == () and self.style_layers == ():
            raise JaxstyleError(
                "content_layers and style_layers are both empty; name at least one layer"
            )

    def _number(self, name: str, **bounds: Any) -> None:
        """Convert a setting to a float and check its range; None stays where it is the default."""
        value = getattr(self, name)
        if value is not None or getattr(type(self), name) is not None:
            object.__setattr__(self, name, _check_number(name, value, **bounds))

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
    def total_steps(self) -> int:
        """Steps of all scales together; of one scale while `scales` is None."""
        return self.steps * (self.scales or 1)

    def configure_network(self, network: "Network") -> "Network":
        """Return the network with the preprocessing and the precision of the recipe."""
        changes = INPUTS[self.convention] if self.convention else {}
        convention = dataclasses.replace(network.convention, **changes)
        return dataclasses.replace(network, convention=convention, precision=self.precision)

    def device_part(self) -> "Recipe":
        """Return the recipe with the settings reset that only the host uses.

        Recipes that differ only in those then share one compiled program.
        """
        colors = "luminance" if self.preserve_color == "luminance" else "none"
        return dataclasses.replace(
            self,
            init="content",
            noise_blend=0.0,
            upscale=False,
            style_blend=None,
            style_scale=1.0,
            preserve_color=colors,
            # Programs depend on whether there are masks, not on their file names.
            content_mask=self.content_mask and WHOLE,
            mask=((WHOLE, WHOLE),) * len(self.mask),
        )

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
            kinds = set(typing.get_args(hints[name])) or {hints[name]}
            if name in _LAYERS:
                kinds = (kinds & {type(None)}) | {str, dict}
            elif name == "style_blend":
                kinds = {type(None), str, list}
            elif name == "mask":
                kinds = {list}
            elif float in kinds:
                kinds |= {int}
            if type(value) not in kinds:
                named: dict[Any, str] = {list: "a list of pairs"} if name == "mask" else {}
                named |= {float: "a number", bool: "true or false", int: "a whole number"}
                wanted = next((n for kind, n in named.items() if kind in kinds), "a text")
                raise JaxstyleError(
                    f"{name}: {shortened(value)} is of the wrong type; give {wanted}"
                )
        return cls(**settings)

    # Traced numbers and static settings (see the class docstring).

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        layers = [getattr(self, name) for name in _LAYERS]
        weights = [None if pairs is None else tuple(w for _, w in pairs) for pairs in layers]
        names = tuple(None if pairs is None else tuple(l for l, _ in pairs) for pairs in layers)
        numbers = tuple(getattr(self, name) for name in _NUMBERS)
        structure = tuple(getattr(self, name) for name in _STRUCTURE)
        return (weights, numbers), (names, structure)

    @classmethod
    def tree_unflatten(cls, structure: tuple[Any, ...], numbers: tuple[Any, ...]) -> "Recipe":
        # Without `__init__`: leaves may be tracers or placeholders, which cannot be checked.
        recipe = object.__new__(cls)
        (names, static), (weights, values) = structure, numbers
        layers = tuple(
            None if n is None else tuple(zip(n, w, strict=True))
            for n, w in zip(names, weights, strict=True)
        )
        fields = _LAYERS + _NUMBERS + _STRUCTURE
        for name, value in zip(fields, (*layers, *values, *static), strict=True):
            object.__setattr__(recipe, name, value)
        return recipe


_LAYERS = ("content_layers", "style_layers")
_NUMBERS = (
    "content_weight",
    "style_weight",
    "tv_weight",
    "noise_std",
    "seed",
    "size",
    "steps",
    "learning_rate",
    "decay",
    "momentum",
    "adam_b2",
    "average",
)
_STRUCTURE = tuple(
    field.name for field in dataclasses.fields(Recipe) if field.name not in _LAYERS + _NUMBERS
)
_OPTIONAL_INTEGERS = ("history_size", "scales", "pyramid", "margin")
"""Whole numbers that may be None, chosen for the network and the images of a run."""
