"""E3: is there a ridge between two renderings, and does the initial image decide the result?"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, Found, Run
from measures import losses, psnr
from plots import label, names

import jaxstyle

POINTS = 33
CURVE_POINTS, CURVE_STEPS = 7, 60
NOISES = "noise 0", "noise 1"


def measure(run: Run) -> Found:
    """The style term along the line between two renderings, and along a path bent once."""
    renderings = {f"noise {c.recipe.seed}": c for c in run.cells["noise"]}
    renderings["content"] = run.cells["content"][0]
    problem = run.problem(run.cells["content"][0])
    t = np.linspace(0, 1, POINTS)[:, None, None, None]
    table, lines = [], {}
    for (a, one), (b, other) in itertools.combinations(renderings.items(), 2):
        straight = (1 - t) * one.image + t * other.image
        loss, terms = losses(problem, straight)
        entry = {
            "between": f"{a} and {b}",
            "ridge, style": _height(terms.style),
            "ridge, loss": _height(loss),
            "apart, dB": psnr(one.image, other.image),
        }
        lines[entry["between"]] = {"line": np.asarray(terms.style).tolist()}
        table.append(entry)
    # One pair of noises, and one with the content: is the ridge there along every way?
    for pair in (NOISES, ("noise 0", "content")):
        entry = next(row for row in table if row["between"] == " and ".join(pair))
        start, end = (renderings[name].image for name in pair)
        loss, terms = losses(problem, bezier(t, start, middle_of(run, pair, start, end), end))
        entry |= {"ridge bent, style": _height(terms.style), "ridge bent, loss": _height(loss)}
        lines[entry["between"]]["bent"] = np.asarray(terms.style).tolist()
    heights = [row["ridge, style"] for row in table]
    bents = [row["ridge bent, style"] for row in table if "ridge bent, style" in row]
    ends = [c.report["terms"]["style"] for c in renderings.values()]
    ridge, passable = min(heights) > 1.5, max(bents) < 1.5
    return Found(
        verdict=PARTLY if ridge and passable else HOLDS if ridge else CONTRADICTED,
        number=f"style x{min(heights):.1f} to x{max(heights):.1f} on the line, "
        f"x{min(bents):.2f} to x{max(bents):.2f} on a bent path",
        numbers={
            "ridge": heights,
            "ridge_bent": bents,
            "style_of_renderings": ends,
            "style_along": lines,
        },
        said=[
            f"On the straight line between two renderings the style term rises to "
            f"{min(heights):.1f} to {max(heights):.1f} times that of the worse end.",
            f"The renderings themselves differ by only {max(ends) / min(ends):.2f} times in the "
            f"style term, but as images by a PSNR of "
            f"{min(r['apart, dB'] for r in table):.1f} to {max(r['apart, dB'] for r in table):.1f} "
            "dB: the start decides which one is found.",
            f"Along a path bent once (a quadratic Bézier curve, its middle found by L-BFGS) the "
            f"highest style term is {min(bents):.2f} to {max(bents):.2f} times the worse end's: "
            + (
                "the ridge stands on the line and can be walked round."
                if passable
                else "this path crosses it lower, without leaving it."
            ),
        ],
        table=table,
    )


def _height(values: np.ndarray) -> float:
    """The most along a path over the worse of its ends."""
    return float(np.max(values) / max(values[0], values[-1]))


def bezier(t, start, middle, end):
    """Points of a quadratic Bézier curve at t in [0, 1]."""
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


def middle_of(run: Run, pair: tuple[str, str], start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Find the middle control point between two renderings, once."""
    path = run.folder / f"{' and '.join(pair)}.npy"
    if not path.exists():
        steps = CURVE_STEPS if run.scale != "tiny" else 3
        np.save(path, bend(run.problem(run.cells["content"][0]), start, end, steps))
    return np.load(path)


def bend(problem: jaxstyle.Problem, start: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    """Find the curve's middle control point that makes the mean loss along it least.

    As Garipov et al., Loss surfaces, mode connectivity, and fast ensembling, 2018, do for networks.
    """
    t = jnp.linspace(0, 1, CURVE_POINTS + 2)[1:-1, None, None, None]

    @jax.jit
    def found(network, targets, recipe, start, end):
        loss = jaxstyle.make_objective(network, targets, recipe)

        def mean_loss(middle):
            along = jax.lax.map(loss, bezier(t, start, middle, end))
            return jnp.mean(along[0]), None

        optimizer = jaxstyle.lbfgs(history_size=20)
        state = optimizer.init(mean_loss, (start + end) / 2)
        state, _ = jax.lax.scan(
            lambda state, _: (optimizer.step(mean_loss, state)[0], None), state, length=steps
        )
        return state.point.position

    return np.asarray(
        found(
            problem.network, problem.targets, problem.recipe, jnp.asarray(start), jnp.asarray(end)
        )
    )


def draw(run: Run, found: Found, axes) -> None:
    """The style term along the lines and along the bent paths."""
    t = np.linspace(0, 1, POINTS)
    for number, (between, along) in enumerate(found.numbers["style_along"].items()):
        axes[0].plot(t, along["line"], color=f"C{number}", label=between)
        if "bent" in along:
            axes[1].plot(t, along["line"], color=f"C{number}", linestyle="--")
            axes[1].plot(t, along["bent"], color=f"C{number}", label=between)
    for axis, title in zip(axes, ("straight line", "bent path (line dashed)"), strict=True):
        label(axis, x="position between the renderings", y="weighted style term", log="y",
              title=title)  # fmt: skip
        names(axis)


def sheet(run: Run):
    """Two renderings and what lies halfway between them, on the line and on the bent path."""
    start, end = (cell.image for cell in run.cells["noise"][:2])
    bent = bezier(0.5, start, middle_of(run, NOISES, start, end), end)
    images = [start, (start + end) / 2, bent, end]
    labels = ["from noise, seed 0", "halfway on the line", "halfway on the bent path"]
    return [np.clip(image, 0, 1) for image in images], [*labels, "from noise, seed 1"], 4


EXPERIMENT = Experiment(
    name="e03_ridge",
    title="E3: the ridge between two renderings",
    claim="Two renderings in the same style are separated by a ridge of higher style loss; results "
    "depend on the initial image.",
    method="Four renderings, three from noise and one from the content image. The objective is "
    "evaluated at 33 images on the straight line between each two. As a line is only one way of "
    "many, two pairs are also joined by a curve whose middle is optimized.",
    seen="Halfway on the straight line two renderings lie faded over each other and strokes lose "
    "their contrast; halfway on the bent path there is a painting again, with full contrast and "
    "the suns of both ends.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 2000},
    tiny={"seed": [0, 1]},
)
