"""Named recipes: our own, and the objectives and settings of the programs people compare with.

A preset is only data. It reproduces what a program asks of a picture, quirks included, and its
optimiser where we have it; how a program resizes pictures is its own, so comparisons of numbers
need pictures of the same size. The input scale is part of the preset (`convention`), the weights
are not: `EXPECTED_WEIGHTS` names them. Learning rates are ours, per unit of the picture's [0, 1].
"""

from collections.abc import Mapping

from jaxstyle.errors import JaxstyleError
from jaxstyle.recipe import LayerWeights, Recipe


def _first_of_blocks(*weights: float) -> LayerWeights:
    return tuple((f"relu{block}_1", weight) for block, weight in enumerate(weights, start=1))


_EQUAL = _first_of_blocks(1, 1, 1, 1, 1)
_FIFTHS = _first_of_blocks(0.2, 0.2, 0.2, 0.2, 0.2)
_NEURAL_STYLE = Recipe(
    content_layers="relu4_2",  # type: ignore[arg-type]
    style_layers=_EQUAL,
    content_weight=5.0,
    style_weight=100.0,
    tv_weight=1e-3,
    convention="caffe",
    init="noise",
    noise_std=1e-3,
    steps=999,
    optimizer="lbfgs-fixed",
    history_size=100,
)


def _like_neural_style(**changes: object) -> Recipe:
    settings = {name: getattr(_NEURAL_STYLE, name) for name in Recipe.__dataclass_fields__}
    return Recipe(**(settings | changes))


presets: Mapping[str, Recipe] = {
    "default": Recipe(),
    # jcjohnson/neural-style @ 07c4b829, neural_style.lua: 5 · mean + 100 · Σ mean((G - A)²), G
    # over elements; BGR · 256 - mean; Caffe's ceil-mode max pooling; random start of std 1e-3;
    # 1000 evaluations of L-BFGS. Its TV is in the gradient only, not in the loss that it prints:
    # ours is in both, so our loss is what it descends and our content + style what it prints.
    "neural-style": _like_neural_style(
        variation="squared", convention="caffe-256", pooling="max-ceil"
    ),
    # ProGamerGov/neural-style-pt @ 72514050, neural_style.py: the same with · 255, floor-mode
    # pooling and the sum of absolute differences as TV.
    "neural-style-pt": _NEURAL_STYLE,
    # leongatys/PytorchNeuralStyleTransfer @ be6c8e2b: style 1e3 / c² · mean((G - A)²) with G over
    # positions, which is 1e3 · mean over elements; content 1 · mean; no TV; from the content.
    "gatys-notebook": _like_neural_style(
        content_weight=1.0, style_weight=1e3, tv_weight=0.0, init="content", steps=519
    ),
    # Gatys, Ecker & Bethge, CVPR 2016, equations 1 to 7: ½ Σ (F - P)² and Σ_l ⅕ · E_l,
    # E_l = Σ (G - A)² / (4 c² n²) = ¼ mean((G / n - A / n)²); alpha / beta = 1e-3 (alpha 1);
    # average pooling; white noise; no TV. The paper normalises VGG-19's activations.
    "gatys-2016": _like_neural_style(
        content_weight=0.5,
        content_reduction="sum",
        style_weight=250.0,
        style_layers=_FIFTHS,
        gram_normalization="positions",
        tv_weight=0.0,
        pooling="avg",
        noise_std=50.0,
        steps=500,
    ),
    # gordicaleksa/pytorch-neural-style-transfer @ a244dc61: torchvision's weights fed with RGB ·
    # 255 - mean; content 1e5 · mean, style 3e4 · ⅕ Σ_l sum((G - A)²), G over elements; TV sum.
    # Its L-BFGS searches for strong Wolfe points; ours stands in for it.
    "gordic": _like_neural_style(
        content_weight=1e5,
        style_weight=3e4,
        style_layers=_FIFTHS,
        style_reduction="sum",
        tv_weight=1.0,
        convention="torchvision-255",
        init="content",
        steps=1000,
        optimizer="lbfgs",
    ),
    # crowsonkb/style-transfer-pytorch @ e7e2c713: Wasserstein-2 with weights 256 … 1 over 341,
    # content 0.015 · mean, nine-point TV on the picture; conv1_1 padded by its edge; Adam 0.02 with
    # b2 0.99. Its pyramid, its clamping of every iterate and its average of iterates are
    # not part of the objective.
    "crowson": Recipe(
        content_weight=0.015,
        style_weight=1.0,
        style_layers=_first_of_blocks(*(w / 341 for w in (256, 64, 16, 4, 1))),
        style_loss="wasserstein",
        tv_weight=2.0,
        variation="nine-point",
        convention="torchvision-edge",
        optimizer="adam",
        learning_rate=0.02,
        adam_b2=0.99,
        steps=1000,
    ),
    # keras-io examples/generative/neural_style_transfer.py @ 0896b2e6: content 2.5e-8 · Σ at
    # relu5_2, style 1e-6 / 5 · Σ (S - C)² / (4 · 9 · pixels²), Gram matrices undivided, TV 1e-6 ·
    # Σ (…)^1.25; SGD from 100, · 0.96 every 100 of 4000 steps.
    "keras": _like_neural_style(
        content_layers="relu5_2",
        content_weight=2.5e-8,
        content_reduction="sum",
        style_weight=1e-6 / 36,
        style_layers=_FIFTHS,
        gram_normalization="pixels",
        style_reduction="sum",
        tv_weight=1e-6,
        variation="power",
        init="content",
        optimizer="sgd",
        learning_rate=100 / 255**2,
        schedule="exponential",
        decay=0.96**40,
        steps=4000,
        history_size=20,
    ),
    # anishathalye/neural-style @ d0a11487, stylize.py: content 5 · mean, style 500 · Σ 0.2 ·
    # mean((G - A)²), TV 100 · (mean + mean of squares); TensorFlow's SAME pooling; Adam at 10 of
    # 255; start of std 0.256.
    "anishathalye": _like_neural_style(
        style_weight=500.0,
        style_layers=_FIFTHS,
        tv_weight=100.0,
        variation="mean-squared",
        pooling="max-ceil",
        noise_std=0.256,
        optimizer="adam",
        learning_rate=10 / 255,
        history_size=20,
        steps=1000,
    ),
}
"""Named recipes; `default` is what the command line uses."""

EXPECTED_WEIGHTS: Mapping[str, str] = {
    "neural-style": "vgg19",
    "neural-style-pt": "vgg19",
    "gatys-notebook": "vgg19",
    "gatys-2016": "vgg19",
    "gordic": "vgg19-torchvision",
    "crowson": "vgg19-torchvision",
    "keras": "vgg19",
    "anishathalye": "vgg19",
}
"""The weights that a preset's program uses; with others its numbers are not comparable."""


def preset(name: str) -> Recipe:
    """Look up a named recipe.

    Raises:
      JaxstyleError: no recipe of that name; the message lists them.
    """
    if name not in presets:
        raise JaxstyleError(f"preset {name!r} does not exist; choose from {', '.join(presets)}")
    return presets[name]


def weights_notice(name: str | None, weights_name: str) -> str | None:
    """The line to show when a preset is used with other weights than its program's."""
    expected = EXPECTED_WEIGHTS.get(name or "")
    if expected is None or weights_name == expected:
        return None
    return (
        f"preset {name!r} is made for the weights {expected!r}, not {weights_name!r}: its numbers "
        f"are not those of the original; see `jaxstyle weights fetch {expected}`"
    )
