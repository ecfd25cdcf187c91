"""Several devices give what one gives, exchange no more than they must, and hold their share."""

import json
import math
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxstyle import JaxstyleError
from jaxstyle.losses.total_variation import VARIATIONS
from jaxstyle.nn.sharding import BatchSharding, SpatialSharding, select_devices, sharing_devices

HERE = Path(__file__).parents[1]


def quickened(environment, cache_folder):
    """Programs are found compiled where they can be."""
    return environment | {
        "JAX_COMPILATION_CACHE_DIR": str(cache_folder / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PLATFORMS": "cpu",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, environment, cache_folder):
    """What `sharded.py` wrote, and what it printed to standard error in `stderr`."""
    folder = tmp_path_factory.mktemp("sharded")
    done = subprocess.run(
        [sys.executable, HERE / "sharded.py", folder],
        env=quickened(environment, cache_folder), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "stderr").write_text(done.stderr)
    return folder


@pytest.fixture(scope="module")
def facts(folder):
    return json.loads((folder / "facts.json").read_text())


def arrays(folder, name):
    return np.load(folder / f"{name}.npz")


@pytest.mark.parametrize("name", ("odd", "deep", "tiles", "reflect", "controls"))
def test_rows_have_the_gradient_of_the_whole_image(folder, name):
    found = arrays(folder, name)
    scale = np.abs(found["alone"]).max()
    assert scale > 0
    np.testing.assert_allclose(found["shared"], found["alone"], rtol=0, atol=2e-5 * scale)


def test_a_run_over_rows_is_that_of_one_device(folder):
    alone, shared = arrays(folder, "odd-alone"), arrays(folder, "odd-shared")
    assert shared["images"].shape == (1, 45, 18, 3)
    assert alone["losses"][0, -1] < 0.9 * alone["losses"][0, 0]
    np.testing.assert_allclose(shared["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(shared["last"], alone["last"], rtol=1e-4)
    np.testing.assert_allclose(shared["images"], alone["images"], atol=1e-3)


def test_rows_have_masks_colors_and_means(folder):
    found = arrays(folder, "controls-runs")
    np.testing.assert_allclose(found["losses"][1], found["losses"][0], rtol=1e-4)
    np.testing.assert_allclose(found["last"][1], found["last"][0], rtol=1e-4)
    np.testing.assert_allclose(found["images"][1], found["images"][0], atol=1e-3)


@pytest.mark.parametrize("name", ("one", "eight"))
def test_a_checkpoint_goes_on_with_another_number_of_devices(folder, name):
    alone, resumed = arrays(folder, "odd-alone"), arrays(folder, f"resumed-{name}")
    np.testing.assert_allclose(resumed["losses"], alone["losses"], rtol=1e-4)
    np.testing.assert_allclose(resumed["images"], alone["images"], atol=1e-3)
    if name == "eight":
        never_stopped = arrays(folder, "odd-shared")
        np.testing.assert_array_equal(resumed["images"], never_stopped["images"])


def elements(shapes):
    sizes = re.findall(r"\w+\[([\d,]*)\]", shapes)
    return [math.prod(int(n) for n in size.split(",") if n) for size in sizes]


def test_devices_exchange_single_rows_small_sums_and_columns(facts):
    # 45 rows, in cells of 2 on 8 devices: 48.
    rows, width, most_channels = 48, 18, 6
    kinds = {}
    for kind, shapes in facts["rows"]["collectives"]:
        kinds.setdefault(kind, []).append(shapes)
    assert set(kinds) == {"all-reduce", "all-to-all", "collective-permute"}
    for shapes in kinds["collective-permute"]:
        assert max(elements(shapes)) <= width * most_channels, "one row of a map"
    for shapes in kinds["all-reduce"]:
        assert max(elements(shapes)) <= most_channels**2, "a Gram matrix or less"
    # The preconditioner's coefficients, there and back, for a gradient and a product.
    assert len(kinds["all-to-all"]) == 4
    for shapes in kinds["all-to-all"]:
        assert sum(elements(shapes)) <= rows / 8 * (width // 2 + 1 + 7) * 3, "a device's part"
    # Three convolutions, up and down, forward and backward, and what total variation asks for.
    assert len(kinds["collective-permute"]) <= 4 * 3 + 4


def test_the_state_is_where_its_rows_are(facts):
    position = 48 * 18 * 3
    shared = 0
    for name, (shape, spec) in facts["rows"]["state"].items():
        if math.prod(shape) >= position:
            shared += 1
            assert "rows" in spec, name
    # Point, gradient, direction, scaled gradient and both histories.
    assert shared == 6
    content = facts["rows"]["targets"][".content['relu2_1']"]
    assert content[0] == [24, 9, 6] and "rows" in content[1]


def test_elements_exchange_nothing_and_are_those_of_one_device(folder, facts):
    assert facts["lanes"]["collectives"] == []
    assert all("batch" in spec for _, spec in facts["lanes"]["state"].values())
    shared, alone = arrays(folder, "lanes-shared"), arrays(folder, "lanes-alone")
    assert len({losses[-1] for losses in alone["losses"]}) == 4
    # Often to the bit, but XLA may fuse a program for several devices in another way.
    np.testing.assert_allclose(shared["losses"], alone["losses"], rtol=1e-5)
    np.testing.assert_allclose(shared["last"], alone["last"], rtol=1e-5)
    np.testing.assert_allclose(shared["images"], alone["images"], atol=1e-4)


def test_commands_share_out(folder, facts):
    codes = facts["commands"]
    assert [codes[name] for name in ("one", "rows", "grid")] == [0] * 3
    one, rows = (
        np.asarray(Image.open(folder / f"command-{name}.png")).astype(int)
        for name in ("one", "rows")
    )
    # Equal neighbors are a corner of total variation, from which rounding decides where they go.
    assert rows.shape == (45, 18, 3) and (abs(rows - one) > 1).mean() < 0.005
    # A cell a batch element, three on two devices: what has no cell runs a copy.
    reports = [json.loads(path.read_text()) for path in (folder / "grid" / "cells").glob("*.json")]
    assert len({report["loss"] for report in reports}) == 3
    assert sorted(report["cell"]["place"] for report in reports) == [0, 0, 1]


def test_numbers_that_do_not_fit_are_refused(folder, facts):
    assert facts["commands"]["growing"] == 0
    assert [facts["commands"][name] for name in ("many", "uneven", "scales")] == [2] * 3
    lines = [line for line in (folder / "stderr").read_text().splitlines() if "error:" in line]
    assert lines == [
        "jaxstyle: error: --devices: 3 images do not share out over 2 devices; give 1 devices, "
        "or 4 images",
        "jaxstyle: error: --devices: 9 cannot be had, there are 8 (cpu); give a number from 1 to "
        "8, or all",
        "jaxstyle: error: --devices: 2 do not share the rows of one image through several scales "
        "(scales 2); use one device, one scale, or a batch",
    ]


@pytest.mark.parametrize("devices", (0, -1, "some", []))
def test_no_devices(devices):
    with pytest.raises(JaxstyleError, match="devices: "):
        select_devices(devices)


def test_a_number_that_is_none(run, files):
    code, _, err = run("stylize", files["content"], files["style"], "-o", "x.png", "--devices", "x")
    assert code == 2 and err.startswith("jaxstyle: error: --devices: 'x' is neither a number")


@pytest.mark.parametrize("height", (1, 16, 17, 256))
def test_a_state_is_cut_and_placed_again(height):
    rows = SpatialSharding.over(jax.devices()[:1], height, 8)
    assert rows.padded % 8 == 0 and 0 <= rows.padded - height < 8
    state = {
        "picture": np.ones((height, 5, 3)),
        "flat": np.ones((2, height * 15)),
        "number": np.ones(()),
    }
    placed = rows.place_state(state, 5)
    assert placed["picture"].shape == (rows.padded, 5, 3)
    assert placed["flat"].shape == (2, rows.padded * 15)
    assert placed["flat"].sum() == height * 30
    jax.tree.map(np.testing.assert_array_equal, rows.unpad(placed, 5), state)


def test_all_devices_are_as_many_as_divide_the_elements(monkeypatch):
    eight = list(range(8))
    monkeypatch.setattr(jax, "devices", lambda: eight)
    assert [len(sharing_devices("all", elements)) for elements in (1, 8, 16, 10, 7, 3)] == [
        8,
        8,
        8,
        5,
        7,
        3,
    ]
    assert sharing_devices(2, 3) == [0, 1]


@pytest.mark.parametrize("name", VARIATIONS)
def test_rows_that_were_added_do_not_vary(name, make_image):
    image = make_image(13, 9)
    padded = jnp.pad(image, ((0, 7), (0, 0), (0, 0)), constant_values=3)
    variation = partial(VARIATIONS[name], height=13)
    np.testing.assert_allclose(variation(padded), VARIATIONS[name](image), rtol=1e-6)
    assert not np.asarray(jax.grad(variation)(padded))[13:].any()


def test_elements_that_do_not_divide():
    with pytest.raises(JaxstyleError, match="3 images do not share out over 2 devices"):
        BatchSharding.over([jax.devices()[0]] * 2, 3)


def test_two_processes_share_an_image_and_a_batch(tmp_path, environment, cache_folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        subprocess.Popen(
            [sys.executable, HERE / "processes.py", tmp_path, str(port), str(number)],
            env=quickened(environment, cache_folder), stderr=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    try:
        for process in both:
            _, err = process.communicate(timeout=300)
            assert process.returncode == 0, err[-3000:]
    finally:
        for process in both:
            process.kill()
    first, second = (arrays(tmp_path, f"process{number}") for number in range(2))
    for name in ("rows", "rows_losses", "lanes", "lanes_losses"):
        np.testing.assert_array_equal(first[name], second[name], name)
    np.testing.assert_allclose(first["rows_losses"], first["alone_losses"], rtol=1e-4)
    np.testing.assert_allclose(first["rows"], first["alone"], atol=1e-3)
    # The first batch element has the seed of the one image.
    np.testing.assert_allclose(first["lanes_losses"][0], first["alone_losses"], rtol=1e-4)
    assert len({losses[-1] for losses in first["lanes_losses"]}) == 4
