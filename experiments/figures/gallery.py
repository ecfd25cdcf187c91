"""The gallery of the docs: an image for every control and every style loss.

    python experiments/figures/gallery.py docs [--only NAME ...]

Writes `gallery.md` and `gallery/*.jpg` into the folder, from the demo's photograph (CC0), the style
that the project paints itself and that style in other colors. Half an hour on two cores.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import jaxstyle
from jaxstyle import Masks, Recipe
from jaxstyle.images import encode_image, fit
from jaxstyle.images.painted import paint
from jaxstyle.images.samples import load_photograph
from jaxstyle.losses.style_losses import STYLE_LOSSES

SIZE = 384
BASE = Recipe(size=SIZE)
Images = dict[str, np.ndarray]


class Shown(NamedTuple):
    """One image of the gallery."""

    name: str
    flags: str
    """As on the command line, after the two images."""
    words: str
    settings: dict[str, Any] = {}
    styles: Sequence[str] = ("style",)
    masks: tuple[str | None, Sequence[tuple[str | None, str | None]]] = (None, ())


GIVEN = {
    "photo": "The photograph.",
    "style": "The style.",
    "second": "The second style.",
    "face": "A mask of the face; `around.png` is its opposite.",
    "hills": "A mask of the style's hills.",
}
SECTIONS: dict[str, list[Shown]] = {
    "The images": [],
    "Styles": [
        Shown("plain", "", "The default recipe."),
        Shown("blend", "second.png --style-blend 1,1", "Both styles, their statistics averaged.",
              {"style_blend": (1, 1)}, ("style", "second")),
        Shown("blend31", "second.png --style-blend 3,1",
              "Three parts of the first style, one of the second.",
              {"style_blend": (3, 1)}, ("style", "second")),
        Shown("scale_half", "--style-scale 0.5", "Finer strokes.", {"style_scale": 0.5}),
        Shown("scale_double", "--style-scale 2", "Larger, softer strokes.", {"style_scale": 2.0}),
    ],
    "Masks": [
        Shown("content_mask", "--content-mask face.png",
              "The content loss is computed in the face only.",
              masks=("face", ())),
        Shown("regions", "second.png --mask face.png - --mask around.png -",
              "One style in the face, the other around it.",
              styles=("style", "second"), masks=(None, (("face", None), ("around", None)))),
        Shown("style_region", "--mask - hills.png",
              "The style of the painting's hills alone.",
              masks=(None, ((None, "hills"),))),
    ],
    "Colors": [
        Shown("luminance", "--preserve-color luminance", "Only the luminance is stylized.",
              {"preserve_color": "luminance"}),
        Shown("histogram", "--preserve-color histogram",
              "The style first gets the histograms of the photograph's colors.",
              {"preserve_color": "histogram"}),
        Shown("cholesky", "--preserve-color cholesky",
              "The style first gets the mean and covariance of the photograph's colors.",
              {"preserve_color": "cholesky"}),
    ],
    "Initial image and scales": [
        Shown("noise", "--init noise", "From noise: the style decides.", {"init": "noise"}),
        Shown("noise_blend", "--noise-blend 0.5 --noise-std 60", "Half photograph, half noise.",
              {"noise_blend": 0.5, "noise_std": 60.0}),
        Shown("one_scale", "--scales 1",
              "At full size only, with the style compared at one resolution.",
              {"scales": 1}),
        Shown("scales", "--scales 3", "From 96 to 384 pixels: broad strokes first.",
              {"scales": 3}),
        Shown("average", "--average 0.9",
              "The moving average of the iterates instead of the best; of use with optimizers that "
              "oscillate, and hardly different here.",
              {"average": 0.9}),
    ],
    "Layers and weights": [
        Shown("low", "--style-layers relu1_1,relu2_1", "Fine texture and colors.",
              {"style_layers": "relu1_1,relu2_1"}),
        Shown("high", "--style-layers relu3_1,relu4_1,relu5_1", "Large strokes, with paler colors.",
              {"style_layers": "relu3_1,relu4_1,relu5_1"}),
        Shown("weak", "--strength 0.25", "Less style.", {"strength": 0.25}),
        Shown("strong", "--strength 0.9", "More style.", {"strength": 0.9}),
    ],
    "Style losses": [
        Shown(f"loss_{name}", f"--style-loss {name}",
              "The default." if name == BASE.style_loss
              else "With its own default weight and layers.",
              {"style_loss": name})
        for name, loss in STYLE_LOSSES.items()
        # Losses that take layers together have presets; those that sort or match positions take
        # minutes an image.
        if loss.is_mean_over_positions and name != "wasserstein-newton-schulz"
    ],
}  # fmt: skip


def images() -> Images:
    """The photograph, two styles, and masks of them."""
    photo = load_photograph("cat")
    style = paint(512, 512)
    found = {"photo": fit(photo, SIZE), "style": style, "second": _warm(style)}
    height, width = found["photo"].shape[:2]
    y, x = np.mgrid[:height, :width]
    across = ((x / width - 0.48) / 0.27) ** 2 + ((y / height - 0.5) / 0.48) ** 2
    face = 1 / (1 + np.exp((across - 1) * 8))
    hills = np.zeros(style.shape[:2], np.float32)
    hills[int(0.72 * len(hills)) :] = 1
    found |= {"face": face, "around": 1 - face, "hills": hills}
    return {name: np.asarray(image, np.float32) for name, image in found.items()}


def _warm(style: np.ndarray) -> np.ndarray:
    """Turn blue to red, and the strokes the other way round."""
    return np.ascontiguousarray(style[::-1, :, ::-1])


def render(shown: Shown, images: Images, network: jaxstyle.Network) -> np.ndarray:
    content_mask, regions = shown.masks
    masks = Masks(
        None if content_mask is None else images[content_mask],
        [tuple(None if name is None else images[name] for name in pair) for pair in regions],
    )
    result = jaxstyle.stylize(
        images["photo"], [images[name] for name in shown.styles],
        recipe=dataclasses.replace(BASE, **shown.settings), network=network, masks=masks,
    )  # fmt: skip
    print(f"{shown.name}: loss {result.initial_loss:.4g} to {result.loss:.4g}", flush=True)
    return result.image


def save(folder: Path, name: str, img: np.ndarray) -> None:
    """Write a small JPEG."""
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        file.write(encode_image(img, "PNG"))
        file.flush()
        with Image.open(file.name) as image:
            image.convert("RGB").save(folder / f"{name}.jpg", quality=82, optimize=True)


def page() -> str:
    """The page's text."""
    lines = [
        "# Gallery",
        "",
        "What each control does to the same photograph and style, at 384 pixels with the embedded",
        "network (`experiments/figures/gallery.py`). The command is",
        "`jaxstyle stylize photo.png style.png -o out.png --size 384` and the flags below an",
        "image; `second.png` is a second style. [Control the image](howto/controls.md) explains",
        "them. The photograph is scikit-image's cat (Stéfan van der Walt, CC0); the project drew",
        "the styles.",
        "",
    ]
    for title, several in SECTIONS.items():
        lines += [f"## {title}", ""]
        cells = [_cell(s.name, f"`{s.flags}`" if s.flags else "no flags", s.words) for s in several]
        if not several:
            cells = [_cell(name, f"`{name}.png`", words) for name, words in GIVEN.items()]
        lines += _table(cells, columns=2)
    return "\n".join(lines).rstrip() + "\n"


def _cell(name: str, flags: str, words: str) -> str:
    return f"![{words}](gallery/{name}.jpg)<br>{flags}<br>{words}"


def _table(cells: Sequence[str], *, columns: int) -> list[str]:
    """Return the lines of a Markdown table without a heading."""
    padded = [*cells, *[""] * (-len(cells) % columns)]
    rows = [padded[start : start + columns] for start in range(0, len(padded), columns)]
    return [
        "| " * columns + "|", "| --- " * columns + "|",
        *("| " + " | ".join(row) + " |" for row in rows), "",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    folder = arguments.folder / "gallery"
    folder.mkdir(exist_ok=True)
    (arguments.folder / "gallery.md").write_text(page(), encoding="utf-8")
    network = jaxstyle.load_network("medium")
    found = images()
    for name in GIVEN:
        image = found[name] if found[name].ndim == 3 else np.repeat(found[name][..., None], 3, -1)
        save(folder, name, fit(image, SIZE))
    for shown in (s for several in SECTIONS.values() for s in several):
        if not arguments.only or any(shown.name.startswith(name) for name in arguments.only):
            save(folder, shown.name, render(shown, found, network))


if __name__ == "__main__":
    main()
