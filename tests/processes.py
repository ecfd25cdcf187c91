"""One of two processes that share an image and a batch, as on two machines.

`python processes.py FOLDER PORT ID` writes what this process has at the end.
"""

import os
import sys
from pathlib import Path

os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=2"]
)

import jax
import numpy as np
from helpers import STYLE_LOSS
from helpers import make_image as _make_image
from helpers import make_network as _make_network

import jaxstyle

folder, port, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
# Before anything that asks for devices.
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=number)

network = _make_network(blocks=2)
recipe = jaxstyle.Recipe(
    scales=1,
    steps=3,
    history_size=3,
    content_layers="relu1_1",
    style_layers="relu1_1",
    style_loss=STYLE_LOSS,
    init="noise",
)
images = _make_image(21, 18, seed=1), _make_image(16, 18, seed=2)
given = dict(recipe=recipe, network=network)
assert len(jax.devices()) == 4 and len(jax.local_devices()) == 2

rows = jaxstyle.stylize(*images, **given, devices="all")
elements = jaxstyle.stylize_batch(*images, **given, starts=4, devices="all")
found = {
    "rows": rows.image,
    "rows_losses": rows.history.loss,
    "lanes": [element.image for element in elements],
    "lanes_losses": [element.history.loss for element in elements],
}
if number == 0:
    # What both are compared with.
    alone = jaxstyle.stylize(*images, **given)
    found |= {"alone": alone.image, "alone_losses": alone.history.loss}
np.savez(folder / f"process{number}.npz", **found)
