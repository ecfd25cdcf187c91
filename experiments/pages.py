"""The experiments' README files, written from their claims and their results alone."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import Experiment

from jaxstyle.files import write_atomically


def write_page(experiment: Experiment, results: Mapping[str, Any], folder: Path) -> None:
    """Write an experiment's README.md."""
    parts = [
        f"# {experiment.title}",
        f"**Claim.** {experiment.claim}",
        f"**Verdict: {results['verdict']}.**",
        numbers(results),
        f"![The images of {experiment.title}](sheet.jpg)",
        stale(experiment, results) or experiment.seen,
        "## Method",
        experiment.method,
        "## Numbers",
        f"![The numbers of {experiment.title}](plot.svg)",
    ]
    for pair, found in results["pairs"].items():
        parts += [
            f"### The {pair}",
            "\n".join(f"- {sentence}" for sentence in found["said"]),
            _table(found["table"]),
        ]
    parts += [
        "## Command",
        f"```sh\npython experiments/run.py {experiment.name[:3]}\n```",
        conditions(results),
    ]
    write_atomically(folder / "README.md", ("\n\n".join(filter(None, parts)) + "\n").encode())


def numbers(results: Mapping[str, Any]) -> str:
    """Return the claim's number for each pair."""
    return "\n".join(
        f"- the {pair}: {found['number']} ({found['verdict']})"
        for pair, found in results["pairs"].items()
    )


def conditions(results: Mapping[str, Any]) -> str:
    """Return what the numbers depend on."""
    environment = results["environment"]
    return (
        f"{settings(results)}; {results['cells']} cells, {results['evaluations']} evaluations of "
        f"the objective in {results['seconds'] / 60:.0f} minutes on a machine with other work "
        f"({results['machine']}, {environment['device']}; Python {environment['python']}, JAX "
        f"{environment['jax']}; {results['date']}; weights {results['weights']['sha256'][:12]}…)."
    )


def stale(experiment: Experiment, results: Mapping[str, Any]) -> str:
    """Return a warning where the numbers are of a run before the grid files of the folder."""
    files = [tomllib.loads(path.read_text()) for path in experiment.folder.glob("*.toml")]
    if sorted({file["base"]["size"] for file in files}) == results["sizes"]:
        return ""
    return (
        f"These are images and numbers of an earlier run ({settings(results)}), whose grid files "
        "were others; method and grid files here are those of the next."
    )


def settings(results: Mapping[str, Any]) -> str:
    """Return the size, the network and the pairs."""
    sizes = " and ".join(f"{size} px" for size in results["sizes"])
    pairs = " and ".join(f"the {pair}" for pair in results["pairs"])
    return f"{sizes}, network `{results['weights']['name']}`, {pairs}"


def write_index(experiments: Sequence[Experiment], folder: Path) -> None:
    """Write the verdicts of all experiments and their sheets into the marked part of README.md."""
    rows, sections = ["| experiment | verdict | on |", "| --- | --- | --- |"], []
    for experiment in experiments:
        path = experiment.folder / "results.json"
        if not path.exists():
            rows.append(f"| {experiment.title} | not run yet | |")
            continue
        results = json.loads(path.read_bytes())
        link = f"{experiment.name}/README.md"
        rows.append(
            f"| [{experiment.title}]({link}) | **{results['verdict']}** | {settings(results)} |"
        )
        seen = stale(experiment, results) or experiment.seen
        sections.append(
            f"## {experiment.title}\n\n> {experiment.claim}\n\n"
            f"[![The images of {experiment.title}]({experiment.name}/sheet.jpg)]({link})\n\n"
            f"**{results['verdict'].capitalize()}.** {seen}\n\n{numbers(results)}"
        )
    readme = folder / "README.md"
    begin, end = "<!-- written by run.py -->", "<!-- end -->"
    text = readme.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    written = "\n\n".join([begin, "\n".join(rows), *sections, end])
    write_atomically(readme, (before + written + after).encode())


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for row in rows:
        lines.append(f"| {' | '.join(_shown(row.get(column)) for column in columns)} |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
