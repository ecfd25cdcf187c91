"""E11: where runs from different initial images end, how far apart and how fast."""

from itertools import combinations

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Cell, Experiment, Found, Run
from measures import correlation, patch_distance, psnr
from plots import label, names

from jaxstyle.images import fit, resize

LOSS, STEPS, APART = "loss", "steps to twice the lowest loss", "apart between seeds, PSNR dB"


def start(cell: Cell) -> str:
    """The kind of initial image, in words."""
    recipe = cell.recipe
    if recipe["noise_blend"]:
        return f"{1 - recipe['noise_blend']:.0%} photograph"
    if recipe["init"] != "noise":
        return {"content": "photograph", "style": "painting"}[recipe["init"]]
    return f"noise, std {recipe['noise_std']:g}" if recipe["noise_std"] else "flat gray"


def kinds(run: Run) -> dict[str, list[Cell]]:
    """The cells by their kind of start, from the photograph to noise."""
    found: dict[str, list[Cell]] = {}
    for name in ("images", "blends", "noise"):
        for cell in run.cells[name]:
            # Without noise all seeds are one.
            if start(cell) != "flat gray" or cell.recipe["seed"] == 0:
                found.setdefault(start(cell), []).append(cell)
    return found


def measure(run: Run) -> Found:
    """Losses, speeds and distances by the kind of start."""
    groups = kinds(run)
    lowest = min(cell.loss for cells in groups.values() for cell in cells)
    table = []
    for kind, cells in groups.items():
        side = cells[0].image.shape[:2]
        photograph, painting = resize(run.content, *side), fit(run.style, max(side))
        histories = [cell.history("loss") for cell in cells]
        reached = [np.flatnonzero(h <= 2 * lowest) for h in histories]
        pairs = [psnr(a.image, b.image) for a, b in combinations(cells, 2)]
        table.append(
            {
                "start": kind,
                "seeds": len(cells),
                LOSS: float(np.mean([cell.loss for cell in cells])),
                "spread of the loss": float(np.ptp([cell.loss for cell in cells])),
                STEPS: float(np.mean([r[0] for r in reached])) if all(map(len, reached)) else None,
                "correlation with the photograph": float(
                    np.mean([correlation(c.image, photograph, blur=1.5) for c in cells])
                ),
                "patch distance to the painting": float(
                    np.mean([patch_distance(c.image, painting) for c in cells])
                ),
                APART: float(np.mean(pairs)) if pairs else None,
            }
        )
    firsts = [cells[0].image for cells in groups.values()]
    between = float(np.mean([psnr(a, b) for a, b in combinations(firsts, 2)]))
    within = float(np.mean([row[APART] for row in table if row[APART] is not None]))
    ratio = max(row[LOSS] for row in table) / min(row[LOSS] for row in table)
    decides, alike = within > between + 1, ratio < 1.5
    best, worst = (pick(table, key=lambda row: row[LOSS]) for pick in (min, max))
    return Found(
        verdict=HOLDS if decides and alike else PARTLY if decides or alike else CONTRADICTED,
        number=f"losses within x{ratio:.2f}; images {between:.1f} dB apart by start, "
        f"{within:.1f} dB by seed",
        numbers={"loss_ratio": ratio, "between_starts_db": between, "between_seeds_db": within},
        said=[
            f"The lowest mean loss is from {best['start']} ({best[LOSS]:.4g}), the highest from "
            f"{worst['start']} ({worst[LOSS]:.4g}): x{ratio:.2f}.",
            f"Two results from different kinds of start have a PSNR of {between:.1f} dB, two seeds "
            f"of one kind of {within:.1f} dB (higher is nearer): "
            + ("the kind of start decides more than the seed."
               if decides else "the kind of start decides no more than the seed."),
            "All were run as batches of one program a grid file, mapped by `vmap`.",
        ],
        table=table,
    )  # fmt: skip


def draw(run: Run, found: Found, axes) -> None:
    """The loss over the steps, and where runs end."""
    for row, (kind, cells) in zip(found.table, kinds(run).items(), strict=True):
        losses = np.mean([cell.history("loss") for cell in cells], 0)
        axes[0].plot(np.arange(len(losses)) + 1, losses, label=kind, linewidth=1.1)
        axes[1].plot(row["correlation with the photograph"], row[LOSS], "o", label=kind)
    label(axes[0], x="step + 1", y="loss, mean of the seeds", log="xy", title="how fast")
    label(axes[1], x="correlation with the photograph", y="loss", title="where they end")
    names(axes[1])


def sheet(run: Run):
    """One result a kind of start, and a second seed of the noisiest."""
    groups = kinds(run)
    side = run.cells["images"][0].image.shape[:2]
    images = [resize(run.content, *side)]
    labels = ["the photograph itself"]
    for kind, cells in groups.items():
        images.append(cells[0].image)
        labels.append("from " + kind)
    images.append(list(groups.values())[-1][-1].image)
    labels.append(f"from {list(groups)[-1]}, another seed")
    return images, labels, 5


EXPERIMENT = Experiment(
    name="e11_initialisations",
    title="E11: initial images side by side",
    claim="The initial image decides which image one gets, more than how low the loss becomes.",
    method="The default recipe from the photograph, the painting, the photograph with a quarter or "
    "three quarters of noise, a flat gray and noise of standard deviation 120 (of 255), three "
    "seeds each, at 256 pixels. Kinds of start are compared by loss, by speed and by the PSNR of "
    "their results, beside that of two seeds.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 300},
    tiny={"seed": [0, 1], "noise_std": [0.0, 120.0], "noise_blend": [0.5]},
)
