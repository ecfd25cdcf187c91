"""E2: does the style term fall before the content term?"""

from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, FinishedCell, Found, Run
from measures import first_step_within
from plots import label, names

from jaxstyle.images import resize

SHARE = 0.9


def measure(run: Run) -> Found:
    """Steps until each term has covered nine tenths of its way down."""
    table = []
    early = []
    for grid, cells in run.cells.items():
        # Of the long runs the longest; the others are its earlier images.
        for cell in cells[-1:] if grid == "long" else cells:
            style, content = (cell.history(term) for term in ("style", "content"))
            balance = content / (content + style)
            if grid == "long":
                early = [f"after {c.recipe.steps} {balance[c.recipe.steps]:.1%}" for c in cells]
            table.append(
                {
                    "optimizer": f"{cell.recipe.optimizer}{' long' if grid == 'long' else ''}",
                    "steps": cell.recipe.steps,
                    "style at 90 %": first_step_within(style, SHARE),
                    "content at 90 %": first_step_within(content, SHARE),
                    "share of content, start": float(balance[0]),
                    "share of content, end": float(balance[-1]),
                    "lowest loss": cell.lowest,
                    "saved image's loss": cell.loss,
                }
            )
    earlier = [row["style at 90 %"] < row["content at 90 %"] for row in table]
    share = "share of content, {}".format
    grows = [row[share("end")] > row[share("start")] for row in table]
    long = table[0] if table[0]["optimizer"].endswith("long") else table[-1]
    return Found(
        verdict=HOLDS if all(earlier) else PARTLY if any(earlier) else CONTRADICTED,
        number=f"style first with {sum(earlier)} of {len(earlier)} optimizers",
        numbers={"style_first": sum(earlier), "of": len(earlier), "long_run": long},
        said=[
            f"{row['optimizer']}: style has covered 90 % of its way (of its logarithm) after "
            f"{row['style at 90 %']} of {row['steps']} steps, content after "
            f"{row['content at 90 %']}; content makes up "
            f"{row['share of content, start']:.2%} of both at the start, "
            f"{row['share of content, end']:.0%} at the end."
            for row in table
        ]
        + [
            f"The balance moves towards content in {sum(grows)} of {len(grows)} runs; of both "
            f"terms content makes up, by the steps of the long run, {', '.join(early)}."
        ],
        table=table,
    )


def short(run: Run) -> list[FinishedCell]:
    """Return the runs of 300 steps."""
    return [*run.cells["optimisers"], *run.cells["momentum"]]


def draw(run: Run, found: Found, axes) -> None:
    """Both terms over the steps."""
    shown = {"optimizers": short(run), "long": run.cells["long"][-1:]}
    for axis, (grid, cells) in zip(axes, shown.items(), strict=True):
        for number, cell in enumerate(cells):
            steps, color = cell.history("step") + 1, f"C{number}"
            axis.plot(steps, cell.history("style"), color=color, label=cell.recipe.optimizer)
            axis.plot(steps, cell.history("content"), color=color, linestyle="--")
        label(axis, x="step + 1", y="weighted term", log="xy",
              title=f"{grid}: style solid, content dashed")  # fmt: skip
        names(axis)


def sheet(run: Run):
    """What the long run looked like on its way, and what each optimizer ends at."""
    cells = [*run.cells["long"], *short(run)]
    rates = [cell.recipe.learning_rate for cell in cells]
    labels = ["the photograph"] + [
        f"{cell.recipe.optimizer}{f' {rate:g}' if rate else ''}, {cell.recipe.steps} steps"
        for cell, rate in zip(cells, rates, strict=True)
    ]
    photograph = resize(run.content, *cells[0].image.shape[:2])
    return [photograph, *(cell.image for cell in cells)], labels, len(short(run))


EXPERIMENT = Experiment(
    name="e02_style_first",
    title="E2: style first, then content",
    claim="Style falls first, then content: early images are all brush strokes, and the intended "
    "balance comes late.",
    method="One start (noise of std 10) under Adam, RMSProp, momentum and L-BFGS, and one "
    "long run of Adam at a low rate, of as many steps as the article's, also shown as it was at "
    "two of the article's frames. For each term the step at which it has covered 90 % of its way, "
    "on a logarithmic scale, from its highest value to the lowest after it.",
    pairs=("cat",),
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 24000},
    seen="Adam at a low rate has the spirals of the painting after 210 steps, its colors after "
    "1000, and the cat's eyes and nose only much later. L-BFGS is as far after 300 steps.",
    tiny={"optimizer": ["adam", "lbfgs"], "steps": [2, 5]},
)
