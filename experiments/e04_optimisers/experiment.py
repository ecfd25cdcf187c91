"""E4: which optimisers get anywhere, which need tuning, which diverge?"""

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Cell, Experiment, Found, Run
from plots import label, names

ORDER = ("sgd", "momentum", "rmsprop", "adam", "lbfgs")


def name(cell: Cell) -> str:
    """Optimiser, schedule and rate in words."""
    recipe = cell.recipe
    words = [recipe["optimizer"]]
    if recipe["learning_rate"] is not None:
        words.append(f"{recipe['learning_rate']:g}")
    if recipe["optimizer"] == "momentum":
        words.append(recipe["schedule"])
    return " ".join(words)


def behaviour(cell: Cell) -> str:
    """How a run ended."""
    losses = cell.history("loss")
    if not np.isfinite(losses).all() or losses[-1] > losses[0]:
        return "diverged"
    last = losses[-max(2, len(losses) // 5) :]
    if np.max(last) > 1.5 * np.min(losses):
        return "oscillates"
    if np.min(losses) > 0.1 * losses[0]:
        return "stalls"
    return "descends"


def measure(run: Run) -> Found:
    """One row a run."""
    table = [
        {
            "run": name(cell),
            "loss": cell.loss,
            "style": cell.report["terms"]["style"],
            "content": cell.report["terms"]["content"],
            "evaluations": cell.report["evaluations"],
            "seconds": cell.seconds,
            "end": behaviour(cell),
        }
        for optimiser in ORDER
        for cell in run.cells[optimiser]
    ]

    def best(word: str) -> dict:
        return min((r for r in table if r["run"].startswith(word)), key=lambda row: row["loss"])

    gd, momentum, rmsprop, adam, ours = (best(word) for word in ORDER)
    others = [row for row in table if row["run"].endswith("-lbfgs")]
    first_order = [gd, momentum, rmsprop, adam]
    ends = {word: [r["end"] for r in table if r["run"].startswith(word)] for word in ORDER[:4]}
    upset = [[end for end in ends[w] if end in ("diverged", "oscillates")] for w in ORDER[:4]]
    tuned = len(set(ends["momentum"])) > 1
    lead = min(row["loss"] for row in first_order) / ours["loss"]
    high = [ends["adam"][-1], ends["rmsprop"][-1]]
    parts = [
        lead > 1,
        tuned,
        all(end in ("diverged", "oscillates") for end in high),
        gd["content"] > ours["content"],
    ]
    return Found(
        verdict=HOLDS if all(parts) else PARTLY if any(parts) else CONTRADICTED,
        number=f"best first-order loss is {lead:.2f} times L-BFGS's",
        numbers={
            "best_first_order_over_lbfgs": lead,
            "ends": ends,
            "best": {row["run"]: row["loss"] for row in [*first_order, ours, *others]},
            "parts": dict(
                zip(
                    ("lbfgs_is_best", "momentum_needs_tuning", "high_rates_oscillate", "gd_style"),
                    parts,
                    strict=True,
                )
            ),
        },
        said=[
            f"Lowest loss in as many steps: L-BFGS {ours['loss']:.4g} (ours, "
            f"{ours['evaluations']} evaluations), "
            + ", ".join(f"{r['run']} {r['loss']:.4g} ({r['evaluations']})" for r in others)
            + "; of the first-order methods "
            + ", ".join(f"{r['run']} {r['loss']:.4g}" for r in first_order)
            + ".",
            f"Gradient descent's best run ends at content {gd['content']:.4g} and style "
            f"{gd['style']:.4g}, ours at {ours['content']:.4g} and {ours['style']:.4g}.",
            "Momentum's runs (three rates for each of constant, exponential, linear, cosine): "
            + ", ".join(ends["momentum"])
            + ".",
            f"RMSProp from its lowest rate to its highest: {', '.join(ends['rmsprop'])}; Adam: "
            f"{', '.join(ends['adam'])}. Runs of gradient descent that diverged or oscillate: "
            f"{len(upset[0])} of {len(ends['sgd'])}, of momentum {len(upset[1])} of "
            f"{len(ends['momentum'])}.",
            "Not testable by a loss: that the article's Adam and RMSProp diverge for good. "
            "Ours return their best picture whatever follows.",
        ],
        table=table,
    )


def draw(run: Run, found: Found, axes) -> None:
    """The best run of each optimiser, against evaluations and against seconds."""
    for number, optimiser in enumerate([*ORDER[:4], "lbfgs", "jaxopt-lbfgs", "optax-lbfgs"]):
        cells = [
            c for grid in run.cells.values() for c in grid if c.recipe["optimizer"] == optimiser
        ]
        if not cells:
            continue
        cell = min(cells, key=lambda c: c.loss)
        losses = np.fmin.accumulate(cell.history("loss"))
        share = np.linspace(0, 1, len(losses))
        line = {"label": name(cell), "color": f"C{number}"}
        axes[0].plot(1 + share * (cell.report["evaluations"] - 1), losses, **line)
        axes[1].plot(share * cell.seconds, losses, **line)
    label(axes[0], x="evaluations of loss and gradient", y="lowest loss so far", log="y")
    label(axes[1], x="seconds (share of the batch)", y="lowest loss so far", log="y")
    names(axes[0])


def sheet(run: Run):
    """Every run's best picture."""
    cells = [cell for optimiser in ORDER for cell in run.cells[optimiser]]
    return [c.image for c in cells], [f"{name(c)}: {behaviour(c)}" for c in cells], 6


EXPERIMENT = Experiment(
    name="e04_optimisers",
    title="E4: optimisers",
    claim="Plain gradient descent ends in a style minimum (only strokes). Momentum needs its "
    "learning rate tuned all along. Adam and RMSProp oscillate at a high rate and take very long "
    "at a low one. L-BFGS is why every implementation prefers it.",
    method="Gradient descent, momentum with four schedules, RMSProp and Adam at three rates each, "
    "and three L-BFGS, all from the same noise for equally many steps. A run has diverged if its "
    "last loss is above its first or not finite; it oscillates if in its last fifth the loss is "
    "more than 1.5 times its lowest; it stalls if it never fell below a tenth of its first. "
    "Seconds are the cell's share of its batch, on a machine with other work.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 3000},
    tiny={"learning_rate": [1e-6, 1e-2], "schedule": ["constant"], "optimizer": ["lbfgs"]},
)
