"""Checkpoints: a run's state in one `.safetensors`, written whole or not at all, checked when read.

The arrays are the leaves of the run's carry, named by their path (`carry.state.point.position`),
and the history (`history.loss`). One metadata string, `jaxstyle-checkpoint`, holds as JSON the
record of the run so far (see `record`), the number of batch elements, the seconds spent and a
digest of the arrays.
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
from jaxstyle.files import check_readable, shown, write_atomically
from jaxstyle.nn.sharding import SpatialSharding
from jaxstyle.provenance.inputs import named
from jaxstyle.provenance.record import MALFORMED, Record, parse_record
from jaxstyle.provenance.report import SCHEMA, environment_report, to_json, weights_report

KEYWORD = "jaxstyle-checkpoint"
_CODES = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64", "bool": "BOOL"}


class Checkpoint(NamedTuple):
    """The metadata of a checkpoint; `load_state` reads its arrays."""

    path: Path
    record: Record
    """Its `steps` are those done; its `recipe` that of the whole run."""
    elements: int
    """Images in one program, as of `--batch`."""
    compile_seconds: float
    run_seconds: float
    digest: str


def save_checkpoint(
    path: Path,
    state: RunState,
    *,
    problem: Problem,
    weights: str,
    inputs: Mapping[str, Any],
    asked: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint; an earlier one of that name stays until the new one is whole.

    Args:
      path: the file.
      state: from `run_state`.
      problem: the run's.
      weights: the name or the file that the weights were asked for by.
      inputs: the images, as in `report.record`.
      asked: settings, likewise.

    Raises:
      JaxstyleError: it cannot be written.
    """
    carry = state.carry
    if isinstance(problem.layout, SpatialSharding):
        # What is kept is the same on any number of devices.
        carry = jax.tree.map(
            partial(np.array, order="C"), problem.layout.unpad(carry, problem.size[1])
        )
    arrays = _named(carry, state.history)
    described = {
        "schema": SCHEMA,
        # Of the best batch element; one that is not a number becomes null.
        "loss": float(np.min(state.carry.best.loss)),
        "steps": state.step,
        "recipe": problem.recipe.as_dict(),
        "asked": dict(asked or {}),
        "weights": weights_report(problem.network) | {"given": weights},
        "images": dict(inputs),
        "environment": environment_report(),
        "lanes": _elements(problem),
        "seconds": {"compile": state.compile_seconds, "run": state.run_seconds},
        "digest": _digest(arrays),
    }
    # One entry: safetensors shuffles several.
    data = save(arrays, {KEYWORD: to_json(described, indent=None)})
    write_atomically(path, data, argument="--checkpoint")


