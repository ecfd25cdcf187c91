"""E9: the content image as the start, against noise."""

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, Found, Run
from measures import correlation
from plots import label, names

from jaxstyle.images import fit, resize

LOWEST, SAVED = "lowest loss", "saved image's loss"


def measure(run: Run) -> Found:
    """How content and style go from either start."""
    cells = [run.cells["content"][-1], *run.cells["noise"]]
    content = resize(run.content, *cells[0].image.shape[:2])
    table = []
    for cell in cells:
        loss = cell.history("loss")
        style = cell.history("style")
        table.append(
            {
                "start": cell.recipe.init,
                "seed": cell.recipe.seed,
                "content term at the start": float(cell.history("content")[0]),
                "style / first style after a tenth": float(style[len(style) // 10] / style[0]),
                "loss after a tenth": float(np.nanmin(loss[: len(loss) // 10 + 1])),
                LOWEST: cell.lowest,
                SAVED: cell.loss,
                "correlation with the photograph": correlation(cell.image, content, blur=1),
            }
        )
    own, noises = table[0], table[1:]
    average, saved = (float(np.mean([row[key] for row in noises])) for key in (LOWEST, SAVED))
    early = float(np.mean([row["loss after a tenth"] for row in noises]))
    tenth = "style / first style after a tenth"
    slower = own[tenth] > max(row[tenth] for row in noises)
    zero = own["content term at the start"] < 1e-3
    good = own[LOWEST] <= 1.1 * average
    return Found(
        verdict=HOLDS if zero and slower and good else PARTLY if zero else CONTRADICTED,
        number=f"lowest loss from content {own[LOWEST] / average:.2f} times that from noise "
        f"(saved and clipped {own[SAVED] / saved:.2f} times)",
        numbers={
            "content_over_noise": own[LOWEST] / average,
            "content_over_noise_saved": own[SAVED] / saved,
            "content_over_noise_after_a_tenth": own["loss after a tenth"] / early,
            "content_term_at_start": own["content term at the start"],
            "correlation": [row["correlation with the photograph"] for row in table],
        },
        said=[
            f"From the content image the content term starts at "
            f"{own['content term at the start']:.3g}; after a tenth of the steps style is at "
            f"{own[tenth]:.3g} of its first value, from noise at "
            f"{min(r[tenth] for r in noises):.3g} to {max(r[tenth] for r in noises):.3g}: "
            + ("it falls slower." if slower else "it does not fall slower."),
            f"Lowest loss after a tenth of the {run.cells['content'][-1].recipe.steps} steps: "
            f"{own['loss after a tenth']:.4g} from content, {early:.4g} from noise on average; "
            f"of all steps {own[LOWEST]:.4g} and {average:.4g}; of the saved images, which are "
            f"clipped to [0, 1], {own[SAVED]:.4g} and {saved:.4g}.",
            f"Correlation with the photograph at the end: "
            f"{own['correlation with the photograph']:.2f} from content, "
            + ", ".join(f"{row['correlation with the photograph']:.2f}" for row in noises)
            + " from noise.",
        ],
        table=table,
    )


def draw(run: Run, found: Found, axes) -> None:
    """Both terms over the steps, by start."""
    for axis, term in zip(axes, ("style", "content"), strict=True):
        for number, cell in enumerate([run.cells["content"][-1], *run.cells["noise"]]):
            named = cell.recipe.init + (f" {cell.recipe.seed}" if number else "")
            axis.plot(cell.history("step") + 1, np.maximum(cell.history(term), 1e-2), label=named,
                      linewidth=1.1)  # fmt: skip
        label(axis, x="step + 1", y=f"weighted {term} term", log="xy")
    names(axes[0])


def sheet(run: Run):
    """The results side by side, beside what they were made of."""
    cells = [*run.cells["content"], *run.cells["noise"]]
    side = cells[0].image.shape[:2]
    images = [
        resize(run.content, *side),
        fit(run.style, side[0], min_side=1),
        *(c.image for c in cells),
    ]
    labels = ["photograph", "painting"]
    labels += [f"from {c.recipe.init}, {c.recipe.steps} steps" for c in cells]
    return images, labels, 5


EXPERIMENT = Experiment(
    name="e09_content_start",
    title="E9: the content image as the start",
    claim="With the content image as the initial image content loss starts at 0 and style "
    "falls slowly; good after 10000 epochs at a learning rate of 0.01.",
    method="Adam at 0.01 from the content image and from noise of std 10, each for as many steps "
    "as the article had. The content start is also shown as it was "
    "after the 1034 steps of one of the article's frames.",
    pairs=("cat",),
    seen="From the photograph the cat is painted over in its place: after 1034 steps the eyes are "
    "still those of the photograph, after 10000 strokes run over them. From noise the same loss is "
    "another painting: a face, but with eyes and strokes elsewhere.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 10000},
    tiny={"steps": [3, 5]},
)
