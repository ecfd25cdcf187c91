"""Dataclass fields of settings, with their checks and help texts."""

import dataclasses
from typing import Any

from jaxstyle.config.validation import Check, choice


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
