"""E4: which optimizers get anywhere, which need tuning, which diverge?"""

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, FinishedCell, Found, Run
from plots import label, names

ORDER = ("sgd", "momentum", "rmsprop", "adam", "lbfgs")
SCHEDULES = ("constant", "exponential", "linear", "cosine")


def name(cell: FinishedCell) -> str:
    """Optimizer, schedule and rate in words."""
    recipe = cell.recipe
    words = [recipe.optimizer]
    if recipe.learning_rate is not None:
        words.append(f"{recipe.learning_rate:g}")
    if recipe.optimizer == "momentum":
        words.append(recipe.schedule)
    return " ".join(words)


def behaviour(cell: FinishedCell) -> str:
    """How a run ended."""
    losses = cell.history("loss")
    if not np.isfinite(losses).all():
        return "diverged (not finite)"
    if losses[-1] > losses[0]:
        return "diverged"
    if losses.max() > 10 * losses[0]:
        return "overshoots"
    last = losses[-max(2, len(losses) // 5) :]
    if np.max(last) > 1.5 * np.min(losses):
        return "oscillates"
    if np.min(losses) > 0.1 * losses[0]:
        return "stalls"
    return "descends"


def best_of(cells: list[FinishedCell]) -> FinishedCell:
    """Return the cell of the lowest loss."""
    return min(cells, key=lambda cell: cell.lowest)


def at_lowest(cell: FinishedCell, term: str) -> float:
    """A term where the loss was lowest."""
    return float(cell.history(term)[np.nanargmin(cell.history("loss"))])


def last_over_first(cell: FinishedCell) -> float | str:
    """Where the run stood at its end, whatever its best was."""
    losses = cell.history("loss")
    return float(losses[-1] / losses[0]) if np.isfinite(losses).all() else "not finite"


def measure(run: Run) -> Found:
    """One row a run."""
    table = [
        {
            "run": name(cell),
            "lowest loss": cell.lowest,
            "saved image's loss": cell.loss,
            "style": at_lowest(cell, "style"),
            "content": at_lowest(cell, "content"),
            "evaluations": cell.report["evaluations"],
            "seconds": cell.seconds,
            "last / first loss": last_over_first(cell),
            "end": behaviour(cell),
        }
        for optimizer in ORDER
        for cell in run.cells[optimizer]
    ]

    by_run = {row["run"]: row for row in table}
    gd, momentum, rmsprop, adam = (by_run[name(best_of(run.cells[word]))] for word in ORDER[:4])
    ours, *others = (by_run[name(cell)] for cell in run.cells["lbfgs"])
    first_order = [gd, momentum, rmsprop, adam]
    ends = {word: [r["end"] for r in table if r["run"].startswith(word)] for word in ORDER[:4]}
    lost = [row for row in table if row["end"].startswith("diverged")]
    diverged = {
        word: [row["run"] for row in lost if row["run"].startswith(word)] for word in ORDER[:4]
    }
    swing = [row["run"] for row in table if row["end"] == "oscillates"]
    by_schedule: dict[str, list[str]] = {}
    lowest: dict[str, float] = {}
    for cell in run.cells["momentum"]:
        schedule = cell.recipe.schedule
        by_schedule.setdefault(schedule, []).append(behaviour(cell))
        lowest[schedule] = min(lowest.get(schedule, np.inf), cell.lowest)
    tuned = "stalls" in ends["momentum"] and bool(diverged["momentum"])
    lead = min(row["lowest loss"] for row in first_order) / ours["lowest loss"]
    high = [ends["adam"][-1], ends["rmsprop"][-1]]
    parts = [
        lead > 1,
        tuned,
        all(end.startswith(("diverged", "oscillates")) for end in high),
        gd["content"] > ours["content"],
    ]
    return Found(
        verdict=HOLDS if all(parts) else PARTLY if any(parts) else CONTRADICTED,
        number=f"best first-order loss is {lead:.2f} times L-BFGS's; "
        f"{len(lost)} of {len(table)} runs diverge",
        numbers={
            "best_first_order_over_lbfgs": lead,
            "ends": ends,
            "diverged": diverged,
            "oscillates": swing,
            "best": {row["run"]: row["lowest loss"] for row in [*first_order, ours, *others]},
            "parts": dict(
                zip(
                    ("lbfgs_is_best", "momentum_needs_tuning", "high_rates_oscillate", "gd_style"),
                    parts,
                    strict=True,
                )
            ),
        },
        said=[
            f"Lowest loss in as many steps: L-BFGS {ours['lowest loss']:.4g} (ours, "
            f"{ours['evaluations']} evaluations)"
            + "".join(f", {r['run']} {r['lowest loss']:.4g} ({r['evaluations']})" for r in others)
            + "; of the first-order methods "
            + ", ".join(f"{r['run']} {r['lowest loss']:.4g}" for r in first_order)
            + ".",
            "At its lowest loss gradient descent's best run has a content term of "
            f"{gd['content']:.4g} and a style term of {gd['style']:.4g}, our L-BFGS of "
            f"{ours['content']:.4g} and {ours['style']:.4g}.",
            "From the lowest rate to the highest: "
            + "; ".join(f"{word} {', '.join(ends[word])}" for word in ("sgd", "rmsprop", "adam"))
            + "".join(f"; momentum {s} {', '.join(found)}" for s, found in by_schedule.items())
            + ".",
            f"Diverged: {len(lost)} of {len(table)} runs"
            + (f" ({', '.join(row['run'] for row in lost)})" if lost else "")
            + f"; oscillating: {', '.join(swing) or 'none'}; overshooting: "
            + (", ".join(row["run"] for row in table if row["end"] == "overshoots") or "none")
            + ". What a run returns is its best image, which for a diverged one is from "
            "before it went astray, or the start itself; the loss curves show where it went.",
            "The lowest loss by momentum's schedule: "
            + ", ".join(f"{s} {value:.4g}" for s, value in lowest.items())
            + (
                ". In as many steps no decay is the best here, against the article, whose momentum "
                "never converged without one."
                if min(lowest, key=lowest.__getitem__) == "constant"
                else ". Decay helps, as in the article."
            ),
        ],
        table=table,
    )


def draw(run: Run, found: Found, axes) -> None:
    """The best run of each method, by evaluations; and the lowest loss by learning rate."""
    best = [best_of(run.cells[word]) for word in ORDER[:4]] + run.cells["lbfgs"]
    for number, cell in enumerate(best):
        losses = cell.history("loss")
        evaluations = 1 + np.linspace(0, 1, len(losses)) * (cell.report["evaluations"] - 1)
        axes[0].plot(evaluations, losses, color=f"C{number}", label=name(cell), linewidth=1.2)
    label(axes[0], x="evaluations of loss and gradient", y="loss", log="y", title="best of each")
    names(axes[0])
    for number, word in enumerate(ORDER[:4]):
        cells = [c for c in run.cells[word] if c.recipe.schedule == "constant"]
        rates, lowest = [c.recipe.learning_rate for c in cells], [c.lowest for c in cells]
        axes[1].plot(rates, lowest, color=f"C{number}", marker="o", label=word)
        gone = [k for k, cell in enumerate(cells) if behaviour(cell).startswith("diverged")]
        axes[1].plot([rates[k] for k in gone], [lowest[k] for k in gone], "X",
                     color=f"C{number}", markersize=10)  # fmt: skip
    axes[1].axhline(run.cells["lbfgs"][0].lowest, color="C4", linestyle="--", label="lbfgs")
    label(axes[1], x="learning rate", y="lowest loss", log="xy", title="by rate (X diverged)")
    names(axes[1])


def sheet(run: Run):
    """The best run of each method, L-BFGS beside them; and rates too low and too high."""
    adam = run.cells["adam"]
    cells = [best_of(run.cells[word]) for word in ORDER[:4]] + [
        adam[0], adam[-2], *run.cells["lbfgs"][:2]
    ]  # fmt: skip
    return [c.image for c in cells], [f"{name(c)}: {behaviour(c)}" for c in cells], 4


EXPERIMENT = Experiment(
    name="e04_optimisers",
    title="E4: optimizers",
    claim="Plain gradient descent ends in a style minimum (only strokes). Momentum needs its "
    "learning rate tuned all along. Adam and RMSProp oscillate at a high rate and take very long "
    "at a low one. L-BFGS is why every implementation prefers it.",
    method="Gradient descent, momentum with four schedules, RMSProp and Adam at five rates each, "
    "from too low to too high, and four L-BFGS (one with fixed steps, as PyTorch's has without a "
    "line search), all from the same noise for equally many steps. "
    "A run has diverged if its last loss is above its first or not finite (the library stops a run "
    "at 10000 times its first loss); it overshoots if it rose above ten times its first loss and "
    "came back below it; it oscillates if in its last fifth the loss is more than 1.5 times its "
    "lowest; it stalls if it never fell below a tenth of its first. Seconds are the cell's share "
    "of its batch, on a machine with other work.",
    seen="Only L-BFGS has broad, clean strokes and whole suns after 120 steps. Adam and momentum "
    "at their best rates have the suns and the colors, with grain over them; gradient descent and "
    "RMSProp are left with gray patterns. Adam at 0.001 has hardly left the noise; at 1 all is "
    "grain.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 3000},
    tiny={
        "learning_rate": [1e-6, 1e-2],
        "schedule": ["constant"],
        "optimizer": ["lbfgs", "optax-lbfgs"],
    },
)
