"""The settings of a run from the page, and their checks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from jaxstyle.config.presets import preset, presets
from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError, shortened

STARTS = ("content", "noise", "style")
MAX_IMAGES = 9
"""Largest number of images of one run, which are a batch."""
MIN_SIZE, MAX_SIZE = 16, 8192


@dataclass(frozen=True)
class Settings:
    """The settings of a run, with images given by their numbers in the studio's folder.

    Raises:
      JaxstyleError: a value is out of range or has the wrong type; the message names it.
    """

    photo: int
    styles: tuple[int, ...]
    strength: float | None = None
    """As in `Recipe.strength`; the preset's weights if None."""
    size: int = 512
    starts: tuple[str, ...] = ("content",)
    """Initial image, from `STARTS`, of each image of the run."""
    noise_blend: float = 0.0
    """Share of noise in the initial images, which makes equal ones differ."""
    continues: int | None = None
    """Number of a finished image to start from."""
    seed: int = 0
    """Seed of the first image; the others have the seeds after it."""
    preset: str = "default"
    steps: int | None = None

    def __post_init__(self) -> None:
        if not _whole(self.photo):
            raise JaxstyleError("photograph: none is chosen; choose one, or drop one on the page")
        if not (self.styles and all(map(_whole, self.styles))):
            raise JaxstyleError("style: none is chosen; choose one or several")
        if not _whole(self.size) or not MIN_SIZE <= self.size <= MAX_SIZE:
            raise JaxstyleError(
                f"size: {shortened(self.size)} is out of range; give a whole number from "
                f"{MIN_SIZE} to {MAX_SIZE}"
            )
        if not 1 <= len(self.starts) <= MAX_IMAGES:
            raise JaxstyleError(
                f"images: {len(self.starts)} is out of range; give 1 to {MAX_IMAGES}"
            )
        for start in self.starts:
            if start not in STARTS:
                raise JaxstyleError(
                    f"start: {shortened(start)} does not exist; choose from {', '.join(STARTS)}"
                )
        if self.continues is not None and not _whole(self.continues):
            raise JaxstyleError(
                f"continues: {shortened(self.continues)} is not the number of an image"
            )
        if not isinstance(self.preset, str) or self.preset not in presets:
            raise JaxstyleError(
                f"preset: {shortened(self.preset)} does not exist; choose from {', '.join(presets)}"
            )
        self.recipe()

    @classmethod
    def from_dict(cls, given: Any) -> "Settings":
        """Build settings from untrusted JSON values.

        Raises:
          JaxstyleError: the value is not a mapping of settings, or a setting is invalid.
        """
        if not isinstance(given, Mapping):
            raise JaxstyleError("run: the request holds no settings; load the page again")
        values = dict(given)
        for name in ("styles", "starts"):
            if name in values:
                if not isinstance(values[name], list):
                    raise JaxstyleError(f"{name}: {shortened(values[name])} is not a list")
                values[name] = tuple(values[name])
        try:
            return cls(**{"photo": None, "styles": (), **values})
        except TypeError as error:
            raise JaxstyleError(f"run: {error}; load the page again") from None

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as a dictionary for JSON."""
        return asdict(self)

    def of_image(self, number: int) -> "Settings":
        """Return the settings that reproduce one image of the run alone."""
        return replace(self, starts=(self.starts[number],), seed=self.seed + number)

    def recipe(self) -> Recipe:
        """Return the recipe; if `continues` is set, without that initial image."""
        given = {
            "strength": self.strength,
            "size": self.size,
            "seed": self.seed,
            "steps": self.steps,
            "init": self.starts[0],
            "noise_blend": self.noise_blend or None,
        }
        return preset(self.preset, {name: v for name, v in given.items() if v is not None})


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
