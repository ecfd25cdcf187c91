"""Contact sheets: labeled images on one page."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxstyle.images import Array


def contact_sheet(
    images: Sequence[Array], *, columns: int, labels: Sequence[str] | None = None
) -> Array:
    """Return images in rows on white, each centered in a cell of the size of the largest image.

    Args:
      images: images `[h, w, 3]` in [0, 1], of any sizes, in row-major order.
      columns: cells per row.
      labels: one text per image, written below it and wrapped to the cell's width.

    Returns:
      RGB `[h, w, 3]`, float32 in [0, 1].

    Raises:
      ValueError: there are no images, `columns` is below 1, or the number of labels differs.
    """
    if not images or columns < 1:
        raise ValueError(f"got {len(images)} images in {columns} columns; both must be at least 1")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"got {len(labels)} labels for {len(images)} images")
    gap = 8
    cell_height = max(image.shape[0] for image in images)
    cell_width = max(image.shape[1] for image in images)
    font = ImageFont.load_default(14)
    assert isinstance(font, ImageFont.FreeTypeFont), "of the default font in a size"
    texts = [_wrap(label, font, cell_width) for label in labels or [""] * len(images)]
    line_height = sum(font.getmetrics())
    label_height = line_height * max(text.count("\n") + 1 for text in texts) if labels else 0

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    step_y, step_x = cell_height + label_height + gap, cell_width + gap
    sheet = np.ones((rows * step_y + gap, columns * step_x + gap, 3), np.float32)
    page = Image.new("L", (sheet.shape[1], sheet.shape[0]), 255)
    draw = ImageDraw.Draw(page)
    for index, (image, text) in enumerate(zip(images, texts, strict=True)):
        top = gap + index // columns * step_y
        left = gap + index % columns * step_x
        height, width = image.shape[:2]
        y, x = top + (cell_height - height) // 2, left + (cell_width - width) // 2
        sheet[y : y + height, x : x + width] = image
        for number, line in enumerate(text.split("\n")):
            draw.text((left, top + cell_height + number * line_height), line, fill=0, font=font)
    return sheet * (np.asarray(page, np.float32)[..., None] / np.float32(255))


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return text broken into lines of at most `width` pixels."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for word in paragraph.split(" "):
            joined = f"{line} {word}" if line else word
            if line and font.getlength(joined) > width:
                lines.append(line)
                joined = word
            while len(joined) > 1 and font.getlength(joined) > width:
                cut = len(joined) - 1
                while cut > 1 and font.getlength(joined[:cut]) > width:
                    cut -= 1
                lines.append(joined[:cut])
                joined = joined[cut:]
            line = joined
        lines.append(line)
    return "\n".join(lines)
