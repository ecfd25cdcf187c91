"""`Recipe`: every setting of a run, with its default, range and help text.

The flags of the command line are built from these fields; Python functions and grid files use the
same names.
"""

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxstyle.config.choices import (
    BOUNDS,
    COLOR_MATCHES,
    GRAM_NORMALIZATIONS,
    LBFGS_OPTIMIZERS,
    OPTIMIZERS,
    POOLINGS,
    POSITION_MEAN_LOSSES,
    PRECISIONS,
    PRECONDITIONERS,
    PREPROCESSING_CHANGES,
    REDUCTIONS,
    SCHEDULES,
    STYLE_LOSSES,
    VARIATIONS,
)
from jaxstyle.config.combinations import check_combinations
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
from jaxstyle.config.fields import choice_setting, setting
from jaxstyle.config.json_types import LAYER_SETTINGS, json_types
from jaxstyle.config.layers import LayerWeights, layer_weights
from jaxstyle.config.validation import (
    blend_weights,
    boolean,
    file_name,
    integer,
    mask_pairs,
    number,
)
from jaxstyle.errors import JaxstyleError, shortened

if TYPE_CHECKING:
    from jaxstyle.nn.network import Network


# For networks normalized to a mean activation of 1, and for others.
_NORMALIZED, _OTHER = TERM_DEFAULTS[True], TERM_DEFAULTS[False]


