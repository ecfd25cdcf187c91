"""The run of `jaxstyle stylize` and `texture`, from input files to output files."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxstyle import images
from jaxstyle.cli.devices import enable_compilation_cache
from jaxstyle.cli.inputs import Sources, read_sources, tell_weights
from jaxstyle.cli.options import bounds, errors_by_flag, unused_notices
from jaxstyle.cli.outputs import Outputs, check_outputs, snapshot_suffix
from jaxstyle.cli.rescue import checkpoints, rescue, warn
from jaxstyle.cli.streams import tell, tell_from_signal
from jaxstyle.cli.stylize import Options, Request
from jaxstyle.cli.waiting import Waiting
from jaxstyle.config.presets import weights_notice
from jaxstyle.config.recipe import Recipe
from jaxstyle.engine import planning
from jaxstyle.engine.iterate import Iterate, RunState
from jaxstyle.engine.loop import iterates
from jaxstyle.engine.preparation import prepare
from jaxstyle.engine.problem import Problem
from jaxstyle.engine.results import Result, append_iterate, finish
from jaxstyle.engine.scales import default_chunk_size
from jaxstyle.engine.sizes import (
    not_enlarged_notice,
    output_size,
    resolve_scales,
    small_style_notice,
    style_size,
)
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import shown
from jaxstyle.monitor.interrupts import INTERRUPTED, TERMINATED, Terminated, interrupts
from jaxstyle.monitor.pace import Course
from jaxstyle.monitor.progress import progress
from jaxstyle.nn.network import Network
from jaxstyle.nn.sharding import sharing_devices
from jaxstyle.provenance.checkpoint import (
    check_same_images,
    check_same_run,
    load_state,
    save_checkpoint,
)
from jaxstyle.provenance.inputs import recipe_files
from jaxstyle.provenance.unresolved import unresolved_settings
from jaxstyle.weights import load_network

NO_BETTER = 3
"""Exit code of a run that diverged and is no better than its initial image."""
LARGE_WEIGHT = 1e10
"""Weight from which on it is the likely cause if the loss does not change."""


class Prepared(NamedTuple):
    """The inputs of a run, ready to start."""

    network: Network
    sources: Sources
    inputs: dict[str, Any]
    """The images, as in the report."""
    unresolved: dict[str, Any]
    """Requested values of the settings that resolving changed."""
    problem: Problem
    fewer_pairs: bool
    """Whether the L-BFGS history was reduced to fit into memory."""
    state: RunState | None
    """State of the checkpoint to resume, if any."""


class Ended(NamedTuple):
    """The outcome of a run that finished or was stopped."""

    results: list[Result]
    step: int
    code: int
    """Exit code of the signal that stopped the run, else 0."""
    stopped: bool
    """Whether the stop button of the page was pressed."""


def run(options: Options, request: Request, *, flags: dict[str, Any], waiting: Waiting) -> int:
    """Stylize an image, or make a texture, and return the exit code.

    Args:
      options: arguments of the command.
      request: the run to do.
      flags: settings given on the command line; None where not given.
      waiting: display to stop when the run begins.
    """
    # Fast checks come before the long work.
    _check_files(options, request)
    prepared = _prepare(options, request, flags)
    waiting.stop()
    # With --log-json, there are no notices besides the JSON lines.
    quiet = options.quiet or options.log_json
    tell_weights(request.weights_name, quiet=quiet)
    if not quiet:
        for line in _notices(options, request, prepared, flags):
            tell(line)
    outputs = Outputs.elements(
        options.output, request.batch, network=prepared.network,
        weights=request.weights_name, inputs=prepared.inputs, unresolved=prepared.unresolved,
        alpha=prepared.sources.alpha, bit_depth=options.bit_depth,
    )  # fmt: skip
    course = Course.of(prepared.problem, request.until)
    page = _open_page(options, prepared, course, outputs)
    ended = _run(options, request, prepared, outputs, course, page)
    lost = [k for k, result in enumerate(ended.results) if result.diverged]
    for k in lost:
        _warn_of_divergence(ended.results[k], str(outputs.paths[k]))
    if not lost and any(map(stood_still, ended.results)):
        warn(_standstill(prepared.problem.recipe))
    names = ", ".join(map(str, outputs.paths))
    early = bool(ended.code or ended.stopped)
    if page is not None:
        page.finish(f"{'stopped' if early else 'done'}; the image is in {names}")
    if early:
        tell(f"stopped at step {ended.step}; the best image so far is in {names}")
    elif not quiet:
        tell(f"wrote {names}")
    if page is not None and not ended.code:
        from jaxstyle.cli.browser import keep_open

        keep_open(page)
    if early:
        # The code is 0 after the page's stop button, which is not a failure.
        return ended.code
    no_better = any(not ended.results[k].loss < ended.results[k].initial_loss for k in lost)
    return NO_BETTER if no_better else 0


def _check_files(options: Options, request: Request) -> None:
    """Raise a `JaxstyleError` for unwritable files or a port that is in use."""
    last, every = request.recipe.total_steps, options.save_every
    content = request.content if isinstance(request.content, Path) else None
    read: list[tuple[str, Any]] = [
        ("CONTENT", content), *(("STYLE", style) for style in request.styles),
        *(("--" + name.replace("_", "-"), file) for name, file in recipe_files(request.recipe)),
        ("--weights", request.weights_name), ("--from", options.earlier),
        ("--resume", options.resume),
    ]  # fmt: skip
    check_outputs(
        options.output,
        batch=request.batch,
        bit_depth=options.bit_depth,
        snapshots=range(every, last + 1, every) if every else range(0),
        report=options.report,
        checkpoint=options.checkpoint,
        read=read,
    )
    if options.checkpoint_every is not None and options.checkpoint is None:
        raise JaxstyleError(
            f"--checkpoint-every: {options.checkpoint_every} needs a file to write; give "
            "--checkpoint too"
        )
    if options.port is not None:
        from jaxstyle.monitor.serve.server import check_port

        check_port(options.port, argument="--serve")


def _prepare(options: Options, request: Request, flags: dict[str, Any]) -> Prepared:
    """Read the weights, the images and the checkpoint, and build the problem."""
    enable_compilation_cache()
    network = load_network(request.weights_name)
    sources = _read(options, request)
    inputs = sources.inputs.report()
    if request.resumed is not None:
        check_same_images(request.resumed, inputs)
    elif request.repeated is not None:
        request.repeated.check(network, inputs)
    with errors_by_flag():
        problem, fewer_pairs = _build(options, request, network, sources)
    state = None
    if request.resumed is not None:
        check_same_run(request.resumed, problem)
        state = load_state(request.resumed, problem)
    unresolved = unresolved_settings(request.recipe, problem.recipe)
    if request.repeated is not None:
        earlier = request.repeated.unresolved.items()
        kept = {name: value for name, value in earlier if flags.get(name) is None}
        merged = kept | unresolved
        # In the order of the recipe, so that a repeated run has an equal record.
        unresolved = {name: merged[name] for name in request.recipe.as_dict() if name in merged}
    return Prepared(network, sources, inputs, unresolved, problem, fewer_pairs, state)


def _read(options: Options, request: Request) -> Sources:
    """Read the images; an error about a file that only the record names also names the record."""
    try:
        return read_sources(
            request.content, request.styles, request.recipe,
            **bounds(options.max_pixels, options.first_frame),
        )  # fmt: skip
    except JaxstyleError as error:
        paths = {path for path in (request.content, *request.styles) if isinstance(path, Path)}
        unnamed = paths - {options.content, *options.styles}
        if request.repeated and any(shown(path) in str(error) for path in unnamed):
            raise JaxstyleError(
                f"{error} (the record in {request.repeated.file} names it)"
            ) from None
        raise


def _build(
    options: Options, request: Request, network: Network, sources: Sources
) -> tuple[Problem, bool]:
    """Build the problem; also return whether its L-BFGS history was reduced for memory."""
    devices = sharing_devices(options.devices, request.batch)
    recipe = resolve_scales(
        request.recipe,
        sources.content.shape,
        [style.shape for style in sources.styles],
        rows=request.batch == 1 and len(devices) > 1,
    )
    height, width = sources.content.shape[:2]
    height, width = output_size(height, width, recipe)
    fitting = planning.fit_into_memory(
        height, width, recipe=recipe, network=network, batch=request.batch, devices=len(devices),
        styles=[style_size(s.shape[0], s.shape[1], recipe) for s in sources.styles],
        checkpoint=options.checkpoint is not None,
    )  # fmt: skip
    start = sources.start(fitting)
    problem = prepare(
        sources.content,
        sources.styles,
        recipe=fitting,
        network=network,
        start=start,
        elements=[start] * request.batch if request.batch > 1 else None,
        masks=sources.inputs.arrays,
        devices=devices,
    )
    return problem, fitting.history_size != recipe.history_size


def _notices(
    options: Options, request: Request, prepared: Prepared, flags: dict[str, Any]
) -> list[str]:
    """Return notices about settings with unexpected effects."""
    problem, sources = prepared.problem, prepared.sources
    recipe: Recipe = problem.recipe
    sizes = [(style.shape[0], style.shape[1]) for style in sources.styles]
    notices = [
        *unused_notices(recipe, flags),
        small_style_notice(sizes, recipe, prepared.network, shortest=min(problem.size)),
        not_enlarged_notice(sources.content.shape, flags["size"], recipe),
        request.repeated.notice() if request.repeated is not None else None,
    ]
    if request.repeated is None:
        notices.insert(0, weights_notice(options.preset_name, prepared.network.name))
    if request.batch > 1 and recipe.init != "noise" and not recipe.noise_blend:
        notices.append(
            f"all {request.batch} images start alike, as --init {recipe.init} has no noise; "
            "use --init noise or --noise-blend for different ones"
        )
    if prepared.fewer_pairs:
        notices.append(
            f"L-BFGS keeps {recipe.history_size} pairs, as many as memory has room for; "
            f"--history-size {recipe.history_size} repeats this, --tile leaves room for more"
        )
    if request.until is not None:
        notices.append(
            f"{options.earlier} is of step {request.until} of {recipe.total_steps}, and so is what "
            f"repeats it; give --steps {recipe.steps} for all of them"
        )
    return [line for line in notices if line]


def _open_page(options: Options, prepared: Prepared, course: Course, outputs: Outputs) -> Any:
    """Serve the page of a run if `--serve` was given, and return it."""
    if options.port is None:
        return None
    from jaxstyle.cli.browser import open_page
    from jaxstyle.monitor.live import Live
    from jaxstyle.monitor.serve import RunView

    content = images.resize(prepared.sources.content, *prepared.problem.size)
    live = Live(course, labels=_labels(prepared.problem.recipe, outputs.paths))
    return open_page(options.port, RunView(live, content), as_json=options.log_json)


def _labels(recipe: Recipe, paths: Sequence[Path]) -> list[str] | None:
    """Return the names of the images of a batch: their seeds, or their files if all start alike."""
    if len(paths) == 1:
        return None
    if recipe.init == "noise" or recipe.noise_blend:
        return [f"seed {recipe.seed + k}" for k in range(len(paths))]
    return [path.name for path in paths]


def _chunk_size(options: Options, problem: Problem) -> int:
    """Return a chunk size such that chunks end at every snapshot and checkpoint."""
    usual = default_chunk_size(problem.start)
    common = math.gcd(options.save_every or 0, options.checkpoint_every or 0)
    return next(n for n in range(min(usual, common or usual), 0, -1) if common % n == 0)


def _run(
    options: Options,
    request: Request,
    prepared: Prepared,
    outputs: Outputs,
    course: Course,
    page: Any,
) -> Ended:
    """Run to the end or until stopped, and write all files."""
    problem, last = prepared.problem, prepared.problem.recipe.total_steps
    keep = None
    if options.checkpoint is not None:
        write_state = partial(
            save_checkpoint, options.checkpoint, problem=problem, weights=request.weights_name,
            inputs=prepared.inputs, unresolved=prepared.unresolved,
        )  # fmt: skip
        keep = checkpoints(write_state, interval=options.checkpoint_every)
    collected: list[Iterate] = []
    code, stopped = 0, False
    with interrupts(tell_from_signal) as check_interrupt:
        try:
            with progress(
                course, quiet=options.quiet or options.log_json, as_json=options.log_json
            ) as show:
                for iterate in iterates(
                    problem, chunk_size=_chunk_size(options, problem), first=1,
                    state=prepared.state, until=request.until,
                ):  # fmt: skip
                    append_iterate(collected, iterate)
                    show(iterate)
                    if keep:
                        keep(collected, iterate.step == last)
                    _save_snapshot(options, problem, collected, outputs)
                    # Before the interrupt, so that the page ends with the image that is kept.
                    if page is not None:
                        page.view.live.tick(iterate)
                    check_interrupt()
                    if page is not None and (stopped := page.stopped):
                        break
        except KeyboardInterrupt as signal:
            if not collected:
                raise
            code = TERMINATED if isinstance(signal, Terminated) else INTERRUPTED
        if keep:
            keep(collected, True)
        # Free the memory of the optimizer's state for `finish`.
        collected[-1] = collected[-1]._replace(carry=None)
        results = finish(problem, collected)
        outputs.save(results, to=rescue)
        if options.report is not None:
            outputs.report(options.report, results)
    return Ended(results, collected[-1].step, code, stopped)


def _save_snapshot(
    options: Options, problem: Problem, collected: Sequence[Iterate], outputs: Outputs
) -> None:
    """Write the image so far at multiples of `--save-every`; warn if that fails."""
    step = collected[-1].step
    if not options.save_every or not step or step % options.save_every:
        return
    try:
        outputs.save(finish(problem, collected), snapshot_suffix(step))
    except JaxstyleError as error:
        warn(f"{error}; the run goes on")


def _warn_of_divergence(result: Result, path: str) -> None:
    """Warn that a run diverged, and say what to try."""
    recipe = result.recipe
    verdict = "better" if result.loss < result.initial_loss else "no better"
    how = "exploded" if result.steps < recipe.total_steps else "went up"
    way = "another --optimizer" if recipe.optimizer == "lbfgs" else "--optimizer lbfgs"
    if recipe.learning_rate is not None:
        way = f"a lower --learning-rate than {recipe.learning_rate:g} or {way}"
    warn(
        f"the loss {how}; {path} is the best image of the run, {verdict} than the "
        f"start (loss {result.loss:.4g}, at the start {result.initial_loss:.4g}); choose {way}"
    )


def stood_still(result: Result) -> bool:
    """Return whether the loss did not change in the last scale."""
    losses = result.history.loss[-result.recipe.steps :]
    return bool(len(losses) > 1 and losses[0] > 0 and np.all(losses == losses[0]))


def _standstill(recipe: Recipe) -> str:
    """Return the warning for a loss that did not change, with a likely cause."""
    weights = (recipe.content_weight, recipe.style_weight, recipe.tv_weight)
    largest = max(weight or 0 for weight in weights)
    why = "the optimizer found no step that lowers it"
    if largest >= LARGE_WEIGHT:
        why = f"a weight of {largest:g} is too large for the squares of float32"
    return f"the loss stayed as it was: {why}; only the ratios of weights count, so divide them"
