"""Content losses with weights in the notation of flags: `features,laplacian:300`."""

from typing import Any

from jaxstyle.config.choices import CONTENT_LOSSES
from jaxstyle.config.validation import number
from jaxstyle.errors import JaxstyleError, shortened


def split_content_losses(text: str, *, argument: str = "content_loss") -> dict[str, float | None]:
    """Return the content losses named in a text, with their weights.

    Args:
      text: comma-separated names, each optionally with a weight after a colon.
      argument: name of the text in error messages.

    Returns:
      `{name: weight}`; None stands for the default weight of the loss.

    Raises:
      JaxstyleError: a name is missing, unknown or repeated, or a weight is not a number from 0.

    Example:
      >>> split_content_losses("features,laplacian:300")
      {'features': None, 'laplacian': 300.0}
    """
    check = number()
    weights: dict[str, float | None] = {}
    for part in text.split(","):
        name, colon, weight = (piece.strip() for piece in part.partition(":"))
        if name not in CONTENT_LOSSES:
            raise JaxstyleError(
                f"{argument}: {shortened(text)} names {name!r}, which does not exist; choose from "
                f"{', '.join(CONTENT_LOSSES)}, several comma-separated, each perhaps with a weight "
                "(features,laplacian:300)"
            )
        if name in weights:
            raise JaxstyleError(f"{argument}: {shortened(text)} names {name!r} twice; name it once")
        weights[name] = check(f"{argument}: the weight of {name}", weight) if colon else None
    return weights


def content_losses(name: str, value: Any) -> str:
    """Return the text of `Recipe.content_loss` in canonical form, without spaces.

    Raises:
      JaxstyleError: not a text, or as in `split_content_losses`.

    Example:
      >>> content_losses("content_loss", "features, laplacian:300.0")
      'features,laplacian:300'
    """
    if not isinstance(value, str):
        raise JaxstyleError(
            f"{name}: {shortened(value)} is not text; write e.g. 'features,laplacian:300'"
        )
    parts = split_content_losses(value, argument=name).items()
    return ",".join(loss if weight is None else f"{loss}:{weight:.9g}" for loss, weight in parts)
