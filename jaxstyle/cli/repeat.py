"""`--from` and `--resume`: settings and files of an earlier run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxstyle.config.recipe import Recipe
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import shown
from jaxstyle.nn.network import Network
from jaxstyle.provenance.checkpoint import Checkpoint, read_checkpoint
from jaxstyle.provenance.inputs import named
from jaxstyle.provenance.record import Record, read_record
from jaxstyle.provenance.unresolved import DEPENDENT_DEFAULTS, unset_dependent_defaults


class Repeated(NamedTuple):
    """The settings and files of an earlier run, to repeat or resume it."""

    file: Path
    """Output or checkpoint with the record."""
    record: Record
    recipe: Recipe
    unresolved: Mapping[str, Any]
    """Requested values of the settings that differ in `recipe`, as resolving changed them."""
    content: Path
    styles: tuple[Path, ...]
    weights_name: str
    same_weights: bool
    """Whether the weights must be those of the record; False if others were requested."""
    until: int | None = None
    """Step to stop after, if the output is a snapshot or that of a stopped run."""
    fixed: tuple[str, ...] = ()
    """Settings that are kept although their defaults depend on changed settings, since an older
    record does not say whether they were defaults."""

    @classmethod
    def read(cls, file: Path, weights_name: str) -> "Repeated":
        """Read the record in `file`; a `weights_name` other than `auto` replaces its weights."""
        record = read_record(file, argument="--from")
        # The recipe keeps its steps, on which schedules and scales depend.
        stopped = record.steps < record.recipe.total_steps
        return cls.of(file, record, weights_name)._replace(until=record.steps if stopped else None)

    @classmethod
    def of(cls, file: Path, record: Record, weights_name: str) -> "Repeated":
        """Return the settings and files of a record that was read from `file`."""
        same_weights = weights_name == "auto"
        return cls(
            file,
            record,
            record.recipe,
            record.unresolved,
            record.content.path,
            tuple(style.path for style in record.styles),
            record.weights if same_weights else weights_name,
            same_weights,
        )

    def with_defaults_unset(self, changed: Iterable[str]) -> "Repeated":
        """Return a copy without the resolved defaults that depend on changed settings.

        Args:
          changed: keys of `DEPENDENT_DEFAULTS` and other settings that the command line changes.
        """
        changes = set(changed)
        if "asked" not in self.record.everything:
            kept = {name for key in changes for name in DEPENDENT_DEFAULTS.get(key, ())} - changes
            return self._replace(fixed=tuple(sorted(kept)))
        recipe, unresolved = unset_dependent_defaults(self.recipe, self.unresolved, changes)
        return self._replace(recipe=recipe, unresolved=unresolved)

    def notice(self) -> str | None:
        """Return a notice about `fixed`, or None if it is empty."""
        if not self.fixed:
            return None
        flags = ", ".join("--" + name.replace("_", "-") for name in self.fixed)
        return (
            f"the record in {self.file} is older and does not say what was a default: what is not "
            f"given beside --from stays as it was, also {flags}"
        )

    def check(self, network: Network, inputs: Mapping[str, Any]) -> None:
        """Raise a `JaxstyleError` if the weights or an image of the record have changed.

        Weights and images that were given instead of the record's are not compared.
        """
        if self.same_weights and network.digest != self.record.weights_sha256:
            raise JaxstyleError(
                f"--from: {self.file} was made with other weights named "
                f"{self.weights_name!r} ({self.record.weights_sha256[:12]}, now "
                f"{network.digest[:12]}); choose some with --weights"
            )
        digests = {str(file.path): file.sha256 for file in self.record.files.values() if file}
        today = [file for _, file in named(inputs) if file]
        for file in today:
            if digests.get(file["path"], file["sha256"]) != file["sha256"]:
                raise JaxstyleError(
                    f"--from: {shown(file['path'])} is no longer the image that {self.file} was "
                    "made from; name the images to use"
                )


def find_earlier(
    *, preset_name: str | None, earlier: Path | None, resume: Path | None, weights_name: str
) -> tuple[Repeated | None, Checkpoint | None]:
    """Read the file of `--from` or `--resume`, if either is given.

    Returns:
      The earlier run, or None, and the checkpoint to resume, or None.

    Raises:
      JaxstyleError: more than one of `--preset`, `--from` and `--resume` was given, or the file is
        invalid.
    """
    sources = {"--preset": preset_name, "--from": earlier, "--resume": resume}
    given = [f"{flag} {value}" for flag, value in sources.items() if value is not None]
    if len(given) > 1:
        raise JaxstyleError(f"{' and '.join(given)} both give all settings; give one")
    if resume is not None:
        checkpoint = read_checkpoint(resume)
        return Repeated.of(resume, checkpoint.record, weights_name), checkpoint
    return Repeated.read(earlier, weights_name) if earlier is not None else None, None
