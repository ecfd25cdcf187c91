"""Runs in a notebook, with images and curves updated in place.

Outside a notebook the same functions print lines.
"""

import base64
import html
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxstyle import images, sweep
from jaxstyle.engine.iterate import Iterate
from jaxstyle.engine.loop import iterates
from jaxstyle.engine.problem import Problem
from jaxstyle.engine.results import Result, append_iterate, finish
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath
from jaxstyle.monitor.interrupts import interrupts
from jaxstyle.monitor.live import Live, View
from jaxstyle.monitor.pace import Course, clock
from jaxstyle.weights import load_network

LONGEST_SHOWN = 384
"""Longest side of the images shown, in pixels; results are not reduced."""


def watch(
    problem: Problem, *, chunk_size: int | None = None, labels: Sequence[str] | None = None
) -> list[Result]:
    """Run a problem and show the best images so far and the losses after each chunk of steps.

    The notebook's stop button (Ctrl-C elsewhere) stops the run after the current chunk; the results
    are those of the steps so far.

    Args:
      problem: from `jaxstyle.prepare`; the images of a batch are shown side by side.
      chunk_size: steps per chunk, as in `jaxstyle.iterates`.
      labels: name of each batch element.

    Returns:
      One `Result` per batch element, in order.
    """
    live = Live(Course.of(problem), labels=labels)
    canvas = _Canvas()
    collected: list[Iterate] = []
    stopped = False
    with interrupts() as check_interrupt:
        try:
            for iterate in iterates(problem, chunk_size=chunk_size, first=1):
                append_iterate(collected, iterate)
                live.tick(iterate)
                canvas.update(live)
                check_interrupt()
        except KeyboardInterrupt:
            if not collected:
                raise
            stopped = True
    # Free the memory of the optimizer's state.
    collected[-1] = collected[-1]._replace(carry=None)
    results = finish(problem, collected)
    canvas.update(live, stopped=stopped, finished=True)
    return results


def watch_grid(
    file: StrPath, folder: StrPath, *, elements: int | None = None
) -> list[sweep.FinishedCell]:
    """Run the cells of a grid file and show them as they finish.

    Another call with the same folder runs the missing cells only. The notebook's stop button stops
    the grid; the running cells are lost, and the finished ones are returned.

    Args:
      file: TOML file as for `jaxstyle grid`.
      folder: folder for the images and reports of the cells.
      elements: largest number of cells at a time; chosen by the memory if not given.

    Returns:
      The finished cells, in the grid's order.

    Raises:
      JaxstyleError: the file is invalid, or the folder cannot be written.
    """
    cells = sweep.cells(sweep.read(Path(file)), load_network)
    groups = sweep.group_cells(cells)
    sweep.check(groups)
    store = sweep.Store(Path(folder))
    place = _Place()

    def finished(reports: Mapping[str, sweep.Report]) -> list[sweep.FinishedCell]:
        return [
            sweep.FinishedCell(
                reports[cell.key],
                image_path=Path(reports[cell.key]["images"]["output"]["path"]),
                settings={axis: cell.settings[axis] for axis in cell.axes},
            )
            for cell in cells
            if cell.key in reports
        ]  # fmt: skip

    def draw(reports: Mapping[str, sweep.Report], words: str) -> None:
        done = finished(reports)
        captions = [
            ", ".join(f"{k} {v}" for k, v in cell.settings.items()) + f": {cell.loss:.4g}"
            for cell in done
        ]
        words = f"{len(done)} of {len(cells)} cells  {words}"
        if not place.notebook:
            print(words)
            return
        imgs = [_encoded(cell.image) for cell in done]
        place.put(f"<p>{html.escape(words)}</p>{_row(imgs, captions)}")

    with store.open():
        reports = store.find(cells)
        draw(reports, "")
        with interrupts() as check_interrupt:

            def keep(new_reports: Mapping[str, sweep.Report]) -> None:
                reports.update(new_reports)
                draw(reports, "")

            try:
                sweep.run(
                    groups, reports, store, elements=elements,
                    show=lambda progress: check_interrupt(), kept=keep,
                )  # fmt: skip
            except KeyboardInterrupt:
                draw(reports, "stopped; run again to go on")
    return finished(reports)


