"""Content losses with weights in the notation of flags: `features,laplacian:300`."""

from typing import Any

from jaxstyle.config.choices import CONTENT_LOSSES
from jaxstyle.errors import JaxstyleError, shortened


def split_content_losses(text: str, *, argument: str = "content_loss") -> dict[str, float | None]:
    """Return the content losses that a text names, with their weights.

    Args:
      text: names, comma-separated, each perhaps with a weight after a colon.
      argument: what errors call the text.

    Returns:
      `{name: weight}`; None where no weight is given, which then is the loss's usual one.

    Raises:
      JaxstyleError: no name, one that does not exist or comes twice, or no weight of at least 0.

    Example:
      >>> split_content_losses("features,laplacian:300")
      {'features': None, 'laplacian': 300.0}
    """
    weights: dict[str, float | None] = {}
    for part in text.split(","):
        name, colon, given = (piece.strip() for piece in part.partition(":"))
        if name not in CONTENT_LOSSES:
            raise JaxstyleError(
                f"{argument}: {shortened(text)} names {name!r}, which does not exist; choose from "
                f"{', '.join(CONTENT_LOSSES)}, several comma-separated, each perhaps with a weight "
                "(features,laplacian:300)"
            )
        if name in weights:
            raise JaxstyleError(f"{argument}: {shortened(text)} names {name!r} twice; name it once")
        try:
            weight = float(given) if colon else None
        except ValueError:
            weight = -1.0
        if weight is not None and not 0 <= weight <= 3e38:
            raise JaxstyleError(
                f"{argument}: the weight {given!r} in {shortened(text)} is out of range; give a "
                "finite number of at least 0"
            )
        weights[name] = weight
    return weights


def content_losses(name: str, value: Any) -> str:
    """Return the text of `Recipe.content_loss` in one form, without spaces.

    Raises:
      JaxstyleError: see `split_content_losses`; or no text.

    Example:
      >>> content_losses("content_loss", "features, laplacian:300.0")
      'features,laplacian:300'
    """
    if not isinstance(value, str):
        raise JaxstyleError(
            f"{name}: {shortened(value)} is no text; write e.g. 'features,laplacian:300'"
        )
    parts = split_content_losses(value, argument=name).items()
    return ",".join(loss if weight is None else f"{loss}:{weight:.9g}" for loss, weight in parts)
