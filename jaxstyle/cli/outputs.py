"""The files that a command writes: an image for each batch element, and the report."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jaxstyle import images
from jaxstyle.cli.rescue import Writer, write_there
from jaxstyle.engine.results import Result
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath, check_writable, is_stream, numbered
from jaxstyle.images import Array
from jaxstyle.nn.network import Network
from jaxstyle.provenance.record import as_text
from jaxstyle.provenance.report import batch_report, record, run_report, write_report

_SAME = {("-o", "--from"), ("--checkpoint", "--resume")}
"""What may be written over what was read: the same again, or further."""


def check_outputs(
    output: Path,
    *,
    batch: int,
    bit_depth: int,
    snapshots: range,
    report: Path | None,
    checkpoint: Path | None,
    read: Iterable[tuple[str, StrPath | None]],
) -> None:
    """Raise a `JaxstyleError` now for a file that could not be written after the long work, or that
    would be written over another one.

    Args:
      output: what `-o` names.
      batch: batch elements.
      bit_depth: of the output.
      snapshots: steps after which the image so far is written too.
      report: what `--report` names.
      checkpoint: what `--checkpoint` names.
      read: the files that the run depends on, each with the argument that names it; None if that
        was not given.
    """
    images.check_output(output, argument="-o")
    images.check_bit_depth(bit_depth, images.format_of(output), argument="--bit-depth")
    written: list[tuple[str, StrPath]] = [("-o", output)]
    elements = element_paths(output, batch)
    written += [("-o", path) for path in elements]
    for flag, path in (("--report", report), ("--checkpoint", checkpoint)):
        if path is not None:
            if flag == "--report" and is_stream(path):
                continue
            check_writable(path, argument=flag)
            written.append((flag, path))
    taken: dict[Path, str] = {}
    for name, file in (*read, *written):
        if file is None:
            continue
        other = taken.setdefault(Path(os.path.realpath(file)), name)
        if other != name and (name, other) not in _SAME and (name, file) in written:
            raise JaxstyleError(f"{name}: {file} is the file of {other} too; choose another")
    shots = {Path(os.path.realpath(numbered(path, snapshot_suffix(0)))) for path in elements}
    for file, name in taken.items():
        if snapshots and name != "--from" and _step(file, shots) in snapshots:
            raise JaxstyleError(f"{name}: {file} is a file of --save-every too; choose another")


def element_paths(output: Path, batch: int) -> list[Path]:
    """Return one path for each batch element: `output`, or with -000 … before its ending."""
    return [output] if batch == 1 else [numbered(output, f"-{k:03}") for k in range(batch)]


def snapshot_suffix(step: int) -> str:
    """Return what stands before the ending of the image after `step` steps."""
    return f"-step{step:04}"


def _step(file: Path, shots: Set[Path]) -> int | None:
    """Return the step that a file is the snapshot of, if it is any; `shots` are those of step 0.

    By its name, as there may be more snapshots than could be listed.
    """
    match = re.fullmatch(r"(.*-step)(\d{4,})(\D*)", file.name)
    if match is None or file.with_name(f"{match[1]}0000{match[3]}") not in shots:
        return None
    return int(match[2])


@dataclass(frozen=True)
class Outputs:
    """The output files of a run and the records inside them."""

    paths: Sequence[Path]
    """One a batch element."""
    network: Network
    weights: str
    """As they were asked for."""
    inputs: Mapping[str, Any]
    asked: Mapping[str, Any]
    """Settings as they were asked for, where resolving changed them."""
    alpha: Array | None
    """Opacity of the content image `[h, w]`, the output's where its format has any."""
    bit_depth: int

    @classmethod
    def elements(cls, output: Path, batch: int, **settings: Any) -> "Outputs":
        """Build the outputs of a run, one file for each batch element (`element_paths`)."""
        return cls(element_paths(output, batch), **settings)

    def save(
        self, results: Sequence[Result], suffix: str = "", *, to: Writer = write_there
    ) -> None:
        """Write every batch element's image, `suffix` before its ending; all are tried.

        Raises:
          JaxstyleError: those that could not be written.
        """
        problems = []
        for path, result in zip(self.paths, results, strict=True):
            made = record(result, **self._about)
            opacity = self._opacity(result.image)
            if images.format_of(path) not in images.ALPHA_FORMATS:
                opacity = None
            image = result.image if opacity is None else images.over_nothing(result.image, opacity)
            write = partial(
                images.save_image,
                array=image,
                argument="-o",
                text=as_text(made),
                alpha=opacity,
                bit_depth=self.bit_depth,
            )
            try:
                to(write, numbered(path, suffix))
            except JaxstyleError as error:
                problems.append(str(error))
        if problems:
            raise JaxstyleError("; ".join(problems))

    @property
    def _about(self) -> dict[str, Any]:
        """Return the part of the records that all images share."""
        return {
            "network": self.network, "weights": self.weights, "inputs": self.inputs,
            "asked": self.asked,
        }  # fmt: skip

    def _opacity(self, image: Array) -> Array | None:
        """Return the opacity at an image's size."""
        if self.alpha is None:
            return None
        return images.resize(self.alpha[..., None], *image.shape[:2])[..., 0]

    def report(self, file: Path, results: Sequence[Result]) -> None:
        """Write the report of images that have been saved."""
        runs = [
            run_report(result, output=path, **self._about)
            for path, result in zip(self.paths, results, strict=True)
        ]
        write_report(file, runs[0] if len(runs) == 1 else batch_report(runs))
