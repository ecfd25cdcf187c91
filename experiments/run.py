"""Run the article's experiments and write down what was found.

    python experiments/run.py                     # all, small
    python experiments/run.py e04 e08 --full      # two, as the article has them: for a GPU
    python experiments/run.py e05 --exact vgg19.safetensors    # a second opinion

Finished cells are kept in the output folder, so a stopped run goes on and a changed
measurement is quickly repeated. At `--scale small` the experiments' own folders are written.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import harness  # noqa: E402
import pages  # noqa: E402
import plots  # noqa: E402

from jaxstyle.errors import JaxstyleError  # noqa: E402

NAMES = sorted(path.parent.name for path in HERE.glob("e*/experiment.py"))


def load(name: str) -> harness.Experiment:
    """Import an experiment by its folder's name."""
    return importlib.import_module(f"{name}.experiment").EXPERIMENT


def carry_out(
    experiment: harness.Experiment,
    scale: harness.Scale,
    out: Path,
    folder: Path,
    exact: Path | None = None,
) -> harness.Found:
    """Run, measure and write one experiment into `folder`."""
    begun = time.monotonic()
    run = harness.run(experiment, scale, out, exact=exact)
    found = experiment.measure(run)
    seconds = time.monotonic() - begun
    folder.mkdir(parents=True, exist_ok=True)
    if exact:
        results = harness.add_opinion(found, run, seconds, folder, exact.stem)
    else:
        results = harness.write_results(experiment, found, run, seconds, folder)
        harness.write_sheet(folder / "sheet.jpg", *experiment.sheet(run))
        rows, columns = experiment.panels
        made, axes = plots.figure(columns, rows=rows)
        experiment.draw(run, found, axes)
        plots.save(made, folder / "plot.svg")
    pages.write_page(experiment, results, folder)
    return found


def main() -> None:
    """Run the experiments that were named."""
    parser = argparse.ArgumentParser(description="Run the article's experiments.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="e01 … e10; all if none is given")
    parser.add_argument("--scale", choices=sorted(harness.SCALES), default="small")
    parser.add_argument("--full", action="store_const", const="full", dest="scale")
    parser.add_argument(
        "--exact", type=Path, metavar="FILE", help="a second opinion by a network of three blocks"
    )
    parser.add_argument("-o", "--out", type=Path, default=Path("out/experiments"))
    options = parser.parse_args()
    for name in options.names:
        if not any(known.startswith(name) for known in NAMES):
            parser.error(f"{name} is none of {', '.join(NAMES)}")
    scale = harness.SCALES[options.scale]
    for name in NAMES:
        if options.names and not any(name.startswith(wanted) for wanted in options.names):
            continue
        experiment = load(name)
        if options.exact and experiment.exact is None:
            continue
        small = scale.name == "small"
        folder = experiment.folder if small else options.out / scale.name / name
        try:
            found = carry_out(experiment, scale, options.out, folder, options.exact)
        except JaxstyleError as error:
            sys.exit(f"run.py: error: {error}")
        print(f"{name}: {found.verdict}; {found.number}", flush=True)
    if scale.name == "small":
        pages.write_index([load(name) for name in NAMES], HERE)


if __name__ == "__main__":
    main()
