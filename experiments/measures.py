"""Numbers of images that several experiments compare."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import convolve, gaussian_filter

import jaxstyle
from jaxstyle.config.numbers import static_part

# The difference of two Laplacians: zero on everything that is locally a parabola.
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], float)


def noise_level(image: np.ndarray) -> float:
    """Estimate the standard deviation of an image's noise, on the 0-255 scale.

    Immerkær, Fast noise variance estimation, 1996: the mean response to a mask that structure
    hardly answers to; the mean over the channels of an RGB `[h, w, 3]` in [0, 1].
    """
    found = [
        np.abs(convolve(image[..., c].astype(float), _NOISE, mode="reflect"))[1:-1, 1:-1].mean()
        for c in range(3)
    ]
    return 255 * float(np.mean(found)) * np.sqrt(np.pi / 2) / 6


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two images in [0, 1], dB."""
    error = float(np.mean((image.astype(float) - other) ** 2))
    return 10 * np.log10(1 / max(error, 1e-12))


def correlation(image: np.ndarray, other: np.ndarray, *, blur: float = 0.0) -> float:
    """Correlation of two images' brightness, each without its mean, -1 to 1."""
    pair = [gaussian_filter(p.astype(float).mean(-1), blur) for p in (image, other)]
    return float(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])


def fine_correlation(image: np.ndarray, other: np.ndarray) -> float:
    """Correlation of what lies above about a fifth of a cycle a pixel: edges and texture."""
    pair = [p.astype(float).mean(-1) for p in (image, other)]
    pair = [p - gaussian_filter(p, 1.5) for p in pair]
    return float(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1])


def first_step_within(values: np.ndarray, share: float) -> int:
    """First step at which a falling quantity has covered `share` of its way, on a log scale.

    From its highest value to the lowest after it: a term may dip and rise before it falls.
    """
    logs = np.log(np.maximum(values, 1e-30))
    top = int(np.nanargmax(logs))
    goal = logs[top] - share * (logs[top] - np.nanmin(logs[top:]))
    return top + int(np.argmax(logs[top:] <= goal))


@jax.jit
def _terms(network, targets, recipe, numbers, images):
    objective = jaxstyle.make_objective(network, targets, recipe, numbers=numbers)
    return jax.lax.map(objective, images)


@jax.jit
def _grads(network, targets, recipe, numbers, images):
    objective = jaxstyle.make_objective(network, targets, recipe, numbers=numbers)
    return jax.lax.map(jax.grad(lambda x: objective(x)[0]), images)


def _arguments(problem: jaxstyle.Problem):
    """Problems that differ in numbers share a program."""
    return problem.network, problem.targets, static_part(problem.recipe), problem.numbers


def losses(problem: jaxstyle.Problem, images: np.ndarray) -> tuple[np.ndarray, jaxstyle.Terms]:
    """Score images `[k, h, w, 3]` under a problem's objective: losses `[k]` and terms."""
    images = jnp.asarray(images, jnp.float32)
    return jax.device_get(_terms(*_arguments(problem), images))


def gradients(problem: jaxstyle.Problem, images: np.ndarray) -> np.ndarray:
    """The loss's gradient with respect to each of the images `[k, h, w, 3]`."""
    images = jnp.asarray(images, jnp.float32)
    return jax.device_get(_grads(*_arguments(problem), images))


def gradient_seconds(problem: jaxstyle.Problem, image: np.ndarray, *, repeats: int = 7) -> float:
    """Seconds of one evaluation of loss and gradient: the least of several, compiled before.

    The least, as other work on the machine can only add to it.
    """
    seconds = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        gradients(problem, image[None])
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle between two arrays."""
    a, b = a.ravel().astype(float), b.ravel().astype(float)
    return float(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300))


def patch_distance(
    image: np.ndarray, style: np.ndarray, *, reduced: int = 1, side: int = 5, seed: int = 0
) -> float:
    """How far the small patches of two images are apart as clouds of points, on the 0-255 scale.

    Sliced Wasserstein distance (Rabin et al., 2011) over 64 random directions of `side` x `side`
    RGB patches. It knows no network, so it can be a referee between objectives that do. Images
    `reduced` by a whole number have patches that are as many times as large.
    """
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(64, side * side * 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    quantiles = np.linspace(0, 1, 201)

    def projected(image: np.ndarray) -> np.ndarray:
        height, width = (n // reduced * reduced for n in image.shape[:2])
        blocks = image[:height, :width].reshape(
            height // reduced, reduced, width // reduced, reduced, 3
        )
        image = blocks.mean((1, 3))
        windows = np.lib.stride_tricks.sliding_window_view(image.astype(float), (side, side, 3))
        patches = windows.reshape(-1, side * side * 3)
        return np.quantile(patches @ directions.T, quantiles, axis=0)

    difference = projected(image) - projected(style)
    # A constant offset of d has the length d * sqrt(n) in n numbers, and about d in a direction.
    return 255 * float(np.sqrt(np.mean(difference**2)))
