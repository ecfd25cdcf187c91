"""Fuzz the readers of files with atheris: whatever a file holds, it is read or refused in a line.

    pip install atheris
    python tests/fuzz/fuzz.py TARGET CORPUS -max_total_time=600 -timeout=20 -rss_limit_mb=3000

TARGET is one of those printed without one; CORPUS is a folder, filled with good files of that
kind if it is empty. Flags are libFuzzer's. Anything but a value or a `JaxstyleError` of one
line is a finding, and so is a crash, a hang, or more memory than the limit. What ends in `-text`
or `-member` fuzzes what lies inside a file: a changed byte of the file itself would not come
that far, for its checksum.
"""

import io
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import atheris
import h5py
import numpy as np
import safetensors.numpy
import scipy.io
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "weights"))
# Not instrumented: JAX and what lies below it take minutes.
with atheris.instrument_imports(include=["jaxstyle", "PIL", "zipfile", "scipy.io", "tomllib"]):
    import jaxstyle
    from jaxstyle import images
    from jaxstyle.config.layers import parse_layers
    from jaxstyle.config.recipe import Recipe
    from jaxstyle.engine import compilation
    from jaxstyle.engine.iterate import run_state
    from jaxstyle.engine.loop import iterates
    from jaxstyle.errors import JaxstyleError
    from jaxstyle.provenance import checkpoint, record
    from jaxstyle.sweep.grid_file import read as read_grid
    from jaxstyle.weights.formats.readers import read_source
    from jaxstyle.weights.weight_file import read_network

import helpers
import test_weights_pth as pth

# In memory, where there is such a place: a file an input.
PLACE = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
PIXELS = np.linspace(0, 1, 16 * 16 * 3, dtype=np.float32).reshape(16, 16, 3)


class Target(NamedTuple):
    """What is fuzzed."""

    ending: str
    """Of the file that the input becomes."""
    read: Callable[[Path], Any]
    seeds: Callable[[], Iterator[bytes]]
    wrap: Callable[[bytes], bytes] = bytes
    """From the input to the file."""


def _images() -> Iterator[bytes]:
    small = Image.fromarray(np.rint(PIXELS * 255).astype(np.uint8))
    for mode in ("RGB", "L", "1", "P", "RGBA", "CMYK", "I;16"):
        image = small.convert("I").convert("I;16") if mode == "I;16" else small.convert(mode)
        for kind in images.READ_FORMATS:
            stream = io.BytesIO()
            try:
                image.save(stream, kind)
            except (OSError, KeyError):
                continue  # not every format has every mode
            yield stream.getvalue()
    for kind in ("PNG", "TIFF", "JPEG"):
        stream, exif = io.BytesIO(), Image.Exif()
        exif[0x0112] = 6
        profile = images.encode_image(PIXELS, "PNG")
        profile = Image.open(io.BytesIO(profile)).info["icc_profile"]
        small.save(stream, kind, exif=exif, icc_profile=profile)
        yield stream.getvalue()
    yield images.encode_image(PIXELS, "PNG", bit_depth=16)
    for compression in ("tiff_lzw", "jpeg", "packbits", "group4", "tiff_adobe_deflate"):
        stream = io.BytesIO()
        small.convert("1" if compression == "group4" else "RGB").save(
            stream, "TIFF", compression=compression
        )
        yield stream.getvalue()


def _png(text: bytes) -> bytes:
    return images.encode_image(PIXELS, "PNG", text={record.KEYWORD: text.decode("latin-1")})


def _described() -> dict[str, Any]:
    image = {"path": "a.png", "sha256": "0" * 64, "size": [16, 16]}
    return {
        "schema": 1, "loss": 1.0, "steps": 2, "recipe": RECIPE.as_dict(),
        "weights": {"given": "compact", "name": "compact", "sha256": "0" * 64, "source": ""},
        "images": {"content": image, "styles": [image], "init": None},
        "environment": {"jax": "0.10.1"},
    }  # fmt: skip


def _texts() -> Iterator[bytes]:
    yield json.dumps(_described()).encode()


def _records() -> Iterator[bytes]:
    return map(_png, _texts())


def _arrays() -> dict[str, np.ndarray]:
    return {"features.0.weight": np.ones((2, 3, 3, 3), "f4"), "features.0.bias": np.ones(2, "f4")}


def _safetensors() -> Iterator[bytes]:
    yield safetensors.numpy.save(_arrays())
    kernels = {"conv1_1.kernel": np.ones((3, 3, 3, 2), "f4"), "conv1_1.bias": np.ones(2, "f4")}
    yield safetensors.numpy.save(kernels, {"format": "jaxstyle-network-1"})
    path = PLACE / "seed.safetensors"
    jaxstyle.weights.save_network(NETWORK, path)
    yield path.read_bytes()


def _npz() -> Iterator[bytes]:
    for save in (np.savez, np.savez_compressed):
        stream = io.BytesIO()
        save(stream, **_arrays())
        yield stream.getvalue()


def _npys() -> Iterator[bytes]:
    for array in (np.ones((2, 3)), np.asfortranarray(np.ones((2, 3))), np.array([1, "a"], object)):
        stream = io.BytesIO()
        np.save(stream, array)
        yield stream.getvalue()


