"""Run the article's experiments and write down what was found.

    python experiments/run.py                     # all, small
    python experiments/run.py e04 e08 --full      # two, as the article has them: for a GPU

Finished cells are kept in the output folder, so a stopped run goes on and a changed
measurement is quickly repeated. At `--scale small` the experiments' own folders are written.
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

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
    experiment: harness.Experiment, scale: harness.Scale, out: Path, folder: Path
) -> dict[str, Any]:
    """Run an experiment on its pairs, measure it and write its page."""
    runs = [harness.run(experiment, scale, out, pair) for pair in experiment.pairs]
    found = [experiment.measure(run) for run in runs]
    folder.mkdir(parents=True, exist_ok=True)
    results = harness.write_results(experiment, found, runs, folder)
    images, labels, columns = zip(*map(experiment.sheet, runs), strict=True)
    harness.write_sheet(folder / "sheet.jpg", sum(images, []), sum(labels, []), columns[0])
    made, axes = plots.figure(experiment.panels, rows=len(runs))
    for run, one, row in zip(runs, found, axes, strict=True):
        experiment.draw(run, one, row)
        plots.name_row(row, run.pair)
    plots.save(made, folder / "plot.svg")
    pages.write_page(experiment, results, folder)
    return results


def main() -> None:
    """Run the experiments that were named."""
    parser = argparse.ArgumentParser(description="Run the article's experiments.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="e01 … e11; all if none is given")
    parser.add_argument("--scale", choices=sorted(harness.SCALES), default="small")
    parser.add_argument("--full", action="store_const", const="full", dest="scale")
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
        small = scale.name == "small"
        folder = experiment.folder if small else options.out / scale.name / name
        try:
            results = carry_out(experiment, scale, options.out, folder)
        except JaxstyleError as error:
            sys.exit(f"run.py: error: {error}")
        print(f"{name}: {results['verdict']}", flush=True)
    if scale.name == "small":
        pages.write_index([load(name) for name in NAMES], HERE)


if __name__ == "__main__":
    main()
