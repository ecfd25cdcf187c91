"""Batches of the cells of a grid: which cells share a program, and how many run at a time.

On a CPU the last bits of a gradient may depend on an element's position in its batch (threads
divide the rows of all batch elements), but not on the other elements. Therefore the grid alone
determines the batch and the position of a cell: copies of unfinished cells take the positions of
finished ones.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle.config.numbers import program_key
from jaxstyle.engine import free_memory, memory, planning
from jaxstyle.engine.compute_targets import compute_targets
from jaxstyle.engine.preparation import prepare
from jaxstyle.engine.problem import Problem, shard_batch, stack
from jaxstyle.engine.scales import default_chunk_size
from jaxstyle.engine.sizes import output_size, pyramid_levels, style_size
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.losses.style_losses import STYLE_LOSSES
from jaxstyle.losses.targets import Targets
from jaxstyle.provenance.inputs import named
from jaxstyle.sweep.cell import Cell

# Larger batches are hardly faster, and a crash loses more.
MAX_BATCH_SIZE = {"cpu": 8}
MAX_BATCH_SIZE_ELSEWHERE = 64


class Group(NamedTuple):
    """Cells that differ in numbers and images only, which share a program."""

    cells: tuple[Cell, ...]
    """The cells in the grid's order."""
    shape: tuple[int, ...]
    """Shape of every output, `(h, w, 3)`."""

    @property
    def own_targets(self) -> bool:
        """Whether batch elements need their own targets, as contents, styles or blends differ."""
        return len({_targets_key(cell) for cell in self.cells}) > 1


class Batch(NamedTuple):
    """Cells that run together."""

    group: Group
    """The group of the cells."""
    places: tuple[Cell | None, ...]
    """The cell at each position of the batch; None if it is finished, or there are too few."""

    @property
    def filled(self) -> int:
        """Number of positions with a cell."""
        return sum(cell is not None for cell in self.places)

    @property
    def work(self) -> float:
        """Image values times steps times batch size, which is proportional to the running time."""
        return self.work_until(self.group.cells[0].recipe.total_steps)

    def work_until(self, step: int) -> float:
        """Return the work up to a step; steps at smaller scales count less."""
        height, width, channels = self.group.shape
        recipe = self.group.cells[0].recipe
        scales = recipe.scales or 1
        steps = sum(
            min(max(0, step - scale * recipe.steps), recipe.steps)
            * recipe.scale_ratio ** (-2 * (scales - 1 - scale))
            for scale in range(scales)
        )
        return height * width * channels * steps * len(self.places)


def group_cells(cells: Sequence[Cell]) -> list[Group]:
    """Return cells in groups that share a program, in order of first appearance."""
    shapes: dict[Any, tuple[int, ...]] = {}
    members: dict[Any, list[Cell]] = {}
    for cell in cells:
        recipe = cell.recipe
        fitted = (cell.inputs.content.report["sha256"], recipe.size, recipe.upscale)
        if fitted not in shapes:
            height, width = cell.inputs.content.pixels.shape[:2]
            shapes[fitted] = (*output_size(height, width, recipe), 3)
        masks = recipe.content_mask is None, len(recipe.mask)
        # If statistics are not means over positions, their shapes depend on the style's size.
        is_mean_over_positions = STYLE_LOSSES[recipe.style_loss].is_mean_over_positions
        styles = None if is_mean_over_positions else _style_shapes(cell)
        form = shapes[fitted], cell.network.key, program_key(recipe), masks, styles
        members.setdefault(form, []).append(cell)
    return [Group(tuple(elements), form[0]) for form, elements in members.items()]


