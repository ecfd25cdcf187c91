"""Named recipes: the default, and the objectives and settings of published programs.

A preset is only data. It reproduces the objective of a program, quirks included, its initial image
and its optimizer. Notation: F, P and G, A as in `objective`, with G = FᵀF / (c·n)
for n = h·w positions and c channels; ms = mean over (a, b) of (G − A)²; mse = mean of (F − P)²;
x the network's input, dx and dy its forward differences.

Not part of a preset: how a program resizes its images (losses compare only for images of the same
size) and what surrounds its optimization, such as pyramids. Weights are chosen by
the user: `EXPECTED_WEIGHTS` may name the program's own. Learning rates are per unit of the
image's [0, 1].
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxstyle.config.layers import LayerWeights, first_of_blocks
from jaxstyle.config.recipe import Recipe
from jaxstyle.config.validation import choice

_RELU4_2: LayerWeights = (("relu4_2", 1.0),)
_EQUAL = first_of_blocks(1, 1, 1, 1, 1)
_FIFTHS = first_of_blocks(0.2, 0.2, 0.2, 0.2, 0.2)
NEURAL_STYLE_PT = Recipe(
    style_loss="gram",
    scales=1,
    variation="absolute",
    bounds="none",
    content_layers=_RELU4_2,
    style_layers=_EQUAL,
    content_weight=5.0,
    style_weight=100.0,
    tv_weight=1e-3,
    init="noise",
    noise_std=1e-3,
    steps=999,
    optimizer="lbfgs-fixed",
    history_size=100,
)
"""ProGamerGov/neural-style-pt @ 72514050, neural_style.py.

5 · mse(relu4_2) + 100 · Σ_l ms_l + 1e-3 · (Σ|dx| + Σ|dy|), style at relu1_1 … relu5_1; input BGR ·
255 − mean, max pooling that drops an odd row (lines 343, 477-487). Noise of std 1e-3 around the
mean; 1000 evaluations of L-BFGS with fixed steps, 100 pairs (267-279).
"""
NEURAL_STYLE = dataclasses.replace(
    NEURAL_STYLE_PT, variation="squared", convention="caffe-256", pooling="max-ceil"
)
"""jcjohnson/neural-style @ 07c4b829, neural_style.lua.

5 · mse(relu4_2) + 100 · Σ_l ms_l + 1e-3 · ½ Σ (dx² + dy²), the last without the last row and
column; input BGR · 256 − mean (lines 417-438); Caffe's max pooling, which rounds sizes up. The loss
that it prints and returns leaves the total variation out, its gradient does not (567-596): ours is
the sum of the terms, so it is what the program descends; content + style is what it prints.
"""
GATYS_NOTEBOOK = dataclasses.replace(
    NEURAL_STYLE_PT,
    content_weight=1.0,
    style_weight=1e3,
    tv_weight=0.0,
    init="content",
    steps=519,
)
"""leongatys/PytorchNeuralStyleTransfer @ be6c8e2b, NeuralStyleTransfer.ipynb.

mse(relu4_2) + Σ_l 1e3/c² · mean((FᵀF/n − A)²) = mse + 1e3 · Σ_l ms_l; no total variation. From the
content image; 520 evaluations of L-BFGS with fixed steps.
"""
GATYS_2016 = dataclasses.replace(
    NEURAL_STYLE_PT,
    content_weight=0.5,
    content_reduction="sum",
    style_weight=250.0,
    style_layers=_FIFTHS,
    gram_normalization="positions",
    tv_weight=0.0,
    pooling="avg",
    noise_std=50.0,
    steps=500,
    optimizer="lbfgs",
    history_size=20,
)
"""Gatys, Ecker & Bethge, Image Style Transfer Using Convolutional Neural Networks, CVPR 2016.

