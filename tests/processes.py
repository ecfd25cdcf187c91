"""One of two processes that share a picture and a batch, as on two machines.

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
from conftest import _make_network, _make_picture

import jaxstyle

folder, port, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
# Before anything that asks for devices.
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=number)

network = _make_network(blocks=2)
recipe = jaxstyle.Recipe(
    steps=3, history_size=3, content_layers="relu1_1", style_layers="relu1_1", init="noise"
)
pictures = _make_picture(21, 18, seed=1), _make_picture(16, 18, seed=2)
given = dict(recipe=recipe, network=network)
assert len(jax.devices()) == 4 and len(jax.local_devices()) == 2

rows = jaxstyle.stylize(*pictures, **given, devices="all")
lanes = jaxstyle.stylize_batch(*pictures, **given, starts=4, devices="all")
found = {
    "rows": rows.image,
    "rows_losses": rows.history.loss,
    "lanes": [lane.image for lane in lanes],
    "lanes_losses": [lane.history.loss for lane in lanes],
}
if number == 0:
    # What both are compared with.
    alone = jaxstyle.stylize(*pictures, **given)
    found |= {"alone": alone.image, "alone_losses": alone.history.loss}
np.savez(folder / f"process{number}.npz", **found)
