"""Compiling a run's programs without running them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from jaxstyle.engine.chunk import (
    clipped_image,
    init_carry,
    next_scale_start,
    run_chunk,
    transfer_state,
)
from jaxstyle.engine.problem import Problem
from jaxstyle.engine.program import Arguments, Program, common_arguments


def carry_shapes(problem: Problem, *, platform: str | None = None) -> Any:
    """Return the shapes and types of `RunState.carry` at the last scale of a problem."""
    arguments, program = common_arguments(problem, platform=platform)
    make = partial(init_carry, shape=problem.start.shape[-3:], program=program)
    return jax.eval_shape(make, *arguments, problem.start)


def lower(
    problem: Problem,
    *,
    chunk_size: int = 1,
    device: jax.Device | None = None,
    direct: bool = False,
) -> jax.stages.Lowered:
    """Return the lowered program of a chunk of the last scale of a problem.

    Args:
      problem: arrays or `jax.ShapeDtypeStruct`s.
      chunk_size: largest number of steps of a chunk.
      device: device to compile for, which may be absent (`jax.experimental.topologies`); the
        default device, or those of the problem's layout, if not given.
      direct: whether to leave out the Winograd kernels that only CPUs have, to compute the memory
        of other devices on a CPU.
    """
    platform = _platform(device)
    arguments, program = common_arguments(problem, platform=platform)
    if direct:
        arguments, _ = common_arguments(problem, platform="gpu")
    form = carry_shapes(problem, platform=platform)
    if problem.layout is not None:
        form = problem.layout.with_shardings(form, problem.size[1])
    inputs: Any = (*arguments, form, chunk_size)
    if device is not None:
        place = SingleDeviceSharding(device)
        inputs = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                jnp.shape(leaf), jnp.result_type(leaf), sharding=place
            ),
            inputs,
        )
    traced = run_chunk.trace(*inputs, program=program, max_steps=chunk_size)
    return traced.lower(lowering_platforms=(platform,) if platform else None)


def _platform(device: jax.Device | None) -> str | None:
    """Return the platform that a device's programs are lowered for."""
    if device is None:
        return None
    return "cuda" if device.platform == "gpu" else device.platform


def compile_scale(
    arguments: Arguments, program: Program, before: Problem, scale: Problem, *, max_steps: int
) -> None:
    """Compile the programs of a larger scale in advance, for one device.

    JAX's cache then returns them for arguments of the same shapes. May be called in a thread while
    the smaller scale runs.

    Args:
      arguments: arguments of the larger scale (`common_arguments`).
      program: static arguments of the larger scale.
      before: problem of the smaller scale.
      scale: problem of the larger scale.
      max_steps: largest number of steps of a chunk.
    """
    small, large = (
        jax.ShapeDtypeStruct(problem.start.shape, problem.start.dtype)
        for problem in (before, scale)
    )
    next_scale_start.lower(
        small, small, large, detailed=scale.detailed, shape=large.shape
    ).compile()  # fmt: skip
    init_carry.lower(*arguments, large, shape=large.shape[-3:], program=program).compile()
    carry, carry_before = (
        jax.eval_shape(
            partial(init_carry, shape=form.shape[-3:], program=program), *arguments, form
        )
        for form in (large, small)
    )
    run_chunk.lower(*arguments, carry, 1, program=program, max_steps=max_steps).compile()
    spent = jax.ShapeDtypeStruct(large.shape[:-3], jnp.int32)
    transfer_state.lower(carry_before, carry, spent, program=program).compile()
    clipped_image.lower(carry.best.position, scale.chroma, bounds=scale.recipe.bounds).compile()
