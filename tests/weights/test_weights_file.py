"""The format that networks are kept in: round trips, determinism and damaged files."""

import dataclasses
import hashlib
import json
import os
import struct

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxstyle.errors import JaxstyleError
from jaxstyle.nn.network import Network
from jaxstyle.nn.preprocessing import CONVENTIONS, Preprocessing
from jaxstyle.nn.vgg import features
from jaxstyle.weights import digest, read_network, save_network


def make_network(layers=("conv1_1", "conv1_2", "conv2_1"), dtype="f4", **fields):
    rng = np.random.default_rng(3)
    params, channels = {}, 3
    for width, layer in enumerate(layers, start=4):
        params[layer] = {
            "kernel": jnp.asarray(rng.normal(size=(3, 3, channels, width)), dtype),
            "bias": jnp.asarray(rng.normal(size=width), dtype),
        }
        channels = width
    fields = {
        "topology": "vgg19",
        "convention": CONVENTIONS["torchvision"],
        "name": "näme",
        "source": "https://example.org/a?b=c",
        "license": "CC BY 4.0",
    } | fields
    return Network(params=params, **fields)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "net.safetensors"
    save_network(make_network(), path)
    return path


def refuse(path, *words):
    with pytest.raises(JaxstyleError) as caught:
        read_network(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for word in words:
        assert word in message, message


def test_round_trip(tmp_path):
    convention = Preprocessing("rgb", 255.0, (123.68, 116.779, 103.939), (1.0, 2.0, 0.1), "reflect")
    network = make_network(convention=convention)
    path = tmp_path / "net.safetensors"
    save_network(network, path)
    found = read_network(path)
    assert found.convention == convention
    assert (found.topology, found.name) == ("vgg19", "näme")
    assert (found.source, found.license) == (network.source, network.license)
    assert found.digest == digest(network.params)
    assert found.layers == network.layers
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(found.params))
    jax.tree.map(np.testing.assert_array_equal, dict(found.params), dict(network.params))
    image = np.full((8, 8, 3), 0.3, "f4")
    assert features(found, image, ["relu2_1"])["relu2_1"].shape == (4, 4, 6)


