"""The loop over batches: each is run, kept, and reported while it goes."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

from jaxstyle.errors import JaxstyleError
from jaxstyle.grid.cells import Cell
from jaxstyle.grid.lanes import Batch, Group, batch_job, batches, lanes_of
from jaxstyle.grid.store import Report, Store
from jaxstyle.run import Iterate, finish, iterates


class Progress(NamedTuple):
    """Where a grid stands."""

    done: int
    """Cells finished, earlier ones included."""
    total: int
    running: int
    """Cells that run now."""
    step: int
    """Of the running cells."""
    steps: int
    best: Cell | None
    """The cell of the least loss so far, running ones included."""
    loss: float
    """Its loss."""
    seconds_left: float | None
    """Estimated from the steps done since the start; `None` before there are any."""
    places: tuple[Cell | None, ...] = ()
    """Which cell runs in each lane of the batch that has just gone on."""
    iterate: Iterate | None = None
    """What its lanes have come to."""


def run(
    groups: Sequence[Group],
    finished: Mapping[str, Report],
    store: Store,
    *,
    lanes: int | None = None,
    show: Callable[[Progress], None] = lambda progress: None,
    kept: Callable[[Mapping[str, Report]], None] = lambda reports: None,
) -> dict[str, Report]:
    """Run every cell that is not finished.

    Args:
      groups: from `grouped`.
      finished: reports of cells that are done, by key.
      store: where pictures and reports go, batch by batch.
      lanes: cells at a time, at most; chosen from the memory if not given.
      show: called between chunks of steps; may raise `KeyboardInterrupt`, which loses the batch.
      kept: called with all reports so far after each batch has been stored.

    Returns:
      All reports by key.

    Raises:
      JaxstyleError: the lanes do not fit in memory, or a file cannot be written.
    """
    reports = dict(finished)
    cells = {cell.key: cell for group in groups for cell in group.cells}
    clock = _Clock(groups, reports)

    def best(seen: Mapping[Cell, float]) -> tuple[Cell | None, float]:
        losses = {cells[key]: _loss(report) for key, report in reports.items()} | dict(seen)
        cell = min(losses, key=losses.__getitem__, default=None)
        return cell, losses[cell] if cell else float("nan")

    for number, group in enumerate(groups):
        todo = [cell for cell in group.cells if cell.key not in reports]
        if not todo:
            continue
        # More places than the group has cells would run copies only.
        count = min(lanes, len(group.cells)) if lanes else _as_before(group, reports)
        count = count or lanes_of(group)
        for batch in batches(group, count, todo):
            filled = [cell for cell in batch.places if cell]

            def watch(iterate: Iterate, batch: Batch = batch, number: int = number) -> None:
                clock.tick(iterate, batch)
                running = {
                    cell: float(np.nan_to_num(loss, nan=np.inf))
                    for cell, loss in zip(batch.places, iterate.loss, strict=True)
                    if cell
                }
                show(
                    Progress(
                        len(reports), len(cells), len(running), iterate.step,
                        batch.group.cells[0].recipe.total_steps, *best(running), clock.left(number),
                        batch.places, iterate,
                    )
                )  # fmt: skip

            for cell, report in _run_batch(batch, len(filled), store, watch):
                reports[cell.key] = report
            clock.finish(batch)
            kept(reports)
    return reports


def _run_batch(
    batch: Batch, filled: int, store: Store, watch: Callable[[Iterate], None]
) -> list[tuple[Cell, Report]]:
    lanes = len(batch.places)
    seen: list[Iterate] = []
    try:
        job = batch_job(batch)
        for iterate in iterates(job):
            if seen:
                seen[-1] = seen[-1]._replace(image=None)  # type: ignore[arg-type]
            seen.append(iterate._replace(carry=None))
            watch(iterate)
        results = finish(job, seen)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise JaxstyleError(
            f"--lanes: {lanes} cells at a time do not fit in memory; "
            + (f"give --lanes {lanes // 2}" if lanes > 1 else "give a smaller size")
        ) from None
    group_size = len(batch.group.cells)
    return [
        (cell, store.save(cell, result, lanes=lanes, place=place, of=group_size, filled=filled))
        for place, (cell, result) in enumerate(zip(batch.places, results, strict=True))
        if cell
    ]


def _as_before(group: Group, reports: Mapping[str, Report]) -> int | None:
    """The lanes that finished cells of the group ran in, so that all cells keep their places."""
    for cell in group.cells:
        ran = reports[cell.key]["cell"] if cell.key in reports else {}
        if ran.get("of") == len(group.cells):
            return int(ran["lanes"])
    return None


def _loss(report: Report) -> float:
    return float("inf") if report["loss"] is None else float(report["loss"])


class _Clock:
    """Estimates the time left: running goes by the work, compiling by the group."""

    def __init__(self, groups: Sequence[Group], reports: Mapping[str, Report]):
        self.waiting = [
            # As if unfinished cells ran alone; copies that fill a batch cost as much as cells.
            Batch(group, tuple(c for c in group.cells if c.key not in reports)).work
            for group in groups
        ]
        self.done = self.run_seconds = self.compile_seconds = 0.0
        self.groups_seen: set[int] = set()
        self.part = 0.0

    def tick(self, iterate: Iterate, batch: Batch) -> None:
        self.groups_seen.add(id(batch.group.cells))
        self.run_seconds += iterate.run_seconds
        self.compile_seconds += iterate.compile_seconds
        self.part = batch.work * iterate.step / batch.group.cells[0].recipe.total_steps

    def finish(self, batch: Batch) -> None:
        self.done += batch.work
        self.part = 0.0

    def left(self, number: int) -> float | None:
        done = self.done + self.part
        if not done:
            return None
        compiles = sum(work > 0 for work in self.waiting[number + 1 :])
        per_group = self.compile_seconds / len(self.groups_seen)
        work = max(sum(self.waiting) - done, 0)
        return work * self.run_seconds / done + compiles * per_group
