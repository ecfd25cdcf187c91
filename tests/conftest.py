"""What several tests share: narrow random networks, small images, an independent forward pass."""

import contextlib
import gc
import os
import sys
from importlib.metadata import version

# Compiling is most of what the suite does, and most of compiling is LLVM's optimizations and XLA's
# second compiler, that of fusions. `XLA_FLAGS= make test` has them; `make demo` and the test of
# the wheel always do. From JAX 0.11 fusions have no other compiler.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
)

# OpenBLAS, which decomposes the matrices of the default style loss, otherwise starts a thread for
# each core in every process, and threads that wait for a core spend the time of those that have it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import helpers
import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from jaxstyle.cli import main
from jaxstyle.weights import save_network

# A busy machine is no fault of a test.
settings.register_profile(
    "suite", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("suite")


def pytest_collection_modifyitems(items):
    """The longest tests come first: at the end one process would wait for the other's."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


def pytest_collection_finish(session):
    """What has been imported stays: Python need not look through it for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


@pytest.fixture(scope="session")
def make_network():
    return helpers.make_network


@pytest.fixture(scope="session")
def make_image():
    return helpers.make_image


@pytest.fixture(scope="session")
def network():
    """A narrow VGG-19 with the Caffe convention."""
    return helpers.make_network()


@pytest.fixture(scope="session")
def reference():
    return helpers.TorchReference(
        pytest.importorskip("torch", reason="the independent forward pass")
    )


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
def files(tmp_path_factory, make_network, make_image):
    """Images and networks in files, by name."""
    folder = tmp_path_factory.mktemp("files")

    def write_image(name, *size, seed):
        image = Image.fromarray((make_image(*size, seed=seed) * 255).round().astype(np.uint8))
        image.save(folder / name)
        return folder / name

    found = {
        "content": write_image("content.png", 32, 40, seed=1),
        "style": write_image("style.jpg", 36, 33, seed=2),
        "style2": write_image("style2.png", 40, 32, seed=3),
        "start": write_image("start.png", 24, 30, seed=4),
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
        *("--style-weight", 200, "--style-loss", helpers.STYLE_LOSS),
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
def interrupted(monkeypatch):
    """Commands of this process find Ctrl-C pressed after their first iterate, and say so."""

    @contextlib.contextmanager
    def interrupts(say):
        def check():
            raise KeyboardInterrupt

        say("Ctrl-C was pressed")
        yield check

    monkeypatch.setattr("jaxstyle.cli.run.interrupts", interrupts)
    monkeypatch.setattr(os, "_exit", sys.exit)


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
