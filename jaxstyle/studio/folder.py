"""The folder of a studio: its photographs and styles, finished images and queue."""

import json
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import BaseFileLock, FileLock, Timeout

from jaxstyle import images
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import reason, write_atomically
from jaxstyle.images.painted import paint

KINDS = ("photos", "styles")
PAINTED = (("night", 1), ("embers", 6), ("meadow", 5))
"""Palettes and seeds of the styles that come with a new folder."""
PAINTED_SIDE = 512
_NUMBERED = re.compile(r"(\d{4,})-(.+)")


class GivenImage(NamedTuple):
    """A photograph or a style."""

    number: int
    name: str
    """As it was called where it came from."""
    file: Path


class Folder:
    """Files of a studio.

    `photos/` and `styles/` hold what was given, as it came; `results/` a PNG with its record, a
    JSON of its settings and the curves of its run for each finished image; `queue.json` the runs
    that wait. Numbers are given once.

    Args:
      path: the folder; made if it is not there.

    Raises:
      JaxstyleError: the folder cannot be made.
    """

    def __init__(self, path: Path):
        self.path = path
        self._results = path / "results"
        self._adding = threading.Lock()
        try:
            for name in (*KINDS, "results"):
                (path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JaxstyleError(
                f"-o: {path} cannot be made: {error.strerror}; choose another folder"
            ) from None

    def lock(self) -> BaseFileLock:
        """Keep other studios out of the folder, until the lock is released.

        Raises:
          JaxstyleError: another studio has it.
        """
        # Released by whichever thread ends the studio.
        lock = FileLock(self.path / ".lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise JaxstyleError(
                f"-o: another studio has {self.path}; use its page, or choose another folder"
            ) from None
        except OSError as error:
            raise JaxstyleError(
                f"-o: {self.path} cannot be written: {reason(error)}; choose another folder"
            ) from None
        return lock

    # Images that were given.

    def given(self, kind: str) -> list[GivenImage]:
        """Return the images of a kind in the order of their upload."""
        images = []
        for file in (self.path / kind).iterdir():
            if named := _NUMBERED.fullmatch(file.name):
                images.append(GivenImage(int(named[1]), named[2], file))
        return sorted(images)

    def find(self, kind: str, number: int) -> GivenImage:
        """Return one of the images of a kind.

        Raises:
          LookupError: there is none of that number.
        """
        for image in self.given(kind):
            if image.number == number:
                return image
        raise LookupError(f"{kind} {number}")

    def add(self, kind: str, name: str, data: bytes) -> GivenImage:
        """Store a readable image; the same bytes are stored once.

        Raises:
          JaxstyleError: it cannot be read; nothing is kept.
        """
        # From elsewhere: no folders, no characters that mean something, an ending that stays.
        plain = re.sub(r"[^\w.() -]", "_", name.replace("\\", "/").rsplit("/", 1)[-1])
        plain = plain.lstrip(".")[-80:] or "image"
        with self._adding:
            known = self.given(kind)
            for image in known:
                if image.file.stat().st_size == len(data) and image.file.read_bytes() == data:
                    return image
            number = max((image.number for image in known), default=0) + 1
            file = self.path / kind / f"{number:04}-{plain}"
            # Under a name that is not listed until it has been read.
            unread = file.with_name(f"unread-{plain}")
            write_atomically(unread, data, argument=plain)
            try:
                images.load_image(unread, argument=plain)
            except JaxstyleError as error:
                unread.unlink(missing_ok=True)
                # Who looks at the page knows the name, and not the folder.
                raise JaxstyleError(str(error).replace(f" '{unread}'", "")) from None
            unread.rename(file)
        return GivenImage(number, plain, file)

    def forget(self, kind: str, number: int) -> None:
        """Remove an image that was given."""
        self.find(kind, number).file.unlink(missing_ok=True)

    def paint_styles(self) -> None:
        """Create the painted styles of a new studio."""
        if self.given("styles"):
            return
        for palette, seed in PAINTED:
            painted = paint(PAINTED_SIDE, PAINTED_SIDE, seed=seed, palette=palette)
            self.add("styles", f"{palette}.png", images.encode_image(painted, "PNG"))

    # Finished images.

    def image(self, number: int) -> Path:
        """Return the file of a finished image."""
        return self._results / f"{number:04}.png"

    def curves(self, number: int) -> Path:
        """Return the file of the curves of a finished image's run."""
        return self._results / f"{number:04}.svg"

    def keep(self, number: int, about: Mapping[str, Any], curves: str) -> None:
        """Write the description of a finished image."""
        write_atomically(self.curves(number), curves.encode(), argument="curves")
        write_atomically(self._about(number), json.dumps(about).encode(), argument="results")

    def results(self) -> dict[int, dict[str, Any]]:
        """Return the description of each finished image, by its number."""
        return dict(self._read_results())

    def remove(self, number: int) -> None:
        """Remove a finished image."""
        for file in (self._about(number), self.image(number), self.curves(number)):
            file.unlink(missing_ok=True)

    def _about(self, number: int) -> Path:
        return self._results / f"{number:04}.json"

    def _read_results(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for file in sorted(self._results.glob("*.json")):
            if file.stem.isdecimal() and self.image(number := int(file.stem)).is_file():
                description = _read_json(file)
                if isinstance(description, dict):
                    yield number, description

    # Runs that wait.

    def keep_queue(self, waiting: Sequence[Mapping[str, Any]]) -> None:
        """Write the queued and the current runs."""
        write_atomically(self.path / "queue.json", json.dumps(waiting).encode(), argument="queue")

    def queue(self) -> list[Any]:
        """Return the queue that `keep_queue` wrote last."""
        queue = _read_json(self.path / "queue.json")
        return queue if isinstance(queue, list) else []


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
