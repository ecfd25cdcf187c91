"""The page of one run: the picture so far over the content picture, curves, numbers."""

from typing import Any, ClassVar

import numpy as np

from jaxstyle import images
from jaxstyle.live import Live
from jaxstyle.serve.view import Answer, View, finite


class RunView(View):
    """A run, or the lanes of a batch.

    Args:
      live: the run's pictures and numbers, to be ticked by it.
      content: the picture `[h, w, 3]` in [0, 1] to compare with, as large as those of the run.
    """

    FILES: ClassVar = {"": "run.html", "run.js": "run.js"}

    def __init__(self, live: Live, content: np.ndarray):
        super().__init__()
        self.live = live
        self._content = images.encode_image(content, "JPEG")

    def numbers(self, since: int) -> dict[str, Any]:
        """Give the numbers of the last iterate, a loss and terms a lane."""
        view = self.live.view()
        if view is None:
            return {"step": None}
        return {
            "step": view.step,
            "steps": view.steps,
            "labels": list(view.labels),
            "losses": [finite(loss) for loss in view.losses],
            "terms": [{k: finite(v) for k, v in terms.items()} for terms in view.terms],
            "evaluations_per_second": view.evaluations_per_second,
            "seconds_left": view.seconds_left,
        }

    def answer(self, name: str, number: int | None) -> Answer:
        """Give `content`, `curves` (SVG), or `picture/LANE`, the best so far."""
        match name, number:
            case "content", None:
                return Answer(self._content, "image/jpeg")
            case "curves", None:
                return Answer(self.live.curves(width=720, height=260), "image/svg+xml")
            case "picture", int(lane):
                return Answer(self.live.picture(lane), "image/jpeg")
        raise LookupError(name)
