"""A run's program compiled for devices that are not here, by `experiments/scale/targets.py`."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCALE = Path(__file__).parents[2] / "experiments" / "scale"
PREAMBLE = f"""
import sys
sys.path.insert(0, {str(SCALE)!r})
from targets import WIDTHS, compiled, contents, network_of_shapes
from jaxstyle import Recipe
"""
COMPILED = """
target, precision, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
WIDTHS["narrow"] = (8, 16, 16, 16, 16)
recipe = Recipe(
    scales=1, style_layers="relu1_1,relu2_1", content_layers="relu2_1", history_size=3,
    precision=precision,
)
found = compiled(
    target, network_of_shapes("narrow"), (32, 48), recipe, batch=batch, effort=-1
)
assert found.expected == 6 and found.is_right, found.contents
assert 0 < found.bytes < 2**28
"""
FOUND = """
import jax, jax.numpy as jnp

def body(_, x):
    jax.debug.callback(lambda x: None, x[0, 0])
    return jax.lax.optimization_barrier(x.T) + x

loop = jax.jit(lambda x, n: jax.lax.fori_loop(0, n, body, x))
text = loop.lower(jnp.ones((8, 8)), 3).compile(
    compiler_options={"xla_backend_optimization_level": 0}
).as_text()
assert contents(text, 64).host and contents(text, 64).moved
assert not contents(text, 65).moved
def convolved(_, x):
    return jax.lax.conv_general_dilated(x, jnp.ones((3, 3, 1, 1)), (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"))
loop = jax.jit(lambda x, n: jax.lax.fori_loop(0, n, convolved, x))
found = contents(loop.lower(jnp.ones((1, 8, 8, 1)), 3).compile().as_text(), 65)
assert found.convolutions == 1 and not found.host and not found.moved, found
"""
NEEDED = {"tpu-v5e": ("libtpu",), "h100": ("jax_plugins.xla_cuda12",)}


def is_here(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def succeeds(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + script, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("target", "precision", "batch"),
    [("tpu-v5e", "tf32", 1), ("h100", "tf32", 2), ("h100", "float32", 1), ("h100", "bfloat16", 1)],
)
def test_a_run_is_compiled_for_a_device_that_is_not_here(target, precision, batch):
    missing = [module for module in NEEDED[target] if not is_here(module)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}; experiments/scale/targets.py says how to install")
    succeeds(COMPILED, target, precision, str(batch))


def test_what_a_loop_must_not_have_is_found():
    succeeds(FOUND)
