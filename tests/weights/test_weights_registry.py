"""Weights by name, and the downloader against a server on this machine."""

import hashlib
import http.server
import io
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxstyle import weights
from jaxstyle.errors import JaxstyleError
from jaxstyle.nn import vgg
from jaxstyle.nn.preprocessing import CONVENTIONS
from jaxstyle.weights import download, manifest

LAYERS = ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "conv3_1", "conv3_2", "conv3_3", "conv3_4")


def source_file():
    """A `.npz` with eight narrow layers of a VGG-19."""
    rng = np.random.default_rng(1)
    state, channels = {}, 3
    for width, layer in enumerate(LAYERS, start=4):
        state[f"{layer}.weight"] = rng.normal(size=(width, channels, 3, 3)).astype("f4")
        state[f"{layer}.bias"] = rng.normal(size=width).astype("f4")
        channels = width
    # Several of the pieces that a download comes in.
    state["padding"] = rng.normal(size=60_000)
    stream = io.BytesIO()
    np.savez(stream, **state)
    return stream.getvalue()


GOOD = source_file()
SIZE = len(GOOD)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append(self.path)
        kind = self.path.strip("/").partition(".")[0]
        if kind == "missing":
            self.send_error(404)
            return
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://elsewhere.invalid/good.npz")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = GOOD
        if kind == "wrong":
            data = GOOD[:-1] + bytes([GOOD[-1] ^ 1])
        elif kind == "short":
            data = GOOD[: len(GOOD) // 2]
        elif kind == "long":
            data = GOOD * 3
        elif kind == "garbage":
            data = b"not a network, but with the right digest"
        start = 0
        if kind == "parts" and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            data = data[start:]
        self.server.starts.append(start)
        self.send_response(206 if start else 200)
        if start:
            end = start + len(data)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if kind == "parts" and len(data) > SIZE // 2:
            self.wfile.write(data[: SIZE // 3])
            self.close_connection = True
            return
        if kind == "forgetful" and self.server.requests.count(self.path) < 3:
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        if kind == "cut":
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requests, running.starts = [], []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def place(server, tmp_path, monkeypatch):
    """A cache, and `place.manifest(urls, ...)` to write a manifest with one source, `small`."""
    cache, path = tmp_path / "cache", tmp_path / "manifest.toml"
    monkeypatch.setenv("JAXSTYLE_CACHE", str(cache))
    monkeypatch.setenv("JAXSTYLE_MANIFEST", str(path))
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    server.requests.clear()
    server.starts.clear()
    base = f"http://127.0.0.1:{server.server_address[1]}"

    def write(*urls, size=SIZE, digest=None, name="small", extra=""):
        digest = digest or f"sha256:{hashlib.sha256(GOOD).hexdigest()}"
        urls = [url if ":" in url else f"{base}/{url}.npz" for url in urls]
        path.write_text(
            f"[sources.{name}]\nkind = 'gatys'\nnetwork = 'vgg19'\nconvention = 'caffe'\n"
            f"urls = {urls!r}\nlicence = 'none'\n"
            + (f"size = {size}\n" if size else "")
            + (f"digest = '{digest}'\n" if digest != "none" else "")
            + extra
        )

    write("good")
    return SimpleNamespace(
        manifest=write,
        cache=cache,
        base=base,
        folder=tmp_path,
        requests=server.requests,
        starts=server.starts,
    )


def left(place):
    return sorted(p.name for p in place.cache.rglob("*")) if place.cache.exists() else []


def refuse(place, *words, name="small"):
    with pytest.raises(JaxstyleError) as caught:
        weights.fetch(name)
    message = str(caught.value)
    assert "\n" not in message
    for word in (name, *words):
        assert word in message, message
    assert left(place) == []


def test_fetches_checks_and_converts(place):
    seen = []
    path = weights.fetch("small", progress=lambda done, total: seen.append((done, total)))
    assert path == place.cache / "small.safetensors" == weights.path("small")
    assert left(place) == ["small.safetensors"]
    assert seen[-1] == (len(GOOD), len(GOOD))
    network = weights.load_network("small")
    assert network.layers == LAYERS and network.topology == "vgg19"
    assert network.name == "small" and network.convention == CONVENTIONS["caffe"]
    assert network.source == f"{place.base}/good.npz" and network.license == "none"
    assert weights.verify("small") == {"small": network.digest} == weights.verify()
    assert weights.load_network(path).digest == network.digest


@pytest.mark.parametrize("damage", ["cut short", "a byte flipped", "empty"])
def test_is_fetched_once_unless_damaged(place, damage):
    path = weights.fetch("small")
    whole = path.read_bytes()
    weights.fetch("small")
    assert len(place.requests) == 1
    half = len(whole) // 2
    path.write_bytes(
        {
            "cut short": whole[:half],
            "a byte flipped": whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(JaxstyleError, match="small"):
        weights.verify()
    with pytest.raises(JaxstyleError, match="again"):
        weights.load_network("small")
    weights.fetch("small")
    assert len(place.requests) == 2 and path.read_bytes() == whole


@pytest.mark.parametrize("size", [len(GOOD), None])
def test_wrong_digest(place, size):
    place.manifest("wrong", size=size)
    refuse(place, hashlib.sha256(GOOD).hexdigest(), "wrong digest", "got sha256:")


def test_truncated(place):
    place.manifest("short")
    refuse(place, "truncated", str(len(GOOD)), str(len(GOOD) // 2))
    place.manifest("short", size=None)
    refuse(place, "wrong digest")


def test_larger_than_expected(place):
    place.manifest("long")
    refuse(place, "larger", str(len(GOOD)))


def test_larger_than_anything(place, monkeypatch):
    monkeypatch.setattr(download, "_MAX_BYTES", 1000)
    place.manifest("good", size=None)
    refuse(place, "larger", "1000")


@pytest.mark.parametrize("size", [len(GOOD), None])
def test_connection_cut_half_way(place, size):
    place.manifest("cut", size=size)
    refuse(place)


def test_a_cut_connection_is_resumed_where_it_broke(place):
    place.manifest("parts")
    assert weights.fetch("small").exists()
    assert len(place.starts) >= 3 and place.starts[0] == 0
    assert all(a < b for a, b in itertools.pairwise(place.starts))


def test_a_server_without_ranges_is_asked_from_the_start(place):
    place.manifest("forgetful")
    assert weights.fetch("small").exists()
    assert place.starts == [0, 0, 0]


def test_two_at_once_both_have_it(place):
    place.manifest("parts")
    command = [Path(sys.executable).with_name("jaxstyle"), "weights", "fetch", "small"]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert weights.load_network("small").digest
    assert left(place) == ["small.safetensors"]


def test_what_a_killed_download_left_is_swept_away(place):
    for name, hours in ((".fetch-old", 25), (".fetch-new", 1)):
        (place.cache / name).mkdir(parents=True)
        (place.cache / name / "small").write_bytes(b"half")
        then = time.time() - hours * 3600
        os.utime(place.cache / name, (then, then))
    weights.fetch("small")
    assert left(place) == [".fetch-new", "small", "small.safetensors"]


def test_server_without_the_file(place):
    place.manifest("missing")
    refuse(place, "404", "weights convert")


def test_unreachable(place):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        place.manifest(f"http://127.0.0.1:{closed.getsockname()[1]}/good.npz")
        refuse(place, "not reachable")
    place.manifest("https://name.invalid/good.npz")
    refuse(place, "https://name.invalid/good.npz")


@pytest.mark.parametrize("first", ["missing", "wrong", "cut", "short", "long"])
def test_next_mirror(place, first):
    place.manifest(first, "good")
    weights.fetch("small")
    assert list(dict.fromkeys(place.requests)) == [f"/{first}.npz", "/good.npz"]
    assert left(place) == ["small.safetensors"]


def test_all_mirrors_fail(place):
    place.manifest("missing", "wrong")
    refuse(place, "/missing.npz: the server answered 404", "/wrong.npz: wrong digest")


@pytest.mark.parametrize(
    "digest",
    [
        f"md5:{hashlib.md5(GOOD).hexdigest()}",
        f"sha256-prefix:{hashlib.sha256(GOOD).hexdigest()[:8]}",
    ],
)
def test_other_digests(place, digest):
    place.manifest("good", digest=digest)
    weights.fetch("small")
    place.manifest("wrong", digest=digest)
    shutil.rmtree(place.cache)
    refuse(place, "wrong digest", digest)


def test_without_a_digest_nothing_is_fetched(place):
    place.manifest("good", digest="none")
    refuse(place, "no published digest", "weights convert", f"{place.base}/good.npz")
    assert place.requests == []
    assert weights.describe()[0].where == "not fetchable"
    with pytest.raises(JaxstyleError, match="no published digest"):
        weights.load_network("small")


def test_right_digest_but_not_a_network(place):
    data = b"not a network, but with the right digest"
    place.manifest("garbage", size=len(data), digest=f"sha256:{hashlib.sha256(data).hexdigest()}")
    refuse(place, "none of")


@pytest.mark.parametrize(
    "url",
    ["http://example.invalid/a.npz", "ftp://127.0.0.1/a", "file:///etc/passwd", "http://[::1/a"],
)
def test_only_https(place, url):
    place.manifest(url)
    with pytest.raises(JaxstyleError):
        weights.fetch("small")
    assert left(place) == []


def test_plain_http_on_this_machine_needs_the_test_manifest(place, monkeypatch):
    download.check_url(f"{place.base}/good.npz")
    monkeypatch.delenv("JAXSTYLE_MANIFEST")
    with pytest.raises(JaxstyleError, match="https only"):
        download.check_url(f"{place.base}/good.npz")


def test_redirect_to_plain_http_is_refused(place):
    place.manifest("redirect")
    refuse(place)


def test_interrupted(place):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        weights.fetch("small", progress=stop)
    assert left(place) == []


def test_cache_that_cannot_be_written(place, monkeypatch):
    (place.folder / "file").write_text("x")
    monkeypatch.setenv("JAXSTYLE_CACHE", str(place.folder / "file" / "cache"))
    with pytest.raises(JaxstyleError, match="JAXSTYLE_CACHE"):
        weights.fetch("small")


def test_names_paths_and_errors(place):
    assert weights.names() == ("small",)
    (row,) = weights.describe()
    assert row[:5] == ("small", "vgg19", "not fetched", len(GOOD), "none")
    for function in (weights.fetch, weights.path, weights.verify, weights.load_network):
        with pytest.raises(JaxstyleError, match="'vgg7' are not known; choose from auto, small"):
            function("vgg7")
    for function in (weights.path, weights.verify, weights.load_network):
        with pytest.raises(JaxstyleError, match="jaxstyle weights fetch small"):
            function("small")
    assert weights.verify() == {}
    with pytest.raises(JaxstyleError, match="does not exist"):
        weights.load_network(place.folder / "absent.safetensors")
    (place.folder / "vgg.pth").write_bytes(b"x")
    with pytest.raises(JaxstyleError, match="weights convert"):
        weights.load_network(place.folder / "vgg.pth")
    weights.fetch("small")
    row = weights.describe()[0]
    assert row.where == "cached" and row.size == weights.path("small").stat().st_size


def embed(place, *, trained, digest=None, name="medium"):
    (place.folder / "a.npz").write_bytes(GOOD)
    network = weights.convert(place.folder / "a.npz", name=name)
    weights.save_network(network, place.folder / "medium.safetensors")
    place.manifest(
        "good",
        name="vgg19",
        extra="[embedded.medium]\nfile = 'medium.safetensors'\nnote = 'small'\n"
        f"digest = 'sha256:{digest or network.digest}'\ntrained = {str(trained).lower()}\n",
    )


def test_auto_prefers_vgg19(place):
    embed(place, trained=True)
    assert weights.load_network("auto").name == "medium"
    notice = weights.auto_notice()
    assert "jaxstyle weights fetch vgg19" in notice and "\n" not in notice
    assert "untrained" not in notice
    assert weights.fetch("medium") == place.folder / "medium.safetensors"
    assert weights.describe()[0][:3] == ("medium", "vgg19", "embedded")
    weights.fetch("vgg19")
    assert weights.load_network().name == "vgg19" and weights.auto_notice() is None
    assert set(weights.verify()) == {"medium", "vgg19"}


def test_embedded_network_is_pinned(place):
    embed(place, trained=False, digest="0" * 64)
    assert "untrained" in weights.auto_notice()
    assert "untrained" in weights.describe()[0].note
    for function in (weights.load_network, weights.verify):
        with pytest.raises(JaxstyleError, match="as the manifest says"):
            function("medium")
    (place.folder / "medium.safetensors").unlink()
    with pytest.raises(JaxstyleError, match="missing"):
        weights.load_network("auto")


@pytest.mark.parametrize(
    "text",
    [
        "not toml",
        "[sources.a]\nkind = 'keras'",
        "[sources]\na = 3",
        "[embedded.a]\nfile = 'x'",
        "sources = 3",
    ],
)
def test_damaged_manifest(place, text):
    (place.folder / "manifest.toml").write_text(text)
    with pytest.raises(JaxstyleError, match="manifest"):
        weights.names()


@pytest.mark.parametrize("digest", ["sha256:12", "md5:", "crc32:12345678", "sha256-prefix:XY"])
def test_digest_that_is_none(place, digest):
    place.manifest("good", digest=digest)
    with pytest.raises(JaxstyleError, match="digest"):
        weights.names()


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("JAXSTYLE_CACHE", str(tmp_path))
    assert weights.cache_folder() == tmp_path
    monkeypatch.delenv("JAXSTYLE_CACHE")
    assert "jaxstyle" in weights.cache_folder().parts


# The manifest that comes with jaxstyle.


@pytest.fixture
def own(monkeypatch, tmp_path):
    monkeypatch.delenv("JAXSTYLE_MANIFEST", raising=False)
    monkeypatch.setenv("JAXSTYLE_CACHE", str(tmp_path))
    return manifest.read_manifest()


def test_own_manifest(own):
    assert {"medium", "compact", "vgg19", "vgg16", "vgg19-torchvision", "vgg16-torchvision"} <= set(
        weights.names()
    )
    for source in own.sources.values():
        assert source.license and source.network in ("vgg16", "vgg19") and source.urls
        assert source.convention in ("caffe", "torchvision", "matconvnet")
        for url in source.urls:
            download.check_url(url)
    assert own.sources["vgg19"].size == 80134624
    assert [row.name for row in weights.describe()] == list(weights.names())
    with pytest.raises(JaxstyleError, match="jaxstyle weights fetch vgg19"):
        weights.load_network("vgg19")


def test_own_embedded_networks(own):
    for entry in own.embedded.values():
        assert weights.load_network(entry.name).digest == entry.digest
    assert weights.verify() == {name: entry.digest for name, entry in own.embedded.items()}
    assert weights.load_network("auto").digest == own.embedded["medium"].digest
    assert "vgg19" in weights.auto_notice()


def test_medium_is_float16_in_the_file_and_float32_in_use(own):
    file = Path(own.embedded["medium"].file)
    stored = safetensors.numpy.load_file(file)
    assert {array.dtype.name for array in stored.values()} == {"float16"}
    assert file.stat().st_size < 8_000_000
    network = weights.load_network("medium")
    for layer, arrays in network.params.items():
        for part, array in arrays.items():
            assert array.dtype == jnp.float32
            np.testing.assert_array_equal(array, stored[f"{layer}.{part}"].astype(np.float32))


def test_medium_has_a_gradient_where_an_image_is_flat(own):
    network = weights.load_network("medium")
    layers = tuple(name.replace("conv", "relu") for name in network.layers)
    for value in (0.0, 0.5, 1.0):
        flat = jnp.full((64, 64, 3), value)
        for layer in layers:
            gradient = jax.grad(lambda x, k=layer: vgg.features(network, x, (k,))[k].mean())(flat)
            assert jnp.abs(gradient[24:40, 24:40]).max() > 0, (value, layer)
