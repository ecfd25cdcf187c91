"""`jaxstyle stylize FOLDER STYLE … -o FOLDER`: all images of a folder, in batches of one size."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxstyle import images
from jaxstyle.cli.devices import enable_compilation_cache
from jaxstyle.cli.inputs import Sources, argument_of, read_sources, tell_weights
from jaxstyle.cli.options import as_flags, bounds, errors_by_flag, unused_notices
from jaxstyle.cli.outputs import Outputs
from jaxstyle.cli.rescue import rescue, warn
from jaxstyle.cli.streams import tell, tell_from_signal
from jaxstyle.cli.stylize import Options
from jaxstyle.cli.waiting import Waiting
from jaxstyle.config.presets import weights_notice
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine import free_memory, memory, planning
from jaxstyle.engine.iterate import Iterate
from jaxstyle.engine.loop import iterates
from jaxstyle.engine.preparation import prepare
from jaxstyle.engine.problem import Problem, shard_batch, stack
from jaxstyle.engine.results import Result, append_iterate, finish
from jaxstyle.engine.sizes import output_size, resolve_scales
from jaxstyle.errors import JaxstyleError, memory_errors
from jaxstyle.files import StrPath
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.monitor.grid_progress import grid_progress
from jaxstyle.monitor.interrupts import INTERRUPTED, TERMINATED, Terminated, interrupts
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import select_devices, sharing_devices
from jaxstyle.provenance.inputs import InputImage, recipe_files
from jaxstyle.provenance.unresolved import unresolved_settings
from jaxstyle.sweep import Progress
from jaxstyle.weights import load_network

# GIF is not read: such a file is reported as failed instead of left out without a word.
_TAKEN = (*images.SUFFIXES, ".gif")
MAX_BATCH_SIZE = {"cpu": 4}
MAX_BATCH_SIZE_ELSEWHERE = 16
"""Largest batch size on other platforms; limited, as a stopped run loses its whole batch."""


class Job(NamedTuple):
    """An image of the folder and its output file."""

    file: Path
    target: Path


class Batch(NamedTuple):
    """Images of one size that run together."""

    jobs: tuple[Job, ...]
    size: tuple[int, int]
    """Height and width of the outputs."""
    places: int
    """Batch size of the program; batch elements without an image run copies of the first image."""


class Setting(NamedTuple):
    """The settings that all images of a folder share."""

    options: Options
    recipe: Recipe
    network: Network
    limits: Mapping[str, Any]
    """Keyword arguments of `images.load_image`."""
    known: dict[Any, InputImage]
    """Images that all runs share, by setting and file."""


def stylize_folder(
    options: Options, recipe: Recipe, *, flags: dict[str, Any], waiting: Waiting
) -> int:
    """Stylize each image of a folder into another folder; existing outputs are kept.

    Outputs have the names of the inputs, with the extension `.png`. If an image fails, the others
    are stylized nevertheless.

    Args:
      options: arguments of the command; `content` is the folder.
      recipe: settings for all images.
      flags: settings given on the command line; None where not given.
      waiting: display to stop when the first run begins.

    Returns:
      The exit code: 0 if all outputs exist, or that of the signal that stopped the run.

    Raises:
      JaxstyleError: an argument is invalid for all images; or, after all others are done, some
        images failed.
    """
    jobs = _jobs(options)
    images.check_bit_depth(options.bit_depth, "PNG", argument="--bit-depth")
    enable_compilation_cache()
    network = load_network(options.weights_name)
    setting = Setting(options, recipe, network, bounds(options.max_pixels, options.first_frame), {})
    with errors_by_flag():
        select_devices(options.devices)
        resolve_recipe(recipe, network)
    _read_shared(setting)
    failed: dict[Path, str] = {}
    batches = _batches(jobs, setting, failed)
    done = sum(job.target.exists() for job in jobs)
    waiting.stop()
    quiet = options.quiet or options.log_json
    tell_weights(options.weights_name, quiet=quiet)
    notice = weights_notice(options.preset_name, network.name)
    for line in (notice, *unused_notices(recipe, flags)):
        if line and not quiet:
            tell(line)
    if done:
        tell(f"{done} of {len(jobs)} images are already in {options.output}")
    code = _run_all(batches, setting, failed, total=len(jobs), done=done)
    missing = sum(not job.target.exists() for job in jobs) - len(failed)
    if code:
        tell(
            f"stopped with {len(jobs) - missing - len(failed)} of {len(jobs)} images done; run the "
            "same command to resume"
        )
    if failed and not code:
        names = ", ".join(file.name for file in failed)
        raise JaxstyleError(
            f"CONTENT: {len(failed)} of {len(jobs)} images failed: {names}; the others are in "
            f"{options.output}"
        )
    if not code and not quiet:
        tell(f"{len(jobs)} images are in {options.output}")
    return code


def _jobs(options: Options) -> list[Job]:
    """Return the images of the folder with their output files; create the output folder."""
    folder, output = options.content, options.output
    assert folder is not None, "checked by the command"
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in _TAKEN and f.is_file())
    if not files:
        raise JaxstyleError(
            f"CONTENT: {folder} has no image; give a folder with {', '.join(images.SUFFIXES)}"
        )
    if output.exists() and not output.is_dir():
        raise JaxstyleError(f"-o: {output} is a file; give a folder for the images of {folder}")
    if output.resolve() == folder.resolve():
        raise JaxstyleError(f"-o: {output} is the folder of CONTENT; choose another")
    names: dict[str, Path] = {}
    for file in files:
        name = file.with_suffix(".png").name
        if name in names:
            raise JaxstyleError(
                f"CONTENT: {names[name]} and {file} would both be written to {name}; rename one"
            )
        names[name] = file
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise JaxstyleError(
            f"-o: {output} cannot be created: {error.strerror}; choose another"
        ) from None
    return [Job(file, output / name) for name, file in names.items()]


def _read_shared(setting: Setting) -> None:
    """Read the images that all runs share into `setting.known`; raise for an invalid one."""
    styles: list[tuple[str, StrPath]] = [("style", style) for style in setting.options.styles]
    for key, file in (*styles, *recipe_files(setting.recipe)):
        pixels = images.load_image(file, argument=argument_of(key), **setting.limits)
        setting.known[key, file] = InputImage.of(Path(file), pixels)


def _batches(jobs: Sequence[Job], setting: Setting, failed: dict[Path, str]) -> list[Batch]:
    """Group the images into batches of one size; record unreadable files in `failed`.

    The batches do not depend on which outputs exist already: on a CPU, the last bits of a result
    may depend on its position in the batch.
    """
    groups: dict[tuple[int, int], list[Job]] = {}
    for job in jobs:
        try:
            height, width = images.image_size(job.file, argument="CONTENT", **setting.limits)
            size = output_size(height, width, setting.recipe)
        except JaxstyleError as error:
            _fail(job, error, failed)
            continue
        groups.setdefault(size, []).append(job)
    batches = []
    for size, members in groups.items():
        places = _places(len(members), size, setting)
        for first in range(0, len(members), places):
            batches.append(Batch(tuple(members[first : first + places]), size, places))
    return batches


def _places(count: int, size: tuple[int, int], setting: Setting) -> int:
    """Return the batch size for `count` images of one size, as memory allows."""
    most = MAX_BATCH_SIZE.get(jax.default_backend(), MAX_BATCH_SIZE_ELSEWHERE)
    free = free_memory.free_bytes()
    if free is not None and count > 1:
        recipe = resolve_recipe(setting.recipe, setting.network)
        one = memory.upper_bound(*size, recipe=recipe, network=setting.network)
        fitting = max(1, int(memory.USABLE * free / one))
        # A power of two, so that slightly different free memory gives the same batches.
        most = min(most, 1 << (fitting.bit_length() - 1))
    # Batches of about equal size on each device, so that few batch elements have no image.
    devices = len(select_devices(setting.options.devices))
    on_each = -(-count // devices)
    return -(-on_each // -(-on_each // most)) * devices


def _run_all(
    batches: Sequence[Batch], setting: Setting, failed: dict[Path, str], *, total: int, done: int
) -> int:
    """Run the batches that lack an output, and return the exit code."""
    options = setting.options
    todo = [batch for batch in batches if any(not job.target.exists() for job in batch.jobs)]
    clock = _Clock(todo)
    progress = grid_progress(
        total, done, quiet=options.quiet or options.log_json, as_json=options.log_json,
        things="images",
    )  # fmt: skip
    with interrupts(tell_from_signal) as check_interrupt, progress as show:
        try:
            for batch in todo:
                for jobs, sources in _read(batch, setting, failed):
                    collected: list[Iterate] = []
                    try:
                        problem = _problem(batch.places, sources, setting)
                        steps = problem.recipe.total_steps
                        for iterate in _run(problem):
                            append_iterate(collected, iterate)
                            left = clock.tick(iterate, batch, steps)
                            show(_progress(iterate.step, steps, len(jobs), done, total, left))
                            check_interrupt()
                        results = finish(problem, collected)
                    except JaxstyleError as error:
                        for job in jobs:
                            _fail(job, error, failed)
                    else:
                        done += _save(jobs, sources, results, setting, failed)
                clock.finish(batch)
        except KeyboardInterrupt as signal:
            return TERMINATED if isinstance(signal, Terminated) else INTERRUPTED
    return 0


def _run(problem: Problem) -> Iterator[Iterate]:
    """Yield the iterates of a batch, without their `carry`."""
    with memory_errors():
        for iterate in iterates(problem, first=1):
            yield iterate._replace(carry=None)


def _progress(
    step: int, steps: int, running: int, done: int, total: int, left: float | None
) -> Progress:
    """Return the progress, without a loss, as losses of different images are not comparable."""
    return Progress(done, total, running, step, steps, None, float("nan"), left)


def _read(
    batch: Batch, setting: Setting, failed: dict[Path, str]
) -> Iterator[tuple[list[Job], list[Sources]]]:
    """Read the images of a batch that lack an output, and yield them grouped by size.

    Images whose actual size differs from that in the file's header run separately.
    """
    by_size: dict[tuple[int, int], tuple[list[Job], list[Sources]]] = {}
    for job in batch.jobs:
        if job.target.exists():
            continue
        try:
            sources = read_sources(
                job.file, setting.options.styles, setting.recipe, known=setting.known,
                **setting.limits,
            )  # fmt: skip
            height, width = sources.content.shape[:2]
            size = output_size(height, width, setting.recipe)
        except JaxstyleError as error:
            _fail(job, error, failed)
            continue
        jobs, several = by_size.setdefault(size, ([], []))
        jobs.append(job)
        several.append(sources)
    yield from by_size.values()


@memory_errors()
def _problem(places: int, sources: Sequence[Sources], setting: Setting) -> Problem:
    """Build the problem of one image, or of a batch."""
    height, width = sources[0].content.shape[:2]
    devices = sharing_devices(setting.options.devices, places)
    styles = [style.shape for style in sources[0].styles]
    recipe = resolve_scales(setting.recipe, (height, width), styles)
    recipe = planning.fit_into_memory(
        *output_size(height, width, recipe), recipe=recipe, network=setting.network,
        batch=places, devices=len(devices),
    )  # fmt: skip
    problems = [
        prepare(
            of.content, of.styles, recipe=recipe, network=setting.network,
            start=of.start(recipe), masks=of.inputs.arrays,
        )
        for of in sources
    ]  # fmt: skip
    if places == 1:
        return problems[0]
    problems += [problems[0]] * (places - len(problems))
    return shard_batch(stack(problems), devices)


def _save(
    jobs: Sequence[Job],
    sources: Sequence[Sources],
    results: Sequence[Result],
    setting: Setting,
    failed: dict[Path, str],
) -> int:
    """Write the images of a batch and return their number."""
    saved = 0
    # Results of batch elements without an image come last.
    for job, of, result in zip(jobs, sources, results, strict=False):
        outputs = Outputs(
            [job.target], setting.network, setting.options.weights_name, of.inputs.report(),
            unresolved_settings(setting.recipe, result.recipe), of.alpha,
            setting.options.bit_depth,
        )  # fmt: skip
        try:
            outputs.save([result], to=rescue)
        except JaxstyleError as error:
            _fail(job, error, failed)
            continue
        saved += 1
        if result.diverged:
            warn(f"{job.file}: the loss went up; {job.target} is the best image of the run")
    return saved


def _fail(job: Job, error: JaxstyleError, failed: dict[Path, str]) -> None:
    """Record a failed image and print why, unless its output exists."""
    if not job.target.exists():
        failed[job.file] = as_flags(str(error))
        warn(f"{job.file}: {failed[job.file]}")


class _Clock:
    """An estimate of the time left, from run time per pixel and step and compile time per size."""

    def __init__(self, batches: Sequence[Batch]):
        self._left = sum(map(_work, batches))
        self._sizes = {(batch.size, batch.places) for batch in batches}
        self._seen: set[Any] = set()
        self._done = self._run_seconds = self._compile_seconds = 0.0

    def tick(self, iterate: Iterate, batch: Batch, steps: int) -> float | None:
        """Record an iterate and return the seconds left, or None before the first steps."""
        self._seen.add((batch.size, batch.places))
        self._run_seconds += iterate.run_seconds
        self._compile_seconds += iterate.compile_seconds
        part = _work(batch) * iterate.step / steps
        if not self._done + part:
            return None
        running = self._run_seconds / (self._done + part) * (self._left - part)
        unseen = len(self._sizes) - len(self._seen)
        return running + unseen * self._compile_seconds / len(self._seen)

    def finish(self, batch: Batch) -> None:
        """Record a finished batch."""
        self._done += _work(batch)
        self._left -= _work(batch)


def _work(batch: Batch) -> float:
    return float(batch.size[0] * batch.size[1] * batch.places)
