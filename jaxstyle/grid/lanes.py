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

from jaxstyle import memory
from jaxstyle.descent import default_every
from jaxstyle.grid.cells import Cell
from jaxstyle.inputs import named
from jaxstyle.objective import Targets
from jaxstyle.prepare import Job, prepare, spread, stack
from jaxstyle.sizing import output_size, pyramid_levels, style_size
from jaxstyle.styles import STYLE_LOSSES
from jaxstyle.targets import compute_targets

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
        """Whether contents, styles or their blend differ, so that each lane needs its own."""
        return len({_of_targets(cell) for cell in self.cells}) > 1


class Batch(NamedTuple):
    """Lanes that run together: a place for each cell, or for nobody where the cell is done."""

    group: Group
    places: tuple[Cell | None, ...]

    @property
    def filled(self) -> int:
        """Places that hold a cell."""
        return sum(cell is not None for cell in self.places)

    @property
    def work(self) -> float:
        """Picture elements times steps times lanes: what running takes, up to a factor."""
        height, width, channels = self.group.shape
        recipe = self.group.cells[0].recipe
        smaller = recipe.scale_ratio**-2
        steps = recipe.steps * sum(smaller**level for level in range(recipe.scales or 1))
        return height * width * channels * steps * len(self.places)


def grouped(cells: Sequence[Cell]) -> list[Group]:
    """Sort cells into groups, in order of first appearance."""
    shapes: dict[Any, tuple[int, ...]] = {}
    members: dict[Any, list[Cell]] = {}
    for cell in cells:
        recipe = cell.recipe
        fitted = (cell.inputs.content.report["sha256"], recipe.size, recipe.upscale)
        if fitted not in shapes:
            height, width = cell.inputs.content.pixels.shape[:2]
            shapes[fitted] = (*output_size(height, width, recipe), 3)
        structure = jax.tree.structure(recipe.for_program())
        # The statistics of losses that are no means have a size that depends on the style's.
        of_means = STYLE_LOSSES[recipe.style_loss].of_means
        styles = None if of_means else _style_shapes(cell)
        form = (shapes[fitted], id(cell.network), structure, recipe.steps, styles)
        members.setdefault(form, []).append(cell)
    return [Group(tuple(lanes), form[0]) for form, lanes in members.items()]


def check(groups: Sequence[Group]) -> None:
    """Raise what running a single cell would raise: too small a picture, too little memory.

    Only shapes are computed.
    """
    for group in groups:
        first = group.cells[0]
        # Lanes are numbered by their settings: memory is not to choose any.
        recipe = first.recipe.resolved(first.network)
        memory.fit(*group.shape[:2], recipe=recipe, network=first.network)
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
    shared: dict[Any, Sequence[Targets]] = {}
    stand_in = next(cell for cell in places if cell)
    jobs = {cell.key: job_of(cell, shared) for cell in places if cell}
    lanes = [jobs[(cell or stand_in).key] for cell in places]
    return spread(stack(lanes, own_targets=own_targets), devices)


def job_of(cell: Cell, shared: dict[Any, Sequence[Targets]]) -> Job:
    """Prepare one cell; targets are taken from `shared`, or computed and put there."""
    known = (_of_targets(cell), cell.recipe.size, cell.recipe.upscale)
    job = prepare(
        cell.inputs.content.pixels,
        [style.pixels for style in cell.inputs.styles],
        recipe=cell.recipe,
        network=cell.network,
        start=cell.inputs.init.pixels if cell.inputs.init else None,
        masks=cell.inputs.arrays,
        targets=shared.get(known),
    )
    shared[known] = [scale.targets for scale in job.scales]
    return job


def _style_shapes(cell: Cell, *, level: int = 0) -> tuple[tuple[int, ...], ...]:
    sizes = [style.pixels.shape for style in cell.inputs.styles]
    return tuple((*style_size(h, w, cell.recipe, level=level), 3) for h, w, _ in sizes)


def _of_targets(cell: Cell) -> tuple[Any, ...]:
    """What the targets of a group's cells may differ by."""
    recipe = cell.recipe
    files = tuple(f and f["sha256"] for name, f in named(cell.inputs.report()) if name != "init")
    return (files, recipe.style_blend, recipe.style_scale, recipe.preserve_color)
