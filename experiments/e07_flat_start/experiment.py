"""E7: what does a flat start change?"""

from itertools import combinations

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, Found, Run
from measures import cosine, gradients, noise_level, psnr
from plots import label, names

SEEDS = 4
"""Starts whose first gradients are compared, at each std."""


def measure(run: Run) -> Found:
    """First gradients and results of two seeds, by the noise's std."""
    by_std: dict[float, list] = {}
    for cell in run.cells["grid"]:
        by_std.setdefault(cell.recipe.noise_std, []).append(cell)
    first = run.cells["grid"][0]
    problem = run.problem(first)
    table = []
    for std, (one, other) in by_std.items():
        starts = [run.problem(one, seed=seed).start for seed in range(SEEDS)]
        cosines = [cosine(a, b) for a, b in combinations(gradients(problem, np.stack(starts)), 2)]
        table.append(
            {
                "noise std": std,
                _COSINE: float(np.mean(cosines)),
                "from": min(cosines),
                "to": max(cosines),
                "results apart, dB": psnr(one.image, other.image),
                "loss": min(one.loss, other.loss),
                "loss, other seed": max(one.loss, other.loss),
                "residual noise": (noise_level(one.image) + noise_level(other.image)) / 2,
            }
        )
    flat, strong = table[0], table[-1]
    same = np.array_equal(*(cell.image for cell in by_std[flat["noise std"]]))
    network_alone = flat["from"] > 0.999
    random = strong["to"] < 0.9
    parts = [network_alone and same, random]
    return Found(
        verdict=HOLDS if all(parts) else PARTLY if any(parts) else CONTRADICTED,
        number=f"first gradients of two seeds: cosine {flat[_COSINE]:.2f} flat, "
        f"{strong[_COSINE]:.2f} at std {strong['noise std']:g}",
        numbers={
            "cosine": {f"{row['noise std']:g}": row[_COSINE] for row in table},
            "same_bytes_when_flat": same,
            "loss_strong_over_flat": strong["loss"] / flat["loss"],
        },
        said=[
            f"At std {flat['noise std']:g} two seeds have the same first gradient (cosine "
            f"{flat[_COSINE]:.4f}) and "
            + ("end at the same image, bit for bit." if same else "end at different images."),
            f"The cosine of the first gradients of two seeds, mean of all pairs of {SEEDS}: "
            + ", ".join(f"std {r['noise std']:g} {r[_COSINE]:.3f}" for r in table)
            + ".",
            "The loss reached (better of two seeds): "
            + ", ".join(f"std {r['noise std']:g} {r['loss']:.4g}" for r in table)
            + ".",
        ],
        table=table,
    )


_COSINE = "first gradients' cosine"


def draw(run: Run, found: Found, axes) -> None:
    """Cosine of gradients, and the loss, against the std."""
    # A logarithm has no place for 1e-22; it is drawn where 0.1 would be.
    stds = [max(row["noise std"], 0.1) for row in found.table]
    axes[0].plot(stds, [row[_COSINE] for row in found.table], marker="o")
    label(axes[0], x="initial noise, std (0-255; 0.1 is the flat start)",
          y="cosine of two seeds' first gradients", log="x")  # fmt: skip
    for key, name in (("loss", "better seed"), ("loss, other seed", "other seed")):
        axes[1].plot(stds, [row[key] for row in found.table], marker="o", label=name)
    label(axes[1], x="initial noise, std (0-255; 0.1 is the flat start)", y="loss", log="xy")
    names(axes[1])


def sheet(run: Run):
    """A row a seed."""
    cells = sorted(run.cells["grid"], key=lambda c: (c.recipe.seed, c.recipe.noise_std))
    labels = [f"std {c.recipe.noise_std:g}, seed {c.recipe.seed}" for c in cells]
    return [c.image for c in cells], labels, len(cells) // 2


EXPERIMENT = Experiment(
    name="e07_flat_start",
    title="E7: a flat start",
    claim="With an initial noise std of 1e-22, in effect a flat image, the first gradient has no "
    "random part and is set by the network alone.",
    method="The std of the initial noise from 1e-22 to 120, two seeds each. The first gradients "
    "of four seeds are compared by the cosine of the angle between each two, the results of two by "
    "their loss and by each other.",
    seen="In the left column two seeds of a flat start end at the same image, to the bit: "
    "rings and streaks along the edges and the middle, which the network alone brings. "
    "With noise each seed has its own suns, and at 120 the grain of the start.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 1000},
    tiny={"noise_std": [1e-22, 120.0]},
)
