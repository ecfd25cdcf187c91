"""`jaxstyle grid`: every combination of some settings."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jaxstyle.cli.help import GroupedCommand
from jaxstyle.cli.options import (
    IMAGE,
    bounds,
    bounds_options,
    devices_option,
    errors_by_flag,
    serve_option,
)
from jaxstyle.cli.streams import tell, tell_from_signal
from jaxstyle.errors import JaxstyleError
from jaxstyle.monitor.interrupts import INTERRUPTED, TERMINATED, Terminated, interrupts

if TYPE_CHECKING:
    from jaxstyle.sweep import Cell, GridFile, Progress, Report
    from jaxstyle.sweep.executors import Executor


class Enough(KeyboardInterrupt):
    """The stop button of the page was pressed."""


@click.command(cls=GroupedCommand)
@click.argument("file", type=IMAGE, metavar="FILE.toml")
@click.option("-o", "--output", type=IMAGE, required=True, metavar="DIR", help="Folder to fill.")
@click.option(
    "--lanes",
    "elements",
    type=int,
    metavar="N",
    help="Cells that run at a time in one program; default: what memory allows.",
)
@devices_option
@click.option(
    "--executor",
    type=click.Choice(("local", "ray", "slurm")),
    default="local",
    show_default=True,
    help="Where batches of cells run: in this process, as tasks of a Ray cluster (extra `ray`) or "
    "as jobs of Slurm (extra `slurm`).",
)
@click.option(
    "--executor-option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="What a task asks for, in Ray's words (num_gpus=1) or submitit's (timeout_min=60, "
    "slurm_partition=gpu); repeatable.",
)
@bounds_options
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option(
    "--log-json", is_flag=True, help="Progress as JSON lines on standard error, for programs."
)
@serve_option
def grid(
    file: Path,
    output: Path,
    elements: int | None,
    devices: int | str | None,
    executor: str,
    options: tuple[str, ...],
    max_pixels: int | None,
    first_frame: bool,
    quiet: bool,
    log_json: bool,
    port: int | None,
) -> int:
    """Run every combination of the settings in FILE.toml.

    FILE.toml has one value a flag in [base] (content and style among them) and a list a flag in
    [grid]; flags are written with `_`. DIR receives results.csv, contact_sheet.png, index.html and
    cells/. Run again, it goes on where it stopped: finished cells are kept. Ctrl-C, SIGTERM and the
    button of the page that --serve shows lose only the cells under way.
    """
    if elements is not None and elements < 1:
        raise JaxstyleError(f"--lanes: {elements} is out of range; give a whole number from 1")

    from jaxstyle import sweep as grids
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.nn.sharding import select_devices

    # All checks come before the first file is written.
    execute = _executor(executor, options, devices=devices, output=output)
    plan = grids.read(file)
    if output.exists() and not output.is_dir():
        raise JaxstyleError(f"-o {str(output)!r} is a file; name a folder")
    if port is not None:
        from jaxstyle.monitor.serve.server import check_port

        check_port(port, argument="--serve")
    enable_compilation_cache()
    with errors_by_flag():
        sharing = select_devices(devices)
    cells = _cells(plan, **bounds(max_pixels, first_frame))
    groups = grids.group_cells(cells)
    grids.check(groups, here=execute is None)

    store = grids.Store(output)
    with store.open():
        reports = store.find(cells)
        page = None
        if port is not None:
            from jaxstyle.cli.browser import open_page
            from jaxstyle.monitor.serve import GridView

            page = open_page(port, GridView(output, cells, reports), as_json=log_json)
        run = partial(
            grids.run, groups, reports, store, elements=elements, devices=sharing, executor=execute
        )
        code = _fill(
            run, output, cells, reports, page, quiet=quiet, as_json=log_json
        )  # fmt: skip
    missing = len(cells) - len(reports)
    if page is not None:
        made = f"see {output / 'index.html'}" if reports else "no cell is finished"
        page.finish(f"{'stopped' if missing else 'done'}; {made}")
    if missing:
        tell(
            f"stopped with {len(reports)} of {len(cells)} cells done; the same command goes on "
            "from there"
        )
    if page is not None and not code:
        from jaxstyle.cli.browser import keep_open

        keep_open(page)
    return code


def _executor(
    name: str, options: Sequence[str], *, devices: int | str | None, output: Path
) -> "Executor | None":
    """Return the executor that `--executor` names, or None for this process."""
    from jaxstyle.sweep.executors import executor_option, on_ray, on_slurm

    asked = dict(map(executor_option, options))
    if name == "local" and asked:
        raise JaxstyleError("--executor-option: for --executor ray or slurm; give one of these")
    if name != "local" and devices is not None:
        raise JaxstyleError(
            f"--devices: {devices} is for --executor local; with {name} a task has one device"
        )
    if name == "ray":
        return on_ray(asked)
    return on_slurm(output / ".slurm", asked) if name == "slurm" else None


def _cells(plan: "GridFile", **limits: Any) -> "list[Cell]":
    """Return the cells of a grid; print a notice if some combinations are equal."""
    from jaxstyle import sweep as grids
    from jaxstyle.cli.inputs import tell_weights
    from jaxstyle.weights import load_network

    cells = grids.cells(plan, load_network, **limits)
    asked_for = math.prod(len(values) for values in plan.axes.values())
    if asked_for > len(cells):
        tell(
            f"{asked_for} combinations are {len(cells)} different ones, as some files have the "
            "same bytes or some settings the same meaning; each is run once"
        )
    if any(cell.settings.get("weights", "auto") == "auto" for cell in cells):
        tell_weights("auto")
    return cells


def _fill(
    run: Callable[..., Any],
    output: Path,
    cells: "Sequence[Cell]",
    reports: "dict[str, Report]",
    page: Any,
    *,
    quiet: bool,
    as_json: bool,
) -> int:
    """Run the missing cells, and write `results.csv`, `contact_sheet.png` and `index.html`.

    Args:
      run: `sweep.run` with all arguments but `show` and `kept`.
      output: folder of the grid.
      cells: all cells of the grid.
      reports: reports of the finished cells by key; updated in place.
      page: page that shows the grid, if any.
      quiet: whether to show no progress.
      as_json: whether to write progress as JSON lines.

    Returns:
      The exit code.
    """
    from jaxstyle.monitor.grid_progress import grid_progress
    from jaxstyle.sweep.summary import write_overview, write_table

    code = 0
    progress = grid_progress(len(cells), len(reports), quiet=quiet, as_json=as_json)
    with progress as show, interrupts(tell_from_signal) as check:

        def shown(progress: "Progress") -> None:
            show(progress)
            check()
            if page is not None:
                page.view.tick(progress)
                if page.stopped:
                    raise Enough

        def kept(new_reports: "Mapping[str, Report]") -> None:
            reports.update(new_reports)
            write_table(output, cells, reports)
            if page is not None:
                page.view.keep(new_reports)

        try:
            run(show=shown, kept=kept)
        except Enough:
            pass
        except KeyboardInterrupt as stopped:
            code = TERMINATED if isinstance(stopped, Terminated) else INTERRUPTED
    write_table(output, cells, reports)
    write_overview(output, cells, reports)
    return code
