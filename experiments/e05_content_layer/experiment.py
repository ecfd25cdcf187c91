"""E5: how much of the content picture does each layer keep?"""

from harness import CONTRADICTED, HOLDS, PARTLY, Cell, Experiment, Found, Run
from measures import correlation, fine_correlation
from plots import label, names

from jaxstyle.images import resize


def layer(cell: Cell) -> str:
    """The one content layer."""
    return next(iter(cell.recipe["content_layers"]))


def measure(run: Run) -> Found:
    """Correlation of each reconstruction with the content picture, coarse and fine."""
    table = []
    for optimiser, cells in run.cells.items():
        for cell in cells:
            content = resize(run.content, *cell.image.shape[:2])
            table.append(
                {
                    "layer": layer(cell),
                    "optimiser": optimiser,
                    "coarse correlation": correlation(cell.image, content, blur=2),
                    "fine correlation": fine_correlation(cell.image, content),
                    "loss / first loss": cell.loss / cell.report["initial"]["loss"],
                }
            )
    kept = {o: [r["fine correlation"] for r in table if r["optimiser"] == o] for o in run.cells}
    sharp = kept["lbfgs"]
    layers = [row["layer"] for row in table if row["optimiser"] == "lbfgs"]
    coarse = [row["coarse correlation"] for row in table if row["optimiser"] == "lbfgs"]
    falls = sum(a > b for a, b in zip(sharp, sharp[1:], strict=False))
    deeper = sharp[-1] < sharp[-2]
    return Found(
        verdict=HOLDS if falls == len(sharp) - 1 else PARTLY if deeper else CONTRADICTED,
        number=f"fine detail kept: {layers[-2]} {sharp[-2]:.2f}, {layers[-1]} {sharp[-1]:.2f}",
        numbers={
            "fine_correlation": dict(zip(layers, sharp, strict=True)),
            "coarse_correlation": dict(zip(layers, coarse, strict=True)),
            "fine_correlation_adam": dict(zip(layers, kept["adam"], strict=True)),
        },
        said=[
            "Correlation of fine detail with the photograph, L-BFGS: "
            + ", ".join(f"{l} {v:.2f}" for l, v in zip(layers, sharp, strict=True))
            + ".",
            "The same with Adam at 0.001: "
            + ", ".join(f"{l} {v:.2f}" for l, v in zip(layers, kept["adam"], strict=True))
            + ".",
            "Of what is coarse (blurred by 2 px), L-BFGS: "
            + ", ".join(f"{l} {v:.2f}" for l, v in zip(layers, coarse, strict=True))
            + ".",
        ],
        table=table,
    )


def draw(run: Run, found: Found, axes) -> None:
    """Correlation by layer."""
    for number, optimiser in enumerate(run.cells):
        rows = [row for row in found.table if row["optimiser"] == optimiser]
        layers = [row["layer"] for row in rows]
        for kind, line in (("fine correlation", "-"), ("coarse correlation", "--")):
            axes[0].plot(layers, [r[kind] for r in rows], line, marker="o", color=f"C{number}",
                         label=f"{optimiser}, {kind.split()[0]}")  # fmt: skip
    label(axes[0], x="content layer", y="correlation with the photograph")
    names(axes[0])
    for cell in run.cells["adam"]:
        history = cell.history("loss")
        axes[1].plot(cell.history("step"), history / history[0], label=layer(cell))
    label(axes[1], x="step", y="loss / first loss", log="y", title="Adam, learning rate 0.001")
    names(axes[1])


def sheet(run: Run):
    """A row an optimiser."""
    cells = [cell for grid in run.cells.values() for cell in grid]
    labels = [f"{layer(c)}, {c.recipe['optimizer']}" for c in cells]
    return [cell.image for cell in cells], labels, len(run.cells["adam"])


EXPERIMENT = Experiment(
    name="e05_content_layer",
    title="E5: content layer",
    claim="conv4_2 keeps content too literal, conv5_2 less so; checked by content-only "
    "reconstruction with Adam at a learning rate of 0.001.",
    method="The content term alone, from noise of std 30, on one layer of each block; with the "
    "article's Adam and with L-BFGS. The embedded network ends at conv5_1, which stands in for "
    "conv5_2. Coarse correlation compares brightness blurred by 2 px, fine correlation what that "
    "leaves out (below 1.5 px).",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={
        "steps": 10000,
        "content_layers": ["relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2"],
    },
    tiny={"content_layers": ["relu1_2", "relu2_2"], "style_layers": ""},
    exact={
        "content_layers": ["relu1_2", "relu2_2", "relu3_1", "relu3_3"],
        "steps": 150,
    },
)
