"""The page of one run: the image so far over the content image, loss curves and numbers."""

from typing import Any, ClassVar

import numpy as np

from jaxstyle import images
from jaxstyle.monitor.live import Live
from jaxstyle.monitor.serve.view import Answer, View, finite


class RunView(View):
    """A run of one image or of a batch.

    Args:
      live: state of the run; its `tick` is called by the loop of the run.
      content: content image `[h, w, 3]` in [0, 1], of the size of the output.
    """

    FILES: ClassVar = {"": "run.html", "run.js": "run.js"}

    def __init__(self, live: Live, content: np.ndarray):
        super().__init__()
        self.live = live
        self._content = images.encode_image(content, "JPEG")

    def numbers(self, since: int) -> dict[str, Any]:
        """Return the numbers of the last iterate, with loss and terms of each batch element."""
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
        """Return `content`, `curves` (SVG), or `picture/ELEMENT`, the best image so far."""
        match name, number:
            case "content", None:
                return Answer(self._content, "image/jpeg")
            case "curves", None:
                return Answer(self.live.curves(width=720, height=260), "image/svg+xml")
            case "picture", int(element):
                return Answer(self.live.image(element), "image/jpeg")
        raise LookupError(name)
