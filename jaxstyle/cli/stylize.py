"""`jaxstyle stylize`: pictures in files to a picture in a file."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from jaxstyle.cli.options import (
    PICTURE,
    as_flags,
    build_recipe,
    preset_option,
    recipe_options,
    serve_option,
    weights_option,
)
from jaxstyle.errors import JaxstyleError

INTERRUPTED = 130


@click.command()
@click.argument("content", type=PICTURE, required=False, metavar="CONTENT")
@click.argument("styles", type=PICTURE, nargs=-1, metavar="STYLE [STYLE ...]")
@click.option("-o", "--output", type=PICTURE, required=True, help="Picture to write.")
@click.option(
    "--from",
    "earlier",
    type=PICTURE,
    metavar="PNG",
    help="Repeat what made an earlier output: its pictures, settings, seed and weights; what is "
    "given beside it wins.",
)
@preset_option
@weights_option
@recipe_options()
@click.option(
    "--batch",
    type=int,
    default=1,
    metavar="K",
    show_default=True,
    help="Initial pictures (seeds N to N+K-1) in one program; writes OUTPUT with -000 … before "
    "its ending.",
)
@click.option(
    "--save-every",
    type=int,
    metavar="K",
    help="Write OUTPUT with -step000K before its ending every K steps.",
)
@click.option("--report", type=PICTURE, metavar="FILE", help="Write a JSON report.")
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
    batch: int,
    save_every: int | None,
    report: Path | None,
    quiet: bool,
    log_json: bool,
    port: int | None,
    **flags: Any,
) -> int:
    """Paint CONTENT in the style of STYLE (several styles are blended).

    Ctrl-C stops the run after the steps under way and keeps the best picture so far, and so does
    the button of the page that --serve shows.
    """
    repeated = None
    if earlier is not None:
        from jaxstyle.cli.repeat import Repeated

        if preset_name is not None:
            raise JaxstyleError(
                f"--preset: {preset_name!r} and --from {earlier} both give all settings; give one"
            )
        repeated = Repeated.read(earlier, weights_name)
        content, styles = content or repeated.content, styles or repeated.styles
        weights_name = repeated.weights_name
        recipe = build_recipe(repeated.recipe, flags)
    else:
        recipe = build_recipe(preset_name, flags)
    if content is None or not styles:
        missing = "CONTENT" if content is None else "STYLE [STYLE ...]"
        raise click.UsageError(f"Missing argument '{missing}'.")
    for flag, value in (("--batch", batch), ("--save-every", save_every)):
        if value is not None and value < 1:
            raise JaxstyleError(f"{flag}: {value} is out of range; give a whole number from 1")

    # Imported here so that usage errors and --help do not wait for JAX's programs.
    from jaxstyle import images, memory
    from jaxstyle.cli.devices import enable_compilation_cache
    from jaxstyle.files import check_writable, numbered
    from jaxstyle.interrupts import interrupts
    from jaxstyle.peers import weights_notice
    from jaxstyle.prepare import prepare
    from jaxstyle.progress import progress
    from jaxstyle.recipe import INITS
    from jaxstyle.record import as_text
    from jaxstyle.report import batch_report, picture_report, record, run_report, write_report
    from jaxstyle.run import Iterate, Result, default_every, finish, iterates
    from jaxstyle.weights import auto_notice, load_network

    # Everything that can fail early does so before the long work.
    images.check_output(output, argument="-o")
    if report is not None:
        check_writable(report, argument="--report")
        if report.resolve() == output.resolve():
            raise JaxstyleError(f"--report: {report} is the picture's file too; choose another")
    if port is not None:
        from jaxstyle.serve.server import check_port

        check_port(port)
    enable_compilation_cache()
    notice = auto_notice() if weights_name == "auto" else None
    network = load_network(weights_name)
    content_picture = images.load_image(content, argument="CONTENT")
    style_pictures = [images.load_image(style, argument="STYLE") for style in styles]
    start: Any = recipe.init
    inputs: dict[str, Any] = {
        "content": picture_report(content, content_picture),
        "styles": [picture_report(*pair) for pair in zip(styles, style_pictures, strict=True)],
        "init": None,
    }
    if recipe.init not in INITS:
        start = images.load_image(recipe.init, argument="--init")
        inputs["init"] = picture_report(Path(recipe.init), start)
    if repeated is not None:
        repeated.check(network, inputs)
    try:
        height, width = content_picture.shape[:2]
        if recipe.size:
            height, width = images.fitted(height, width, recipe.size, upscale=recipe.upscale)
        memory.check(height, width, recipe=recipe, network=network, batch=batch)
        job = prepare(
            content_picture,
            style_pictures,
            recipe=recipe,
            network=network,
            start=start,
            lanes=[start] * batch if batch > 1 else None,
        )
    except JaxstyleError as error:
        raise JaxstyleError(as_flags(str(error))) from None
    # Lines for programs stand alone.
    quiet = quiet or log_json
    if repeated is None:
        notice = weights_notice(preset_name, network.name) or notice
    if notice and not quiet:
        print(f"jaxstyle: {notice}", file=sys.stderr)
    if batch > 1 and recipe.init != "noise" and not quiet:
        print(
            f"jaxstyle: all {batch} pictures start alike, as --init {recipe.init} has no noise; "
            "use --init noise for different ones",
            file=sys.stderr,
        )

    outputs = [output] if batch == 1 else [numbered(output, f"-{k:03}") for k in range(batch)]
    every = default_every(job.start)
    if save_every:
        # A chunk must end on every snapshot.
        every = next(n for n in range(min(every, save_every), 0, -1) if save_every % n == 0)

    def save(results: Sequence[Result], suffix: str = "") -> None:
        for path, result in zip(outputs, results, strict=True):
            text = as_text(record(result, network=network, weights=weights_name, inputs=inputs))
            images.save_image(numbered(path, suffix), result.image, argument="-o", text=text)

    page = None
    if port is not None:
        from jaxstyle.cli.page import open_page

        shown_content = images.resize(content_picture, *job.start.shape[-3:-1])
        page = open_page(port, recipe.steps, shown_content, as_json=log_json)
    seen: list[Iterate] = []
    interrupted = stopped = False
    with (
        progress(recipe.steps, quiet=quiet, as_json=log_json) as show,
        interrupts() as check_interrupt,
    ):
        try:
            for iterate in iterates(job, every=every):
                # Kept before the one before it is dropped: Ctrl-C may come between the two.
                seen.append(iterate)
                if len(seen) > 1:
                    seen[-2] = seen[-2]._replace(image=None)  # type: ignore[arg-type]
                show(iterate)
                if save_every and iterate.step and iterate.step % save_every == 0:
                    save(finish(job, seen), f"-step{iterate.step:04}")
                check_interrupt()
                if page is not None:
                    page.live.tick(iterate)
                    if stopped := page.stopped:
                        break
        except KeyboardInterrupt:
            if not seen:
                raise
            interrupted = True
    results = finish(job, seen)
    save(results)
    if report is not None:
        runs = [
            run_report(result, network=network, weights=weights_name, inputs=inputs, output=path)
            for path, result in zip(outputs, results, strict=True)
        ]
        write_report(report, runs[0] if batch == 1 else batch_report(runs))
    names = ", ".join(map(str, outputs))
    if page is not None:
        page.finish(f"{'stopped' if interrupted or stopped else 'done'}; the picture is in {names}")
    if interrupted or stopped:
        print(
            f"jaxstyle: stopped at step {results[0].steps}; the best picture so far is in {names}",
            file=sys.stderr,
        )
    # The page's button is a person's way to say that it is good enough.
    return INTERRUPTED if interrupted else 0
