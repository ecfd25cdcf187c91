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
"""Palettes and seeds of the painted styles of a new folder."""
PAINTED_SIDE = 512
_NUMBERED = re.compile(r"(\d{4,})-(.+)")


class GivenImage(NamedTuple):
    """An uploaded photograph or style."""

    number: int
    name: str
    """Name of the uploaded file, without special characters."""
    file: Path


class Folder:
    """The files of a studio.

    `photos/` and `styles/` contain the uploaded files, unchanged. `results/` contains for each
    finished image a PNG with its record, a JSON file with its description, and the loss curves as
    SVG. `queue.json` contains the settings of the queued and the current runs, `.KIND-removed` the
    number from `last_removed`.

    Args:
      path: path of the folder, which is created if missing.
      argument: name of the folder in error messages.

    Raises:
      JaxstyleError: the folder cannot be created.
    """

    def __init__(self, path: Path, *, argument: str = "folder"):
        self.path = path
        self._argument = argument
        self._results = path / "results"
        self._adding = threading.Lock()
        try:
            for name in (*KINDS, "results"):
                (path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JaxstyleError(
                f"{argument}: {path} cannot be made: {error.strerror}; choose another folder"
            ) from None

    def lock(self) -> BaseFileLock:
        """Lock the folder against other studios, and return the lock.

        Raises:
          JaxstyleError: another studio has the lock, or the folder cannot be written.
        """
        # Another thread may release it.
        lock = FileLock(self.path / ".lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise JaxstyleError(
                f"{self._argument}: another studio has {self.path}; use its page, or choose "
                "another folder"
            ) from None
        except OSError as error:
            raise JaxstyleError(
                f"{self._argument}: {self.path} cannot be written: {reason(error)}; choose "
                "another folder"
            ) from None
        return lock

    def last_removed(self, kind: str) -> int:
        """Return the largest number of a removed image, 0 if none was removed.

        Later images have larger numbers, as runs and pages may still refer to the removed ones.

        Args:
          kind: one of `KINDS`, or `results`.
        """
        try:
            return int(self._removed(kind).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def _note_removed(self, kind: str, number: int) -> None:
        # After the removal, which makes room for this file on a full disk.
        if number > self.last_removed(kind):
            write_atomically(self._removed(kind), str(number).encode(), argument=kind)

    def _removed(self, kind: str) -> Path:
        return self.path / f".{kind}-removed"

    # Uploaded images.

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
          LookupError: there is no image of this number.
        """
        for image in self.given(kind):
            if image.number == number:
                return image
        raise LookupError(f"{kind} {number}")

    def add(self, kind: str, name: str, data: bytes) -> GivenImage:
        """Store an uploaded image; a file equal to an earlier one is not stored again.

        Args:
          kind: one of `KINDS`.
          name: name of the file, from the browser.
          data: content of the file.

        Raises:
          JaxstyleError: the image cannot be read; nothing is stored.
        """
        # The name is untrusted: remove folders and special characters, keep the extension.
        plain = re.sub(r"[^\w.() -]", "_", name.replace("\\", "/").rsplit("/", 1)[-1])
        plain = plain.lstrip(".")[-80:] or "image"
        with self._adding:
            known = self.given(kind)
            for image in known:
                if image.file.stat().st_size == len(data) and image.file.read_bytes() == data:
                    return image
            number = max(self.last_removed(kind), *(image.number for image in known), 0) + 1
            file = self.path / kind / f"{number:04}-{plain}"
            # Under a name that `given` does not list, until the image has been read.
            unread = file.with_name(f"unread-{plain}")
            write_atomically(unread, data, argument=plain)
            try:
                images.load_image(unread, argument=plain)
            except JaxstyleError as error:
                unread.unlink(missing_ok=True)
                # Messages name the image, but not its path in the folder.
                raise JaxstyleError(str(error).replace(f" '{unread}'", "")) from None
            unread.rename(file)
        return GivenImage(number, plain, file)

    def forget(self, kind: str, number: int) -> None:
        """Remove an uploaded image; no later one gets its number."""
        with self._adding:
            self.find(kind, number).file.unlink(missing_ok=True)
            self._note_removed(kind, number)

    def paint_styles(self) -> None:
        """Create the painted styles if there are no styles."""
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
        """Return the file of a finished image's loss curves."""
        return self._results / f"{number:04}.svg"

    def keep(self, number: int, about: Mapping[str, Any], curves: str) -> None:
        """Write the description and the loss curves (SVG) of a finished image."""
        write_atomically(self.curves(number), curves.encode(), argument="curves")
        write_atomically(self._about(number), json.dumps(about).encode(), argument="results")

    def results(self) -> dict[int, dict[str, Any]]:
        """Return the description of each finished image, by its number."""
        return dict(self._read_results())

    def remove(self, number: int) -> None:
        """Remove a finished image; no later one gets its number."""
        for file in (self._about(number), self.image(number), self.curves(number)):
            file.unlink(missing_ok=True)
        self._note_removed("results", number)

    def _about(self, number: int) -> Path:
        return self._results / f"{number:04}.json"

    def _read_results(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for file in sorted(self._results.glob("*.json")):
            if file.stem.isdecimal() and self.image(number := int(file.stem)).is_file():
                description = _read_json(file)
                if isinstance(description, dict):
                    yield number, description

    # The queue.

    def keep_queue(self, waiting: Sequence[Mapping[str, Any]]) -> None:
        """Write the settings of the queued and the current runs."""
        write_atomically(self.path / "queue.json", json.dumps(waiting).encode(), argument="queue")

    def queue(self) -> list[Any]:
        """Return the list that `keep_queue` wrote last; empty if it cannot be read."""
        queue = _read_json(self.path / "queue.json")
        return queue if isinstance(queue, list) else []


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