def check(groups: Sequence[Group], *, here: bool = True) -> None:
    """Raise the errors that running a cell would raise, for images too small or too little memory.

    Only shapes are computed.

    Args:
      groups: all groups of the grid.
      here: whether the cells run on this machine, whose memory is then checked.
    """
    for group in groups:
        if here:
            check_memory(group.cells[0])
        checked = set()
        for cell in group.cells:
            masks = tuple(pair for pair in named(cell.inputs.report()) if "mask" in pair[0])
            key = (_style_shapes(cell), len(cell.recipe.style_blend or ()), str(masks))
            if key in checked:
                continue
            checked.add(key)
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
      cell: any cell of the batch.
      elements: batch size.
    """
    height, width = cell.inputs.content.pixels.shape[:2]
    # Resolved, so that the history size does not depend on the memory: settings identify cells.
    recipe = resolve_recipe(cell.recipe, cell.network)
    styles = [(h, w) for h, w, _ in _style_shapes(cell)]
    size = output_size(height, width, cell.recipe)
    planning.fit_into_memory(
        *size, recipe=recipe, network=cell.network, batch=elements, styles=styles
    )


def batches(group: Group, elements: int, todo: Sequence[Cell]) -> list[Batch]:
    """Return the batches of a group that have a cell to run.

    Args:
      group: cells that share a program.
      elements: batch size.
      todo: cells that are not finished.
    """
    unfinished = {cell.key for cell in todo}
    result = []
    for first in range(0, len(group.cells), elements):
        part = group.cells[first : first + elements]
        places = [cell if cell.key in unfinished else None for cell in part]
        if any(places):
            result.append(Batch(group, (*places, *[None] * (elements - len(part)))))
    return result


def elements_elsewhere(group: Group) -> int:
    """Return the batch size of a group on other machines.

    It is small, to fit into most memories and to keep several workers busy.
    """
    return _even(len(group.cells), min(MAX_BATCH_SIZE.values()))


def elements_of(group: Group, *, devices: int = 1) -> int:
    """Return the batch size of a group: as large as memory allows, with batches of equal size.

    Devices have equal numbers of batch elements, filled up with copies. The memory is that of the
    compiled program, which is the program that runs unless it is too large.

    Args:
      group: cells that share a program.
      devices: number of devices that share a batch.
    """
    most = MAX_BATCH_SIZE.get(jax.default_backend(), MAX_BATCH_SIZE_ELSEWHERE)
    cells = -(-len(group.cells) // devices)
    elements = _even(cells, most)
    if elements == 1:
        return devices
    single = cell_problem(group.cells[0], {})
    problem = stack([single] * elements, own_targets=group.own_targets)
    chunk_size = default_chunk_size(problem.start)
    needed = memory.program_bytes(problem, chunk_size=chunk_size)
    free = free_memory.free_bytes()
    budget = float("inf") if free is None else memory.USABLE * free
    if jax.default_backend() == "cpu":
        budget /= devices  # They are one machine's.
    if needed <= budget:
        return elements * devices
    # An underestimate, as a part of the memory does not grow with the batch size.
    fitting = max(1, int(budget / (needed / elements)))
    # A power of two, to be independent of small changes of the free memory.
    return _even(cells, 1 << (fitting.bit_length() - 1)) * devices


def _even(cells: int, most: int) -> int:
    """Return the smallest batch size that needs no more batches than the batch size `most`."""
    return -(-cells // -(-cells // most))


def batch_problem(
    places: Sequence[Cell | None], own_targets: bool, devices: Sequence[jax.Device]
) -> Problem:
    """Build the problem of a batch, sharded over devices; empty positions get a copy of a cell."""
    shared: dict[Any, Sequence[Targets]] = {}
    stand_in = next(cell for cell in places if cell)
    problems = {cell.key: cell_problem(cell, shared) for cell in places if cell}
    elements = [problems[(cell or stand_in).key] for cell in places]
    return shard_batch(stack(elements, own_targets=own_targets), devices)


def cell_problem(cell: Cell, shared: dict[Any, Sequence[Targets]]) -> Problem:
    """Build the problem of one cell; targets are cached in `shared`."""
    key = _targets_key(cell)
    problem = prepare(
        cell.inputs.content.pixels,
        [style.pixels for style in cell.inputs.styles],
        recipe=cell.recipe,
        network=cell.network,
        start=cell.inputs.init.pixels if cell.inputs.init else None,
        masks=cell.inputs.arrays,
        targets=shared.get(key),
    )
    shared[key] = [scale.targets for scale in problem.scales]
    return problem


def _style_shapes(cell: Cell, *, level: int = 0) -> tuple[tuple[int, ...], ...]:
    sizes = [style.pixels.shape for style in cell.inputs.styles]
    return tuple((*style_size(h, w, cell.recipe, level=level), 3) for h, w, _ in sizes)


def _targets_key(cell: Cell) -> tuple[Any, ...]:
    """Return a key that is equal for cells of a group with equal targets."""
    recipe = cell.recipe
    files = tuple(f and f["sha256"] for name, f in named(cell.inputs.report()) if name != "init")
    # `size` determines the size of the styles, even if it does not determine that of the output.
    sizes = (recipe.size, recipe.upscale, recipe.style_scale)
    # The targets of losses that take layers together depend on the weights of the layers.
    joint = (
        recipe.content_layers if recipe.content_loss != "features" else None,
        recipe.style_layers if STYLE_LOSSES[recipe.style_loss].is_joint else None,
    )
    return (files, recipe.style_blend, sizes, recipe.preserve_color, joint)