def test_same_bytes_every_time_and_readable_by_the_library(tmp_path):
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        save_network(make_network(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    # Of the format, not of this run: a change breaks files that people have.
    with safetensors.safe_open(paths[0], framework="np") as file:
        metadata = file.metadata()
        assert metadata["format"] == "jaxstyle-network-1"
        assert set(metadata) == {
            *("format", "network", "name", "source", "licence", "channel_order", "scale"),
            *("mean", "std", "padding", "digest"),
        }
        assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
        assert sorted(file.keys())[:2] == ["conv1_1.bias", "conv1_1.kernel"]
    loaded = safetensors.numpy.load_file(paths[0])
    assert np.array_equal(loaded["conv1_2.kernel"], make_network().params["conv1_2"]["kernel"])


def test_order_of_params_does_not_matter(tmp_path):
    network = make_network()
    turned = {k: dict(reversed(v.items())) for k, v in reversed(network.params.items())}
    assert digest(turned) == digest(network.params)
    save_network(network, tmp_path / "a.safetensors")
    save_network(dataclasses.replace(network, params=turned), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_digest_is_what_it_says():
    bias, kernel = np.array([1.5, -2], "<f4"), np.arange(54, dtype="<f4").reshape(3, 3, 3, 2)
    expected = hashlib.sha256(
        b"conv1_1.bias\0float32\0002\0" + bias.tobytes()
        + b"conv1_1.kernel\0float32\0003x3x3x2\0" + kernel.tobytes()
    ).hexdigest()  # fmt: skip
    params = {"conv1_1": {"kernel": kernel, "bias": bias}}
    assert digest(params) == expected
    swapped = {"conv1_1": {"kernel": kernel.astype(">f4"), "bias": bias}}
    assert digest(jax.tree.map(np.asfortranarray, params)) == expected
    assert digest(swapped) == expected
    assert digest({"conv1_1": {"kernel": kernel, "bias": bias.astype("f2")}}) != expected


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_half_precision_is_kept_on_disk_and_widened(dtype, tmp_path):
    network = make_network(dtype=dtype)
    path = tmp_path / "net.safetensors"
    save_network(network, path)
    found = read_network(path)
    assert found.digest == digest(network.params)
    for leaf, original in zip(
        jax.tree.leaves(found.params), jax.tree.leaves(network.params), strict=True
    ):
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, np.asarray(original).astype("f4"))
    save_network(make_network(), tmp_path / "wide.safetensors")
    assert path.stat().st_size < (tmp_path / "wide.safetensors").stat().st_size


def test_mixed_precision(tmp_path):
    network = make_network()
    network.params["conv1_1"]["bias"] = network.params["conv1_1"]["bias"].astype(jnp.float16)
    save_network(network, tmp_path / "net.safetensors")
    assert read_network(tmp_path / "net.safetensors").digest == digest(network.params)


def test_what_is_not_a_network_is_not_saved(tmp_path):
    path = tmp_path / "net.safetensors"
    for network in (
        make_network(("conv1_1", "conv2_1")),
        make_network(("conv1_1", "fc6")),
        make_network(topology="vgg11"),
        make_network(dtype="i4"),
        dataclasses.replace(make_network(), params={}),
        dataclasses.replace(make_network(), params={"conv1_1": {"kernel": jnp.ones((3, 3, 3, 4))}}),
    ):
        with pytest.raises(JaxstyleError):
            save_network(network, path)
    with pytest.raises(JaxstyleError, match="must end in .safetensors"):
        save_network(make_network(), tmp_path / "net.pth")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, full)
            with pytest.raises(JaxstyleError, match="No space left"):
                save_network(make_network(name="other"), saved)
        assert saved.read_bytes() == before
        assert list(saved.parent.iterdir()) == [saved]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            save_network(make_network(name="other"), saved)
    assert list(saved.parent.iterdir()) == [saved]
    with pytest.raises(JaxstyleError, match="cannot be written"):
        save_network(make_network(), saved / "under" / "a-file.safetensors")


def parts(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def rewrite(path, header, body):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize(
    ("field", "values"),
    {
        "format": [None, "jaxstyle-network-2", ""],
        "network": [None, "vgg11", ""],
        "name": [None],
        "source": [None],
        "licence": [None],
        "channel_order": [None, "grb", "rgb "],
        "scale": [None, "0", "-1", "NaN", "1e999", "[1]", "", "1" * 400, "1, 2", '"1"', "true"],
        "mean": [None, "[1, 2]", "[1, 2, NaN]", "1", "[" * 5000, '["1", 2, 3]', "null", "{}"],
        "std": [None, "[1, 0, 1]", "[1, 1, -1]", "[1, 1, Infinity]"],
        "padding": [None, "same"],
        "digest": [None, "", "0" * 64, "\n"],
    }.items(),
)
def test_metadata_that_is_missing_or_wrong(field, values, saved):
    header, body = parts(saved)
    for value in values:
        changed = dict(header["__metadata__"])
        del changed[field]
        if value is not None:
            changed[field] = value
        rewrite(saved, header | {"__metadata__": changed}, body)
        refuse(saved)


def test_arrays_that_are_missing_or_wrong(saved):
    header, body = parts(saved)
    tensors = {k: v for k, v in header.items() if k != "__metadata__"}
    # Each with a digest that agrees, so that only the content is wrong.
    loaded = safetensors.numpy.load_file(saved)

    def changed(**changes):
        flat = {k: v for k, v in (loaded | changes).items() if v is not None}
        nested: dict = {}
        for name, array in flat.items():
            layer, _, part = name.partition(".")
            nested.setdefault(layer, {})[part] = array
        metadata = header["__metadata__"] | {"digest": digest(nested)}
        safetensors.numpy.save_file(flat, saved, metadata)
        return saved

    read_network(changed())
    refuse(changed(**{"conv1_2.kernel": None, "conv1_2.bias": None}), "conv1_2", "missing")
    refuse(changed(**{"conv1_2.bias": None}), "conv1_2", "bias")
    refuse(changed(**{"conv1_2.extra": np.ones(3, "f4")}), "conv1_2", "extra")
    refuse(changed(**{"conv1_2.bias": np.ones(9, "f4")}), "conv1_2")
    refuse(changed(**{"conv1_2.kernel": np.ones((3, 3, 7, 5), "f4")}), "conv1_2", "7 channels")
    refuse(changed(**{"conv9_1.bias": np.ones(9, "f4")}), "conv9_1")
    refuse(changed(**{"": np.ones(9, "f4")}))
    refuse(changed(**{"conv1_2.bias": np.ones(5, "f8")}), "conv1_2.bias", "float64")
    refuse(changed(**{"conv1_2.bias": np.full(5, np.nan, "f4")}), "finite")
    refuse(changed(**{"conv1_2.bias": np.full(5, np.inf, ml_dtypes.bfloat16)}), "finite")
    save_network(make_network(), saved)
    rewrite(saved, {"__metadata__": header["__metadata__"]} | tensors, body[:-4] + b"\0\0\0\0")
    refuse(saved, "damaged", header["__metadata__"]["digest"])


def test_headers_that_lie(saved):
    header, body = parts(saved)
    name = "conv1_1.bias"
    for change in (
        {"shape": [1 << 40]},
        {"shape": [-4]},
        {"shape": []},
        {"dtype": "F64"},
        {"dtype": "X"},
        {"dtype": "F8_E4M3", "shape": [16]},
        {"data_offsets": [0, 1 << 40]},
        {"data_offsets": [16, 0]},
    ):
        rewrite(saved, header | {name: header[name] | change}, body)
        refuse(saved)
    for size in (0, 1 << 20, 1 << 40, (1 << 64) - 1):
        saved.write_bytes(struct.pack("<Q", size) + saved.read_bytes()[8:])
        refuse(saved)
    rewrite(saved, header, body + b"more")
    refuse(saved)


def test_truncated_anywhere(saved):
    data = saved.read_bytes()
    for end in [*range(0, len(data), 37), len(data) - 1]:
        saved.write_bytes(data[:end])
        refuse(saved)


def test_absent_and_other_files(tmp_path):
    refuse(tmp_path / "absent.safetensors", "does not exist")
    refuse(tmp_path, "does not exist")
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"a": np.ones(3)}, other)
    refuse(other, "weights convert")
    other.write_bytes(b"\x80\x02not safetensors at all")
    refuse(other, "fetch or convert it again")


@settings(
    max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 20), st.integers(1, 255)), min_size=1, max_size=3
    )
)
def test_flipped_bytes(changes, saved):
    """A flipped byte is an error, unless it is in words that nothing depends on."""
    save_network(make_network(), saved)
    original = read_network(saved)
    data = bytearray(saved.read_bytes())
    for position, value in changes:
        data[position % len(data)] ^= value
    saved.write_bytes(data)
    try:
        found = read_network(saved)
    except JaxstyleError as error:
        assert "\n" not in str(error)
    else:
        assert found.digest == original.digest
        assert digest(found.params) == digest(original.params)
