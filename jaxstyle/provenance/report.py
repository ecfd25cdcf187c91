"""The report of a run: settings, numbers and inputs, as JSON."""

import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxstyle.config.recipe import Recipe
from jaxstyle.engine.results import Result
from jaxstyle.files import is_stream, sha256_of, write_atomically, write_stream
from jaxstyle.losses.objective import LayerLosses, Terms
from jaxstyle.nn.network import Network

SCHEMA = 1


def record(
    result: Result,
    *,
    network: Network,
    weights: str,
    inputs: Mapping[str, Any],
    unresolved: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the record of an image: settings, inputs, weights and versions.

    Equal runs have equal records, so a record contains no times.

    Args:
      result: result of the run.
      network: weights of the run.
      weights: name or file of the weights, as the user gave it.
      inputs: from `inputs.Inputs.report`, computed when the files were read, as the output may
        replace one of them.
      unresolved: settings before resolving, if resolving changed them (`unresolved_settings`).
    """
    return {
        "schema": SCHEMA,
        "loss": result.loss,
        "terms": terms_report(result.terms),
        "layers": layers_report(result.layers),
        "initial": {"loss": result.initial_loss, "terms": terms_report(result.initial_terms)},
        "steps": result.steps,
        "evaluations": result.evaluations,
        **origin_report(result.recipe, network, weights, inputs, unresolved),
    }


def origin_report(
    recipe: Recipe,
    network: Network,
    weights: str,
    inputs: Mapping[str, Any],
    unresolved: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what a run depends on; the arguments are as in `record`."""
    return {
        "recipe": recipe.as_dict(),
        "asked": dict(unresolved or {}),
        "weights": weights_report(network) | {"given": weights},
        "images": dict(inputs),
        "environment": environment_report(),
    }


def run_report(
    result: Result,
    *,
    network: Network,
    weights: str,
    inputs: Mapping[str, Any],
    output: Path,
    unresolved: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the report of an image that was written to `output`.

    It consists of its `record`, the history of the loss, the times and the file.
    """
    described = record(
        result, network=network, weights=weights, inputs=inputs, unresolved=unresolved
    )
    history = {name: values.tolist() for name, values in result.history._asdict().items()}
    return described | {
        "diverged": result.diverged,
        "history": history,
        "seconds": {"compile": result.compile_seconds, "run": result.run_seconds},
        "images": described["images"] | {"output": image_report(output, result.image)},
    }


def batch_report(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the report of a batch."""
    return {"schema": SCHEMA, "runs": list(runs)}


def layers_report(layers: LayerLosses) -> dict[str, dict[str, float]]:
    """Return the parts of the terms by name and layer."""
    return {name: dict(parts) for name, parts in layers._asdict().items()}


def terms_report(terms: Terms) -> dict[str, float]:
    """Return the terms by name."""
    return {name: float(value) for name, value in terms._asdict().items()}


def weights_report(network: Network) -> dict[str, str]:
    """Return the name, digest and source of the weights."""
    return {"name": network.name, "sha256": network.digest, "source": network.source}


def environment_report() -> dict[str, str]:
    """Return the versions and the device that the numbers depend on."""
    return {
        "jaxstyle": version("jaxstyle"),
        "jax": version("jax"),
        "jaxlib": version("jaxlib"),
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
    }


def to_json(report: Any, *, indent: int | None = 1) -> str:
    """Return a value as JSON, with null for NaN and infinity."""
    return json.dumps(_finite(report), indent=indent, allow_nan=False) + "\n"


def write_report(path: Path, report: Any) -> None:
    """Write a report atomically, or directly to a stream or device (`is_stream`)."""
    write = write_stream if is_stream(path) else write_atomically
    write(path, to_json(report).encode(), argument="--report")


def image_report(path: Path, image: np.ndarray) -> dict[str, Any]:
    """Return the path, digest and size of an image `[h, w, 3]` in a file."""
    height, width = image.shape[:2]
    return {"path": str(path), "sha256": sha256_of(path), "size": [width, height]}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
