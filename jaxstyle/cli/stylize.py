"""`jaxstyle stylize`: images in files to an image in a file."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import click

from jaxstyle.cli.help import GroupedCommand
from jaxstyle.cli.options import (
    IMAGE,
    as_flags,
    bounds,
    bounds_options,
    build_recipe,
    check_batch,
    devices_option,
    preset_option,
    recipe_options,
    serve_option,
    unused_notices,
    weights_option,
)
from jaxstyle.cli.streams import tell, tell_from_signal
from jaxstyle.cli.waiting import Waiting
from jaxstyle.errors import JaxstyleError

NO_BETTER = 3
"""Exit code of a run that diverged and is no better than its start."""


@click.command(cls=GroupedCommand)
@click.argument("content", type=IMAGE, required=False, metavar="CONTENT")
@click.argument("styles", type=IMAGE, nargs=-1, metavar="STYLE [STYLE ...]")
@click.option("-o", "--output", type=IMAGE, required=True, help="Image to write.")
@click.option(
    "--from",
    "earlier",
    type=IMAGE,
    metavar="PNG",
    help="Repeat what made an earlier output: its images, settings, seed and weights; what is "
    "given beside it wins.",
)
@preset_option
@weights_option
@recipe_options()
@click.option(
    "--batch",
    type=int,
    metavar="K",
    help="Initial images (seeds N to N+K-1) in one program; writes OUTPUT with -000 … before "
    "its ending.  [default: 1]",
)
@click.option(
    "--save-every",
    type=int,
    metavar="K",
    help="Write OUTPUT with -step000K before its ending every K steps.",
)
@click.option(
    "--checkpoint",
    type=IMAGE,
    metavar="FILE",
    help="Keep the whole state of the run in FILE, for --resume: every 30 seconds, at the end, and "
    "after Ctrl-C or SIGTERM.",
)
@click.option(
    "--checkpoint-every",
    type=int,
    metavar="K",
    help="Write the checkpoint every K steps instead of every 30 seconds.",
)
@click.option(
    "--resume",
    type=IMAGE,
    metavar="FILE",
    help="Go on from a checkpoint, to the same bytes as if the run had never stopped; its "
    "images and settings are taken from it, others are refused, but for more --steps.",
)
@click.option(
    "--bit-depth",
    type=int,
    default=8,
    metavar="N",
    show_default=True,
    help="Bits a color channel of the output: 8, or 16 for .png and .tiff.",
)
@bounds_options
@devices_option
@click.option("--report", type=IMAGE, metavar="FILE", help="Write a JSON report.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option(
    "--log-json", is_flag=True, help="Progress as JSON lines on standard error, for programs."
)
@serve_option
def stylize(
    content: Path | None,
    styles: tuple[Path, ...],
    output: Path,
    earlier: Path | None,
    preset_name: str | None,
    weights_name: str,
    batch: int | None,
    save_every: int | None,
    checkpoint: Path | None,
    checkpoint_every: int | None,
    resume: Path | None,
    bit_depth: int,
    max_pixels: int | None,
    first_frame: bool,
    devices: int | str | None,
    report: Path | None,
    quiet: bool,
    log_json: bool,
    port: int | None,
    **flags: Any,
) -> int:
    """Paint CONTENT in the style of STYLE (several styles are blended).

    With a folder as CONTENT and as OUTPUT, paint every image of it; images that are there already
    are kept.

    Ctrl-C stops the run after the steps under way and keeps the best image so far; so do SIGTERM
    and the button of the page that --serve shows.
    """
    if content is not None and content.is_dir():
        from jaxstyle.cli.folder import ONE_IMAGE, stylize_folder

        context = click.get_current_context()
        one_image = {name: context.params[name] for name in ONE_IMAGE}
        return stylize_folder(
            content,
            output,
            lambda file, target: context.invoke(
                stylize, **context.params | {"content": file, "output": target}
            ),
            **one_image,
        )

    from jaxstyle.cli.repeat import find_earlier

    repeated, resumed = find_earlier(
        preset_name=preset_name, earlier=earlier, resume=resume, weights_name=weights_name
    )
    until = None
    if repeated is not None:
        inputs_given = {
            "weights": weights_name != "auto", "content": content is not None, "styles": styles
        }  # fmt: skip
        changed = [name for name, given in inputs_given.items() if given]
        changed += [name for name, value in flags.items() if value is not None]
        repeated = repeated.released(changed)
    recipe = build_recipe(repeated.recipe if repeated else preset_name, flags)
    given_recipe = recipe
    named_content, named_styles = content is not None, bool(styles)
    if repeated is not None:
        content, styles = content or repeated.content, styles or repeated.styles
        weights_name = repeated.weights_name
        # Who gives steps or scales wants all of them.
        if flags["steps"] is None and flags["scales"] is None:
            until = repeated.until
    if resumed is not None and batch is None:
        batch = resumed.elements
    if content is None or not styles:
        missing = "CONTENT" if content is None else "STYLE [STYLE ...]"
        raise click.UsageError(f"Missing argument '{missing}'.")
    batch = 1 if batch is None else batch
    whole = {
        "--save-every": save_every,
        "--checkpoint-every": checkpoint_every,
    }
    for flag, value in whole.items():
        if value is not None and value < 1:
            raise JaxstyleError(f"{flag}: {value} is out of range; give a whole number from 1")
    check_batch(batch)

    waiting = Waiting("preparing", quiet=quiet or log_json)
    # Imported here so that usage errors and --help do not wait for JAX's programs.
    from jaxstyle import images
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.cli.inputs import read_sources, tell_weights
    from jaxstyle.cli.outputs import Outputs, check_outputs, snapshot_suffix
    from jaxstyle.cli.rescue import checkpoints, rescue, warn
    from jaxstyle.config.presets import weights_notice
    from jaxstyle.engine import memory
    from jaxstyle.engine.loop import Iterate, default_chunk_size, iterates
    from jaxstyle.engine.problem import prepare
    from jaxstyle.engine.results import finish
    from jaxstyle.engine.sizes import (
        not_enlarged_notice,
        output_size,
        resolve_scales,
        small_style_notice,
        style_size,
    )
    from jaxstyle.files import shown
    from jaxstyle.monitor.interrupts import INTERRUPTED, TERMINATED, Terminated, interrupts
    from jaxstyle.monitor.pace import Course
    from jaxstyle.monitor.progress import progress
    from jaxstyle.nn.sharding import sharing_devices
    from jaxstyle.provenance.asked import asked_settings
    from jaxstyle.provenance.checkpoint import (
        check_same_images,
        check_same_run,
        load_state,
        save_checkpoint,
    )
    from jaxstyle.provenance.inputs import recipe_files
    from jaxstyle.weights import load_network

    # Everything that can fail early does so before the long work.
    read: list[tuple[str, Any]] = [
        ("CONTENT", content), *(("STYLE", style) for style in styles),
        *(("--" + name.replace("_", "-"), file) for name, file in recipe_files(recipe)),
        ("--weights", weights_name), ("--from", earlier), ("--resume", resume),
    ]  # fmt: skip
    check_outputs(
        output,
        batch=batch,
        bit_depth=bit_depth,
        snapshots=range(save_every, recipe.total_steps + 1, save_every) if save_every else range(0),
        report=report,
        checkpoint=checkpoint,
        read=read,
    )
    if checkpoint_every is not None and checkpoint is None:
        raise JaxstyleError(
            f"--checkpoint-every: {checkpoint_every} needs a file to write; give --checkpoint too"
        )
    if port is not None:
        from jaxstyle.monitor.serve.server import check_port

        check_port(port)
    enable_compilation_cache()
    network = load_network(weights_name)
    try:
        sources = read_sources(content, styles, recipe, **bounds(max_pixels, first_frame))
    except JaxstyleError as error:
        unnamed = [*([] if named_content else [content]), *([] if named_styles else styles)]
        if repeated is not None and any(shown(path) in str(error) for path in unnamed):
            raise JaxstyleError(f"{error} (the record in {repeated.file} names it)") from None
        raise
    inputs = sources.inputs.report()
    if resumed is not None:
        check_same_images(resumed, inputs)
    elif repeated is not None:
        repeated.check(network, inputs)
    try:
        sharing = sharing_devices(devices, batch)
        recipe = resolve_scales(
            recipe,
            sources.content.shape,
            [style.shape for style in sources.styles],
            rows=batch == 1 and len(sharing) > 1,
        )
        height, width = sources.content.shape[:2]
        height, width = output_size(height, width, recipe)
        asked = recipe
        recipe = memory.fit(
            height, width, recipe=asked, network=network, batch=batch, devices=len(sharing),
            styles=[style_size(s.shape[0], s.shape[1], asked) for s in sources.styles],
            checkpoint=checkpoint is not None,
        )  # fmt: skip
        problem = prepare(
            sources.content,
            sources.styles,
            recipe=recipe,
            network=network,
            start=sources.start(recipe),
            elements=[sources.start(recipe)] * batch if batch > 1 else None,
            masks=sources.inputs.arrays,
            devices=sharing,
        )
    except JaxstyleError as error:
        raise JaxstyleError(as_flags(str(error))) from None
    state = None
    if resumed is not None:
        check_same_run(resumed, problem)
        state = load_state(resumed, problem)
    waiting.stop()
    # Lines for programs stand alone.
    quiet = quiet or log_json
    tell_weights(weights_name, quiet=quiet)
    notices = []
    if repeated is None:
        notices.append(weights_notice(preset_name, network.name))
    small = small_style_notice(
        [(style.shape[0], style.shape[1]) for style in sources.styles], recipe, network,
        shortest=min(problem.size),
    )  # fmt: skip
    notices += unused_notices(recipe, flags)
    notices += [small, not_enlarged_notice(sources.content.shape, flags["size"], recipe)]
    if batch > 1 and recipe.init != "noise" and not recipe.noise_blend:
        notices.append(
            f"all {batch} images start alike, as --init {recipe.init} has no noise; "
            "use --init noise or --noise-blend for different ones"
        )
    if recipe.history_size != asked.history_size:
        notices.append(
            f"L-BFGS keeps {recipe.history_size} pairs, as many as memory has room for; "
            f"--history-size {recipe.history_size} repeats this, --tile leaves room for more"
        )
    if until is not None:
        notices.append(
            f"{earlier} is of step {until} of {recipe.total_steps}, and so is what repeats it; "
            f"give --steps {recipe.steps} for all of them"
        )
    for line in notices:
        if line and not quiet:
            tell(line)

    asked_for = asked_settings(given_recipe, problem.recipe)
    if repeated is not None:
        kept = {name: v for name, v in repeated.asked.items() if flags.get(name) is None}
        asked_for = kept | asked_for
    course = Course.of(problem, until)
    chunk_size = default_chunk_size(problem.start)
    # A chunk must end on every snapshot and checkpoint.
    common = math.gcd(save_every or 0, checkpoint_every or 0)
    chunk_size = next(
        n for n in range(min(chunk_size, common or chunk_size), 0, -1) if common % n == 0
    )

    outputs = Outputs.elements(
        output, batch, network=network, weights=weights_name, inputs=inputs, asked=asked_for,
        alpha=sources.alpha, bit_depth=bit_depth,
    )  # fmt: skip
    keep = None
    if checkpoint is not None:
        write_state = partial(
            save_checkpoint, checkpoint, problem=problem, weights=weights_name, inputs=inputs,
            asked=asked_for,
        )  # fmt: skip
        keep = checkpoints(write_state, interval=checkpoint_every)
    page = None
    if port is not None:
        from jaxstyle.cli.browser import open_page
        from jaxstyle.monitor.live import Live
        from jaxstyle.monitor.serve import RunView

        shown_content = images.resize(sources.content, *problem.size)
        live = Live(course)
        page = open_page(port, RunView(live, shown_content), as_json=log_json)
    seen: list[Iterate] = []
    code = 0
    stopped = False
    with interrupts(tell_from_signal) as check_interrupt:
        try:
            with progress(course, quiet=quiet, as_json=log_json) as show:
                for iterate in iterates(
                    problem, chunk_size=chunk_size, first=1, state=state, until=until
                ):
                    # Kept before the one before it is dropped: Ctrl-C may come between the two.
                    seen.append(iterate)
                    if len(seen) > 1:
                        seen[-2] = seen[-2]._replace(image=None, carry=None)  # type: ignore[arg-type]
                    show(iterate)
                    if keep:
                        keep(seen, iterate.step == recipe.total_steps)
                    if save_every and iterate.step and iterate.step % save_every == 0:
                        try:
                            outputs.save(finish(problem, seen), snapshot_suffix(iterate.step))
                        except JaxstyleError as error:
                            warn(f"{error}; the run goes on")
                    check_interrupt()
                    if page is not None:
                        page.view.live.tick(iterate)
                        if stopped := page.stopped:
                            break
        except KeyboardInterrupt as signal:
            if not seen:
                raise
            code = TERMINATED if isinstance(signal, Terminated) else INTERRUPTED
        if keep:
            keep(seen, True)
        # The optimizer's state is not needed any more, its memory may be.
        seen[-1] = seen[-1]._replace(carry=None)
        results = finish(problem, seen)
        outputs.save(results, to=rescue)
        if report is not None:
            outputs.report(report, results)
    lost = [k for k, result in enumerate(results) if result.diverged]
    for k in lost:
        result = results[k]
        verdict = "better" if result.loss < result.initial_loss else "no better"
        how = "exploded" if result.steps < recipe.total_steps else "went up"
        way = "another --optimizer" if recipe.optimizer == "lbfgs" else "--optimizer lbfgs"
        if result.recipe.learning_rate is not None:
            way = f"a lower --learning-rate than {result.recipe.learning_rate:g} or {way}"
        warn(
            f"the loss {how}; {outputs.paths[k]} is the best image seen, {verdict} than the "
            f"start (loss {result.loss:.4g}, at the start {result.initial_loss:.4g}); choose "
            f"{way}"
        )
    names = ", ".join(map(str, outputs.paths))
    if not quiet and not code and not stopped:
        tell(f"wrote {names}")
    if page is not None:
        page.finish(f"{'stopped' if code or stopped else 'done'}; the image is in {names}")
    if code or stopped:
        tell(f"stopped at step {seen[-1].step}; the best image so far is in {names}")
        # Without a code: the page's button is a person's way to say that it is good enough.
        return code
    return NO_BETTER if any(not results[k].loss < results[k].initial_loss for k in lost) else 0