Equations 1, 4, 5 and 7 with alpha = 1, beta = 1e3 (the paper's alpha/beta of 1e-3) and w_l = 1/5:
½ Σ (F − P)² + 1e3 · Σ_l ⅕ · E_l, E_l = Σ (FᵀF − A)² / (4 c² n²); average pooling, no total
variation, white noise. Each image is divided by its own n, as styles have their own size.
The paper scales VGG-19 to a mean activation of 1, and does not say how noise and L-BFGS were set.
"""
GORDIC = dataclasses.replace(
    NEURAL_STYLE_PT,
    content_weight=1e5,
    style_weight=3e4,
    style_layers=_FIFTHS,
    style_reduction="sum",
    tv_weight=1.0,
    convention="torchvision-255",
    init="content",
    steps=1000,
    optimizer="lbfgs",
)
"""gordicaleksa/pytorch-neural-style-transfer @ a244dc61, neural_style_transfer.py.

1e5 · mse(relu4_2) + 3e4 · ⅕ Σ_l Σ (G − A)² + Σ|dx| + Σ|dy|. Feeds torchvision's weights, trained on
[0, 1], with RGB · 255 − (123.675, 116.28, 103.53) (utils.py:12). Its content layer is called
conv4_2, but a ReLU in place follows. From the content image; its L-BFGS searches for strong Wolfe
points, for which ours stands in.
"""
CROWSON = Recipe(
    pyramid=1,
    margin=0,
    scale_side=128,
    scale_ratio=2**0.5,
    scale_detail=False,
    bounds="none",
    content_layers=_RELU4_2,
    style_layers=first_of_blocks(*(weight / 341 for weight in (256, 64, 16, 4, 1))),
    content_weight=0.015,
    style_weight=1.0,
    style_loss="wasserstein-newton-schulz",
    tv_weight=2.0,
    variation="nine-point",
    convention="edge-first",
    optimizer="adam",
    learning_rate=0.02,
    adam_b2=0.99,
    average=0.99,
    steps=500,
)
"""crowsonkb/style-transfer-pytorch @ e7e2c713, style_transfer.py.

0.015 · mse(relu4_2) + Σ_l w_l · W2²/c + 2 · TV, w_l = (256, 64, 16, 4, 1) / 341 (lines 316-322), W2
the Wasserstein distance of normal distributions with roots by 12 Newton-Schulz iterations (149-180,
see `losses.wasserstein.iterated_wasserstein_distance`), TV that of `nine_point_variation` on the
image; conv1_1 padded by the image's edge (39). From the content image, Adam at 0.02 with b2 = 0.99,
sizes from 128 pixels on up to `size`, each √2 times the one before: five up to 512. The result is
the moving average of the iterates. Differences: the program runs 1000 steps at the first size, and
clamps every iterate to [0, 1], where here only the result is.
"""
KERAS = dataclasses.replace(
    NEURAL_STYLE_PT,
    content_layers=(("relu5_2", 1.0),),
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
)
"""keras-io examples/generative/neural_style_transfer.py @ 0896b2e6.

2.5e-8 · Σ (F − P)² at relu5_2 + 1e-6 · ⅕ Σ_l Σ (FᵀF − A)² / (4 · 3² · pixels²) + 1e-6 · Σ (dx² +
dy²)^1.25, the last without the last row and column. Channels (3) and pixels are the image's,
not the layer's. From the content image; gradient descent at 100, times 0.96 every 100 of 4000
steps (in the 0-255 of its input). It forces the style to the content's size; here each
image is divided by its own pixels, the same where sizes agree.
"""
ANISHATHALYE = dataclasses.replace(
    NEURAL_STYLE_PT,
    style_weight=500.0,
    style_layers=_FIFTHS,
    tv_weight=100.0,
    variation="mean-squared",
    pooling="max-ceil",
    noise_std=0.256,
    optimizer="adam",
    learning_rate=10 / 255,
    steps=1000,
)
"""anishathalye/neural-style @ d0a11487, stylize.py.

5 · mse(relu4_2) + 500 · ⅕ Σ_l ms_l + 100 · (mean(dx²) + mean(dy²)); TensorFlow's SAME pooling,
which rounds sizes up. Noise of std 0.256; Adam at 10 of 255, 1000 steps.
"""
_TO_RELU3_3 = ("relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3")
_STROTSS_LAYERS: LayerWeights = tuple(
    (layer, 1.0) for layer in (*_TO_RELU3_3, "relu4_3", "relu5_1")
)
NNST = Recipe(
    style_loss="neural-neighbor",
    style_weight=4.0,
    turn_style=True,
    content_loss="self-similarity:1",
    content_weight=2.0,
    tv_weight=1e-4,
    init="recolored",
    scale_side=64,
    pyramid=1,
    steps=100,
)
"""Kolkin et al., Neural Neighbor Style Transfer, 2022 (arXiv:2203.13215), the optimized variant.

4 · mean(1 - cos) of hypercolumns of relu1_1 … relu4_3 and their nearest of the style, which is also
taken turned by 90, 180 and 270 degrees, + self-similarity at relu4_2; sizes from 64 pixels on, each
twice the one before. From the content in the style's colors (mean and covariance), which is the
color step here; there is none at the end.

The nearest are found anew in each step, where the paper keeps those of a query, blended of content
and result, for a scale and does so at the end only, layer by layer. At most 4096 vectors of the
style are compared, evenly spaced. The self-similarity is not in the paper, whose query holds the
content; without it nothing here would. Its weight was chosen at 512 pixels: with 1 houses dissolve
into suns, with 6 the photograph is hardly painted. L-BFGS on pixels with `preconditioner` stands in
for first-order steps on a Laplacian pyramid; the total variation, against colored grain, is not in
the paper either. The paper's network is VGG-16; the embedded ones have a fifth to a third of its
channels in a hypercolumn.
"""
STROTSS = Recipe(
    style_loss="remd",
    style_layers=_STROTSS_LAYERS,
    style_weight=1.0,
    content_loss="self-similarity:1",
    content_layers=_STROTSS_LAYERS,
    content_weight=2.0,
    scale_content=2.0,
    tv_weight=2e-5,
    init="recolored",
    scale_side=64,
    pyramid=1,
    steps=100,
)
"""Kolkin, Salavon & Shakhnarovich, STROTSS, 2019 (arXiv:1904.12785).

alpha · l_C + l_m + l_r + l_p / 2, with alpha = 2 at the largest of four sizes and twice as much at
each smaller one, 16 at 64 pixels where the longest side is 512 (equation 1, whose common divisor 2
+ alpha + 1 / alpha does not move the minimum; its l_p / alpha is l_p / 2 at the largest size alone,
and so it is here at all). Hypercolumns of nine layers.

The paper draws 1024 positions of each image anew in each step, where here the objective is one
function: all cells of the image count, against 1024 evenly spaced ones of the style, and against
the means of 256 regions in the content. The paper starts from the content's detail on the style's
mean color, here from the content in the style's colors. It descends by RMSprop on a Laplacian
pyramid, 250 steps a scale at 2e-3, which `optimizer="rmsprop"` has without the pyramid. The weak
total variation, against colored grain, is not in the paper. Its network is VGG-16 with relu5_3,
which the embedded ones lack: relu5_1 stands in for it.
"""
presets: Mapping[str, Recipe] = {
    "default": Recipe(),
    "neural-style": NEURAL_STYLE,
    "neural-style-pt": NEURAL_STYLE_PT,
    "gatys-notebook": GATYS_NOTEBOOK,
    "gatys-2016": GATYS_2016,
    "gordic": GORDIC,
    "crowson": CROWSON,
    "keras": KERAS,
    "anishathalye": ANISHATHALYE,
    "nnst": NNST,
    "strotss": STROTSS,
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
    "nnst": "vgg16",
    "strotss": "vgg16",
}
"""Weights of the preset's program, without which its losses are not comparable.

An entry is optional: a preset without one gets no notice (`weights_notice`).
"""


OTHER_OPTIMIZERS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "neural-style": {"adam": {"learning_rate": 10 / 256}},
    "neural-style-pt": {"adam": {"learning_rate": 1 / 255}},
    "gordic": {"adam": {"learning_rate": 10 / 255, "steps": 2999}},
    "strotss": {"rmsprop": {"learning_rate": 2e-3, "steps": 250}},
}
"""What a preset's program sets for an optimizer that it offers beside its usual one."""


def preset(name: str, settings: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe of a name, with some settings changed (`Recipe.updated`).

    With another optimizer come the learning rate and the steps that the program has for it.

    Raises:
      JaxstyleError: no recipe of that name; the message lists them. A value out of range.
    """
    choice(tuple(presets))("preset", name)
    settings = settings or {}
    own = OTHER_OPTIMIZERS.get(name, {}).get(settings.get("optimizer", ""), {})
    return presets[name].updated({**own, **settings})


def weights_notice(name: str | None, weights_name: str) -> str | None:
    """Return the line to show when a preset is used with other weights than its program's.

    None if the weights are those, or the preset expects none (`EXPECTED_WEIGHTS`).
    """
    expected = EXPECTED_WEIGHTS.get(name or "")
    if expected is None or weights_name == expected:
        return None
    return (
        f"preset {name!r} is made for the weights {expected!r}, not {weights_name!r}: its numbers "
        f"are not those of the original; see `jaxstyle weights fetch {expected}`"
    )