def read_checkpoint(path: Path, *, argument: str = "--resume") -> Checkpoint:
    """Read the metadata of a checkpoint. Nothing in it is trusted.

    Raises:
      JaxstyleError: missing, not a checkpoint, or damaged; names `argument`.
    """
    check_readable(path, f"{argument}: {shown(path)}", kind="checkpoint")
    try:
        with safetensors.safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEYWORD)
    except _UNREADABLE as error:
        raise _damaged(path, argument, error) from None
    if text is None:
        raise JaxstyleError(
            f"{argument}: {shown(path)} is not a checkpoint; name a file that --checkpoint wrote"
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
        raise _damaged(path, argument, error) from None


def load_state(checkpoint: Checkpoint, problem: Problem, *, argument: str = "--resume") -> RunState:
    """Read the arrays after checking their names, types and shapes against `problem`.

    Raises:
      JaxstyleError: they are not, or the file is damaged.
    """
    path, form = (
        checkpoint.path,
        carry_shapes(problem.scales[scale_at(problem, checkpoint.record.steps)]),
    )
    if isinstance(problem.layout, SpatialSharding):
        form = jax.eval_shape(partial(problem.layout.unpad, width=problem.size[1]), form)
    steps = checkpoint.record.steps + 1
    batch = problem.start.shape[:1] if problem.start.ndim == 4 else ()
    # Shapes and types in the place of arrays.
    steps_form: Any = jax.ShapeDtypeStruct((steps,), np.dtype(np.int64))
    values_form: Any = jax.ShapeDtypeStruct((*batch, steps), np.dtype(np.float32))
    history_form = History(steps_form, *[values_form] * (len(History._fields) - 1))
    wanted = _named(form, history_form)
    try:
        with safetensors.safe_open(path, framework="np") as file:
            held = set(file.keys())
            for name, like in wanted.items():
                if name not in held:
                    raise ValueError(f"it lacks {name}")
                view = file.get_slice(name)
                stored = (view.get_dtype(), tuple(view.get_shape()))
                if stored != (_CODES[like.dtype.name], like.shape):
                    raise ValueError(f"{name} is {stored}, not {like.dtype} {like.shape}")
            if extra := held - set(wanted):
                raise ValueError(f"{min(extra)} is too much")
            arrays = {name: file.get_tensor(name) for name in wanted}
    except (*_UNREADABLE, ValueError) as error:
        raise _damaged(path, argument, error) from None
    if _digest(arrays) != checkpoint.digest:
        raise _damaged(path, argument, ValueError("its arrays do not have the digest it names"))
    history = History(*(arrays[f"history.{field}"] for field in History._fields))
    leaves = [arrays[name] for name in wanted if not name.startswith("history.")]
    if not np.array_equal(history.step, np.arange(steps)):
        raise _damaged(path, argument, ValueError("its history has other steps"))
    return RunState(
        step=checkpoint.record.steps,
        carry=jax.tree.unflatten(jax.tree.structure(form), leaves),
        history=history,
        compile_seconds=checkpoint.compile_seconds,
        run_seconds=checkpoint.run_seconds,
    )


def check_same_run(checkpoint: Checkpoint, problem: Problem, *, argument: str = "--resume") -> None:
    """Raise for another recipe, other weights or another number of batch elements.

    More `steps` are fine as long as nothing else depends on them.

    Raises:
      JaxstyleError: the setting that differs, with both its values.
    """
    path, record = checkpoint.path, checkpoint.record
    here, there = problem.recipe, record.recipe

    def refuse(setting: str, now: Any, then: Any) -> JaxstyleError:
        return JaxstyleError(
            f"{argument}: {shown(path)} was made with {setting} {then}, not {now}; go on with "
            f"{then}, or start anew without {argument}"
        )

    if problem.network.digest != record.weights_sha256:
        raise refuse("the weights", problem.network.digest[:12], record.weights_sha256[:12])
    elements = _elements(problem)
    if elements != checkpoint.elements:
        raise refuse("--batch", elements, checkpoint.elements)
    for field in dataclasses.fields(here):
        now, then = getattr(here, field.name), getattr(there, field.name)
        free = here.schedule == "constant" and here.scales == 1
        if field.name == "steps" and free and now >= record.steps:
            continue
        # A file's name is not what makes its image: the digest is compared.
        if field.name in ("content_mask", "mask") or (field.name == "init" and record.init):
            continue
        if now != then:
            plain = (_plain(recipe.as_dict()[field.name]) for recipe in (here, there))
            raise refuse("--" + field.name.replace("_", "-"), *plain)


def check_same_images(
    checkpoint: Checkpoint, inputs: Mapping[str, Any], *, argument: str = "--resume"
) -> None:
    """Raise for other images than those of the checkpoint, whatever their names.

    Raises:
      JaxstyleError: the image that differs.
    """
    then = {name: file and file.sha256 for name, file in checkpoint.record.files.items()}
    now = {name: file and file["sha256"] for name, file in named(inputs)}
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            raise JaxstyleError(
                f"{argument}: {shown(checkpoint.path)} was made with another image as {name} "
                f"({(then.get(name) or 'none')[:12]}, now {(now.get(name) or 'none')[:12]}); give "
                f"that one, or start anew without {argument}"
            )


_UNREADABLE = (safetensors.SafetensorError, OSError, TypeError, AttributeError, UnicodeError)


def _elements(problem: Problem) -> int:
    return len(problem.start) if problem.start.ndim == 4 else 1


def _named(carry: Any, history: History) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(carry)
    named = {
        "carry." + jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in leaves
    }
    return named | {f"history.{field}": values for field, values in history._asdict().items()}


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
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


def _damaged(path: Path, argument: str, error: Exception) -> JaxstyleError:
    reason = " ".join(str(error).split())[:200]
    return JaxstyleError(
        f"{argument}: {shown(path)} is no whole checkpoint ({reason}); "
        f"start anew without {argument}"
    )