def _member(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("conv0.npy", data)
    return stream.getvalue()


def _state() -> dict[str, Any]:
    store = pth.storage()
    return {
        "features.0.weight": pth.tensor(store),
        "features.2.bias": pth.tensor(store, 2, (3,), (1,)),
    }


def _pth() -> Iterator[bytes]:
    data = pth.NUMBERS.tobytes()
    yield pth.legacy(_state(), {"0": (data, 4)})
    yield pth.zipped(_state(), {"0": data})


def _pickles() -> Iterator[bytes]:
    yield pth.dumps(_state())
    yield pth.dumps({"state_dict": _state(), "epoch": 3})


def _h5() -> Iterator[bytes]:
    for options in ({}, {"compression": "gzip"}, {"chunks": (3, 3, 3, 1)}):
        stream = io.BytesIO()
        with h5py.File(stream, "w") as file:
            file.create_dataset(
                "block1_conv1/kernel:0", data=np.ones((3, 3, 3, 2), "f4"), **options
            )
            file.create_dataset("block1_conv1/bias:0", data=np.ones(2, "f4"))
        yield stream.getvalue()


def _mat() -> Iterator[bytes]:
    layer = {"name": "conv1_1", "type": "conv"}
    weights = np.empty((1, 2), object)
    weights[0, 0], weights[0, 1] = np.ones((3, 3, 3, 2), "f4"), np.ones((2, 1), "f4")
    for compress in (False, True):
        stream = io.BytesIO()
        layers = np.empty((1, 1), object)
        layers[0, 0] = {**layer, "weights": weights}
        scipy.io.savemat(stream, {"layers": layers}, do_compression=compress)
        yield stream.getvalue()


def _grids() -> Iterator[bytes]:
    yield b'[base]\ncontent = "a.png"\nstyle = ["b.png", "c.png"]\nsteps = 10\n'
    yield (
        b'[base]\ncontent = "a.png"\n[grid]\nstyle = ["b.png"]\nstyle_weight = [1e3, 10]\n'
        b'init = ["noise", "content"]\nstyle_layers = ["relu1_1:2", "all"]\n'
    )


def _checkpoints() -> Iterator[bytes]:
    path = PLACE / "seed.checkpoint"
    image = {"path": "a.png", "sha256": "0" * 64, "size": [16, 16]}
    inputs = {"content": image, "styles": [image], "init": None}
    state = run_state(list(iterates(PROBLEM)))
    checkpoint.save_checkpoint(path, state, problem=PROBLEM, weights="compact", inputs=inputs)
    yield path.read_bytes()


def _metadata() -> Iterator[bytes]:
    for data in _checkpoints():
        size = int.from_bytes(data[:8], "little")
        yield json.loads(data[8 : 8 + size])["__metadata__"][checkpoint.KEYWORD].encode()


def _with_metadata(text: bytes) -> bytes:
    return safetensors.numpy.save(ARRAYS, {checkpoint.KEYWORD: text.decode("utf-8", "replace")})


def _read_checkpoint(path: Path) -> None:
    found = checkpoint.read_checkpoint(path)
    checkpoint.check_same_run(found, PROBLEM)
    checkpoint.load_state(found, PROBLEM)


RECIPE = Recipe(content_layers="relu1_1", style_layers="relu1_1", steps=2, size=0)
NETWORK = helpers.make_network(blocks=1)
PROBLEM = jaxstyle.prepare(PIXELS, PIXELS, recipe=RECIPE, network=NETWORK)
TARGETS = {
    "picture": Target(".png", lambda p: images.load_with_alpha(p, max_pixels=100_000), _images),
    "record": Target(".png", record.read_record, _records),
    "record-text": Target(".png", record.read_record, _texts, _png),
    "network": Target(".safetensors", read_network, _safetensors),
    "safetensors": Target(".safetensors", read_source, _safetensors),
    "npz": Target(".npz", read_source, _npz),
    "npz-member": Target(".npz", read_source, _npys, _member),
    "pth": Target(".pth", read_source, _pth),
    "pth-member": Target(
        ".pth", read_source, _pickles, lambda d: pth.zipped(d, {"0": b"1234" * 12})
    ),
    "h5": Target(".h5", read_source, _h5),
    "mat": Target(".mat", read_source, _mat),
    "grid": Target(".toml", read_grid, _grids),
    "checkpoint": Target(".safetensors", _read_checkpoint, _checkpoints),
    "checkpoint-text": Target(".safetensors", _read_checkpoint, _metadata, _with_metadata),
    "layers": Target(
        ".txt",
        lambda p: parse_layers(p.read_bytes().decode("utf-8", "replace")),
        lambda: iter([b"relu1_1:0.5,relu2_1"]),
    ),
}


def main() -> None:
    """Run one target."""
    if len(sys.argv) < 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"{__doc__}\nTARGETS: {', '.join(TARGETS)}")
    target, corpus = TARGETS[sys.argv[1]], Path(sys.argv[2])
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for number, data in enumerate(target.seeds()):
            (corpus / f"seed-{number}").write_bytes(data)
    path = PLACE / f"input{target.ending}"

    def once(data: bytes) -> None:
        try:
            path.write_bytes(target.wrap(data))
            target.read(path)
        except JaxstyleError as error:
            assert "\n" not in str(error), str(error)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], once)
    atheris.Fuzz()


# The form of a state is traced anew for every file that comes so far: once is enough here.
FORM = compilation.carry_shapes(PROBLEM)
compilation.carry_shapes = lambda problem: FORM
STATE = run_state(list(iterates(PROBLEM)))
ARRAYS = {
    name: np.asarray(array)
    for name, array in checkpoint._by_path(STATE.carry, STATE.history).items()
}

if __name__ == "__main__":
    main()
