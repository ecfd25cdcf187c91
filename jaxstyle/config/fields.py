"""Dataclass fields of settings, with their checks and help texts."""

import dataclasses
from typing import Any

from jaxstyle.config.validation import Check, choice, number


def setting(default: Any, help: str, check: Check, **metadata: Any) -> Any:
    """Return a dataclass field.

    Args:
      default: default value; None if it depends on the network or the images of a run.
      help: help text of the flag.
      check: converts a value or raises; None is not checked if it is the default.
      metadata: further properties of the flag, such as `metavar`.
    """
    return dataclasses.field(default=default, metadata={"help": help, "check": check, **metadata})


def choice_setting(default: str | None, help: str, choices: tuple[str, ...]) -> Any:
    """Return the field of a setting with a few named values."""
    return setting(default, help, choice(choices), choices=choices)


def term_weight(description: str, normalized: float, other: float) -> Any:
    """Return the field of a term's weight, with its defaults in the help text."""
    defaults = f"{normalized:g}, or {other:g} for a network that is not normalized"
    return setting(None, f"{description}; default: {defaults}.", number())
