"""What several tests share: narrow random networks, small pictures, an independent forward pass."""

import dataclasses
import gc
import os
from importlib.metadata import version

# Compiling is most of what the suite does, and most of compiling is LLVM's optimisations and XLA's
# second compiler, that of fusions. `XLA_FLAGS= make test` has them; `make demo` and the test of
# the wheel always do. From JAX 0.11 fusions have no other compiler.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxstyle import Network
from jaxstyle.cli import main
from jaxstyle.vgg import CONVENTIONS, convolutions
from jaxstyle.weights import save_network

# Channels of the five blocks: enough to tell a transposed kernel from a right one.
WIDTHS = (4, 6, 8, 8, 8)


def _make_network(
    topology="vgg19", *, convention="caffe", padding="zeros", blocks=5, widths=WIDTHS, seed=0
):
    """Random weights with activations of about 1 in every layer."""
    rng = np.random.default_rng(seed)
    taken = CONVENTIONS[convention]
    params, channels = {}, 3
    for layer in convolutions(topology):
        block = int(layer[4])
        if block > blocks:
            break
        width = widths[block - 1]
        kernel = rng.normal(size=(3, 3, channels, width)) * np.sqrt(2 / (9 * channels))
        if layer == "conv1_1" and taken.scale == 255:
            kernel /= 60
        params[layer] = {
            "kernel": jnp.asarray(kernel.astype(np.float32)),
            "bias": jnp.asarray((rng.normal(size=width) * 0.1).astype(np.float32)),
        }
        channels = width
    return Network(
        params, topology, dataclasses.replace(taken, padding=padding), name=f"narrow-{topology}"
    )


def _make_picture(height=32, width=32, seed=0):
    """Smooth blobs of colour with a little noise, RGB float32 in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 16
    phase = rng.uniform(0, 6, size=(3, 3))
    waves = [np.sin(a * y + b * x + c) for a, b, c in phase]
    noise = rng.normal(size=(height, width, 3)) * 0.05
    return np.clip(0.5 + 0.35 * np.stack(waves, -1) + noise, 0, 1).astype(np.float32)


class TorchReference:
    """The network and the contract's objective in float64, sharing no code with the library."""

    def __init__(self, torch):
        self.torch = torch
        self.functional = torch.nn.functional

    def input(self, network, image):
        """From RGB `[h, w, 3]` to the network's input `[3, h, w]`."""
        torch, convention = self.torch, network.convention
        x = image.to(torch.float64).permute(2, 0, 1)
        if convention.channel_order == "bgr":
            x = x.flip(0)
        mean = torch.tensor(convention.mean, dtype=torch.float64)[:, None, None]
        std = torch.tensor(convention.std, dtype=torch.float64)[:, None, None]
        return (x * convention.scale - mean) / std

    def activations(self, network, x, *, pooling="max"):
        """Every conv and ReLU layer of `x`, each `[c, h, w]`."""
        torch, functional = self.torch, self.functional
        pool = {"max": functional.max_pool2d, "avg": functional.avg_pool2d}[pooling]
        found, block, x = {}, "1", x[None]
        for name, arrays in network.params.items():
            if name[4] != block:
                x, block = pool(x, 2), name[4]
            if min(x.shape[-2:]) < (2 if network.convention.padding == "reflect" else 1):
                break
            kernel = torch.from_numpy(np.array(arrays["kernel"], np.float64)).permute(3, 2, 0, 1)
            bias = torch.from_numpy(np.array(arrays["bias"], np.float64))
            mode = {"zeros": "constant", "reflect": "reflect"}[network.convention.padding]
            x = functional.conv2d(functional.pad(x, (1, 1, 1, 1), mode=mode), kernel, bias)
            found[name] = x[0]
            x = x.relu()
            found[name.replace("conv", "relu")] = x[0]
        return found

    def gram(self, act):
        flat = act.flatten(1)
        return flat @ flat.T / act.numel()

    def terms(self, network, recipe, image, content, styles, blend):
        """The weighted content, style and tv terms, by the contract's formula."""
        x = self.input(network, image)

        def acts(picture):
            return self.activations(network, self.input(network, picture), pooling=recipe.pooling)

        mine = self.activations(network, x, pooling=recipe.pooling)
        theirs, paintings = acts(content), [acts(style) for style in styles]
        total = sum(blend)
        content_term = sum(
            w * (mine[layer] - theirs[layer]).square().mean() for layer, w in recipe.content_layers
        )
        style_term = 0.0
        for layer, w in recipe.style_layers:
            wanted = sum(
                b / total * self.gram(p[layer]) for b, p in zip(blend, paintings, strict=True)
            )
            style_term = style_term + w * (self.gram(mine[layer]) - wanted).square().mean()
        tv = (x[:, 1:] - x[:, :-1]).abs().sum() + (x[:, :, 1:] - x[:, :, :-1]).abs().sum()
        return (
            recipe.content_weight * content_term,
            recipe.style_weight * style_term,
            recipe.tv_weight * tv,
        )


