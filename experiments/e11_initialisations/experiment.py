"""E11: where runs from different initial images end, how far apart and how fast."""

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, FinishedCell, Found, Run
from measures import correlation, patch_distance, psnr
from plots import INK, label, names

from jaxstyle.images import fit, resize

LOSS, STEPS = "loss", "steps to twice the lowest loss"
PHOTOGRAPH, PAINTING = "correlation with the photograph", "patch distance to the painting"
APART = "apart between seeds, PSNR dB"
NAMED = {
    "photograph": (5, -9), "75% photograph": (5, 3), "50% photograph": (5, 3),
    "25% photograph": (5, 3), "painting": (-40, -3), "noise, std 120": (5, 3),
}  # fmt: skip
"""Kinds that are named in the plot, and where, in points."""
LINES = ("-", "--", "-.", ":", (0, (1, 3)))


def start(cell: FinishedCell) -> str:
    """The kind of initial image, in words."""
    recipe = cell.recipe
    if recipe.noise_blend:
        return f"{1 - recipe.noise_blend:.0%} photograph"
    if recipe.init != "noise":
        return {"content": "photograph", "style": "painting"}[recipe.init]
    return f"noise, std {recipe.noise_std:g}" if recipe.noise_std else "flat gray"


def kinds(run: Run) -> dict[str, list[FinishedCell]]:
    """The cells by their kind of start, from the photograph to the strongest noise."""
    found: dict[str, list[FinishedCell]] = {}
    for grid in ("images", "blends", "flat", "noise"):
        for cell in run.cells[grid]:
            found.setdefault(start(cell), []).append(cell)
    return found


def distances(groups: dict[str, list[FinishedCell]]) -> np.ndarray:
    """PSNR between results, dB: the mean over seeds, by kinds; of two seeds on the diagonal."""
    found = np.full((len(groups),) * 2, np.nan)
    for i, some in enumerate(groups.values()):
        for j, others in enumerate(groups.values()):
            pairs = [(a, b) for a in some for b in others if a is not b]
            if pairs:
                found[i, j] = np.mean([psnr(a.image, b.image) for a, b in pairs])
    return found


def measure(run: Run) -> Found:
    """Losses, speeds and distances by the kind of start."""
    groups = kinds(run)
    lowest = min(cell.loss for cells in groups.values() for cell in cells)
    apart = distances(groups)
    table = []
    for k, (kind, cells) in enumerate(groups.items()):
        side = cells[0].image.shape[:2]
        photograph, painting = resize(run.content, *side), fit(run.style, max(side))
        reached = [np.flatnonzero(cell.history("loss") <= 2 * lowest) for cell in cells]
        table.append(
            {
                "start": kind,
                "seeds": len(cells),
                LOSS: float(np.mean([cell.loss for cell in cells])),
                "spread of the loss": float(np.ptp([cell.loss for cell in cells])),
                STEPS: float(np.mean([r[0] for r in reached])) if all(map(len, reached)) else None,
                PHOTOGRAPH: float(
                    np.mean([correlation(c.image, photograph, blur=1.5) for c in cells])
                ),
                PAINTING: float(np.mean([patch_distance(c.image, painting) for c in cells])),
                APART: float(apart[k, k]) if len(cells) > 1 else None,
            }
        )
    between = float(np.nanmean(apart[~np.eye(len(groups), dtype=bool)]))
    within = float(np.nanmean(np.diag(apart)))
    ratio = max(row[LOSS] for row in table) / min(row[LOSS] for row in table)
    decides, alike = within > between + 1, ratio < 1.5
    best, worst = (pick(table, key=lambda row: row[LOSS]) for pick in (min, max))
    quickest = min(table, key=lambda row: np.inf if row[STEPS] is None else row[STEPS])
    nearest = max(table, key=lambda row: row[PHOTOGRAPH])
    return Found(
        verdict=HOLDS if decides and alike else PARTLY if decides or alike else CONTRADICTED,
        number=f"losses within x{ratio:.2f}; images {between:.1f} dB apart by start, "
        f"{within:.1f} dB by seed",
        numbers={"loss_ratio": ratio, "between_starts_db": between, "between_seeds_db": within},
        said=[
            f"The lowest mean loss is from {best['start']} ({best[LOSS]:.4g}), the highest from "
            f"{worst['start']} ({worst[LOSS]:.4g}): x{ratio:.2f}.",
            f"{quickest['start'].capitalize()} reaches twice the lowest loss first, after "
            f"{quickest[STEPS]} steps.",
            f"Two results from different kinds of start have a PSNR of {between:.1f} dB, two seeds "
            f"of one kind of {within:.1f} dB (higher is nearer): "
            + ("the kind of start decides more than the seed."
               if decides else "the kind of start decides no more than the seed."),
            f"Nearest to the photograph is the result from {nearest['start']}, with a correlation "
            f"of brightness of {nearest[PHOTOGRAPH]:.2f}; from the strongest noise it is "
            f"{table[-1][PHOTOGRAPH]:.2f}.",
            "Each grid file was run as batches of one program, mapped by `vmap`.",
        ],
        table=table,
    )  # fmt: skip


