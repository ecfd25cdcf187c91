"""Paint a style image.

python experiments/demo/paint.py OUT.png --size 512 --seed 0
"""

import argparse

import numpy as np
from PIL import Image

from jaxstyle.images.painted import PALETTES, paint


def main() -> None:
    parser = argparse.ArgumentParser(description="Paint a style image.")
    parser.add_argument("output", metavar="OUT.png")
    parser.add_argument("--size", type=int, default=512, help="side in pixels (512)")
    parser.add_argument("--seed", type=int, default=0, help="another scene (0)")
    parser.add_argument("--palette", choices=PALETTES, default="night", help="other colors (night)")
    options = parser.parse_args()
    image = paint(options.size, options.size, seed=options.seed, palette=options.palette)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(options.output)


if __name__ == "__main__":
    main()