def pytest_collection_finish(session):
    """What has been imported stays: Python need not look through it for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@pytest.fixture(scope="session")
def make_network():
    return _make_network


@pytest.fixture(scope="session")
def make_picture():
    return _make_picture


@pytest.fixture(scope="session")
def network():
    """A narrow VGG-19 with the Caffe convention."""
    return _make_network()


@pytest.fixture(scope="session")
def reference():
    return TorchReference(pytest.importorskip("torch", reason="the independent forward pass"))


@pytest.fixture(scope="session")
def x64():
    """A context manager: float64 inside, float32 after."""
    return lambda: jax.enable_x64(True)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """One compilation cache for all commands and processes of the suite, away from the user's."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "jaxstyle-cache"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def shared_programs(cache_folder):
    """Compile a program once for the whole suite: compiling is most of what it does.

    Beside the commands' folder, whose size is bounded: JAX keeps other files in such a one.
    """
    jax.config.update("jax_compilation_cache_dir", str(cache_folder / "in-process"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session")
def environment(cache_folder):
    """The environment of a command run as a process of its own."""
    ours = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"}
    return {**ours, "JAXSTYLE_CACHE": str(cache_folder)}


@pytest.fixture(scope="module")
def compilation_cache(cache_folder):
    """Commands run in this process turn the compilation cache on: back to what it was after."""
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_compilation_cache_max_size",
    )
    before = {name: getattr(jax.config, name) for name in names}
    patch = pytest.MonkeyPatch()
    patch.setenv("JAXSTYLE_CACHE", str(cache_folder))
    patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    yield
    patch.undo()
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def files(tmp_path_factory, make_network, make_picture):
    """Pictures and networks in files, by name."""
    folder = tmp_path_factory.mktemp("files")

    def picture(name, *size, seed):
        image = Image.fromarray((make_picture(*size, seed=seed) * 255).round().astype(np.uint8))
        image.save(folder / name)
        return folder / name

    found = {
        "content": picture("content.png", 32, 40, seed=1),
        "style": picture("style.jpg", 36, 33, seed=2),
        "style2": picture("style2.png", 40, 32, seed=3),
        "start": picture("start.png", 24, 30, seed=4),
        "weights": folder / "narrow.safetensors",
    }
    save_network(make_network(blocks=2).replace(source="random"), found["weights"])
    return found


@pytest.fixture
def objective(files):
    """Flags of a small objective."""
    return [
        *("--weights", files["weights"]),
        *("--content-layers", "relu2_2"),
        *("--style-layers", "relu1_1,relu2_1:2"),
        *("--style-weight", 200),
    ]


@pytest.fixture
def run(capsys, compilation_cache):
    """Run a command in this process: its exit code, standard output and standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return (ended.value.code or 0, *capsys.readouterr())

    return run


@pytest.fixture
def stylize(run, files, objective):
    """Run a short `stylize` and give what it printed to standard error."""

    def stylize(output, *flags, styles=("style",)):
        code, out, err = run(
            "stylize", files["content"], *(files[s] for s in styles), "-o", output,
            *objective, "--steps", 3, *flags,
        )  # fmt: skip
        assert code == 0 and out == "", err
        return err

    return stylize
