"""E10: Gram matrices of all layers against those of five."""

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, FinishedCell, Found, Run
from measures import gradient_seconds, losses, patch_distance
from plots import label, names

from jaxstyle.images import fit


def layers(cell: FinishedCell) -> int:
    """How many layers carry the style."""
    return len(cell.recipe.style_layers)


def measure(run: Run) -> Found:
    """Every image under both style objectives, under a referee, and the seconds."""
    cells = run.cells["grid"]
    counts = sorted({layers(cell) for cell in cells})
    judges = {count: run.problem(next(c for c in cells if layers(c) == count)) for count in counts}
    style = {}
    for count, problem in judges.items():
        _, terms = losses(problem, np.stack([cell.image for cell in cells]))
        style[count] = np.asarray(terms.style)
    painting = fit(run.style, max(cells[0].image.shape[:2]))
    few, many = counts
    table = [
        {
            "layers": layers(cell),
            "content weight": cell.recipe.content_weight,
            f"style over {few} layers": float(style[few][k]),
            f"style over {many} layers": float(style[many][k]),
            "content, unweighted": cell.report["terms"]["content"] / cell.recipe.content_weight,
            FINE: patch_distance(cell.image, painting),
            COARSE: patch_distance(cell.image, painting, reduced=4),
        }
        for k, cell in enumerate(cells)
    ]

    def rows(count: int) -> list[dict]:
        return [row for row in table if row["layers"] == count]

    plain = rows(few)[0]
    # The claim is of all layers with a slightly higher alpha.
    higher = rows(many)[1:] or rows(many)
    all_style = f"style over {many} layers"
    best = min(higher, key=lambda row: row[COARSE])
    fine, coarse = (best[key] / plain[key] for key in (FINE, COARSE))
    gram = plain[all_style] / best[all_style]
    took = {count: gradient_seconds(problem, cells[0].image) for count, problem in judges.items()}
    seconds = took[many] / took[few]
    parts = [fine < 0.98, coarse < 0.98, gram > 1, seconds > 1]
    return Found(
        verdict=HOLDS if all(parts) else PARTLY if any(parts[:3]) else CONTRADICTED,
        number=f"{many} layers against {few}: distance to the painting x{fine:.2f} in fine "
        f"patches, x{coarse:.2f} in coarse ones; seconds x{seconds:.2f}",
        numbers={
            "fine_patch_ratio": fine,
            "coarse_patch_ratio": coarse,
            "all_layer_style_five_over_all": gram,
            "five_layer_style_all_over_five": best[f"style over {few} layers"]
            / plain[f"style over {few} layers"],
            "content_ratio": best["content, unweighted"] / plain["content, unweighted"],
            "seconds_ratio": seconds,
            "evaluation_seconds": {str(count): value for count, value in took.items()},
        },
        said=[
            f"With {many} layers and alpha {best['content weight']:g} patches of 5x5 px are "
            f"{fine:.2f} times as far from the painting's as with {few} and "
            f"{plain['content weight']:g}, patches four times as large {coarse:.2f} times (a "
            "referee that knows no network).",
            f"Measured over all {many} layers the image of {few} layers has {gram:.2f} times the "
            f"style term; measured over the {few} its own is "
            f"{plain[f'style over {few} layers']:.4g} against "
            f"{best[f'style over {few} layers']:.4g}.",
            f"Content distance is {best['content, unweighted'] / plain['content, unweighted']:.2f} "
            f"times that with {few} layers; an evaluation takes {seconds:.2f} times "
            f"as long ({1e3 * took[many]:.3g} against {1e3 * took[few]:.3g} ms, the least of 7).",
        ],
        table=table,
    )


def draw(run: Run, found: Found, axes) -> None:
    """Content against the referee, and against the style over all layers."""
    counts = sorted({row["layers"] for row in found.table})
    measures = {
        COARSE: "distance of coarse patches (0-255)",
        f"style over {counts[-1]} layers": f"style over {counts[-1]} layers, weighted",
    }
    for axis, (measured, named) in zip(axes, measures.items(), strict=True):
        for count in counts:
            rows = [row for row in found.table if row["layers"] == count]
            axis.plot([r["content, unweighted"] for r in rows], [r[measured] for r in rows],
                      marker="o", label=f"{count} layers")  # fmt: skip
        label(axis, x="content distance (mean square)", y=named)
    names(axes[0])


def sheet(run: Run):
    """The painting, five layers and all of them."""
    cells = run.cells["grid"]
    side = cells[0].image.shape[:2]
    labels = [f"{layers(c)} layers, alpha {c.recipe.content_weight:g}" for c in cells]
    images = [fit(run.style, side[0], min_side=1), *(cell.image for cell in cells)]
    return images, ["the painting", *labels], len(images)


FINE, COARSE = "patches to the painting, fine", "patches to the painting, coarse"
EXPERIMENT = Experiment(
    name="e10_all_layers",
    title="E10: all layers",
    claim="Gram matrices of all convolution layers with a slightly higher alpha keep the most "
    "style; slower.",
    method="The style of five layers against that of every convolution (thirteen in the embedded "
    "network, which ends at conv5_1; sixteen in VGG-19), weighed alike within a block, with alpha "
    "as it is and 1.5 times. Each image is scored under both style objectives and by a "
    "referee that knows no network: the sliced Wasserstein distance of 5x5 patches to the "
    "painting, fine as they are and coarse after a reduction by four.",
    seen="Thirteen layers give broad, saturated strokes and whole suns, near to the "
    "painting's; five keep more of the cat's nose and of the shadow under the cup.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 2000, "content_weight": [5.0, 7.5, 10.0],
          "style_layers": ["relu1_1,relu2_1,relu3_1,relu4_1,relu5_1", "all"]},
    tiny={"content_weight": [1.0, 2.0],
          "style_layers": ["relu1_1,relu2_1", "relu1_1,relu1_2,relu2_1,relu2_2"]},
)  # fmt: skip
