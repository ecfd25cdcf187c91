"""The experiments' README files, written from their claims and their results alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import Experiment

from jaxstyle.files import write_atomically


def write_page(experiment: Experiment, results: Mapping[str, Any], folder: Path) -> None:
    """Write an experiment's README.md."""
    verdict = results["verdict"]
    parts = [
        f"# {experiment.title}",
        f"**Claim.** {experiment.claim}",
        f"**Method.** {experiment.method}",
        f"**Verdict: {verdict}.** {results['number']}.",
        "\n".join(f"- {sentence}" for sentence in results["found"]),
        "![what came out](sheet.jpg)",
        "![the numbers over the runs](plot.svg)",
        _table(results["table"]),
        "## Command",
        f"```sh\npython experiments/run.py {experiment.name[:3]}\n```",
        conditions(results),
    ]
    for name, opinion in results["second_opinions"].items():
        parts += [
            f"## Second opinion: {opinion['weights']['name']}",
            f"The same on the first three blocks of the exact network (`{name}.safetensors`, "
            f"sha256 {opinion['weights']['sha256'][:12]}…), so with other layers and "
            f"fewer steps. **{opinion['verdict'].capitalize()}.** {opinion['number']}.",
            "\n".join(f"- {sentence}" for sentence in opinion["found"]),
            _table(opinion["table"]),
            "```sh\npython experiments/run.py "
            f"{experiment.name[:3]} --exact {name}.safetensors\n```",
            conditions(opinion),
        ]
    write_atomically(folder / "README.md", ("\n\n".join(filter(None, parts)) + "\n").encode())


def conditions(results: Mapping[str, Any]) -> str:
    """What the numbers depend on."""
    environment = results["environment"]
    sizes = " and ".join(f"{size} px" for size in results["sizes"])
    return (
        f"{results['date']}, {results['machine']} ({environment['device']}), Python "
        f"{environment['python']}, JAX {environment['jax']}; network {results['weights']['name']} "
        f"({results['weights']['sha256'][:12]}…), {sizes}. {results['cells']} cells, "
        f"{results['evaluations']} evaluations of the objective in "
        f"{results['cell_seconds']:.0f} seconds (the machine had other work)."
    )


def write_index(experiments: Sequence[Experiment], folder: Path) -> None:
    """Write the table of all experiments into the marked part of README.md."""
    rows = [
        "| experiment | claim | verdict | number | image |",
        "| --- | --- | --- | --- | --- |",
    ]
    for experiment in experiments:
        path = experiment.folder / "results.json"
        name = experiment.name
        if not path.exists():
            rows.append(
                f"| {experiment.title} (`{name}/`) | {experiment.claim} | not run yet | | |"
            )
            continue
        results = json.loads(path.read_bytes())
        opinions = "".join(
            f"; {opinion['weights']['name']}: {opinion['verdict']}"
            for opinion in results["second_opinions"].values()
        )
        rows.append(
            f"| [{experiment.title}]({name}/README.md) | {experiment.claim} | "
            f"**{results['verdict']}**{opinions} | {results['number']} | "
            f'<img src="{name}/sheet.jpg" width="240" alt="{experiment.title}"> |'
        )
    readme = folder / "README.md"
    begin, end = "<!-- table: written by run.py -->", "<!-- end of table -->"
    text = readme.read_text(encoding="utf-8")
    before, after = text.split(begin)[0], text.split(end)[1]
    write_atomically(readme, (before + "\n".join([begin, *rows, end]) + after).encode())


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