def show(images: ArrayLike | Sequence[ArrayLike], *, labels: Sequence[str] | None = None) -> None:
    """Show one image `[h, w, 3]` in [0, 1], or several side by side, each with a label.

    Raises:
      JaxstyleError: there is no image, or there are not as many labels as images.
    """
    if not len(images):  # type: ignore[arg-type]
        raise JaxstyleError("images: [] has no image to show; give at least one")
    several: Sequence[Any] = [images] if np.ndim(images[0]) == 2 else list(images)  # type: ignore
    texts = [""] * len(several) if labels is None else list(labels)
    if len(texts) != len(several):
        raise JaxstyleError(
            f"labels: {len(texts)} are given for {len(several)} images; give one per image"
        )
    if not in_notebook():
        for text, image in zip(texts, several, strict=True):
            height, width = np.shape(image)[:2]
            print(f"image {text}: {width}x{height}".replace(" :", ":"))
        return
    shown = [_encoded(np.asarray(image)) for image in several]
    _display(_row(shown, texts))


def describe_devices() -> None:
    """Print the devices and the JAX version."""
    for device in jax.devices():
        memory = (device.memory_stats() or {}).get("bytes_limit")
        size = f", {memory / 1e9:.1f} GB" if memory else ""
        print(f"JAX {jax.__version__} on {device.platform}: {device.device_kind}{size}")


def in_notebook() -> bool:
    """Return whether output goes to a notebook rather than to a terminal or a file."""
    # Notebooks have imported IPython.
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


class _Place:
    """The output of a cell, replaced at each update."""

    def __init__(self) -> None:
        self._handle: Any = None
        self.notebook = in_notebook()

    def put(self, page: str) -> None:
        """Replace the output by HTML."""
        if self._handle is None:
            self._handle = _display(page)
        else:
            self._handle.update(_html(page))


class _Canvas:
    """The output of a run in a notebook, or printed lines elsewhere."""

    def __init__(self) -> None:
        self._place = _Place()
        self._printed: int | None = None

    def update(self, live: Live, *, stopped: bool = False, finished: bool = False) -> None:
        view = live.view()
        assert view is not None  # `update` follows a `tick`
        words = _words(view, stopped=stopped, finished=finished)
        if not self._place.notebook:
            # About ten lines per run, for any chunk size.
            due = self._printed is None or view.step - self._printed >= view.steps / 10
            if due or (finished and (stopped or self._printed != view.step)):
                self._printed = view.step
                print(words)
            return
        images = [live.image(k, longest_side=LONGEST_SHOWN) for k in range(len(view.losses))]
        labels = list(view.labels) if len(images) > 1 else [""]
        captions = [
            f"{label} {loss:.4g}".strip() for label, loss in zip(labels, view.losses, strict=True)
        ]
        self._place.put(f"<p>{html.escape(words)}</p>{_row(images, captions)}{live.curves()}")


def _words(view: View, *, stopped: bool, finished: bool) -> str:
    best = int(np.nanargmin(view.losses)) if np.isfinite(view.losses).any() else 0
    terms = "  ".join(f"{name} {term:.4g}" for name, term in view.terms[best].items())
    parts = [f"step {view.step}/{view.steps}", f"loss {view.losses[best]:.4g} ({terms})"]
    if len(view.losses) > 1:
        parts.append(f"best batch element: {view.labels[best]}")
    if stopped:
        parts.append("stopped; the best image so far is kept")
    elif not finished and view.evaluations_per_second and view.seconds_left is not None:
        parts.append(f"{view.evaluations_per_second:.3g} evaluations/s")
        parts.append(f"{clock(view.seconds_left)} left")
    return "  ".join(parts)


def _encoded(image: np.ndarray) -> bytes:
    return images.encode_image(images.fit(image, LONGEST_SHOWN, min_side=1), "JPEG")


def _row(images: Sequence[bytes], captions: Sequence[str]) -> str:
    figures = "".join(
        '<figure style="display:inline-block;margin:0 8px 8px 0">'
        f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for data, caption in zip(images, captions, strict=True)
    )
    return f"<div>{figures}</div>"


def _html(page: str) -> Any:
    from IPython.display import HTML

    return HTML(page)


def _display(page: str) -> Any:
    from IPython.display import display

    return display(_html(page), display_id=True)
