"""Functions for notebooks: live runs, uploads and downloads, and the studio.

from jaxstyle import notebook
"""

import contextlib
import importlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxstyle import images
from jaxstyle.errors import JaxstyleError
from jaxstyle.files import StrPath
from jaxstyle.monitor.notebook import describe_devices, in_notebook, show, watch, watch_grid

__all__ = [
    "choose_image",
    "describe_devices",
    "download",
    "in_notebook",
    "show",
    "studio",
    "watch",
    "watch_grid",
]
KAGGLE_INPUT = Path("/kaggle/input")
"""Folder of the data that was added to a Kaggle notebook."""
_open: dict[Path, Any] = {}
"""Pages of open studios with the `ExitStack`s that close them, by folder."""


def choose_image(
    given: StrPath = "", *, builtin: np.ndarray, upload: bool = False, number: int = 0
) -> np.ndarray:
    """Return the image `[h, w, 3]` of the first available source, in [0, 1].

    Sources are, in this order: `given`, an upload, the images in `KAGGLE_INPUT`, and `builtin`.

    Args:
      given: file to read, if not empty.
      builtin: image `[h, w, 3]` in [0, 1].
      upload: whether to open an upload dialog, if the platform has one (Colab).
      number: index of the image in `KAGGLE_INPUT`, sorted by path.

    Raises:
      JaxstyleError: a file cannot be read, or `number` is negative.
    """
    if number < 0:
        raise JaxstyleError(f"number: {number} is out of range; give a whole number from 0")
    if os.fspath(given):
        return images.load_image(given, argument="given")
    if upload:
        file = _uploaded()
        if file is not None:
            return images.load_image(file, argument="upload")
    added = sorted(
        file
        for file in KAGGLE_INPUT.rglob("*")
        if file.suffix.lower() in images.SUFFIXES and file.is_file()
    )
    if number < len(added):
        print(f"{added[number]}, image {number} of {len(added)} in {KAGGLE_INPUT}")
        return images.load_image(added[number], argument="given")
    print("the built-in image is taken; name a file to take another")
    return builtin


def download(file: StrPath) -> None:
    """Download a file by the browser (Colab), or show a link to it; print its path elsewhere.

    Raises:
      JaxstyleError: there is no such file.
    """
    path = Path(file)
    if not path.is_file():
        raise JaxstyleError(f"file: {path} is not there; run the cell that writes it")
    if colab := _colab("files"):
        colab.download(str(path))
    elif in_notebook():
        from IPython.display import FileLink, display

        display(FileLink(str(path)))
    else:
        print(f"the file is {path.resolve()}")


def studio(
    folder: StrPath = "studio", *, weights: str = "auto", height: int = 900, port: int = 0
) -> None:
    """Show the studio (`jaxstyle studio`) in the output of a cell, if the platform supports it.

    Runs continue in the background while other cells run. The studio ends with the kernel. Another
    call for the same folder shows the same studio.

    Args:
      folder: folder of the uploaded and the finished images; created if missing.
      weights: name or file, as in `load_network`.
      height: height of the page in pixels.
      port: port of the server; 0 selects a free one.

    Raises:
      JaxstyleError: this is not a notebook, the web server is not installed, the folder belongs to
        another studio, or the port is in use.
    """
    if not in_notebook():
        raise JaxstyleError("studio: this is not a notebook; run `jaxstyle studio` in a terminal")
    if reason := _no_proxy():
        print(reason)
        return
    page = _studio(Path(folder).resolve(), weights, port)
    address = page.address
    own_port, path = address.split(":")[2].split("/", 1)
    from IPython.display import IFrame, display

    if colab := _colab("output"):
        colab.serve_kernel_port_as_iframe(int(own_port), path=f"/{path}", height=str(height))
        return
    if prefix := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        address = f"{prefix.rstrip('/')}/proxy/{own_port}/{path}"
        print(
            f"If nothing appears, install jupyter-server-proxy on the hub. The page is at {address}"
        )
    else:
        print(
            f"The studio is at {address} too. If the notebook runs on another machine, forward "
            f"its port there: ssh -L {own_port}:127.0.0.1:{own_port} THAT_MACHINE"
        )
    display(IFrame(address, width="100%", height=height))


def _studio(folder: Path, weights: str, port: int) -> Any:
    """Return the page of a folder's studio, which the first call starts."""
    if folder not in _open:
        from jaxstyle.monitor.serve import serve
        from jaxstyle.studio import Folder, RunQueue, StudioView
        from jaxstyle.weights import load_network

        queue = RunQueue(Folder(folder), network=load_network(weights), weights=weights)
        with contextlib.ExitStack() as stack:
            page = stack.enter_context(serve(StudioView(queue), port=port, embedded=True))
            # Last, as its lock and its threads would outlive an error.
            queue.start()
            # Not closed here: the server runs until the kernel ends.
            _open[folder] = page, stack.pop_all()
    return _open[folder][0]


def _no_proxy() -> str | None:
    """Return advice on platforms that cannot show pages of the kernel, None on others."""
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return (
            "Kaggle shows no page of a notebook's own. Use notebook.watch in cells, as the "
            "notebook quick_start does, or run `jaxstyle studio` on your machine."
        )
    if "SPACE_ID" in os.environ:
        return (
            "A Space shows one page, which is this notebook's. Use notebook.watch in cells, or "
            "run `jaxstyle studio` on your machine."
        )
    return None


def _colab(module: str) -> Any:
    """Return a module of `google.colab`, or None outside Colab."""
    if "google.colab" not in sys.modules:
        return None
    return importlib.import_module(f"google.colab.{module}")


def _uploaded() -> str | None:
    """Return the name of a file uploaded in Colab's dialog; None if there is none."""
    colab = _colab("files")
    if colab is None:
        return None
    return next(iter(colab.upload()), None)
