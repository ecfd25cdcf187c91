"""Batches of the cells of a grid: which cells share a program, and how many run at a time.

On a CPU the last bits of a gradient may depend on the place that a batch element has in its batch
(threads divide the rows of all batch elements), but not on what its neighbors hold. So a cell's
batch and place follow from the grid alone: cells that are done leave their places to copies of
those that are not.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config.numbers import Numbers, static_part
from jaxstyle.engine import free_memory, memory, planning
from jaxstyle.engine.preparation import prepare
from jaxstyle.engine.problem import Problem, shard_batch, stack
from jaxstyle.engine.scales import default_chunk_size
from jaxstyle.engine.sizes import output_size, pyramid_levels, style_size
from jaxstyle.engine.targets import compute_targets
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.losses.targets import Targets
from jaxstyle.provenance.inputs import named
from jaxstyle.sweep.cell import Cell

# Beyond these, batch elements hardly gain and a crash loses more.
MAX_BATCH_SIZE = {"cpu": 8}
MAX_BATCH_SIZE_ELSEWHERE = 64


class Group(NamedTuple):
    """Cells that differ in numbers and images only: batch elements of one program."""

    cells: tuple[Cell, ...]
    shape: tuple[int, ...]
    """Of every image, `[h, w, 3]`."""

    @property
    def own_targets(self) -> bool:
        """Whether each batch element needs its own targets, as contents, styles or blends
        differ."""
        return len({_of_targets(cell) for cell in self.cells}) > 1


class Batch(NamedTuple):
    """Batch elements that run together: a place for each cell, None where the cell is done."""

    group: Group
    places: tuple[Cell | None, ...]

    @property
    def filled(self) -> int:
        """Places that hold a cell."""
        return sum(cell is not None for cell in self.places)

    @property
    def work(self) -> float:
        """Image values times steps times batch elements: proportional to the running time."""
        return self.work_until(self.group.cells[0].recipe.total_steps)

    def work_until(self, step: int) -> float:
        """Return the work up to a step; steps of smaller scales are less."""
        height, width, channels = self.group.shape
        recipe = self.group.cells[0].recipe
        scales = recipe.scales or 1
        steps = sum(
            min(max(0, step - scale * recipe.steps), recipe.steps)
            * recipe.scale_ratio ** (-2 * (scales - 1 - scale))
            for scale in range(scales)
        )
        return height * width * channels * steps * len(self.places)


def grouped(cells: Sequence[Cell]) -> list[Group]:
    """Return cells in groups that share a program, in order of first appearance."""
    shapes: dict[Any, tuple[int, ...]] = {}
    members: dict[Any, list[Cell]] = {}
    for cell in cells:
        recipe = cell.recipe
        fitted = (cell.inputs.content.report["sha256"], recipe.size, recipe.upscale)
        if fitted not in shapes:
            height, width = cell.inputs.content.pixels.shape[:2]
            shapes[fitted] = (*output_size(height, width, recipe), 3)
        settings = recipe.steps, static_part(recipe), jax.tree.structure(Numbers.of(recipe))
        masks = recipe.content_mask is None, len(recipe.mask)
        # The statistics of losses that are no means have a size that depends on the style's.
        is_mean_over_positions = STYLE_LOSSES[recipe.style_loss].is_mean_over_positions
        styles = None if is_mean_over_positions else _style_shapes(cell)
        form = shapes[fitted], cell.network.key, settings, masks, styles
        members.setdefault(form, []).append(cell)
    return [Group(tuple(elements), form[0]) for form, elements in members.items()]


def check(groups: Sequence[Group], *, here: bool = True) -> None:
    """Raise the errors that running a cell would raise: too small an image, too little memory.

    Only shapes are computed.

    Args:
      groups: all of the grid.
      here: whether the cells run on this machine, so that its memory counts.
    """
    for group in groups:
        if here:
            check_memory(group.cells[0])
        checked = set()
        for cell in group.cells:
            masks = tuple(pair for pair in named(cell.inputs.report()) if "mask" in pair[0])
            known = (_style_shapes(cell), len(cell.recipe.style_blend or ()), str(masks))
            if known in checked:
                continue
            checked.add(known)
            content = cell.inputs.content.pixels
            for level in {0, (cell.recipe.scales or 1) - 1}:
                size = output_size(content.shape[0], content.shape[1], cell.recipe, level=level)
                jax.eval_shape(
                    partial(
                        compute_targets,
                        recipe=cell.recipe,
                        masks=cell.inputs.arrays,
                        pyramid=pyramid_levels(cell.recipe, [], level=level),
                    ),
                    cell.network,
                    jax.ShapeDtypeStruct((*size, 3), jnp.float32),
                    [
                        jax.ShapeDtypeStruct(shape, jnp.float32)
                        for shape in _style_shapes(cell, level=level)
                    ],
                )


def check_memory(cell: Cell, *, elements: int = 1) -> None:
    """Raise a `JaxstyleError` if a batch of such cells does not fit into memory.

    Args:
      cell: any of the batch.
      elements: of the batch.
    """
    height, width = cell.inputs.content.pixels.shape[:2]
    # Batch elements are numbered by their settings: memory is not to choose any.
    recipe = resolve_recipe(cell.recipe, cell.network)
    styles = [(h, w) for h, w, _ in _style_shapes(cell)]
    size = output_size(height, width, cell.recipe)
    planning.fit(*size, recipe=recipe, network=cell.network, batch=elements, styles=styles)


def batches(group: Group, elements: int, todo: Sequence[Cell]) -> list[Batch]:
    """Return the batches that have a cell to run, with equally many places, one for each cell."""
    wanted = {cell.key for cell in todo}
    result = []
    for first in range(0, len(group.cells), elements):
        part = group.cells[first : first + elements]
        places = [cell if cell.key in wanted else None for cell in part]
        if any(places):
            result.append(Batch(group, (*places, *[None] * (elements - len(part)))))
    return result


def elements_elsewhere(group: Group) -> int:
    """Return the batch size of a group for a machine that is not known.

    Few, which have room in most memories and keep several workers busy.
    """
    return _even(len(group.cells), min(MAX_BATCH_SIZE.values()))


def elements_of(group: Group, *, devices: int = 1) -> int:
    """Choose how many batch elements of a group run at a time: as many as memory holds, evenly
    distributed.

    With several devices equally many run on each, copies where there are too few cells. The
    compiler says what the program takes; it is compiled once, as it will be run unless it is too
    large.
    """
    most = MAX_BATCH_SIZE.get(jax.default_backend(), MAX_BATCH_SIZE_ELSEWHERE)
    cells = -(-len(group.cells) // devices)
    elements = _even(cells, most)
    if elements == 1:
        return devices
    one = problem_of(group.cells[0], {})
    problem = stack([one] * elements, own_targets=group.own_targets)
    chunk_size = default_chunk_size(problem.start)
    needed = memory.program_bytes(problem, chunk_size=chunk_size)
    free = free_memory.free_bytes()
    budget = float("inf") if free is None else memory.USABLE * free
    if jax.default_backend() == "cpu":
        budget /= devices  # They are one machine's.
    if needed <= budget:
        return elements * devices
    # What does not grow with the batch elements is counted with them, which errs on the safe side.
    fitting = max(1, int(budget / (needed / elements)))
    # A power of two, so that a little more or less free memory next time changes nothing.
    return _even(cells, 1 << (fitting.bit_length() - 1)) * devices


def _even(cells: int, most: int) -> int:
    """Return the smallest batch of at most `most` that gives equally many batches."""
    return -(-cells // -(-cells // most))


def problem_of_places(
    places: Sequence[Cell | None], own_targets: bool, devices: Sequence[jax.Device]
) -> Problem:
    """Prepare a batch for devices; empty positions run a copy of another cell."""
    shared: dict[Any, Sequence[Targets]] = {}
    stand_in = next(cell for cell in places if cell)
    problems = {cell.key: problem_of(cell, shared) for cell in places if cell}
    elements = [problems[(cell or stand_in).key] for cell in places]
    return shard_batch(stack(elements, own_targets=own_targets), devices)


def problem_of(cell: Cell, shared: dict[Any, Sequence[Targets]]) -> Problem:
    """Prepare one cell; targets are cached in `shared`."""
    known = _of_targets(cell)
    problem = prepare(
        cell.inputs.content.pixels,
        [style.pixels for style in cell.inputs.styles],
        recipe=cell.recipe,
        network=cell.network,
        start=cell.inputs.init.pixels if cell.inputs.init else None,
        masks=cell.inputs.arrays,
        targets=shared.get(known),
    )
    shared[known] = [scale.targets for scale in problem.scales]
    return problem


def _style_shapes(cell: Cell, *, level: int = 0) -> tuple[tuple[int, ...], ...]:
    sizes = [style.pixels.shape for style in cell.inputs.styles]
    return tuple((*style_size(h, w, cell.recipe, level=level), 3) for h, w, _ in sizes)


def _of_targets(cell: Cell) -> tuple[Any, ...]:
    """Return what the targets of a group's cells may differ by."""
    recipe = cell.recipe
    files = tuple(f and f["sha256"] for name, f in named(cell.inputs.report()) if name != "init")
    # The size of the styles follows from `size`, also where that of the output does not.
    sizes = (recipe.size, recipe.upscale, recipe.style_scale)
    # Losses that take several layers together have their weights in the targets.
    joined = (
        recipe.content_layers if recipe.content_loss != "features" else None,
        recipe.style_layers if STYLE_LOSSES[recipe.style_loss].is_joint else None,
    )
    return (files, recipe.style_blend, sizes, recipe.preserve_color, joined)
