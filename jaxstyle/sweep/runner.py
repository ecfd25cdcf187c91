"""The loop over the batches of a grid: each is run, stored and reported."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxstyle.engine.iterate import Iterate
from jaxstyle.nn.sharding import Devices, select_devices
from jaxstyle.sweep.batches import Batch, Group, batches, elements_elsewhere, elements_of
from jaxstyle.sweep.cell import Cell
from jaxstyle.sweep.executors import Executor, Finished, Step, Waiting, local
from jaxstyle.sweep.store import Report, Store, loss_of


class Progress(NamedTuple):
    """Progress of a grid."""

    done: int
    """Number of finished cells, including those of earlier runs."""
    total: int
    """Number of cells."""
    running: int
    """Number of running cells."""
    step: int
    """Step of the running cells."""
    steps: int
    """Last step of the running cells."""
    best: Cell | None
    """The cell with the lowest loss so far, including running cells; None if the cells have
    different objectives, whose losses are not comparable."""
    loss: float
    """Loss of `best`; NaN without one."""
    seconds_left: float | None
    """Estimated time left; None before the first steps."""
    places: tuple[Cell | None, ...] = ()
    """The cell at each position of the batch that reported last."""
    iterate: Iterate | None = None
    """Last iterate of that batch."""


def run(
    groups: Sequence[Group],
    finished: Mapping[str, Report],
    store: Store,
    *,
    elements: int | None = None,
    devices: Devices = None,
    executor: Executor | None = None,
    show: Callable[[Progress], None] = lambda progress: None,
    kept: Callable[[Mapping[str, Report]], None] = lambda reports: None,
) -> dict[str, Report]:
    """Run every cell that is not finished.

    Args:
      groups: from `group_cells`.
      finished: reports of finished cells by key.
      store: stores images and reports after each batch.
      elements: largest batch size, rounded up to a multiple of the number of devices. If not given,
        chosen by the memory, or by `elements_elsewhere` with an `executor`.
      devices: devices that share a batch, as in `prepare`.
      executor: runs the batches; in this process, on `devices`, if not given.
      show: called between chunks of steps; may raise `KeyboardInterrupt`, which discards running
        batches.
      kept: called with all reports so far after each batch has been stored.

    Returns:
      All reports by key.

    Raises:
      JaxstyleError: a batch does not fit into memory, or a file cannot be written.
    """
    reports = dict(finished)
    state = _GridState(groups, reports)
    sharing = select_devices(devices)
    execute = executor or local(sharing)
    todo = _unfinished(groups, reports, elements, len(sharing), here=executor is None)
    with contextlib.closing(execute(todo)) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Step):
                show(state.after_step(event))
            elif isinstance(event, Waiting):
                show(state.while_waiting(event))
            else:
                reports |= _saved(event, store)
                state.clock.finish(event.batch)
                kept(reports)
    return reports


def _unfinished(
    groups: Sequence[Group],
    reports: Mapping[str, Report],
    elements: int | None,
    devices: int,
    *,
    here: bool,
) -> Iterator[Batch]:
    """Yield the batches that have a cell to run.

    Args:
      groups: as in `run`.
      reports: reports of finished cells, read when a group's turn comes.
      elements: as in `run`.
      devices: number of devices that share a batch.
      here: whether batches run in this process.
    """
    for group in groups:
        todo = [cell for cell in group.cells if cell.key not in reports]
        if not todo:
            continue
        # Further elements would only run copies.
        count = min(elements, len(group.cells)) if elements else _as_before(group, reports)
        if not count:
            count = elements_of(group, devices=devices) if here else elements_elsewhere(group)
        yield from batches(group, -(-count // devices) * devices, todo)


class _GridState:
    """The cells of a grid with the reports so far, from which progress is computed."""

    def __init__(self, groups: Sequence[Group], reports: Mapping[str, Report]):
        self.reports = reports
        self.cells = {cell.key: cell for group in groups for cell in group.cells}
        self.comparable = len({cell.objective for cell in self.cells.values()}) == 1
        self.clock = _Clock(groups, reports)

    def after_step(self, event: Step) -> Progress:
        """Return the progress after a chunk of steps, and count its time."""
        batch, iterate = event
        self.clock.tick(iterate, batch)
        losses = {
            cell: float(np.nan_to_num(loss, nan=np.inf))
            for cell, loss in zip(batch.places, iterate.loss, strict=True)
            if cell
        }
        steps = batch.group.cells[0].recipe.total_steps
        progress = self._progress(len(losses), iterate.step, steps, losses)
        return progress._replace(places=batch.places, iterate=iterate)

    def while_waiting(self, event: Waiting) -> Progress:
        """Return the progress while batches run elsewhere."""
        return self._progress(sum(batch.filled for batch in event.running), 0, 1, {})

    def _progress(
        self, running: int, step: int, steps: int, current: Mapping[Cell, float]
    ) -> Progress:
        """Return the progress, with the losses of running cells in `current`."""
        losses = {self.cells[key]: loss_of(report) for key, report in self.reports.items()}
        losses |= dict(current)
        best = min(losses, key=losses.__getitem__, default=None) if self.comparable else None
        loss = losses[best] if best else float("nan")
        return Progress(
            len(self.reports), len(self.cells), running, step, steps, best, loss,
            self.clock.left(),
        )  # fmt: skip


def _saved(event: Finished, store: Store) -> dict[str, Report]:
    """Store the cells of a finished batch and return their reports by key."""
    places, of, filled = event.batch.places, len(event.batch.group.cells), event.batch.filled
    return {
        cell.key: store.save(cell, result, elements=len(places), place=place, of=of, filled=filled)
        for place, (cell, result) in enumerate(zip(places, event.results, strict=True))
        if cell
    }


def _as_before(group: Group, reports: Mapping[str, Report]) -> int | None:
    """Return the batch size of the group's finished cells, with which cells keep their positions.

    None if no cell of the group is finished.
    """
    for cell in group.cells:
        entry = reports[cell.key]["cell"] if cell.key in reports else {}
        if entry.get("of") == len(group.cells):
            return int(entry["lanes"])
    return None


class _Clock:
    """Estimates the time left: running time by the work, compilation by the number of groups.

    For batches on other machines, only the times at which they finish are known.
    """

    def __init__(self, groups: Sequence[Group], reports: Mapping[str, Report]):
        # An estimate: copies that fill a batch take as much time as cells.
        todo = [[c for c in group.cells if c.key not in reports] for group in groups]
        self.waiting = {
            id(group.cells): Batch(group, tuple(cells)).work
            for group, cells in zip(groups, todo, strict=True)
            if cells
        }
        self.total = sum(self.waiting.values())
        self.done = self.part = self.run_seconds = self.compile_seconds = 0.0
        self.groups_seen: set[int] = set()
        self.start = time.monotonic()

    def tick(self, iterate: Iterate, batch: Batch) -> None:
        self.groups_seen.add(id(batch.group.cells))
        self.run_seconds += iterate.run_seconds
        self.compile_seconds += iterate.compile_seconds
        self.part = batch.work_until(iterate.step)

    def finish(self, batch: Batch) -> None:
        self.done += batch.work
        self.part = 0.0

    def left(self) -> float | None:
        done = self.done + self.part
        if not done:
            return None
        work = max(self.total - done, 0)
        if not self.groups_seen:
            return work * (time.monotonic() - self.start) / done
        compiles = len(self.waiting.keys() - self.groups_seen)
        per_group = self.compile_seconds / len(self.groups_seen)
        return work * self.run_seconds / done + compiles * per_group
