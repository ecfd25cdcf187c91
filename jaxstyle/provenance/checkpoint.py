"""Checkpoints: the state of a run in a `.safetensors` file, written atomically and checked.

The arrays are the leaves of the run's carry, named by their path (`carry.state.point.position`),
and the history (`history.loss`). The metadata string `jaxstyle-checkpoint` is JSON: the record of
the run so far (see `record`), the batch size, the seconds of the run and a digest of the arrays.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
from safetensors.numpy import save

from jaxstyle.engine.compilation import carry_shapes
from jaxstyle.engine.iterate import History, RunState
from jaxstyle.engine.problem import Problem
from jaxstyle.engine.scales import scale_at
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import check_readable, reason, shown, write_atomically
from jaxstyle.nn.sharding import SpatialSharding
from jaxstyle.provenance.inputs import named
from jaxstyle.provenance.record import MALFORMED, Record, parse_record
from jaxstyle.provenance.report import SCHEMA, origin_report, to_json

KEYWORD = "jaxstyle-checkpoint"
_CODES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "bool": "BOOL"}


class Checkpoint(NamedTuple):
    """The metadata of a checkpoint; `load_state` reads its arrays."""

    path: Path
    """The file."""
    record: Record
    """Record of the run; `steps` is the number of steps so far, `recipe` that of the whole run."""
    elements: int
    """Batch size."""
    compile_seconds: float
    """Seconds of tracing and compiling so far."""
    run_seconds: float
    """Seconds of running so far."""
    digest: str
    """SHA-256 of the arrays."""


def save_checkpoint(
    path: Path,
    state: RunState,
    *,
    problem: Problem,
    weights: str,
    inputs: Mapping[str, Any],
    unresolved: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, which replaces an earlier one atomically.

    Args:
      path: file to write.
      state: state from `run_state`.
      problem: problem of the run.
      weights: name or file of the weights, as the user gave it.
      inputs: the images, as in `report.record`.
      unresolved: settings before resolving, as in `report.record`.

    Raises:
      JaxstyleError: the file cannot be written.
    """
    carry = state.carry
    if isinstance(problem.layout, SpatialSharding):
        # Without padding, which depends on the number of devices.
        carry = jax.tree.map(
            partial(np.array, order="C"), problem.layout.unpad(carry, problem.size[1])
        )
    arrays = _by_path(carry, state.history)
    described = {
        "schema": SCHEMA,
        # The lowest loss of the batch; NaN becomes null.
        "loss": float(np.min(state.carry.best.loss)),
        "steps": state.step,
        **origin_report(problem.recipe, problem.network, weights, inputs, unresolved),
        "lanes": problem.batch_size,
        "seconds": {"compile": state.compile_seconds, "run": state.run_seconds},
        "digest": _digest(arrays),
    }
    # One entry, as safetensors changes the order of several.
    data = save(arrays, {KEYWORD: to_json(described, indent=None)})
    write_atomically(path, data, argument="--checkpoint")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the metadata of an untrusted checkpoint.

    Raises:
      JaxstyleError: the file is missing, not a checkpoint or damaged.
    """
    check_readable(path, f"--resume: {shown(path)}", kind="checkpoint")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEYWORD)
    except _UNREADABLE as error:
        raise _damaged(path, error) from None
    if text is None:
        raise JaxstyleError(
            f"--resume: {shown(path)} is not a checkpoint; name a file that --checkpoint wrote"
        )
    try:
        record = parse_record(text)
        metadata = record.everything
        elements, seconds, digest = metadata["lanes"], metadata["seconds"], metadata["digest"]
        if type(elements) is not int or not 1 <= elements < 2**31 or not isinstance(digest, str):
            raise ValueError(f"batch elements are {elements!r}, digest {digest!r}")
        if record.steps > record.recipe.total_steps:
            raise ValueError(f"step {record.steps} of {record.recipe.total_steps}")
        return Checkpoint(
            path, record, elements, _seconds(seconds["compile"]), _seconds(seconds["run"]), digest
        )
    except (*MALFORMED, JaxstyleError) as error:
        raise _damaged(path, error) from None


def load_state(checkpoint: Checkpoint, problem: Problem) -> RunState:
    """Read the arrays after a check of their names, types and shapes.

    Args:
      checkpoint: from `read_checkpoint`.
      problem: problem of the run to resume.

    Raises:
      JaxstyleError: the arrays do not fit the problem, or the file is damaged.
    """
    path = checkpoint.path
    form = carry_shapes(problem.scales[scale_at(problem, checkpoint.record.steps)])
    if isinstance(problem.layout, SpatialSharding):
        form = jax.eval_shape(partial(problem.layout.unpad, width=problem.size[1]), form)
    steps = checkpoint.record.steps + 1
    batch = problem.start.shape[:-3]
    steps_form: Any = jax.ShapeDtypeStruct((steps,), np.dtype(np.int64))
    values_form: Any = jax.ShapeDtypeStruct((*batch, steps), np.dtype(np.float32))
    history_form = History(steps_form, *[values_form] * (len(History._fields) - 1))
    expected = _by_path(form, history_form)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            names = set(file.keys())
            for name, like in expected.items():
                if name not in names:
                    raise ValueError(f"it lacks {name}")
                view = file.get_slice(name)
                stored = (view.get_dtype(), tuple(view.get_shape()))
                if stored != (_CODES[like.dtype.name], like.shape):
                    raise ValueError(f"{name} is {stored}, not {like.dtype} {like.shape}")
            if extra := names - set(expected):
                raise ValueError(f"{min(extra)} is too much")
            arrays = {name: file.get_tensor(name) for name in expected}
    except (*_UNREADABLE, ValueError) as error:
        raise _damaged(path, error) from None
    if _digest(arrays) != checkpoint.digest:
        raise _damaged(path, ValueError("its arrays do not have the digest it names"))
    history = History(*(arrays[f"history.{field}"] for field in History._fields))
    leaves = [arrays[name] for name in expected if not name.startswith("history.")]
    if not np.array_equal(history.step, np.arange(steps)):
        raise _damaged(path, ValueError("its history has other steps"))
    return RunState(
        step=checkpoint.record.steps,
        carry=jax.tree.unflatten(jax.tree.structure(form), leaves),
        history=history,
        compile_seconds=checkpoint.compile_seconds,
        run_seconds=checkpoint.run_seconds,
    )


def check_same_run(checkpoint: Checkpoint, problem: Problem) -> None:
    """Raise if recipe, weights or batch size differ from those of a checkpoint.

    More `steps` are allowed if no schedule or scale depends on them.

    Raises:
      JaxstyleError: a setting differs; the message names it and both values.
    """
    path, record = checkpoint.path, checkpoint.record
    here, there = problem.recipe, record.recipe

    def refuse(setting: str, now: Any, then: Any) -> JaxstyleError:
        return JaxstyleError(
            f"--resume: {shown(path)} was made with {setting} {then}, not {now}; go on with "
            f"{then}, or start anew without --resume"
        )

    if problem.network.digest != record.weights_sha256:
        raise refuse("the weights", problem.network.digest[:12], record.weights_sha256[:12])
    if problem.batch_size != checkpoint.elements:
        raise refuse("--batch", problem.batch_size, checkpoint.elements)
    for field in dataclasses.fields(here):
        now, then = getattr(here, field.name), getattr(there, field.name)
        free = here.schedule == "constant" and here.scales == 1
        if field.name == "steps" and free and now >= record.steps:
            continue
        # The digests of files are compared instead of their names.
        if field.name in ("content_mask", "mask") or (field.name == "init" and record.init):
            continue
        if now != then:
            plain = (_plain(recipe.as_dict()[field.name]) for recipe in (here, there))
            raise refuse("--" + field.name.replace("_", "-"), *plain)


def check_same_images(checkpoint: Checkpoint, inputs: Mapping[str, Any]) -> None:
    """Raise if an image differs from that of a checkpoint, by its digest.

    Raises:
      JaxstyleError: an image differs; the message names it.
    """
    then = {name: file and file.sha256 for name, file in checkpoint.record.files.items()}
    now = {name: file and file["sha256"] for name, file in named(inputs)}
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            raise JaxstyleError(
                f"--resume: {shown(checkpoint.path)} was made with another image as {name} "
                f"({(then.get(name) or 'none')[:12]}, now {(now.get(name) or 'none')[:12]}); give "
                "that one, or start anew without --resume"
            )


_UNREADABLE = (safetensors.SafetensorError, OSError, TypeError, AttributeError, UnicodeError)


def _by_path(carry: Any, history: History) -> dict[str, Any]:
    """Return the arrays of a state by their names in the file."""
    leaves = jax.tree_util.tree_leaves_with_path(carry)
    arrays = {
        "carry." + jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in leaves
    }
    return arrays | {f"history.{field}": values for field, values in history._asdict().items()}


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Compute the SHA-256 of arrays, with their names, types and shapes."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name}\0{array.dtype.name}\0{array.shape}\0".encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise ValueError(f"seconds are {value!r}")
    return float(value)


def _plain(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _damaged(path: Path, error: Exception) -> JaxstyleError:
    return JaxstyleError(
        f"--resume: {shown(path)} is no whole checkpoint ({reason(error)[:200]}); "
        "start anew without --resume"
    )