def draw(run: Run, found: Found, axes) -> None:
    """How fast, where and how far apart runs end."""
    groups = kinds(run)
    for number, (kind, cells) in enumerate(groups.items()):
        color = "C0" if "noise" in kind else "C1" if "photograph" in kind else f"C{number + 2}"
        alike = [k for k in groups if ("noise" in k, "photograph" in k)
                 == ("noise" in kind, "photograph" in kind)]  # fmt: skip
        line = LINES[alike.index(kind)] if color in ("C0", "C1") else "-"
        losses = np.mean([cell.history("loss") for cell in cells], 0)
        axes[0].plot(np.arange(len(losses)) + 1, losses, color=color, linestyle=line, label=kind,
                     linewidth=1.2)  # fmt: skip
        photograph = resize(run.content, *cells[0].image.shape[:2])
        axes[1].plot([correlation(c.image, photograph, blur=1.5) for c in cells],
                     [c.loss for c in cells], "o", color=color, markersize=4)  # fmt: skip
        row = found.table[number]
        if kind in NAMED:
            axes[1].annotate(kind, (row[PHOTOGRAPH], row[LOSS]), xytext=NAMED[kind], fontsize=7,
                             color=INK, textcoords="offset points")  # fmt: skip
    label(axes[0], x="step + 1", y="loss, mean of the seeds", log="xy", title="how fast")
    names(axes[0], ncols=2, loc="upper right")
    axes[0].set_ylim(top=3000 * axes[0].get_ylim()[1])
    label(axes[1], x=PHOTOGRAPH, y="loss", title="where they end")
    axes[1].margins(x=0.25, y=0.12)
    apart = distances(groups)
    axes[2].pcolormesh(apart, cmap="cividis", edgecolor="none")
    for (i, j), value in np.ndenumerate(apart):
        if np.isfinite(value):
            axes[2].text(j + 0.5, i + 0.5, f"{value:.0f}", ha="center", va="center", fontsize=6,
                         color="white" if value < np.nanmean(apart) else "black")  # fmt: skip
    ticks = np.arange(len(groups)) + 0.5
    axes[2].set_xticks(ticks, list(groups), rotation=60, ha="right", fontsize=7)
    axes[2].set_yticks(ticks, list(groups), fontsize=7)
    axes[2].invert_yaxis()
    axes[2].set_title("how far apart, PSNR dB", fontsize=10, color=INK, loc="left")


def sheet(run: Run):
    """One result a kind of start, and a second seed of the strongest noise."""
    groups = kinds(run)
    side = run.cells["images"][0].image.shape[:2]
    shown = {"the photograph itself": resize(run.content, *side)}
    for kind, cells in groups.items():
        if not kind.startswith("noise"):
            shown[f"from {kind}"] = cells[0].image
    noises = [kind for kind in groups if kind.startswith("noise")]
    shown[f"from {noises[0]}"] = groups[noises[0]][0].image
    for cell in groups[noises[-1]][:2]:
        shown[f"from {noises[-1]}, seed {cell.recipe.seed}"] = cell.image
    return list(shown.values()), list(shown), 5


EXPERIMENT = Experiment(
    name="e11_initialisations",
    title="E11: initial images side by side",
    claim="The kind of initial image decides which image one gets, more than the seed of its noise "
    "does, and matters little for the loss.",
    method="The default recipe with the Gram loss and a style weight of 5000, from the photograph, "
    "the painting, the photograph with a quarter, a half or three quarters of noise, a flat gray, "
    "and noise of five standard deviations (of 255) with four seeds each. Kinds of start are "
    "compared by loss, by speed and by the PSNR of their results, beside that of two seeds "
    "of one kind. The claim holds if seeds of one kind are more than 1 dB nearer to each "
    "other than kinds are, and mean losses are within a factor of 1.5.",
    seen="From the photograph, and from three quarters of it, cat and cup stay where they are; "
    "from a quarter of it suns grow on the nose. From the painting its hills and suns "
    "stay, and the cat is hardly found. From a flat gray and from any noise there are "
    "suns for eyes, others for every seed; noise of 120 leaves its grain.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    panels=3,
    full={"steps": 300},
    tiny={"seed": [0, 1], "noise_std": [30.0, 120.0], "noise_blend": [0.25, 0.75]},
)