@dataclass(frozen=True)
class Recipe:
    """The settings of a run: immutable Python values, compared by value.

    Changing one of its numbers in `jaxstyle.Numbers` does not recompile, as programs take these as
    arguments, and grids `vmap` over them.

    Raises:
      JaxstyleError: a value is out of range; the message names the field, the value and the range.

    Example:
      >>> Recipe(size=256, content_layers="relu4_2:2").content_layers
      (('relu4_2', 2.0),)
    """

    content_layers: LayerWeights = setting(
        (("relu4_2", 1.0),),
        "Layers of the content loss, comma-separated as `layer[:weight]`; `all` for every layer.",
        layer_weights,
    )
    style_layers: LayerWeights | None = setting(
        None,
        "Layers of the style loss, comma-separated as `layer[:weight]`; default: "
        "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1, with the weights 1, 4, 16, 64, 64 if "
        "--style-loss is gram and the network is normalized, as `medium` and `compact` are.",
        layer_weights,
    )
    strength: float | None = setting(
        None,
        "Strength of the style, from 0 (the photograph) to 1 (the painting's texture with hints of "
        "the photograph). Replaces --content-weight and --style-weight, whose defaults correspond "
        f"to {DEFAULT_STRENGTH:g}.",
        number(high=1),
    )
    content_weight: float | None = setting(
        None,
        f"Weight of the content loss (alpha); default: {_NORMALIZED.content_weight:g}, or "
        f"{_OTHER.content_weight:g} for a network that is not normalized.",
        number(),
    )
    style_weight: float | None = setting(
        None,
        "Weight of the style loss (beta); default: computed from the images, so that pale and "
        "vivid paintings have the same effect.",
        number(),
    )
    tv_weight: float | None = setting(
        None,
        f"Weight of the total variation; default: {_NORMALIZED.tv_weight:g}, or "
        f"{_OTHER.tv_weight:g} for a network that is not normalized.",
        number(),
    )
    style_blend: tuple[float, ...] | None = setting(
        None,
        "Weights of the style images, comma-separated, one per image; only their ratios matter; "
        "default: equal weights.",
        blend_weights,
        metavar="X,X",
    )
    style_scale: float = setting(
        1.0,
        "Factor by which the style images are resized, up to 8; smaller images give smaller "
        "strokes.",
        number(above=0, high=8),
    )
    content_mask: str | None = setting(
        None,
        "Gray image that weights the content loss: 1 where it is white, 0 where it is black.",
        file_name,
        metavar="FILE",
    )
    mask: tuple[tuple[str, str], ...] = setting(
        (),
        "Two gray images: a style is applied where REGION is white, and taken from its image where "
        "STYLE_REGION is white; `-` for a whole image. Give it once per style, in their order.",
        mask_pairs,
        metavar="REGION STYLE_REGION",
    )
    preserve_color: str = choice_setting(
        "none",
        "Keep the content's colors: `luminance` stylizes the luminance only; `cholesky` and "
        "`histogram` first match the style's colors to the content's.",
        COLOR_MATCHES,
    )
    content_loss: str = setting(
        "features",
        "Content losses, comma-separated as `loss[:weight]`: `features` of the content layers, "
        "their `self-similarity`, or the `laplacian` of the image.",
        content_losses,
        metavar="LOSSES",
    )
    style_loss: str = choice_setting("wasserstein", "Style loss.", STYLE_LOSSES)
    turn_style: bool = setting(
        False,
        "Add copies of the style images that are rotated by 90, 180 and 270 degrees.",
        boolean,
    )
    gram_normalization: str = choice_setting(
        "elements",
        "Divisor of Gram matrices: the number of elements or positions of the feature map, or of "
        "pixels.",
        GRAM_NORMALIZATIONS,
    )
    style_reduction: str = choice_setting(
        "mean", "Reduction of the squared differences of Gram matrices.", REDUCTIONS
    )
    content_reduction: str = choice_setting(
        "mean", "Reduction of the squared differences of features.", REDUCTIONS
    )
    variation: str = choice_setting(
        "mean-squared",
        "Form of the total variation; for all forms but the default, --tv-weight is 0 by default.",
        VARIATIONS,
    )
    pooling: str = choice_setting("max", "Pooling of the network.", POOLINGS)
    convention: str | None = choice_setting(
        None,
        "Preprocessing of images for the network, as in one of the programs that presets "
        "reproduce; default: that of the weights.",
        tuple(PREPROCESSING_CHANGES),
    )
    init: str = setting(
        "content",
        "Initial image: `content`, `noise`, `style`, `recolored` (the content in the colors of the "
        "style) or an image file.",
        file_name,
    )
    noise_std: float = setting(
        1.0,
        "Standard deviation of the initial noise, on the 0-255 scale of the network's input; "
        "--bounds soft then brings the image into [0, 1].",
        number(),
    )
    noise_blend: float = setting(
        0.0,
        "Share of noise in the initial image, from 0 to 1; the rest is the image of --init.",
        number(high=1),
    )
    seed: int = setting(0, "Seed of the initial noise.", integer())
    size: int = setting(
        512,
        "Longest side of the output in pixels; 0 keeps the size of the content image.",
        integer(),
    )
    upscale: bool = setting(False, "Allow --size to enlarge a smaller content image.", boolean)
    margin: int | None = setting(
        None,
        "Pixels by which the network's input is extended at each edge, by reflection, to avoid "
        f"artifacts at edges; default: {DEFAULT_MARGIN}, or 0 with --scales 1.",
        integer(high=256),
    )
    steps: int = setting(150, "Optimizer steps per scale.", integer(low=1))
    scales: int | None = setting(
        None,
        "Number of sizes at which the image is optimized, one after the other, up to --size; "
        "default: as many as --scale-side allows.",
        integer(low=1, high=MAX_SCALES),
    )
    scale_side: int = setting(
        SCALE_SIDE,
        "Minimum longer side of the first scale, in pixels, if --scales is not given.",
        integer(low=16),
    )
    scale_ratio: float = setting(
        2.0, "Ratio of each scale's size to that of the scale before.", number(above=1, high=16)
    )
    scale_detail: bool = setting(
        True,
        "Start each larger scale with the detail of the initial image that the smaller one lacked.",
        boolean,
    )
    scale_content: float = setting(
        1.0,
        "Factor of the content weight at each scale relative to the next larger one.",
        number(above=0, high=16),
    )
    pyramid: int | None = setting(
        None,
        "Number of resolutions of the style loss, each half of the one before; default: down to "
        f"{PYRAMID_SIDE} pixels on the longer side, or 1 with --scales 1.",
        integer(low=1, high=MAX_SCALES),
    )
    average: float | None = setting(
        None,
        "Return an exponential moving average of the images of all steps, with this decay, instead "
        "of the best image.",
        number(high=0.9999),
    )
    optimizer: str = choice_setting("lbfgs", "Optimizer.", OPTIMIZERS)
    learning_rate: float | None = setting(
        None,
        "Learning rate of first-order optimizers, for images in [0, 1]; default: "
        + ", ".join(f"{name} {rate:g}" for name, rate in DEFAULT_LEARNING_RATES.items())
        + ".",
        number(above=0),
    )
    schedule: str = choice_setting("constant", "Schedule of the learning rate.", SCHEDULES)
    decay: float = setting(
        0.01,
        "Last learning rate of a schedule, as a fraction of the first.",
        number(above=0, high=1),
    )
    momentum: float = setting(0.9, "Momentum of the optimizer `momentum`.", number(high=1))
    adam_b2: float = setting(
        0.999, "Decay rate of the second moment of the optimizer `adam`.", number(high=1)
    )
    history_size: int | None = setting(
        None,
        "Number of pairs in the history of L-BFGS, each as large as two images; default: "
        f"{DEFAULT_HISTORY_SIZE}, or {WIDE_HISTORY_SIZE} for networks as wide as VGG; fewer if "
        f"memory is short, but at least {MIN_HISTORY_SIZE}.",
        integer(low=1, high=MAX_HISTORY_SIZE),
    )
    preconditioner: str = choice_setting(
        "spectrum",
        "Preconditioner of the optimizer `lbfgs`: the spectrum of images, or `none`.",
        PRECONDITIONERS,
    )
    bounds: str = choice_setting(
        "soft",
        "Constraint of the image's values to [0, 1]: `soft` is a change of variables; `none` clips "
        "them only when the image is saved.",
        BOUNDS,
    )
    tile: int = setting(
        0,
        "Side of the tiles, in pixels, on which the network is computed, for images too large for "
        "memory; the result is exact; 0: no tiles.",
        integer(),
    )

    remat: bool = setting(
        False,
        "Save memory by rematerialization: store only the outputs of the network's blocks, and "
        "compute the rest again for the gradient.",
        boolean,
    )
    precision: str = choice_setting(
        "tf32",
        "Precision of the network: `tf32` has float32 maps with TF32 products on GPUs that have "
        "it, bfloat16 products on TPUs and float32 elsewhere; `bfloat16` has bfloat16 maps. Losses "
        "and the optimizer always use float32.",
        PRECISIONS,
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or field.default is not None:
                object.__setattr__(self, field.name, field.metadata["check"](field.name, value))
        check_combinations(self)

    @property
    def compares_features_only(self) -> bool:
        """Whether `features` is the only content loss."""
        return set(split_content_losses(self.content_loss)) == {"features"}

    @property
    def is_separable(self) -> bool:
        """Whether the objective depends on the image through means over positions only, which
        tiles and devices can compute in parts."""
        means = self.compares_features_only and self.style_loss in POSITION_MEAN_LOSSES
        return means and self.pooling != "max-ceil"

    def updated(self, settings: Mapping[str, Any]) -> "Recipe":
        """Return the recipe with some settings changed.

        A strength replaces the weights; in a recipe with weights, such as a preset, it scales the
        style weight. A change of the optimizer resets the learning rate to its default.

        Raises:
          JaxstyleError: a setting does not exist, a value is out of range, or both a strength and a
            weight are given.
        """
        _check_names(settings)
        strength = settings.get("strength")
        if strength is not None and self.style_weight is not None:
            # Checks the range, and that no weight is given.
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
        """Names of the style layers; empty if `style_layers` is None."""
        return tuple(layer for layer, _ in self.style_layers or ())

    @property
    def total_steps(self) -> int:
        """Number of steps of all scales; of one scale if `scales` is None."""
        return self.steps * (self.scales or 1)

    @property
    def lbfgs_pairs(self) -> int:
        """Number of pairs that L-BFGS keeps, 0 for other optimizers; of a resolved recipe."""
        if self.optimizer not in LBFGS_OPTIMIZERS:
            return 0
        assert self.history_size is not None, "resolved"
        return self.history_size

    def configure_network(self, network: "Network") -> "Network":
        """Return the network with the recipe's preprocessing and precision."""
        changes = PREPROCESSING_CHANGES[self.convention] if self.convention else {}
        convention = dataclasses.replace(network.convention, **changes)
        return dataclasses.replace(network, convention=convention, precision=self.precision)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values, with layers as `{"relu4_2": 1.0}`."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in LAYER_SETTINGS:
            values[name] = None if values[name] is None else dict(values[name])
        if self.style_blend is not None:
            values["style_blend"] = list(self.style_blend)
        values["mask"] = [list(pair) for pair in self.mask]
        return values

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> "Recipe":
        """Build a recipe from the values of `as_dict`, which may come from an untrusted file.

        Raises:
          JaxstyleError: a setting does not exist, has the wrong type or is out of range.
        """
        _check_names(settings)
        hints = typing.get_type_hints(cls)
        for name, value in settings.items():
            types, description = json_types(name, hints[name])
            if type(value) not in types:
                raise JaxstyleError(
                    f"{name}: {shortened(value)} is of the wrong type; give {description}"
                )
        return cls(**settings)


def _check_names(names: Iterable[str]) -> None:
    """Raise a `JaxstyleError` for the name of a setting that does not exist."""
    fields = [field.name for field in dataclasses.fields(Recipe)]
    for name in names:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(fields)}"
            raise JaxstyleError(f"{shortened(name)}: not a setting of a recipe; {hint}")
