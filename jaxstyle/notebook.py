"""Runs watched in a notebook: pictures and curves updated in place, kept when stopped.

Outside a notebook the same functions print lines, so a cell's code runs anywhere.
"""

import base64
import html
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxstyle import images
from jaxstyle.interrupts import interrupts
from jaxstyle.live import Live, View
from jaxstyle.pace import clock
from jaxstyle.prepare import Job
from jaxstyle.run import Iterate, Result, finish, iterates

LONGEST_SHOWN = 384
"""Pixels of a picture's longer side on the page; results keep all of theirs."""


def watch(
    job: Job, *, every: int | None = None, labels: Sequence[str] | None = None
) -> list[Result]:
    """Run a job, showing the best pictures so far and the loss once a chunk of steps.

    The notebook's stop button (Ctrl-C elsewhere) ends the run after the chunk under way; the
    best pictures are returned as if those steps had been all.

    Args:
      job: from `jaxstyle.prepare`; with `lanes`, all lanes are shown side by side.
      every: steps a chunk, as in `jaxstyle.iterates`.
      labels: one text a lane.

    Returns:
      One `Result` a lane, in order.
    """
    live = Live(job.recipe.steps, labels=labels)
    canvas = _Canvas()
    seen: list[Iterate] = []
    stopped = False
    with interrupts() as check_interrupt:
        try:
            for iterate in iterates(job, every=every):
                seen.append(iterate)
                if len(seen) > 1:
                    seen[-2] = seen[-2]._replace(image=None)  # type: ignore[arg-type]
                live.tick(iterate)
                canvas.update(live)
                check_interrupt()
        except KeyboardInterrupt:
            if not seen:
                raise
            stopped = True
    results = finish(job, seen)
    canvas.update(live, stopped=stopped, finished=True)
    return results


def show(pictures: ArrayLike | Sequence[ArrayLike], *, labels: Sequence[str] | None = None) -> None:
    """Show one picture `[h, w, 3]` in [0, 1], or several side by side, with a label each.

    Raises:
      ValueError: a different number of labels.
    """
    several: Sequence[Any] = [pictures] if np.ndim(pictures[0]) == 2 else list(pictures)  # type: ignore
    texts = [""] * len(several) if labels is None else list(labels)
    if len(texts) != len(several):
        raise ValueError(f"got {len(texts)} labels for {len(several)} pictures")
    if not in_notebook():
        for text, picture in zip(texts, several, strict=True):
            height, width = np.shape(picture)[:2]
            print(f"picture {text}: {width}x{height}".replace(" :", ":"))
        return
    shown = [_encoded(np.asarray(picture)) for picture in several]
    _display(_row(shown, texts))


def describe_devices() -> None:
    """Print where programs will run, and with which JAX."""
    for device in jax.devices():
        memory = (device.memory_stats() or {}).get("bytes_limit")
        size = f", {memory / 1e9:.1f} GB" if memory else ""
        print(f"JAX {jax.__version__} on {device.platform}: {device.device_kind}{size}")


def in_notebook() -> bool:
    """Tell whether output goes to a notebook rather than to a terminal or a file."""
    # Nobody has a notebook without having imported IPython.
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


class _Canvas:
    """One place on the page that is drawn over and over; lines where there is no page."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._notebook = in_notebook()
        self._printed: int | None = None

    def update(self, live: Live, *, stopped: bool = False, finished: bool = False) -> None:
        view = live.view()
        assert view is not None  # `update` follows a `tick`
        words = _words(view, stopped=stopped, finished=finished)
        if not self._notebook:
            # About ten lines a run, whatever the chunks.
            due = self._printed is None or view.step - self._printed >= view.steps / 10
            if due or (finished and (stopped or self._printed != view.step)):
                self._printed = view.step
                print(words)
            return
        pictures = [live.picture(k, longest_side=LONGEST_SHOWN) for k in range(len(view.losses))]
        labels = list(view.labels) if len(pictures) > 1 else [""]
        captions = [
            f"{label} {loss:.4g}".strip() for label, loss in zip(labels, view.losses, strict=True)
        ]
        page = f"<p>{html.escape(words)}</p>{_row(pictures, captions)}{live.curves()}"
        if self._handle is None:
            self._handle = _display(page)
        else:
            self._handle.update(_html(page))


def _words(view: View, *, stopped: bool, finished: bool) -> str:
    best = int(np.nanargmin(view.losses)) if np.isfinite(view.losses).any() else 0
    terms = "  ".join(f"{name} {term:.4g}" for name, term in view.terms[best].items())
    parts = [f"step {view.step}/{view.steps}", f"loss {view.losses[best]:.4g} ({terms})"]
    if len(view.losses) > 1:
        parts.append(f"best lane: {view.labels[best]}")
    if stopped:
        parts.append("stopped; the best picture so far is kept")
    elif not finished and view.evaluations_per_second and view.seconds_left is not None:
        parts.append(f"{view.evaluations_per_second:.3g} evaluations/s")
        parts.append(f"{clock(view.seconds_left)} left")
    return "  ".join(parts)


def _encoded(picture: np.ndarray) -> bytes:
    return images.encode_image(images.fit(picture, LONGEST_SHOWN, min_side=1), "JPEG")


def _row(pictures: Sequence[bytes], captions: Sequence[str]) -> str:
    figures = "".join(
        '<figure style="display:inline-block;margin:0 8px 8px 0">'
        f'<img src="data:image/jpeg;base64,{base64.b64encode(data).decode()}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        for data, caption in zip(pictures, captions, strict=True)
    )
    return f"<div>{figures}</div>"


def _html(page: str) -> Any:
    from IPython.display import HTML

    return HTML(page)


def _display(page: str) -> Any:
    from IPython.display import display

    return display(_html(page), display_id=True)
