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
from jaxstyle.sweep.store import Report, Store


class Progress(NamedTuple):
    """Progress of a grid."""

    done: int
    """Cells finished, earlier ones included."""
    total: int
    running: int
    """Cells that run now."""
    step: int
    """Of the running cells."""
    steps: int
    best: Cell | None
    """The cell of the least loss so far, running ones included; None if the cells have different
    objectives, whose losses do not compare."""
    loss: float
    """Its loss; NaN without one."""
    seconds_left: float | None
    """Estimated from the steps done since the start; `None` before there are any."""
    places: tuple[Cell | None, ...] = ()
    """Which cell runs in each batch element of the batch that has just gone on."""
    iterate: Iterate | None = None
    """What its batch elements have come to."""


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
      groups: from `grouped`.
      finished: reports of cells that are done, by key.
      store: where images and reports go, batch by batch.
      elements: cells at a time, at most; chosen from the memory, or with an `executor`
        (`elements_elsewhere`), if not given. With several devices the next multiple of their
        number.
      devices: see `prepare`; they share the batch elements.
      executor: where batches run; in this process, on `devices`, if not given.
      show: called between chunks of steps; may raise `KeyboardInterrupt`, which loses the batches
        under way.
      kept: called with all reports so far after each batch has been stored.

    Returns:
      All reports by key.

    Raises:
      JaxstyleError: the batch elements do not fit in memory, or a file cannot be written.
    """
    reports = dict(finished)
    cells = {cell.key: cell for group in groups for cell in group.cells}
    comparable = len({cell.objective for cell in cells.values()}) == 1
    clock = _Clock(groups, reports)
    sharing = select_devices(devices)
    execute = executor or local(sharing)

    def planned() -> Iterator[Batch]:
        for group in groups:
            todo = [cell for cell in group.cells if cell.key not in reports]
            if not todo:
                continue
            # More places than the group has cells would run copies only.
            count = min(elements, len(group.cells)) if elements else _as_before(group, reports)
            if not count:
                here = executor is None
                count = (
                    elements_of(group, devices=len(sharing)) if here else elements_elsewhere(group)
                )
            yield from batches(group, -(-count // len(sharing)) * len(sharing), todo)

    def progress(running: int, step: int, steps: int, seen: Mapping[Cell, float]) -> Progress:
        losses = {cells[key]: _loss(report) for key, report in reports.items()} | dict(seen)
        best = min(losses, key=losses.__getitem__, default=None) if comparable else None
        loss = losses[best] if best else float("nan")
        return Progress(len(reports), len(cells), running, step, steps, best, loss, clock.left())

    with contextlib.closing(execute(planned())) as events:  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Step):
                batch, iterate = event
                clock.tick(iterate, batch)
                losses = {
                    cell: float(np.nan_to_num(loss, nan=np.inf))
                    for cell, loss in zip(batch.places, iterate.loss, strict=True)
                    if cell
                }
                steps = batch.group.cells[0].recipe.total_steps
                show(
                    progress(len(losses), iterate.step, steps, losses)._replace(
                        places=batch.places, iterate=iterate
                    )
                )
            elif isinstance(event, Waiting):
                show(progress(sum(batch.filled for batch in event.running), 0, 1, {}))
            else:
                reports |= _saved(event, store)
                clock.finish(event.batch)
                kept(reports)
    return reports


def _saved(done: Finished, store: Store) -> dict[str, Report]:
    places, of, filled = done.batch.places, len(done.batch.group.cells), done.batch.filled
    return {
        cell.key: store.save(cell, result, elements=len(places), place=place, of=of, filled=filled)
        for place, (cell, result) in enumerate(zip(places, done.results, strict=True))
        if cell
    }


def _as_before(group: Group, reports: Mapping[str, Report]) -> int | None:
    """Return the batch size of the group's finished cells, so that cells keep their positions."""
    for cell in group.cells:
        ran = reports[cell.key]["cell"] if cell.key in reports else {}
        if ran.get("of") == len(group.cells):
            return int(ran["lanes"])
    return None


def _loss(report: Report) -> float:
    return float("inf") if report["loss"] is None else float(report["loss"])


class _Clock:
    """Estimates the time left: running goes by the work, compiling by the group.

    Of batches that run elsewhere nothing is known but when they finish.
    """

    def __init__(self, groups: Sequence[Group], reports: Mapping[str, Report]):
        # As if unfinished cells ran alone; copies that fill a batch cost as much as cells.
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
