"""Files that ask for too much: refused in a line, in little memory and time."""

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
import safetensors.numpy
import test_weights_pth as pth
from PIL import Image

from jaxstyle.errors import JaxstyleError
from jaxstyle.weights.formats.readers import read_source

MEGABYTE = 1 << 20


def npy(header, data=b""):
    text = header.encode().ljust(118 - 10 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def archive(name, data, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        file.writestr(name, data)
    return stream.getvalue()


def chunk(name, data):
    checksum = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + checksum


def png(width, height, *chunks, data=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = [head, *chunks, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def mat(*elements):
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def compressed(data):
    data = zlib.compress(data, 1)
    return struct.pack("<II", 15, len(data)) + data


def lying_header(claim, data=b"{}"):
    return struct.pack("<Q", claim) + data


def hdf5():
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        # Never written, it takes no place.
        file.create_dataset("conv", (3, 3, 1000, 10000), "f8", chunks=(3, 3, 100, 100))
    return stream.getvalue()


def tiff(strip_bytes):
    stream = io.BytesIO()
    Image.new("RGB", (20, 20)).save(stream, "TIFF")
    data = stream.getvalue()
    entry = struct.pack("<HHI", 279, 4, 1)
    at = data.index(entry) + len(entry)
    return data[:at] + struct.pack("<I", strip_bytes) + data[at + 4 :]


def memo_bomb():
    """Lists of two of the list before, forty deep: 2^40 elements to whoever walks them."""
    value = [0]
    for _ in range(40):
        value = [value, value]
    return pickle.dumps({"a": value}, protocol=2)


def hostile():
    """`{name: bytes}`; the beginning of the name says what reads it."""
    zeros = bytes(100 * MEGABYTE)
    huge = pth.tensor(pth.storage(numel=2**50), size=(2**25, 2**25), stride=(2**25, 1))
    head = {"__metadata__": {"format": "jaxstyle-network-1"}}
    lie = {"a": {"dtype": "F32", "shape": [2**30, 2**10], "data_offsets": [0, 2**42]}}
    lie = json.dumps(lie).encode()
    nothing = {"a": {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [0, 0]}}
    nothing = json.dumps(head | nothing).encode()
    text = b"jaxstyle\0\0" + zlib.compress(zeros, 1)
    return {
        "source zip.pth": pth.zipped({"a": huge}, {"0": b"1234"}),
        "source legacy.pth": pth.legacy({"a": huge}, {"0": (b"1234", 4)}),
        "source memo.pth": pth.zipped(memo_bomb(), {}),
        "source text.pth": pth.zipped(b"\x80\x02X" + struct.pack("<I", 2**31 - 1) + b"a.", {}),
        "source long.pth": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.",
        "source bomb.pth": archive("a/data.pkl", zeros),
        "source bomb.npz": archive("conv1_1.npy", zeros),
        "source shape.npz": archive("conv.npy", npy("{'descr': '<f4', 'fortran_order': False, "
                                                    "'shape': (1048576, 1048576)}")),
        "source objects.npz": archive("conv.npy", npy("{'descr': '|O', 'fortran_order': False, "
                                                      "'shape': (1,)}", pickle.dumps([1]))),
        "source bomb.mat": mat(compressed(zeros)),
        "source size.mat": mat(struct.pack("<II", 14, 2**31 - 1)),
        "source bomb.h5": hdf5(),
        "source lie.safetensors": lying_header(len(lie), lie),
        "source head.safetensors": lying_header(2**62),
        "network lie.safetensors": lying_header(len(lie), lie),
        "network nothing.safetensors": lying_header(len(nothing), nothing),
        "network head.safetensors": lying_header(99 * MEGABYTE),
        "checkpoint lie.ck": lying_header(len(lie), lie),
        "checkpoint head.ck": lying_header(2**63),
        "image side.png": png(2**31 - 1, 2**31 - 1),
        "image short.png": png(3000, 3000, data=bytes(10)),
        "image text.png": png(20, 20, chunk(b"zTXt", text), data=bytes(20 * 61)),
        "image profile.png": png(20, 20, chunk(b"iCCP", text), data=bytes(20 * 61)),
        "image strip.tiff": tiff(2**31),
        "record text.png": png(20, 20, chunk(b"zTXt", text)),
        "record many.png": png(20, 20, *[chunk(b"tEXt", b"k%d\0" % k + bytes(500_000))
                                         for k in range(150)]),
        "grid long.toml": b"# " + b"a" * (5 * MEGABYTE),
        "grid deep.toml": b"a = " + b"[" * 100_000,
        "grid cells.toml": b"[base]\ncontent='a'\nstyle='b'\n[grid]\n" + b"".join(
            b"%s = [%s]\n" % (axis, b",".join(b"%d" % n for n in range(1, 3000)))
            for axis in (b"steps", b"seed", b"content_weight", b"style_weight")),
    }  # fmt: skip


CHILD = """
import json, resource, sys, time
from pathlib import Path
import h5py, scipy.io  # What is loaded later is not what the files ask for.
from jaxstyle.provenance import checkpoint
from jaxstyle import images
from jaxstyle.provenance import record
from jaxstyle.errors import JaxstyleError
from jaxstyle.sweep.grid_file import read as read_grid
from jaxstyle.weights.weight_file import read_network
from jaxstyle.weights.formats.readers import read_source

READ = {
    "source": read_source, "network": read_network, "checkpoint": checkpoint.read_checkpoint,
    "image": images.load_image, "record": record.read_record, "grid": read_grid,
}
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 96 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
found = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    begun = time.process_time()
    try:
        READ[path.name.split()[0]](path)
        told = "read"
    except JaxstyleError as error:
        told = str(error)
    except BaseException as error:
        told = f"not refused but {error!r}"
    found[path.name] = (told, time.process_time() - begun)
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc")
def test_memory_and_time_are_bounded(tmp_path):
    files = hostile()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == set(files)
    # A huge text or profile beside good pixels may be passed over.
    readable = {"image text.png", "image profile.png", "image strip.tiff", "source memo.pth"}
    wrong = {
        name: told
        for name, (told, _) in found.items()
        if told.startswith("not refused") or "\n" in told
        or (told == "read" and name not in readable)
    }  # fmt: skip
    assert not wrong
    slow = {name: seconds for name, (_, seconds) in found.items() if seconds > 10}
    assert not slow


# What fuzzing has found (tests/fuzz), as it found it.
FINDINGS = {
    "a .npy header that Python's tokenizer stumbles over": archive(
        "conv0.npy", npy("{'descr': '<f8', 'fortran_order': False, 'shape<f8', 'a': False, '")
    ),
}


@pytest.mark.parametrize("data", FINDINGS.values(), ids=FINDINGS)
def test_findings_of_fuzzing(data, tmp_path):
    (tmp_path / "found").write_bytes(data)
    with pytest.raises(JaxstyleError) as caught:
        read_source(tmp_path / "found")
    assert "\n" not in str(caught.value)


def test_weights_that_compress_a_little_are_read(tmp_path):
    import h5py
    import scipy.io

    arrays = {"conv1_1": np.repeat(np.random.default_rng(0).normal(size=(64, 1)), 5000, axis=1)}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    scipy.io.savemat(tmp_path / "a.mat", {"layers": arrays["conv1_1"]}, do_compression=True)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("conv1_1", data=arrays["conv1_1"], compression="gzip")
    (tmp_path / "a.safetensors").write_bytes(safetensors.numpy.save(arrays))
    for name in ("a.npz", "a.mat", "a.h5", "a.safetensors"):
        found = read_source(tmp_path / name)
        array = found["layers" if name == "a.mat" else "conv1_1"]
        np.testing.assert_array_equal(array, arrays["conv1_1"])
