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
    from jaxstyle.monitor.serve import GridView, Page
    from jaxstyle.sweep import Cell, GridFile, Progress, Report
    from jaxstyle.sweep.executors import Executor


class Enough(KeyboardInterrupt):
    """The stop button of the page was pressed."""


@click.command(cls=GroupedCommand)
@click.argument("file", type=IMAGE, metavar="FILE.toml")
@click.option(
    "-o", "--output", type=IMAGE, required=True, metavar="DIR", help="Folder for the results."
)
@click.option(
    "--lanes",
    "elements",
    type=int,
    metavar="N",
    help="Number of cells that run at once in one program; default: as many as memory allows.",
)
@devices_option
@click.option(
    "--executor",
    type=click.Choice(("local", "ray", "slurm")),
    default="local",
    show_default=True,
    help="Where batches of cells run: in this process, as tasks on a Ray cluster (extra `ray`) or "
    "as Slurm jobs (extra `slurm`).",
)
@click.option(
    "--executor-option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of each task: of Ray (num_gpus=1) or of submitit (timeout_min=60, "
    "slurm_partition=gpu); can be given several times.",
)
@bounds_options
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option(
    "--log-json",
    is_flag=True,
    help="Print progress to standard error as lines of JSON, for other programs.",
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

    In FILE.toml, the table [base] has one value for each setting, content and style included, and
    [grid] has a list of values for each setting. Settings are named like flags, with `_` for `-`.

    DIR receives results.csv, contact_sheet.png, index.html and cells/. Ctrl-C, SIGTERM and the stop
    button of the --serve page end the command; only the current cells are lost. The same command
    resumes the grid: finished cells are kept.
    """
    if elements is not None and elements < 1:
        raise JaxstyleError(f"--lanes: {elements} is out of range; give a whole number from 1")

    from jaxstyle import sweep as grids
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.nn.sharding import select_devices

    # All checks come before the first file is written.
    execute = _executor(executor, options, devices=devices, output=output)
    plan = grids.read(file)
    _check(output, port)
    enable_compilation_cache()
    with errors_by_flag():
        sharing = select_devices(devices)
    cells = _cells(plan, **bounds(max_pixels, first_frame))
    groups = grids.group_cells(cells)
    grids.check(groups, here=execute is None)

    store = grids.Store(output)
    with store.open():
        reports = store.find(cells)
        page = None if port is None else _open_page(port, output, cells, reports, log_json)
        run = partial(
            grids.run, groups, reports, store, elements=elements, devices=sharing, executor=execute
        )
        code = _fill(run, output, cells, reports, page, quiet=quiet, as_json=log_json)
    missing = len(cells) - len(reports)
    if page is not None:
        made = f"see {output / 'index.html'}" if reports else "no cell is finished"
        page.finish(f"{'stopped' if missing else 'done'}; {made}")
    if missing:
        tell(
            f"stopped with {len(reports)} of {len(cells)} cells done; run the same command to "
            "resume"
        )
    elif not quiet:
        tell(f"{len(cells)} cells are done; see {output / 'index.html'}")
    if page is not None and not code:
        from jaxstyle.cli.browser import keep_open

        keep_open(page)
    return code


def _check(output: Path, port: int | None) -> None:
    """Raise an error for an invalid output folder or port."""
    if output.exists() and not output.is_dir():
        raise JaxstyleError(f"-o: {str(output)!r} is a file; give a folder")
    if port is not None:
        from jaxstyle.monitor.serve.server import check_port

        check_port(port, argument="--serve")


def _open_page(
    port: int, output: Path, cells: "Sequence[Cell]", reports: "dict[str, Report]", as_json: bool
) -> "Page[GridView]":
    """Serve the page of `--serve`."""
    from jaxstyle.cli.browser import open_page
    from jaxstyle.monitor.serve import GridView

    return open_page(port, GridView(output, cells, reports), as_json=as_json)


def _executor(
    name: str, options: Sequence[str], *, devices: int | str | None, output: Path
) -> "Executor | None":
    """Return the executor that `--executor` names, or None for this process."""
    from jaxstyle.sweep.executors import executor_option, on_ray, on_slurm

    asked = dict(map(executor_option, options))
    if name == "local" and asked:
        raise JaxstyleError(
            f"--executor-option: {options[0]} has no effect with --executor local; give --executor "
            "ray or slurm"
        )
    if name != "local" and devices is not None:
        raise JaxstyleError(
            f"--devices: {devices} works with --executor local only; with {name} each task has one "
            "device"
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
            f"the number of cells is {len(cells)}, not {asked_for}: some combinations are equal, "
            "because some files have the same bytes or some settings the same meaning"
        )
    if any(cell.settings.get("weights", "auto") == "auto" for cell in cells):
        tell_weights("auto")
    return cells


def _fill(
    run: Callable[..., Any],
    output: Path,
    cells: "Sequence[Cell]",
    reports: "dict[str, Report]",
    page: "Page[GridView] | None",
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
