"""The common part of all pages."""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

HELD = 1.0
"""Seconds for which the answer to a page that asks again and again is held back."""


class Answer(NamedTuple):
    """A response to the browser."""

    content: bytes | str
    kind: str
    """Media type."""


class View(ABC):
    """The state of a page, shared by the thread of the run and that of the server."""

    PACKAGE: ClassVar[str] = "jaxstyle.monitor.serve"
    """Package that contains the files."""
    FILES: ClassVar[Mapping[str, str]]
    """File names in the package, by address; `""` is the address of the page itself."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        """Set by the stop button."""
        self.message = ""
        """Outcome of the run; empty while it runs."""
        self.ended = threading.Event()
        """Set once `message` is."""
        self.closing = threading.Event()
        """Set when the server closes."""
        self.last_asked = -math.inf
        """Time of the last request, by `time.monotonic`."""
        self._pages: dict[str, float] = {}
        """Time of the last request of the state, by the `page` parameter of the request."""
        self._answered: set[str] = set()
        """Pages that have received the message."""

    def asked(self) -> None:
        """Record the time of a request."""
        self.last_asked = time.monotonic()

    def hold(self, *, has_end: bool) -> None:
        """Wait for `HELD` seconds, or until there is news of the end.

        The pages wait here and not in the browser, which delays the timers of hidden pages by up to
        a minute.

        Args:
          has_end: whether the page has the message already.
        """
        (self.closing if has_end else self.ended).wait(HELD)

    def state_for(self, page: str, since: int) -> dict[str, Any]:
        """Return the state for a page, and record the request."""
        self._pages[page] = time.monotonic()
        state = self.state(since)
        if state["message"]:
            self._answered.add(page)
        return state

    def has_unanswered_pages(self, seconds: float) -> bool:
        """Return whether a page with a request in the last `seconds` lacks the message."""
        now = time.monotonic()
        pages = list(self._pages.items())
        return any(now - at < seconds and page not in self._answered for page, at in pages)

    def is_open(self, seconds: float) -> bool:
        """Return whether a page has requested the state in the last `seconds`."""
        now = time.monotonic()
        return any(now - at < seconds for at in list(self._pages.values()))

    def state(self, since: int) -> dict[str, Any]:
        """Return the state as JSON values, with None for numbers that are not finite.

        Args:
          since: how much of the state the page has already, as defined by `numbers`.
        """
        # Read before the numbers, so that those sent with a message are the last ones.
        message = self.message
        return self.numbers(since) | {"stopping": self.stop.is_set(), "message": message}

    @abstractmethod
    def numbers(self, since: int) -> dict[str, Any]:
        """Return the part of the state that is specific to this kind of page."""

    @abstractmethod
    def answer(self, name: str, number: int | None) -> Answer:
        """Return the response for the address `name` or `name/number`.

        Raises:
          LookupError: the address does not exist.
        """

    def post(self, name: str, query: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Handle a POST request and return the response as JSON values; by default there is none.

        Args:
          name: address of the request.
          query: query parameters of the request.
          body: body of the request.

        Raises:
          JaxstyleError: the request is invalid; its message is sent to the page.
          LookupError: the address does not exist.
        """
        raise LookupError(name)


def finite(value: float) -> float | None:
    """Return a number for JSON: None if it is not finite."""
    return value if math.isfinite(value) else None
