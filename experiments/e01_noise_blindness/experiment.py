"""E1: does noise in the initial image stay in the result, and does the loss see it?"""

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Cell, Experiment, Found, Run
from measures import losses, noise_level
from plots import label, names
from scipy.ndimage import gaussian_filter

STRENGTH = 20.0
"""Standard deviation of the noise that is added to a finished image, 0-255."""


def kind(cell: Cell) -> tuple[str, float]:
    """The setting apart from the noise."""
    return cell.recipe["preconditioner"], cell.recipe["tv_weight"]


def name(cell: Cell) -> str:
    """The setting in words."""
    preconditioner, tv = kind(cell)
    return f"{preconditioner}, tv {tv:g}"


def measure(run: Run) -> Found:
    """Residual noise by initial noise; the loss of white against smooth disturbances."""
    cells = run.cells["grid"]
    table = [
        {
            "setting": name(cell),
            "initial noise std": cell.recipe["noise_std"],
            "residual noise": noise_level(cell.image),
            "loss": cell.loss,
        }
        for cell in cells
    ]
    ends = {}
    for cell in cells:
        ends.setdefault(name(cell), []).append((noise_level(cell.image), cell.loss))
    kept = {which: (rows[-1][0] / rows[0][0], rows[-1][1] / rows[0][1])
            for which, rows in ends.items()}  # fmt: skip
    bare = kept[name(cells[0])]
    both = [name(cell) for cell in cells if kind(cell)[0] != "none" and kind(cell)[1] > 0]
    guarded = kept[both[-1]] if both else None

    # The same amount of disturbance, white or smooth, on a finished image.
    clean = min((cell for cell in cells if kind(cell)[1] == 0), key=lambda cell: cell.loss)
    rng = np.random.default_rng(0)
    white = rng.normal(size=clean.image.shape)
    smooth = gaussian_filter(rng.normal(size=clean.image.shape), (2, 2, 0))
    disturbed = [clean.image] + [
        clean.image + d / d.std() * STRENGTH / 255 for d in (white, smooth)
    ]
    scored, _ = losses(run.problem(clean), np.stack(disturbed))
    rises = [float(scored[k] - scored[0]) for k in (1, 2)]
    sees = rises[0] / rises[1]

    stays = bare[0] > 1.5
    blind = sees < 1
    return Found(
        verdict=HOLDS if stays and blind else PARTLY if stays or blind else CONTRADICTED,
        number=f"residual noise x{bare[0]:.2f} from std 0 to {cells[-1].recipe['noise_std']:g}",
        numbers={
            "residual_noise_ratio": {which: k[0] for which, k in kept.items()},
            "loss_ratio": {which: k[1] for which, k in kept.items()},
            "rise_white": rises[0],
            "rise_smooth": rises[1],
            "white_over_smooth": sees,
        },
        said=[
            f"Without total variation and preconditioner a start with noise of std "
            f"{cells[-1].recipe['noise_std']:g} ends {bare[0]:.2f} times as noisy as a flat start, "
            f"at {bare[1]:.2f} times its loss.",
            f"With both ({both[-1]}) it ends {guarded[0]:.2f} times as noisy, at "
            f"{guarded[1]:.2f} times the loss."
            if guarded
            else "It was not run with both of them.",
            f"White noise of std {STRENGTH:g} added to a finished image raises its loss "
            f"{sees:.2f} times as much as smooth noise of the same std does"
            + (": the objective sees it less." if blind else ": the objective does see it."),
        ],
        table=table,
    )


def draw(run: Run, found: Found, axes) -> None:
    """Residual noise against initial noise, and the loss against residual noise."""
    for which in dict.fromkeys(row["setting"] for row in found.table):
        rows = [row for row in found.table if row["setting"] == which]
        noise = [row["residual noise"] for row in rows]
        axes[0].plot([row["initial noise std"] for row in rows], noise, marker="o", label=which)
        axes[1].plot(noise, [row["loss"] for row in rows], marker="o", label=which)
    label(axes[0], x="initial noise, std (0-255)", y="noise in the result, std (0-255)")
    label(axes[1], x="noise in the result, std (0-255)", y="loss", log="y")
    names(axes[0])


def sheet(run: Run):
    """A row a setting."""
    cells = run.cells["grid"]
    labels = [f"{name(cell)}, std {cell.recipe['noise_std']:g}" for cell in cells]
    columns = len({cell.recipe["noise_std"] for cell in cells})
    return [cell.image for cell in cells], labels, columns


EXPERIMENT = Experiment(
    name="e01_noise_blindness",
    title="E1: noise blindness",
    claim="VGG is nearly blind to input noise: with a large initial noise std, noise never leaves "
    "the result.",
    method="A grid over the std of the initial noise, each with and without total variation and "
    "with and without the spectral preconditioner of our L-BFGS (neither of which the article "
    "had). The noise left in a result is estimated by Immerkær's mask, the loss is the "
    "objective's. A second measure needs no run: white and smooth noise of the same std are added "
    "to a finished image, and the rises of its loss are compared.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 1000, "tv_weight": [0.0, 1e-3]},
    tiny={"noise_std": [0.0, 100.0], "preconditioner": ["none"]},
    exact={
        "content_layers": "relu3_2", "style_layers": "relu1_1,relu2_1,relu3_1", "steps": 120,
        "tv_weight": [0.0], "noise_std": [0.0, 40.0, 120.0],
        "preconditioner": ["none"], "content_weight": 1.0, "style_weight": 1e4,
    },
)  # fmt: skip
