"""The page of the studio: its state and its requests."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from jaxstyle import images
from jaxstyle.config.defaults import DEFAULT_STRENGTH
from jaxstyle.config.presets import presets, weights_notice
from jaxstyle.errors import JaxstyleError
from jaxstyle.monitor.serve.view import Answer, View, finite
from jaxstyle.studio.folder import KINDS
from jaxstyle.studio.queue import RunQueue
from jaxstyle.studio.settings import MAX_IMAGES, Settings

THUMBNAIL = 240
"""Longest side of the small images of the page, in pixels."""
LONGEST_SHOWN = 1600
"""Longest side of the large images of the page, in pixels; downloads are not reduced."""


class StudioView(View):
    """The page of a studio.

    Args:
      queue: queue of the studio.
    """

    PACKAGE: ClassVar = "jaxstyle.studio"
    FILES: ClassVar = {
        "": "studio.html",
        "studio.js": "studio.js",
        "studio.css": "studio.css",
    }

    def __init__(self, queue: RunQueue):
        super().__init__()
        self.queue, self.stop = queue, queue.stop
        self._thumbnails: dict[tuple[str, int], bytes] = {}

    def numbers(self, since: int) -> dict[str, Any]:
        """Return the numbers of the current run, and the rest of the state if it has changed.

        Args:
          since: `version` of the state that the page has.
        """
        # Read before the state, so that a change in between is sent again.
        version = self.queue.version
        state: dict[str, Any] = {"version": version, "running": self._running()}
        if version != since or not version:
            state |= self._everything()
        return state

    def _everything(self) -> dict[str, Any]:
        queue = self.queue
        return {
            kind: [{"number": i.number, "name": i.name} for i in queue.folder.given(kind)]
            for kind in KINDS
        } | {
            "entries": [
                {**entry._asdict(), "settings": entry.settings.as_dict()}
                for entry in queue.entries()
            ],
            "results": [{"number": n, **about} for n, about in queue.results().items()],
            "presets": list(presets),
            "network": queue.network.name,
            "strength": DEFAULT_STRENGTH,
            "max_images": MAX_IMAGES,
        }

    def _running(self) -> dict[str, Any] | None:
        running = self.queue.running
        view = running.live.view() if running else None
        if running is None or view is None:
            return None
        return {
            "height": running.size[0],
            "width": running.size[1],
            "step": view.step,
            "steps": view.steps,
            "labels": list(view.labels),
            "losses": [finite(loss) for loss in view.losses],
            "seconds_left": view.seconds_left,
        }

    def answer(self, name: str, number: int | None) -> Answer:
        """Return an image, or loss curves as SVG.

        Addresses of the current run are `content`, `live/ELEMENT`, `live-small/ELEMENT` and
        `live-curves`. Small images are at `photos/NUMBER` and `styles/NUMBER`, and at
        `small/NUMBER` for finished images. Finished images also have `before/NUMBER` (the
        photograph), `image/NUMBER`, `curves/NUMBER`, and `whole/NUMBER` (the PNG file).
        """
        running, folder = self.queue.running, self.queue.folder
        match name, number:
            case "content", None if running:
                return Answer(running.content, "image/jpeg")
            case "live", int(element) if running:
                data = running.live.image(element, longest_side=LONGEST_SHOWN)
                return Answer(data, "image/jpeg")
            case "live-small", int(element) if running:
                return Answer(running.live.image(element, longest_side=THUMBNAIL), "image/jpeg")
            case "live-curves", None if running:
                return Answer(running.live.curves(width=640, height=200), "image/svg+xml")
            case (("photos" | "styles" | "small"), int(of)):
                return Answer(self._thumbnail(name, of), "image/jpeg")
        about = self.queue.results().get(-1 if number is None else number)
        if about is not None and number is not None:
            match name:
                case "before":
                    photo = folder.find("photos", about["settings"]["photo"]).file
                    shape = about["height"], about["width"]
                    return Answer(_encoded(images.resize(_load(photo), *shape)), "image/jpeg")
                case "image":
                    return Answer(_encoded(_load(folder.image(number))), "image/jpeg")
                case "whole" if folder.image(number).is_file():
                    return Answer(folder.image(number).read_bytes(), "image/png")
                case "curves" if folder.curves(number).is_file():
                    return Answer(folder.curves(number).read_bytes(), "image/svg+xml")
        raise LookupError(name)

    def post(self, name: str, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Handle a request: `upload`, `run`, `remove` (a run or result) or `forget` (an upload)."""
        if name == "upload":
            kind = query.get("kind", "")
            if kind not in KINDS:
                raise LookupError(kind)
            added = self.queue.folder.add(kind, query.get("name", "image"), body)
            self.queue.note_change()
            return {"number": added.number}
        try:
            given = json.loads(body)
        except ValueError:
            raise JaxstyleError(f"{name}: the request is not JSON; load the page again") from None
        if name == "run":
            return self._start(Settings.from_dict(given))
        number = given.get("number") if isinstance(given, dict) else None
        if not isinstance(number, int):
            raise JaxstyleError(f"{name}: {number!r} is not a number; load the page again")
        if name == "remove":
            self.queue.remove(number)
            self._thumbnails.pop(("small", number), None)
        elif name == "forget" and given.get("kind") in KINDS:
            self.queue.folder.forget(given["kind"], number)
            self._thumbnails.pop((given["kind"], number), None)
            self.queue.note_change()
        else:
            raise LookupError(name)
        return {}

    def _start(self, settings: Settings) -> dict[str, Any]:
        number = self.queue.add(settings)
        notice = weights_notice(settings.preset, self.queue.network.name) or ""
        return {"number": number, "notice": notice}

    def _thumbnail(self, kind: str, number: int) -> bytes:
        key = kind, number
        if key not in self._thumbnails:
            folder = self.queue.folder
            if kind == "small" and number not in self.queue.results():
                raise LookupError(number)
            file = folder.image(number) if kind == "small" else folder.find(kind, number).file
            self._thumbnails[key] = _encoded(_load(file), THUMBNAIL)
        return self._thumbnails[key]


def _load(file: Any) -> images.Array:
    try:
        return images.load_image(file)
    except JaxstyleError as error:  # The file was removed.
        raise LookupError(str(error)) from None


def _encoded(image: images.Array, longest_side: int = LONGEST_SHOWN) -> bytes:
    return images.encode_image(images.fit(image, longest_side, min_side=1), "JPEG")
