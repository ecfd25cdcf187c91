"""E1: does noise in the initial image stay in the result, and does the loss see it?"""

import numpy as np
from harness import CONTRADICTED, HOLDS, PARTLY, Experiment, Found, Run
from measures import losses, noise_level
from plots import label, names
from scipy.ndimage import gaussian_filter

SETTINGS = {"bare": "plain", "guarded": "TV, preconditioner"}
"""What each grid file has against noise."""
STRENGTH = 20.0
"""Standard deviation of the noise that is added to a finished image, 0-255."""


def measure(run: Run) -> Found:
    """Residual noise by initial noise; the loss of white against smooth disturbances."""
    table = [
        {
            "setting": SETTINGS[grid],
            "initial noise std": cell.recipe.noise_std,
            "residual noise": noise_level(cell.image),
            "loss": cell.loss,
        }
        for grid, cells in run.cells.items()
        for cell in cells
    ]
    bare, guarded = (
        (last["residual noise"] / first["residual noise"], last["loss"] / first["loss"])
        for setting in SETTINGS.values()
        for rows in [[row for row in table if row["setting"] == setting]]
        for first, last in [(rows[0], rows[-1])]
    )
    strongest = table[-1]["initial noise std"]

    # The same amount of disturbance, white or smooth, on a finished image.
    clean = min(run.cells["bare"], key=lambda cell: cell.loss)
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
        number=f"residual noise x{bare[0]:.1f} from std 0 to {strongest:g}; white noise raises the "
        f"loss x{sees:.2f} as much as smooth",
        numbers={
            "residual_noise_ratio": {"bare": bare[0], "guarded": guarded[0]},
            "loss_ratio": {"bare": bare[1], "guarded": guarded[1]},
            "rise_white": rises[0],
            "rise_smooth": rises[1],
            "white_over_smooth": sees,
        },
        said=[
            f"Without total variation and preconditioner a start with noise of std "
            f"{strongest:g} ends {bare[0]:.2f} times as noisy as a flat start, "
            f"at {bare[1]:.2f} times its loss.",
            f"With both it ends {guarded[0]:.2f} times as noisy, at {guarded[1]:.2f} times the "
            "loss.",
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
    found = [(SETTINGS[grid], cell) for grid, cells in run.cells.items() for cell in cells]
    labels = [f"initial noise {cell.recipe.noise_std:g}; {setting}" for setting, cell in found]
    return [cell.image for _, cell in found], labels, len(run.cells["bare"])


EXPERIMENT = Experiment(
    name="e01_noise_blindness",
    title="E1: noise blindness",
    claim="VGG is nearly blind to input noise: with a large initial noise std, noise never leaves "
    "the result.",
    method="A grid over the std of the initial noise, with nothing against noise, and with total "
    "variation and the spectral preconditioner of our L-BFGS (neither of which the article "
    "had). The noise left in a result is estimated by Immerkær's mask, the loss is the "
    "objective's. A second measure needs no run: white and smooth noise of the same std are added "
    "to a finished image, and the rises of its loss are compared.",
    seen="From left to right the start is noisier. With nothing against noise (first and third "
    "row) the grain of the start lies over the whole result at 120 and is seen at 40. "
    "With total variation and the preconditioner less of it is left, and the suns show "
    "through, but it is still there.",
    measure=measure,
    draw=draw,
    sheet=sheet,
    full={"steps": 1000},
    tiny={"noise_std": [0.0, 100.0]},
)
