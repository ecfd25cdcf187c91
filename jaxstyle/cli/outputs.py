"""The output files of a command: an image for each batch element, and the report."""

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
"""Pairs of an output and an input that may be one file, as the output repeats or continues the
input."""


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
    """Raise an error, before long work, for files that cannot be written or overwrite others.

    Args:
      output: file of `-o`.
      batch: batch size.
      bit_depth: bits per channel of the output.
      snapshots: steps at which the image so far is written.
      report: file of `--report`, if given.
      checkpoint: file of `--checkpoint`, if given.
      read: input files of the run, each with its argument; None if not given.

    Raises:
      JaxstyleError: a file cannot be written, or two arguments name the same file.
    """
    elements = element_paths(output, batch)
    for element in elements:
        check_writable(element, argument="-o")
    images.check_bit_depth(
        bit_depth, images.format_of(output, argument="-o"), argument="--bit-depth"
    )
    written: list[tuple[str, StrPath]] = [("-o", path) for path in elements]
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
        step = _step(file, shots)
        # A range that is asked for None looks through all its numbers.
        if name != "--from" and step is not None and step in snapshots:
            raise JaxstyleError(f"{name}: {file} is a file of --save-every too; choose another")


def element_paths(output: Path, batch: int) -> list[Path]:
    """Return the path of each batch element: `output`, or with -000 … before its extension."""
    return [output] if batch == 1 else [numbered(output, f"-{k:03}") for k in range(batch)]


def snapshot_suffix(step: int) -> str:
    """Return the suffix of a snapshot's file name, such as `-step0100`."""
    return f"-step{step:04}"


def _step(file: Path, shots: Set[Path]) -> int | None:
    """Return the step of a snapshot by its file name, or None if the file is not a snapshot.

    Args:
      file: resolved path.
      shots: snapshots of step 0; there may be too many snapshots to list them all.
    """
    match = re.fullmatch(r"(.*-step)(\d{4,})(\D*)", file.name)
    if match is None or file.with_name(f"{match[1]}0000{match[3]}") not in shots:
        return None
    return int(match[2])


@dataclass(frozen=True)
class Outputs:
    """The output files of a run and the records inside them."""

    paths: Sequence[Path]
    """Path of each batch element."""
    network: Network
    weights: str
    """Requested name or file of the weights."""
    inputs: Mapping[str, Any]
    """Input images, as in the report."""
    unresolved: Mapping[str, Any]
    """Requested values of the settings that resolving changed."""
    alpha: Array | None
    """Alpha channel of the content image, `[h, w]`, for formats that have one; None if opaque."""
    bit_depth: int
    """Bits per channel."""

    @classmethod
    def elements(cls, output: Path, batch: int, **settings: Any) -> "Outputs":
        """Build the outputs of a run, with one file for each batch element (`element_paths`)."""
        return cls(element_paths(output, batch), **settings)

    def save(
        self, results: Sequence[Result], suffix: str = "", *, to: Writer = write_there
    ) -> None:
        """Write the image of each batch element.

        If writing one fails, the others are written nevertheless.

        Args:
          results: result of each batch element.
          suffix: text to insert before the extension.
          to: function that writes a file, such as `rescue`.

        Raises:
          JaxstyleError: some images could not be written.
        """
        problems = []
        for path, result in zip(self.paths, results, strict=True):
            # `show` and `--from` are for images that have a content image, not for textures.
            has_content = self.inputs["content"] is not None
            text = as_text(record(result, **self._about)) if has_content else None
            opacity = self._opacity(result.image)
            if images.format_of(path) not in images.ALPHA_FORMATS:
                opacity = None
            image = result.image
            if opacity is not None:
                image = images.remove_white_background(image, opacity)
            write = partial(
                images.save_image,
                array=image,
                argument="-o",
                text=text,
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
        """Arguments of `record` that all images share."""
        return {
            "network": self.network, "weights": self.weights, "inputs": self.inputs,
            "unresolved": self.unresolved,
        }  # fmt: skip

    def _opacity(self, image: Array) -> Array | None:
        """Return the alpha channel resized to an image, or None."""
        if self.alpha is None:
            return None
        return images.resize(self.alpha[..., None], *image.shape[:2])[..., 0]

    def report(self, file: Path, results: Sequence[Result]) -> None:
        """Write the report of the saved images."""
        runs = [
            run_report(result, output=path, **self._about)
            for path, result in zip(self.paths, results, strict=True)
        ]
        write_report(file, runs[0] if len(runs) == 1 else batch_report(runs))
