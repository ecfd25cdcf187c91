"""Cells to lanes: which may share a program, how many at a time, and in which places.

On a CPU the last bits of a gradient may depend on the place that a lane has in its batch
(threads share out the rows of all lanes together), but not on what its neighbours hold. So a
cell's batch and place follow from the grid alone: cells that are done leave their places to
copies of those that are not.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxstyle import images, memory
from jaxstyle.grid.cells import Cell
from jaxstyle.objective import Targets, compute_targets
from jaxstyle.prepare import Job, prepare, spread, stack, style_pictures
from jaxstyle.run import default_every

# Beyond these, lanes hardly gain and a crash loses more.
MOST_LANES = {"cpu": 8}
MOST_LANES_ELSEWHERE = 64


class Group(NamedTuple):
    """Cells that differ in numbers and pictures only: lanes of one program."""

    cells: tuple[Cell, ...]
    shape: tuple[int, ...]
    """Of every picture, `[h, w, 3]`."""

    @property
    def own_targets(self) -> bool:
        """Whether there are several contents or styles, so that each lane needs its own."""
        return len({_pictures(cell) for cell in self.cells}) > 1


class Batch(NamedTuple):
    """Lanes that run together: a place for each cell, or for nobody where the cell is done."""

    group: Group
    places: tuple[Cell | None, ...]

    @property
    def filled(self) -> int:
        """Places that hold a cell."""
        return sum(cell is not None for cell in self.places)

    @property
    def work(self) -> int:
        """Picture elements times steps times lanes: what running takes, up to a factor."""
        height, width, channels = self.group.shape
        return height * width * channels * self.group.cells[0].recipe.steps * len(self.places)


def grouped(cells: Sequence[Cell]) -> list[Group]:
    """Sort cells into groups, in order of first appearance."""
    shapes: dict[Any, tuple[int, ...]] = {}
    members: dict[Any, list[Cell]] = {}
    for cell in cells:
        recipe = cell.recipe
        fitted = (cell.content.report["sha256"], recipe.size, recipe.upscale)
        if fitted not in shapes:
            height, width = cell.content.pixels.shape[:2]
            if recipe.size:
                height, width = images.fitted(height, width, recipe.size, upscale=recipe.upscale)
            shapes[fitted] = (height, width, 3)
        structure = jax.tree.structure(recipe.for_program())
        form = (shapes[fitted], id(cell.network), structure, recipe.steps)
        members.setdefault(form, []).append(cell)
    return [Group(tuple(lanes), form[0]) for form, lanes in members.items()]


def check(groups: Sequence[Group]) -> None:
    """Raise what running a single cell would raise: too small a picture, too little memory.

    Only shapes are computed.
    """
    for group in groups:
        first = group.cells[0]
        memory.check(*group.shape[:2], recipe=first.recipe, network=first.network)
        checked = set()
        for cell in group.cells:
            shapes = tuple(
                style.shape
                for style in style_pictures([style.pixels for style in cell.styles], cell.recipe)
            )
            if shapes not in checked:
                checked.add(shapes)
                jax.eval_shape(
                    partial(compute_targets, recipe=cell.recipe),
                    cell.network,
                    jax.ShapeDtypeStruct(group.shape, jnp.float32),
                    [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
                )


def batches(group: Group, lanes: int, todo: Sequence[Cell]) -> list[Batch]:
    """Give every cell its place in batches of equally many lanes; batches all done are left out."""
    wanted = {cell.key for cell in todo}
    found = []
    for first in range(0, len(group.cells), lanes):
        part = group.cells[first : first + lanes]
        places = [cell if cell.key in wanted else None for cell in part]
        if any(places):
            found.append(Batch(group, (*places, *[None] * (lanes - len(part)))))
    return found


def lanes_of(group: Group, *, devices: int = 1) -> int:
    """Choose how many lanes of a group run at a time: as many as memory holds, evenly shared out.

    With several devices equally many run on each, copies where there are too few cells. The
    compiler says what the program takes; it is compiled once, as it will be run unless it is too
    large.
    """
    most = MOST_LANES.get(jax.default_backend(), MOST_LANES_ELSEWHERE)
    cells = -(-len(group.cells) // devices)
    lanes = _even(cells, most)
    if lanes == 1:
        return devices
    one = job_of(group.cells[0], {})
    job = stack([one] * lanes, own_targets=group.own_targets)
    every = default_every(job.start)
    needed = memory.program_bytes(job, every=every)
    free = memory.free_bytes()
    budget = float("inf") if free is None else memory.USABLE * free
    if jax.default_backend() == "cpu":
        budget /= devices  # They are one machine's.
    if needed <= budget:
        return lanes * devices
    # What does not grow with the lanes is counted with them, which errs on the safe side.
    fitting = max(1, int(budget / (needed / lanes)))
    # A power of two, so that a little more or less free memory next time changes nothing.
    return _even(cells, 1 << (fitting.bit_length() - 1)) * devices


def _even(cells: int, most: int) -> int:
    """At most `most` lanes, as few as give equally many batches."""
    return -(-cells // -(-cells // most))


def job_of_places(
    places: Sequence[Cell | None], own_targets: bool, devices: Sequence[jax.Device]
) -> Job:
    """Prepare a batch for devices; a place without a cell runs a copy of one that has."""
    shared: dict[Any, Targets] = {}
    stand_in = next(cell for cell in places if cell)
    jobs = {cell.key: job_of(cell, shared) for cell in places if cell}
    lanes = [jobs[(cell or stand_in).key] for cell in places]
    return spread(stack(lanes, own_targets=own_targets), devices)


def job_of(cell: Cell, shared: dict[Any, Targets]) -> Job:
    """Prepare one cell; targets are taken from `shared`, or computed and put there."""
    known = (*_pictures(cell), cell.recipe.size, cell.recipe.upscale)
    job = prepare(
        cell.content.pixels,
        [style.pixels for style in cell.styles],
        recipe=cell.recipe,
        network=cell.network,
        start=cell.start.pixels if cell.start else None,
        targets=shared.get(known),
    )
    shared[known] = job.targets
    return job


def _pictures(cell: Cell) -> tuple[Any, ...]:
    return (cell.content.report["sha256"], *(style.report["sha256"] for style in cell.styles))
