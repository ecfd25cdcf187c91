"""The type of images in memory."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
"""RGB in [0, 1], sRGB values as in files, `[height, width, 3]`; alpha `[height, width]`."""
