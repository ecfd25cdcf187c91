"""The named values of settings."""

from typing import Any

from jaxstyle.config.defaults import DEFAULT_LEARNING_RATES

LBFGS_OPTIMIZERS = ("lbfgs", "lbfgs-fixed", "jaxopt-lbfgs", "optax-lbfgs")
OPTIMIZERS = LBFGS_OPTIMIZERS + tuple(DEFAULT_LEARNING_RATES)
SCHEDULES = ("constant", "exponential", "linear", "cosine")
GRAM_NORMALIZATIONS = ("elements", "positions", "pixels")
REDUCTIONS = ("mean", "sum")
PRECONDITIONERS = ("spectrum", "none")
INITS = ("content", "noise", "style", "recolored")
COLOR_MATCHES = ("none", "luminance", "cholesky", "histogram")
PREPROCESSING_CHANGES: dict[str, dict[str, Any]] = {
    # neural-style multiplies by 256 where Caffe's images went to 255.
    "caffe-256": {"scale": 256.0},
    # Torchvision's mean on the scale of 255, without its standard deviation.
    "torchvision-255": {
        "scale": 255.0,
        "mean": (123.675, 116.28, 103.53),
        "std": (1.0, 1.0, 1.0),
    },
    "edge-first": {"padding": "edge-first"},
}
"""Changes to a network's preprocessing, by the value of `Recipe.convention`."""

POSITION_MEAN_LOSSES = ("gram", "covariance", "moments", "wasserstein", "wasserstein-newton-schulz")
"""Style losses whose statistics are means over positions, which can be computed in parts.

These names repeat `losses.base.StyleLoss.is_mean_over_positions`, so that settings can be checked
without importing JAX; a test compares the two.
"""
STYLE_LOSSES = (*POSITION_MEAN_LOSSES, "sliced-wasserstein", "patches", "remd", "neural-neighbor")
CONTENT_LOSSES = ("features", "self-similarity", "laplacian")
VARIATIONS = ("absolute", "squared", "mean-squared", "power", "nine-point")
POOLINGS = ("max", "avg", "max-ceil")
PRECISIONS = ("tf32", "float32", "bfloat16")
CONVENTIONS = ("caffe", "torchvision")
BOUNDS = ("soft", "none")
