"""E5: how much of the content image does each layer keep?"""

from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, FinishedCell, Found, Run
from measures import correlation, fine_correlation
from plots import label, names

from jaxstyle.images import resize

LITERAL = 0.1
"""Correlation of fine detail above which a layer is called literal; of 192 x 128 independent
pixels that of chance has a std of 0.006."""


def layer(cell: FinishedCell) -> str:
    """The one content layer."""
    return cell.recipe.content_names[0]


def measure(run: Run) -> Found:
    """Correlation of each reconstruction with the content image, coarse and fine."""
    table = []
    for optimizer, cells in run.cells.items():
        for cell in cells:
            content = resize(run.content, *cell.image.shape[:2])
            table.append(
                {
                    "layer": layer(cell),
                    "optimiser": optimizer,
                    "coarse correlation": correlation(cell.image, content, blur=2),
                    "fine correlation": fine_correlation(cell.image, content),
                    "loss / first loss": cell.loss / cell.report["initial"]["loss"],
                }
            )
    kept = {o: [r["fine correlation"] for r in table if r["optimiser"] == o] for o in run.cells}
    sharp = kept["lbfgs"]
    layers = [row["layer"] for row in table if row["optimiser"] == "lbfgs"]
    coarse = [row["coarse correlation"] for row in table if row["optimiser"] == "lbfgs"]
    literal = sharp[-2] > LITERAL
    looser = coarse[-1] < coarse[-2] and (sharp[-1] < sharp[-2] or not literal)
    settled = {
        layer(cell): float(history[-1] / history[9 * (len(history) - 1) // 10])
        for cell in run.cells["adam"]
        for history in [cell.history("loss")]
    }
    return Found(
        verdict=HOLDS if literal and looser else PARTLY if literal or looser else CONTRADICTED,
        number=f"kept from {layers[-2]} to {layers[-1]}: fine detail {sharp[-2]:.2f} to "
        f"{sharp[-1]:.2f}, coarse {coarse[-2]:.2f} to {coarse[-1]:.2f}",
        numbers={
            "adam_last_tenth": settled,
            "fine_correlation": dict(zip(layers, sharp, strict=True)),
            "coarse_correlation": dict(zip(layers, coarse, strict=True)),
            "fine_correlation_adam": dict(zip(layers, kept["adam"], strict=True)),
        },
        said=[
            "Correlation of fine detail with the photograph, L-BFGS: "
            + ", ".join(f"{l} {v:.2f}" for l, v in zip(layers, sharp, strict=True))
            + ".",
            f"The same with Adam at 0.001 after {run.cells['adam'][0].report['steps']} steps: "
            + ", ".join(f"{l} {v:.2f}" for l, v in zip(layers, kept["adam"], strict=True))
            + ".",
            "Of what is coarse (blurred by 2 px), L-BFGS: "
            + ", ".join(f"{l} {v:.2f}" for l, v in zip(layers, coarse, strict=True))
            + "; Adam: "
            + ", ".join(
                f"{r['layer']} {r['coarse correlation']:.2f}"
                for r in table
                if r["optimiser"] == "adam"
            )
            + ".",
            f"{layers[-2]} keeps "
            + ("fine detail: literal" if literal else f"no fine detail (not above {LITERAL:g})")
            + f"; of what is {'fine and coarse' if literal else 'coarse'} {layers[-1]} keeps "
            + ("less." if looser else "no less."),
            "Adam's loss over its last tenth of steps, last over first: "
            + ", ".join(f"{l} {v:.2f}" for l, v in settled.items())
            + " (1 is settled).",
        ],
        table=table,
    )


def draw(run: Run, found: Found, axes) -> None:
    """Correlation by layer."""
    for number, optimizer in enumerate(run.cells):
        rows = [row for row in found.table if row["optimiser"] == optimizer]
        layers = [row["layer"] for row in rows]
        for kind, line in (("fine correlation", "-"), ("coarse correlation", "--")):
            axes[0].plot(layers, [r[kind] for r in rows], line, marker="o", color=f"C{number}",
                         label=f"{optimizer}, {kind.split()[0]}")  # fmt: skip
    label(axes[0], x="content layer", y="correlation with the photograph")
    names(axes[0], loc="lower left")
    for cell in run.cells["adam"]:
        history = cell.history("loss")
        axes[1].plot(cell.history("step"), history / history[0], label=layer(cell))
    label(axes[1], x="step", y="loss / first loss", log="y", title="Adam, learning rate 0.001")
    names(axes[1])


def sheet(run: Run):
    """A row an optimizer."""
    cells = [cell for grid in run.cells.values() for cell in grid]
    labels = [f"{layer(c)}, {c.recipe.optimizer}" for c in cells]
    return [cell.image for cell in cells], labels, len(run.cells["adam"])


EXPERIMENT = Experiment(
    name="e05_content_layer",
    title="E5: content layer",
    claim="conv4_2 keeps content too literal, conv5_2 less so; checked by content-only "
    "reconstruction with Adam at a learning rate of 0.001.",
    method="The content term alone, from noise of std 30, on one layer of each block; with the "
    "article's Adam and with L-BFGS. The embedded network ends at conv5_1, which stands in for "
    "conv5_2. Coarse correlation compares brightness blurred by 2 px, fine correlation what that "
    "leaves out (below 1.5 px). The claim has two parts: that conv4_2 keeps fine detail (a "
    "correlation above 0.1), and that the deeper layer keeps less.",
    seen="Up to relu3_2 the photographs come back whole, under fine grain. From relu4_2 eyes, nose "
    "and ears, cup and spoon are in their places, but outlines are doubled, and fur and wood are "
    "gone; from relu5_1 there are eyes and a nose, or the ring of the cup, in colored noise. The "
    "two optimizers agree.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={
        "steps": 10000,
        "content_layers": ["relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2"],
    },
    tiny={"content_layers": ["relu1_2", "relu2_2"]},
)
