"""Write a free photograph that ships with scikit-image, as PNG.

    python experiments/demo/photo.py coffee OUT.png

Nothing is downloaded: these files lie inside scikit-image's wheel. Where they come
from is what the docstrings of `skimage.data` say.
"""

import argparse

from PIL import Image
from skimage import data

PHOTOS = {
    "coffee": (data.coffee, "Rachel Michetti, courtesy of Pikolo Espresso Bar; CC0"),
    "chelsea": (data.chelsea, "Stefan van der Walt; CC0"),
    "astronaut": (data.astronaut, "NASA Great Images; public domain"),
    "rocket": (data.rocket, "SpaceX; released into the public domain"),
}


def main() -> None:
    """Write one photograph and say whose it is."""
    parser = argparse.ArgumentParser(description="Write a free photograph as PNG.")
    parser.add_argument("name", choices=sorted(PHOTOS))
    parser.add_argument("output", metavar="OUT.png")
    options = parser.parse_args()
    load, credit = PHOTOS[options.name]
    Image.fromarray(load()).save(options.output, "PNG")
    print(f"{options.output}: {options.name}, {credit}")


if __name__ == "__main__":
    main()
