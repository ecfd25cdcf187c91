"""E8: does Adam at 0.1 oscillate, gain by it, and never settle?"""

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, Found, Run
from plots import label, names


def peaks(losses: np.ndarray) -> np.ndarray:
    """Steps at which the loss, having risen by a tenth or more since its last dip, turns down."""
    found, low, high, rising = [], losses[0], losses[0], False
    for step, value in enumerate(losses):
        if not rising:
            low = min(low, value)
            if value > 1.1 * low:
                rising, high = True, value
        elif value > high:
            high = value
        elif value < high / 1.1:
            found.append(step)
            rising, low = False, value
    return np.array(found, int)


def measure(run: Run) -> Found:
    """Oscillations counted, and what the loss does in the last third."""
    table = []
    for cell in run.cells["grid"]:
        losses = cell.history("loss")
        turns, third = peaks(losses), losses[-max(2, len(losses) // 3) :]
        before = np.min(losses[: turns[0]]) if len(turns) else np.min(losses)
        table.append(
            {
                "learning rate": cell.recipe.learning_rate,
                "oscillations": len(turns),
                "steps uphill": int(np.sum(np.diff(losses) > 0)),
                "best before the first": float(before),
                "best": float(np.min(losses)),
                "last third, highest / lowest": float(np.max(third) / np.min(third)),
            }
        )
    high = table[0]
    gain = high["best before the first"] / high["best"]
    parts = [
        high["oscillations"] >= 2,
        gain > 1.05,
        high["last third, highest / lowest"] > 1.5,
    ]
    lowest = min(table, key=lambda row: row["best"])
    return Found(
        verdict=HOLDS if all(parts) else PARTLY if any(parts) else CONTRADICTED,
        number=f"{high['oscillations']} oscillations; loss x"
        f"{high['last third, highest / lowest']:.2f} up and down in the last third",
        numbers={
            "oscillations": high["oscillations"],
            "gain_after_first": gain,
            "swing": high["last third, highest / lowest"],
            "best_by_rate": {f"{row['learning rate']:g}": row["best"] for row in table},
        },
        said=[
            f"At 0.1 the loss swings {high['oscillations']} times by a tenth or more; the best "
            f"after the swings is {gain:.2f} times lower than the best before the first.",
            f"In the last third it still varies {high['last third, highest / lowest']:.2f} "
            "times between its highest and lowest: "
            + ("it does not settle." if parts[2] else "it settles."),
            "Best loss by rate: "
            + ", ".join(f"{r['learning rate']:g} {r['best']:.4g}" for r in table)
            + f"; the lowest is {lowest['learning rate']:g}'s.",
        ],
        table=table,
    )


def draw(run: Run, found: Found, axes) -> None:
    """The loss over the steps."""
    for cell in run.cells["grid"]:
        named = f"learning rate {cell.recipe.learning_rate:g}"
        axes[0].plot(cell.history("step") + 1, cell.history("loss"), label=named, linewidth=1.1)
    label(axes[0], x="step + 1", y="loss", log="xy")
    names(axes[0])
    last = run.cells["grid"][0]
    steps = last.history("step")
    part = slice(-max(2, len(steps) // 3), None)
    axes[1].plot(steps[part], last.history("loss")[part], linewidth=1.1)
    label(axes[1], x="step", y="loss", title="learning rate 0.1, last third")


def sheet(run: Run):
    """Rate 0.1 on its way, and the lower rates."""
    cells = [*run.cells["early"], *run.cells["grid"]]
    labels = [f"rate {c.recipe.learning_rate:g}, {c.recipe.steps} steps" for c in cells]
    return [cell.image for cell in cells], labels, len(cells)


EXPERIMENT = Experiment(
    name="e08_adam_oscillates",
    title="E8: Adam at 0.1",
    claim="Adam at a learning rate of 0.1 oscillates; after several oscillations strokes become "
    "more continuous, a better optimum than before, but it never settles.",
    method="Adam at 0.1, 0.02 and 0.005 from an almost flat start. An oscillation is a rise of the "
    "loss by at least a tenth that turns into a fall by at least a tenth. Images are the best of "
    "their run, at 0.1 also of its first 15 and 60 steps.",
    seen="At 0.1 there is grain after 15 steps, thin broken strokes after 60, and after 500 "
    "strokes are broad and continuous, as the claim has it. At 0.02 they are much the "
    "same; at 0.005 the image is still dull.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 2000},
    tiny={"steps": [3, 5]},
)
