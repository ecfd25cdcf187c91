"""Every source's file, built here from random numbers, against an independent forward pass."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxstyle.errors import JaxstyleError
from jaxstyle.nn.preprocessing import CONVENTIONS
from jaxstyle.nn.vgg import features
from jaxstyle.weights import convert, matconvnet_to_flax, save_network, torchvision_to_flax
from jaxstyle.weights.formats import readers

COUNTS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
LAYERS = ("relu1_1", "relu2_1", "conv3_2", "relu4_2", "relu5_1")
WIDTHS = (4, 5, 6, 8, 7)
SHARED = Path(__file__).parents[3] / "shared" / "weights"


def layer_names(network):
    return [f"conv{b}_{i}" for b, n in enumerate(COUNTS[network], 1) for i in range(1, n + 1)]


def random_state(network="vgg19", *, scale=1.0, names=None, seed=0):
    """`{"conv1_1": (weight OIHW, bias)}`, with activations of about 1 throughout."""
    rng = np.random.default_rng(seed)
    state, channels = {}, 3
    for name in names or layer_names(network):
        width = WIDTHS[int(name[4]) - 1]
        weight = rng.normal(size=(width, channels, 3, 3)) * np.sqrt(2 / 9 / channels)
        if name == "conv1_1":
            weight *= scale
        state[name] = (weight.astype("f4"), rng.normal(size=width).astype("f4") * 0.1)
        channels = width
    return state


def numbered(state, network):
    """torchvision's keys, with the numbers of its two networks written out."""
    positions = {
        "vgg16": (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
        "vgg19": (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
    }[network]
    keys = {}
    for name, n in zip(layer_names(network), positions, strict=True):
        if name in state:
            keys[f"features.{n}.weight"], keys[f"features.{n}.bias"] = state[name]
    return keys


def named(state):
    return {f"{k}.{p}": a for k, v in state.items() for p, a in zip(("weight", "bias"), v)}  # noqa: B905


def write_pth(path, keys, *, zipped=True):
    torch = pytest.importorskip("torch")
    keys = {k: torch.from_numpy(np.array(a)) for k, a in keys.items()}
    keys["classifier.0.weight"] = torch.ones(5, 7)
    torch.save(keys, path, _use_new_zipfile_serialization=zipped)


def write_h5(path, state, style):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, (weight, bias) in state.items():
            block = f"block{name[4]}_conv{name[6]}"
            kernel, offset = {
                "2016": (f"{block}/{block}_W_1:0", f"{block}/{block}_b_1:0"),
                "2019": (f"{block}/{block}/kernel:0", f"{block}/{block}/bias:0"),
                "keras3": (f"layers/{block}/vars/0", f"layers/{block}/vars/1"),
            }[style]
            file[kernel], file[offset] = weight.transpose(2, 3, 1, 0), bias
        file["fc1/fc1_W_1:0"] = np.ones((3, 4), "f4")
        file.create_group("block1_pool")


def write_mat(path, state, style):
    scipy_io = pytest.importorskip("scipy.io")
    cells = []
    for name, (weight, bias) in state.items():
        kernel = weight.transpose(2, 3, 1, 0)
        entry = {"name": name, "type": "conv"}
        if style == "new":
            pair = np.empty((1, 2), object)
            pair[0, 0], pair[0, 1] = kernel, bias[:, None]
            entry["weights"] = pair
        else:
            entry |= {"filters": kernel, "biases": bias[None]}
        cells += [entry, {"name": name.replace("conv", "relu"), "type": "relu"}]
    cells.append({"name": "fc6", "type": "conv", "weights": np.ones((1, 2))})
    layers = np.empty((1, len(cells)), object)
    layers[0, :] = cells
    scipy_io.savemat(path, {"meta": {"inputs": 1}, "layers": layers}, do_compression=True)


def network_input(image, order, scale, mean, std=(1.0, 1.0, 1.0)):
    x = np.asarray(image, np.float64)
    x = np.stack([x[..., "rgb".index(c)] for c in order], -1) * scale
    return (x - np.array(mean)) / np.array(std)


INPUTS = {
    "caffe": lambda i: network_input(i, "bgr", 255, (103.939, 116.779, 123.68)),
    "matconvnet": lambda i: network_input(i, "rgb", 255, (123.68, 116.779, 103.939)),
    "torchvision": lambda i: network_input(
        i, "rgb", 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ),
}


def torch_forward(state, x, *, pooling="max", padding="zeros"):
    torch = pytest.importorskip("torch")
    fn = torch.nn.functional
    pool = fn.max_pool2d if pooling == "max" else fn.avg_pool2d
    x = torch.from_numpy(x.transpose(2, 0, 1)[None]).double()
    found, block = {}, "1"
    for name, (weight, bias) in state.items():
        if name[4] != block:
            x, block = pool(x, 2), name[4]
        x = fn.pad(x, (1, 1, 1, 1), mode="reflect" if padding == "reflect" else "constant")
        x = fn.conv2d(x, torch.from_numpy(weight).double(), torch.from_numpy(bias).double())
        found[name] = x[0].permute(1, 2, 0).numpy()
        x = fn.relu(x)
        found[name.replace("conv", "relu")] = x[0].permute(1, 2, 0).numpy()
    return found


def scipy_forward(state, x):
    """The same with SciPy, zeros and max pooling, for when torch is absent."""
    ndimage = pytest.importorskip("scipy.ndimage")
    found, block = {}, "1"
    for name, (weight, bias) in state.items():
        if name[4] != block:
            h, w = x.shape[0] // 2, x.shape[1] // 2
            x = np.max([x[i : 2 * h : 2, j : 2 * w : 2] for i in (0, 1) for j in (0, 1)], axis=0)
            block = name[4]
        planes = [
            sum(
                ndimage.correlate(x[..., i], weight[o, i].astype("f8"), mode="constant")
                for i in range(x.shape[2])
            )
            for o in range(weight.shape[0])
        ]
        found[name] = np.stack(planes, -1) + bias
        x = found[name.replace("conv", "relu")] = np.maximum(found[name], 0)
    return found


def image(h=37, w=45):
    return np.random.default_rng(5).uniform(size=(h, w, 3)).astype("f4")


def assert_same(network, expected, image, layers=LAYERS, pooling="max"):
    found = features(network, image, layers, pooling=pooling)
    for layer in layers:
        # Relative to the layer: conv's float32 sums against float64.
        scale = np.abs(expected[layer]).max()
        assert scale > 0.05, layer
        np.testing.assert_allclose(found[layer], expected[layer], atol=2e-5 * scale, err_msg=layer)


SOURCES = {
    "torchvision zip": ("torchvision", lambda p, s, n: write_pth(p, numbered(s, n))),
    "torchvision legacy": (
        "torchvision",
        lambda p, s, n: write_pth(p, numbered(s, n), zipped=False),
    ),
    "caffe legacy": ("caffe", lambda p, s, n: write_pth(p, numbered(s, n), zipped=False)),
    "gatys": ("caffe", lambda p, s, n: write_pth(p, named(s))),
    "keras 2016": ("caffe", lambda p, s, n: write_h5(p, s, "2016")),
    "keras 2019": ("caffe", lambda p, s, n: write_h5(p, s, "2019")),
    "keras 3": ("caffe", lambda p, s, n: write_h5(p, s, "keras3")),
    "matconvnet": ("matconvnet", lambda p, s, n: write_mat(p, s, "new")),
    "matconvnet old": ("matconvnet", lambda p, s, n: write_mat(p, s, "old")),
    "npz": ("caffe", lambda p, s, n: np.savez_compressed(p.open("wb"), **named(s))),
}


@pytest.mark.parametrize("network", ["vgg16", "vgg19"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_source_computes_the_original_activations(source, network, tmp_path):
    kind, write = SOURCES[source]
    state = random_state(network, scale=1.0 if kind == "torchvision" else 0.01)
    path = tmp_path / "misleading.bin"
    write(path, state, network)
    asked = kind if source.startswith(("torchvision", "caffe")) else None

    net = convert(path, convention=asked, trust_source=True)

    assert net.topology == network
    assert net.layers == tuple(layer_names(network))
    assert net.name == "misleading" and net.convention.padding == "zeros"
    x = INPUTS[kind](image())
    if source == "npz":
        expected = scipy_forward(state, x)
    else:
        expected = torch_forward(state, x)
    assert_same(net, expected, image())


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("padding", ["zeros", "reflect"])
def test_pooling_and_padding(pooling, padding, tmp_path):
    state = random_state("vgg19", scale=0.01)
    path = tmp_path / "a.npz"
    np.savez(path, **named(state))
    net = convert(path, padding=padding)
    assert net.convention.padding == padding
    expected = torch_forward(state, INPUTS["caffe"](image()), pooling=pooling, padding=padding)
    assert_same(net, expected, image(), pooling=pooling)


def test_matconvnet_as_caffe_is_the_same_function(tmp_path):
    state = random_state("vgg19", scale=0.01)
    write_mat(tmp_path / "a.mat", state, "new")
    net = convert(tmp_path / "a.mat", convention="caffe", trust_source=True)
    assert net.convention == CONVENTIONS["caffe"]
    assert_same(net, torch_forward(state, INPUTS["matconvnet"](image())), image())
    with pytest.raises(JaxstyleError, match="torchvision"):
        convert(tmp_path / "a.mat", convention="torchvision", trust_source=True)


def test_matconvnet_kernel_axes_are_kept():
    struct = np.empty((1, 1), dtype=[("name", object), ("filters", object), ("biases", object)])
    kernel = np.arange(3 * 3 * 3 * 2, dtype="f4").reshape(3, 3, 3, 2)
    struct[0, 0] = (np.array(["conv1_1"]), kernel, np.zeros((1, 2)))
    params = matconvnet_to_flax({"layers": np.array([[struct, 0]], object)[:, :1]})
    assert np.array_equal(params["conv1_1"]["kernel"], kernel)


def test_safetensors_state_dict(tmp_path):
    import safetensors.numpy

    state = random_state("vgg19")
    keys = {k: np.ascontiguousarray(v) for k, v in numbered(state, "vgg19").items()}
    safetensors.numpy.save_file(keys | {"head.fc.weight": np.ones((2, 2), "f4")}, tmp_path / "m")
    net = convert(tmp_path / "m", convention="torchvision")
    assert_same(net, scipy_forward(state, INPUTS["torchvision"](image())), image())


def teacher_state(seed=1, *, exact=False):
    rng = np.random.default_rng(seed)
    state = random_state("vgg19", scale=0.01, names=layer_names("vgg19")[:13])
    keys = {k.replace("_", ""): v for k, v in named(state).items()}
    noise = 0 if exact else rng.normal(size=(3, 3)) * 0.3
    conv0 = np.eye(3)[::-1] * 255 + noise
    keys["conv0.weight"] = conv0.astype("f4")[:, :, None, None]
    keys["conv0.bias"] = np.array([-104.3, -116.8, -123.4], "f4")
    keys["conv11_aux.weight"] = np.ones((64, 4, 1, 1), "f4")
    return state, keys


def test_teacher_is_folded_exactly(tmp_path):
    state, keys = teacher_state()
    np.savez(tmp_path / "t.npz", **keys)
    net = convert(tmp_path / "t.npz")
    assert net.convention.padding == "reflect" and net.topology == "vgg19"
    x = image() @ keys["conv0.weight"][:, :, 0, 0].T.astype("f8") + keys["conv0.bias"]
    assert_same(net, torch_forward(state, x, padding="reflect"), image())


def test_teacher_with_another_conv0_is_refused(tmp_path):
    _, keys = teacher_state()
    keys["conv0.weight"] = keys["conv0.weight"][::-1]
    np.savez(tmp_path / "t.npz", **keys)
    with pytest.raises(JaxstyleError, match="conv0"):
        convert(tmp_path / "t.npz")


def test_half_precision_is_widened(tmp_path):
    torch = pytest.importorskip("torch")
    state = {k: torch.from_numpy(v) for k, v in numbered(random_state("vgg16"), "vgg16").items()}
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({k: v.to(dtype) for k, v in state.items()}, tmp_path / "h.pth")
        net = convert(tmp_path / "h.pth", convention="torchvision")
        found = np.asarray(net.params["conv3_1"]["kernel"])
        assert found.dtype == np.float32
        expected = state["features.10.weight"].to(dtype).float().numpy().transpose(2, 3, 1, 0)
        assert np.array_equal(found, expected)


# What cannot be converted says so in one line.


def write_npz(path, keys):
    np.savez(path, **keys)
    return path


@pytest.mark.parametrize(
    ("count", "network"), [(8, "vgg19"), (7, "vgg16"), (6, None), (4, None), (1, None)]
)
def test_first_layers_only(count, network, tmp_path):
    names = layer_names("vgg19")[:count]
    path = write_npz(tmp_path / "a.npz", named(random_state(names=names)))
    if network is None:
        with pytest.raises(JaxstyleError, match="--network"):
            convert(path)
    else:
        assert convert(path).topology == network
    for asked in ("vgg19",) if count == 8 else ("vgg16", "vgg19"):
        assert convert(path, network=asked).layers == tuple(names)


def refused(path, *words, **options):
    with pytest.raises(JaxstyleError) as caught:
        convert(path, **options)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    for word in (path.name, *words):
        assert word in message, message


def test_the_convention_of_numbered_keys_must_be_said(tmp_path):
    path = write_npz(tmp_path / "a.npz", numbered(random_state(), "vgg19"))
    refused(path, "--convention torchvision", "--convention caffe")


def test_gaps_and_misfits(tmp_path):
    def changed(**changes):
        keys = named(random_state()) | changes
        keys = {k: v for k, v in keys.items() if v is not None}
        return write_npz(tmp_path / "a.npz", keys)

    refused(changed(**{"conv3_2.weight": None, "conv3_2.bias": None}), "conv3_2", "missing")
    refused(changed(**{"conv3_4.weight": None, "conv3_4.bias": None}), "conv3_4", "missing")
    refused(changed(**{"conv2_1.bias": None}), "conv2_1", "bias")
    refused(changed(**{"conv2_1.bias": np.ones(3, "f4")}), "conv2_1", "bias")
    refused(changed(**{"conv2_1.weight": np.ones((5, 9, 3, 3), "f4")}), "conv2_1", "9 channels")
    refused(changed(**{"conv1_1.weight": np.ones((4, 1, 3, 3), "f4")}), "conv1_1", "channels")
    refused(changed(**{"conv2_1.weight": np.ones((5, 4, 1, 1), "f4")}), "conv2_1", "(1, 1, 4, 5)")
    refused(changed(**{"conv2_1.weight": np.ones((5, 4), "f4")}), "conv2_1")
    refused(changed(**{"conv2_1.weight": np.ones((5, 4, 3, 3), "i4")}), "conv2_1", "int32")
    for value in (np.nan, np.inf):
        refused(changed(**{"conv5_1.bias": np.full(7, value, "f4")}), "conv5_1", "finite")
    refused(changed(**{"conv5_1.bias": np.full(7, 1e300)}), "conv5_1", "finite")
    refused(changed(), "conv3_4", "vgg16", network="vgg16")
    with pytest.raises(JaxstyleError, match="network: 'vgg11'"):
        convert(changed(), network="vgg11")
    with pytest.raises(JaxstyleError, match="convention: 'rgb'"):
        convert(changed(), convention="rgb")
    with pytest.raises(JaxstyleError, match="padding: 'same'"):
        convert(changed(), padding="same")


def test_numbers_that_fit_no_network():
    keys = numbered(random_state(), "vgg19")
    with pytest.raises(JaxstyleError, match="features.16"):
        torchvision_to_flax(keys, network="vgg16")
    with pytest.raises(JaxstyleError, match="features.3 "):
        torchvision_to_flax(keys | {"features.3.weight": np.ones((4, 4, 3, 3))})
    with pytest.raises(JaxstyleError, match="batch"):
        torchvision_to_flax(keys | {"features.1.running_mean": np.ones(4)})


def test_not_a_source(tmp_path):
    def content(data):
        (tmp_path / "x.pth").write_bytes(data)
        return tmp_path / "x.pth"

    refused(content(b""), "none of")
    refused(content(b"hello, world, this is text"), ".pth")
    refused(content(b"MATLAB 5.0 MAT-file" + bytes(200)), "damaged .mat", trust_source=True)
    refused(content(b"MATLAB 7.3 MAT-file" + bytes(493) + b"\x89HDF\r\n\x1a\n"), "-v7")
    refused(content(b"\x89HDF\r\n\x1a\n" + bytes(100)), "damaged HDF5", trust_source=True)
    refused(content(b"PK\x03\x04" + bytes(100)), "zip")
    refused(content(b"\x10" + bytes(7) + b"{" + bytes(40)), "safetensors")
    refused(tmp_path / "absent.pth", "cannot be read")
    refused(write_npz(tmp_path / "a.npz", {"weights": np.ones(3)}), "no VGG", "weights")
    with pytest.raises(JaxstyleError):
        convert(tmp_path)


def test_converted_file_is_not_a_source(tmp_path):
    net = convert(write_npz(tmp_path / "a.npz", named(random_state())))
    save_network(net, tmp_path / "b.safetensors")
    refused(tmp_path / "b.safetensors", "already converted")


@pytest.mark.parametrize("kind", ["keras 2019", "matconvnet", "npz", "gatys"])
def test_truncated_sources(kind, tmp_path):
    path = tmp_path / "whole"
    SOURCES[kind][1](path, random_state(), "vgg19")
    data = path.read_bytes()
    cut = tmp_path / "cut"
    for fraction in np.linspace(0, 0.999, 25):
        cut.write_bytes(data[: int(len(data) * fraction)])
        with pytest.raises(JaxstyleError):
            convert(cut, trust_source=True)


def test_npz_with_objects_lies_and_bombs(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    path = tmp_path / "a.npz"
    np.savez(path, **{"conv1_1.weight": np.array([Evil()], object)}, allow_pickle=True)
    refused(path, "objects")
    assert not (tmp_path / "executed").exists()

    def member(shape, data):
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("conv1_1.weight.npy", stream.getvalue() + data)

    member((1 << 20, 1 << 20), bytes(64))
    refused(path, "not as large")
    monkeypatch.setattr(readers, "MAX_BYTES", 1 << 20)
    member((1 << 19,), bytes(1 << 21))
    assert path.stat().st_size < 1 << 14
    refused(path, "unpacks to more")


def test_h5_that_refers_elsewhere_or_is_a_bomb(tmp_path):
    h5py = pytest.importorskip("h5py")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(4 * 3 * 3 * 3 * 4))
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "block1_conv1/block1_conv1/kernel:0",
            (3, 3, 3, 4),
            "f4",
            external=[(str(secret), 0, h5py.h5f.UNLIMITED)],
        )
    refused(path, "refers to another file", trust_source=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "block1_conv1/block1_conv1/kernel:0", (3, 3, 1 << 16, 1 << 16), "f4", chunks=True
        )
    refused(path, "unpacks to more", trust_source=True)


@pytest.mark.parametrize(("kind", "format"), [("keras 2019", "h5"), ("matconvnet", "mat")])
def test_readers_of_others_open_what_is_pinned_or_trusted(kind, format, tmp_path, run, monkeypatch):
    path, out = tmp_path / "misleading.npz", tmp_path / "net.safetensors"
    SOURCES[kind][1](path, random_state("vgg16"), "vgg16")
    command = ("weights", "convert", path, "-o", out)

    def never(path):
        raise AssertionError("it was opened")

    with monkeypatch.context() as closed:
        closed.setattr(readers, f"_read_{format}", never)
        code, printed, err = run(*command)
    assert code == 2 and printed == "" and err.count("\n") == 1 and not out.exists()
    assert "not pinned" in err and "--trust-source" in err
    assert run(*command, "--trust-source")[0] == 0 and out.exists()
    out.unlink()

    (tmp_path / "manifest.toml").write_text(
        f"[sources.mine]\nkind = 'x'\nnetwork = 'vgg16'\nconvention = 'caffe'\nlicence = ''\n"
        f"urls = ['https://example.org/a']\n"
        f"digest = 'sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}'\n"
    )
    monkeypatch.setenv("JAXSTYLE_MANIFEST", str(tmp_path / "manifest.toml"))
    assert run(*command)[0] == 0 and out.exists()


# The real files that may lie beside the checkout.


def shared(name):
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside the checkout")
    return path


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("vgg16_caffe_bgr_conv1_1-conv3_3.npz", "vgg16"),
        ("vgg19_normalised_bgr_conv1_1-conv3_4.npz", "vgg19"),
    ],
)
def test_real_first_blocks(name, network):
    path = shared(name)
    net = convert(path)
    assert net.topology == network
    with np.load(path) as keys:
        state = {layer: (keys[f"{layer}.weight"], keys[f"{layer}.bias"]) for layer in net.layers}
    expected = torch_forward(state, INPUTS["caffe"](image(24, 24)))
    layers = ("relu1_1", "relu2_1", net.layers[-1])
    assert_same(net, expected, image(24, 24), layers)


def test_real_teacher():
    path = shared("vgg19_compact_teacher_SE5.npz")
    net = convert(path)
    assert net.layers[-1] == "conv5_1" and net.convention.padding == "reflect"
    with np.load(path) as keys:
        state = {
            layer: tuple(keys[f"{layer.replace('_', '')}.{p}"] for p in ("weight", "bias"))
            for layer in net.layers
        }
        conv0, bias = keys["conv0.weight"][:, :, 0, 0].astype("f8"), keys["conv0.bias"]
    x = image(48, 48) @ conv0.T + bias
    assert_same(net, torch_forward(state, x, padding="reflect"), image(48, 48))
