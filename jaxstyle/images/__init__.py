"""Image files to and from arrays: RGB float32 in [0, 1], shape [height, width, 3].

Only formats of an allow-list are opened, by content and not by the file's ending, and
the header's number of pixels is checked before decoding. Arrays have sRGB values, as
files have and the networks expect, not linear light.
"""

from jaxstyle.images.array import Array as Array
from jaxstyle.images.reading import MAX_PIXELS as MAX_PIXELS
from jaxstyle.images.reading import READ_FORMATS as READ_FORMATS
from jaxstyle.images.reading import from_pil as from_pil
from jaxstyle.images.reading import image_size as image_size
from jaxstyle.images.reading import load_image as load_image
from jaxstyle.images.reading import load_with_alpha as load_with_alpha
from jaxstyle.images.reading import read_text as read_text
from jaxstyle.images.resizing import MIN_SIDE as MIN_SIDE
from jaxstyle.images.resizing import fit as fit
from jaxstyle.images.resizing import fitted as fitted
from jaxstyle.images.resizing import resize as resize
from jaxstyle.images.writing import ALPHA_FORMATS as ALPHA_FORMATS
from jaxstyle.images.writing import BIT_DEPTHS as BIT_DEPTHS
from jaxstyle.images.writing import SUFFIXES as SUFFIXES
from jaxstyle.images.writing import WRITE_FORMATS as WRITE_FORMATS
from jaxstyle.images.writing import check_bit_depth as check_bit_depth
from jaxstyle.images.writing import check_output as check_output
from jaxstyle.images.writing import encode_image as encode_image
from jaxstyle.images.writing import format_of as format_of
from jaxstyle.images.writing import remove_white_background as remove_white_background
from jaxstyle.images.writing import save_image as save_image
