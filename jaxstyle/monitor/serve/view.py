"""The common part of the pages of a run and of a grid."""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple


class Answer(NamedTuple):
    """A response to the browser."""

    content: bytes | str
    kind: str
    """Media type."""


class View(ABC):
    """The state that the program and its page share, from two threads."""

    PACKAGE: ClassVar[str] = "jaxstyle.monitor.serve"
    """Where the files are."""
    FILES: ClassVar[Mapping[str, str]]
    """Files of that package by their address on the page; the page itself is `""`."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        """Set by the page's button."""
        self.message = ""
        """What became of the run; empty while it goes on."""
        self.last_asked = -math.inf
        """When a page last asked for anything, by `time.monotonic`."""
        self._pages: dict[str, float] = {}
        """When each page last asked for the state, by the name that it gave itself."""
        self._answered: set[str] = set()
        """Pages that have been given the message."""

    def asked(self) -> None:
        """Store the time of the last request."""
        self.last_asked = time.monotonic()

    def state_for(self, page: str, since: int) -> dict[str, Any]:
        """Return the state for a page, and record that the page has it."""
        self._pages[page] = time.monotonic()
        state = self.state(since)
        if state["message"]:
            self._answered.add(page)
        return state

    def has_unanswered_pages(self, seconds: float) -> bool:
        """Return whether a page that asked within the last seconds lacks the message."""
        now = time.monotonic()
        pages = list(self._pages.items())
        return any(now - at < seconds and page not in self._answered for page, at in pages)

    def state(self, since: int) -> dict[str, Any]:
        """Return the run's state as JSON has it, where what is not finite is null.

        Args:
          since: how much of what only grows the page has already.
        """
        # Before the numbers: with the message, they are the last ones.
        message = self.message
        return self.numbers(since) | {"stopping": self.stop.is_set(), "message": message}

    @abstractmethod
    def numbers(self, since: int) -> dict[str, Any]:
        """Return the part of the state that only this page has."""

    @abstractmethod
    def answer(self, name: str, number: int | None) -> Answer:
        """Return what is at the address `name` or `name/number`.

        Raises:
          LookupError: there is nothing.
        """

    def post(self, name: str, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Do what the page asks for and return the answer as JSON has it; most pages ask nothing.

        Args:
          name: of the address.
          query: of the address.
          body: what was sent.

        Raises:
          JaxstyleError: it cannot be done; the page is told the line.
          LookupError: there is nothing of that name.
        """
        raise LookupError(name)


def finite(value: float) -> float | None:
    """Return a number as JSON has it, None if it is not finite."""
    return value if math.isfinite(value) else None
