"""The queue of the studio, which does one run at a time, in a thread."""

import logging
import threading
from typing import Any, NamedTuple

from jaxstyle import images
from jaxstyle.errors import JaxstyleError
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.monitor.live import Live
from jaxstyle.nn.network import Network
from jaxstyle.studio.folder import Folder
from jaxstyle.studio.painting import Watcher, run
from jaxstyle.studio.settings import Settings


class Entry(NamedTuple):
    """A queued, running or failed run."""

    number: int
    """Number of its first image."""
    settings: Settings
    status: str
    """`waiting`, `running` or `failed`."""
    error: str = ""


class Running(NamedTuple):
    """The visible state of the current run."""

    live: Live
    content: bytes
    """The content image at the size of the result, JPEG."""
    size: tuple[int, int]
    """Height and width of the result."""


class RunQueue:
    """The queue of a studio; runs that are not finished are queued again after a restart.

    Args:
      folder: folder of the studio.
      network: weights of all runs.
      weights: requested name or file of the weights.
    """

    def __init__(self, folder: Folder, *, network: Network, weights: str):
        self.folder, self.network, self._weights = folder, network, weights
        self.stop = threading.Event()
        """Set to stop the current run and keep its image so far."""
        self.running: Running | None = None
        self.version = 0
        """Number of changes of entries, results and images."""
        self._ending = False
        self._changed = threading.Condition(threading.RLock())
        self._results = folder.results()
        self._entries: dict[int, Entry] = {}
        self._next = max(folder.last_removed("results"), *self._results, 0) + 1
        for entry in folder.queue():
            try:
                self._enter(Settings.from_dict(entry))
            except JaxstyleError:
                continue  # Written by another version of the program.
        self._thread = threading.Thread(target=self._work, name="studio runs", daemon=True)

    def start(self) -> None:
        """Lock the folder, start the runs, and create the styles of a new folder.

        Raises:
          JaxstyleError: another studio has locked the folder, or it cannot be written.
        """
        self._lock = self.folder.lock()
        threading.Thread(target=self._paint, name="studio styles", daemon=True).start()
        self._thread.start()

    def end(self) -> None:
        """Stop the current run, wait until its image is stored, and unlock the folder."""
        with self._changed:
            self._ending = True
            self.stop.set()
            self._changed.notify_all()
        while self._thread.is_alive():
            # With a timeout, so that a second Ctrl-C is handled.
            self._thread.join(0.5)
        self._lock.release()

    def entries(self) -> list[Entry]:
        """Return the queued, running and failed runs, in order."""
        with self._changed:
            return list(self._entries.values())

    def results(self) -> dict[int, dict[str, Any]]:
        """Return the description of each finished image, by its number."""
        with self._changed:
            return dict(self._results)

    def add(self, settings: Settings) -> int:
        """Add a run at the end of the queue and return its number.

        Raises:
          JaxstyleError: an image was removed, or the network lacks a layer.
        """
        for kind, numbers in (("photos", (settings.photo,)), ("styles", settings.styles)):
            for number in numbers:
                try:
                    self.folder.find(kind, number)
                except LookupError:
                    raise JaxstyleError(f"{kind}: one was removed; choose another") from None
        if settings.continues is not None and settings.continues not in self._results:
            raise JaxstyleError("continues: the image was removed; choose another")
        resolve_recipe(settings.recipe(), self.network)
        with self._changed:
            number = self._enter(settings)
            self._keep_queue()
        return number

    def remove(self, number: int) -> None:
        """Remove a finished image, or a queued or failed run.

        Raises:
          JaxstyleError: the run is the current one.
          LookupError: there is no image or run of this number.
        """
        with self._changed:
            entry = self._entries.get(number)
            if entry is not None:
                if entry.status == "running":
                    raise JaxstyleError(f"run {number} is under way; stop it first")
                del self._entries[number]
                self._keep_queue()
                return
            del self._results[number]
            self.folder.remove(number)
            self.note_change()

    def note_change(self) -> None:
        """Increment `version`, for pages to redraw, and wake the thread of the queue."""
        with self._changed:
            self.version += 1
            self._changed.notify_all()

    def _enter(self, settings: Settings) -> int:
        number = self._next
        self._next += len(settings.starts)
        self._entries[number] = Entry(number, settings, "waiting")
        return number

    def _keep_queue(self) -> None:
        kept = [e.settings.as_dict() for e in self._entries.values() if e.status != "failed"]
        self.folder.keep_queue(kept)
        self.note_change()

    def _paint(self) -> None:
        try:
            self.folder.paint_styles()
        except JaxstyleError as error:
            logging.getLogger("jaxstyle").warning("%s", error)
        self.note_change()

    def _work(self) -> None:
        while True:
            with self._changed:
                waiting = [e for e in self._entries.values() if e.status == "waiting"]
                while not (waiting or self._ending):
                    self._changed.wait()
                    waiting = [e for e in self._entries.values() if e.status == "waiting"]
                if self._ending:
                    return
                self.stop.clear()
                entry = self._entries[waiting[0].number] = waiting[0]._replace(status="running")
                self.note_change()
            self._run(entry)

    def _run(self, entry: Entry) -> None:
        def begin(live: Live, content: images.Array) -> None:
            self.running = Running(live, images.encode_image(content, "JPEG"), content.shape[:2])

        new_images: dict[int, Any] = {}
        error = ""
        try:
            new_images = run(
                entry.settings, self.folder, network=self.network, weights=self._weights,
                first=entry.number, watcher=Watcher(begin, self.stop.is_set),
            )  # fmt: skip
        except JaxstyleError as problem:
            error = str(problem)
        except LookupError:
            error = "an image of this run was removed; choose another"
        except Exception as problem:
            # A bug, which must not end the runs after this one.
            logging.getLogger("jaxstyle").exception("run %d failed", entry.number)
            error = f"{type(problem).__name__}: {problem}"
        with self._changed:
            self.running = None
            self._results |= new_images
            if error:
                self._entries[entry.number] = entry._replace(status="failed", error=error)
            else:
                del self._entries[entry.number]
            self._keep_queue()
