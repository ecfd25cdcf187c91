"""What a run needs is told before it runs, and refused where it is not there."""

import dataclasses
import json
import math
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np
import pytest
from helpers import STYLE_LOSS

import jaxstyle
from jaxstyle import JaxstyleError, Recipe, images
from jaxstyle.engine import free_memory, memory, planning
from jaxstyle.engine.compilation import lower
from jaxstyle.losses.resolve import resolve_recipe
from jaxstyle.provenance.record import read_record

SMALL = Recipe(
    size=0,
    content_layers="relu2_1",
    style_layers="relu1_1,relu2_1",
    style_loss=STYLE_LOSS,
    history_size=3,
    scales=1,
)


@pytest.fixture(scope="module")
def small(make_network):
    return make_network(blocks=2)


@pytest.fixture(scope="module")
def found(small):
    return jaxstyle.plan(96, 128, recipe=SMALL, network=small)


def test_the_programs_own_arrays_are_counted(small, found, make_image):
    """At least the state that a real run carries, counted from its arrays."""
    problem = jaxstyle.prepare(make_image(96, 128), make_image(40, 40), recipe=SMALL, network=small)
    state = jaxstyle.lbfgs(history_size=3).init(
        jax.jit(jaxstyle.make_objective(small, problem.targets, problem.recipe)), problem.start
    )
    arrays = sum(leaf.nbytes for leaf in jax.tree.leaves((state, problem.targets, small)))
    assert arrays < found.needed < 10 * arrays


def test_shapes_lower_to_the_program_that_runs(small, make_image):
    problem = jaxstyle.prepare(make_image(), make_image(), recipe=SMALL, network=small)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), problem.start)
    text = lower(problem._replace(start=shapes), chunk_size=2).as_text()
    assert text == lower(problem, chunk_size=2).as_text()


def test_largest_is_where_needed_meets_free(small, monkeypatch):
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 40_000_000)
    plan = jaxstyle.plan(96, 128, recipe=SMALL, network=small)
    assert plan.fits and plan.largest % 16 == 0
    height = plan.largest * 96 // 128
    needed = memory.needed_bytes(height, plan.largest, recipe=SMALL, network=small)
    # Sixteen pixels of rounding leave a few per cent.
    assert 0.9 < needed / (memory.USABLE * 40_000_000) < 1.02


def test_images_beyond_32_bits_are_extrapolated(small):
    settings = {"recipe": resolve_recipe(SMALL, small), "network": small}
    large = memory.needed_bytes(60_000, 60_000, **settings)
    assert large == pytest.approx(225 * memory.needed_bytes(4000, 4000, **settings), rel=0.02)


@pytest.mark.parametrize(
    "changes",
    [{}, {"tile": 64}, {"history_size": 20}, {"optimizer": "adam"}, {"content_layers": "relu1_1"}],
)
def test_the_quick_bound_is_above_the_truth(small, changes):
    recipe = resolve_recipe(dataclasses.replace(SMALL, **changes), small)
    settings = {"recipe": recipe, "network": small}
    assert memory.upper_bound(200, 300, **settings) > memory.needed_bytes(200, 300, **settings)


def test_a_run_too_large_is_refused_with_ways_out(small, monkeypatch):
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 8_000_000)
    recipe = dataclasses.replace(SMALL, history_size=20)
    ways = r"^size: .*--size \d+, --tile 512, --history-size 5, --remat or"
    with pytest.raises(JaxstyleError, match=ways):
        planning.fit_into_memory(200, 200, recipe=recipe, network=small)
    monkeypatch.setattr(free_memory, "free_bytes", lambda: None)
    assert planning.fit_into_memory(200, 200, recipe=recipe, network=small) == recipe


OPEN = dataclasses.replace(SMALL, history_size=None)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_history_left_open_is_as_long_as_memory_allows(small, monkeypatch, devices):
    settings = {"recipe": OPEN, "network": small}
    # A device has half of the rows, and half of the machine's memory.
    needed = memory.needed_bytes(
        200 // devices, 200, recipe=resolve_recipe(OPEN, small), network=small
    )  # fmt: skip
    pair = 2 * 12 * 200 * 200 // devices
    free = int((needed - 7.5 * pair) / memory.USABLE * devices)
    monkeypatch.setattr(free_memory, "free_bytes", lambda: free)
    if devices > 1:
        monkeypatch.setattr(planning, "shard_rows", lambda *_: Over(200))
    fitted = planning.fit_into_memory(200, 200, devices=devices, **settings)
    assert fitted == dataclasses.replace(OPEN, history_size=12)
    assert 0.99 * needed < memory.needed_bytes(
        200 // devices, 200, recipe=fitted, network=small
    ) + 8 * pair < 1.01 * needed  # fmt: skip
    # With much memory it stays open, with little five pairs are the least.
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 100 * free)
    assert planning.fit_into_memory(200, 200, devices=devices, **settings) == OPEN
    monkeypatch.setattr(free_memory, "free_bytes", lambda: free // 3)
    with pytest.raises(JaxstyleError, match="^size: ") as caught:
        planning.fit_into_memory(200, 200, devices=devices, **settings)
    assert "--history-size" not in str(caught.value)


class Over(NamedTuple):
    """In the place of `SpatialSharding`."""

    padded: int


def test_plan_tells_the_history_and_the_largest_size_with_the_least(small, monkeypatch):
    settings = {"recipe": OPEN, "network": small}
    needed = memory.needed_bytes(200, 200, recipe=resolve_recipe(OPEN, small), network=small)
    monkeypatch.setattr(free_memory, "free_bytes", lambda: int(needed * 0.9))
    plan = jaxstyle.plan(200, 200, **settings)
    assert plan.fits and 5 <= plan.history_size < 20 and plan.needed < needed
    side = plan.largest
    planning.fit_into_memory(side, side, **settings)
    assert jaxstyle.plan(side, side, **settings).history_size <= 7
    adam = dataclasses.replace(OPEN, optimizer="adam")
    assert jaxstyle.plan(64, 64, recipe=adam, network=small).history_size is None


def test_stylize_says_that_it_keeps_fewer_pairs(stylize, monkeypatch, tmp_path):
    monkeypatch.setattr(planning, "needed_bytes", lambda h, w, **_: 1000 * h * w)
    monkeypatch.setattr(planning, "upper_bound", lambda *_, **__: 10**12)
    output = tmp_path / "out.png"
    stylize(output)
    pixels = images.load_image(output).shape[0] * images.load_image(output).shape[1]
    free = (1000 * pixels - 7.5 * 24 * pixels) / memory.USABLE
    monkeypatch.setattr(free_memory, "free_bytes", lambda: int(free))
    err = stylize(output)
    assert "jaxstyle: L-BFGS keeps 12 pairs, as many as memory has room for" in err
    assert read_record(output).recipe.history_size == 12
    # What is asked for is kept, or refused.
    monkeypatch.setattr(planning, "needed_bytes", lambda h, w, **_: 800 * h * w)
    assert "pairs" not in stylize(output, "--history-size", 12)


def test_a_size_below_one_is_refused(small):
    with pytest.raises(JaxstyleError, match="width: 0 is out of range"):
        jaxstyle.plan(10, 0, recipe=SMALL, network=small)


def test_plan_command(run):
    code, out, err = run(*"plan --size 128 --weights compact --history-size 5 --json".split())
    assert code == 0, err
    found = json.loads(out)
    assert found["fits"] and found["width"] == found["height"] == 128
    assert found["free"] > found["needed"] > 2 * 5 * 128 * 128 * 12


@pytest.mark.parametrize("flags, size", [((), (40, 32)), (("--upscale",), (80, 64))])
def test_plan_takes_the_size_that_stylize_makes(run, files, flags, size):
    command = "plan --size 80 --style-layers relu1_1 --content-layers relu1_1 --json".split()
    weights = ("--weights", files["weights"])
    code, out, err = run(*command, *weights, "--content", files["content"], *flags)
    assert code == 0 and ("--upscale enlarges it" in err) == (not flags), err
    found = json.loads(out)
    assert (found["width"], found["height"]) == size


def test_stylize_refuses_what_cannot_fit(run, tmp_path, make_image):
    images.save_image(tmp_path / "in.png", make_image())
    code, _, err = run(
        "stylize", tmp_path / "in.png", tmp_path / "in.png", "-o", tmp_path / "out.png",
        "--size", 60_000, "--upscale", "--weights", "compact",
    )  # fmt: skip
    assert code == 2
    assert err.startswith("jaxstyle: error: --size: an image of 60000x60000 needs")
    assert err.count("\n") == 1 and "--tile" in err
    assert not (tmp_path / "out.png").exists()


def test_one_program_is_compiled_where_the_run_fits(small, monkeypatch):
    needed, sizes = memory.needed_bytes, []

    def counted(height, width, **settings):
        sizes.append((height, width))
        return needed(height, width, **settings)

    monkeypatch.setattr(planning, "needed_bytes", counted)
    monkeypatch.setattr(planning, "upper_bound", lambda *_, **__: 10**12)
    planning.fit_into_memory(64, 64, recipe=SMALL, network=small)
    assert sizes == [(64, 64)]


@pytest.mark.parametrize(
    ("size", "compiled"),
    [((640, 600), [(640, 600), (452, 424)]), ((64, 64), [(64, 64), (512, 512), (362, 362)])],
)
def test_plan_compiles_a_size_once(small, monkeypatch, size, compiled):
    sizes = []

    def counted(height, width, **_):
        sizes.append((height, width))
        return 800 * height * width + 1000

    monkeypatch.setattr(planning, "needed_bytes", counted)
    result = jaxstyle.plan(*size, recipe=SMALL, network=small, free=10**9)
    assert sorted(sizes) == sorted(compiled)
    side = math.sqrt(memory.USABLE * 10**9 / 800 * max(size) / min(size))
    assert result.largest == pytest.approx(side, abs=16)
    assert result.needed == 800 * math.prod(size) + 1000


def test_style_images_larger_than_the_content_are_counted(small):
    recipe = dataclasses.replace(resolve_recipe(SMALL, small), margin=0, pyramid=1)
    settings = {"recipe": recipe, "network": small}
    alike = memory.needed_bytes(64, 64, styles=[(64, 64)], **settings)
    large = memory.needed_bytes(64, 64, styles=[(640, 640)], **settings)
    # At least the image and its largest activations.
    assert large > 4 * 640 * 640 * (3 + 4) > 5 * alike
    scaled = {"recipe": dataclasses.replace(recipe, style_scale=8.0), "network": small}
    assert memory.needed_bytes(64, 64, **scaled) > 4 * 512 * 512 * (3 + 4)
    assert memory.upper_bound(64, 64, styles=[(640, 640)], **settings) > large


def test_a_smaller_scale_is_counted(small):
    recipe = dataclasses.replace(resolve_recipe(SMALL, small), margin=0, pyramid=1)
    one, two = (
        memory.needed_bytes(
            96, 96, recipe=dataclasses.replace(recipe, scales=scales), network=small
        )
        for scales in (1, 2)
    )
    # Three pairs, and the points of the optimizer, of images of half the side.
    assert two - one > 2 * 3 * 12 * 48 * 48


def test_checkpoints_are_counted(small, monkeypatch):
    monkeypatch.setattr(planning, "upper_bound", lambda *_, **__: 10**12)
    recipe = dataclasses.replace(SMALL, margin=0, pyramid=1)
    resolved = resolve_recipe(recipe, small)
    needed = memory.needed_bytes(96, 96, recipe=resolved, network=small)
    monkeypatch.setattr(free_memory, "free_bytes", lambda: int(1.01 * needed / memory.USABLE))
    settings = {"recipe": recipe, "network": small}
    assert planning.fit_into_memory(96, 96, **settings) == recipe
    with pytest.raises(JaxstyleError, match="^size: "):
        planning.fit_into_memory(96, 96, checkpoint=True, **settings)


V1 = {
    "cgroup": "5:devices:/\n4:cpu,memory:/job/step\n0::/\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/memory.usage_in_bytes": "5000\n",
    "memory/memory.stat": "cache 0\ntotal_active_file 0\ntotal_inactive_file 0\n",
    "memory/job/memory.limit_in_bytes": "100000\n",
    "memory/job/memory.usage_in_bytes": "70000\n",
    "memory/job/memory.stat": "active_file 1\ntotal_active_file 2000\ntotal_inactive_file 8000\n",
}
V2 = {
    "cgroup": "0::/user/job\n",
    "user/memory.max": "100000\n",
    "user/memory.current": "70000\n",
    "user/memory.stat": "anon 60000\nactive_file 2000\ninactive_file 8000\n",
    "user/job/memory.max": "max\n",
    "user/job/memory.current": "7\n",
    "user/job/memory.stat": "anon 7\n",
}


@pytest.mark.parametrize("files", [V1, V2], ids=["v1", "v2"])
def test_the_limit_of_a_container_holds_and_file_caches_are_free(files, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(free_memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(free_memory, "_OWN_CGROUPS", tmp_path / "cgroup")
    assert free_memory.free_bytes() == 100_000 - (70_000 - 10_000)


def test_ulimit_is_known():
    resource = pytest.importorskip("resource")
    code = (
        "import resource; from jaxstyle.engine import free_memory; import jax; jax.devices();"
        "before = free_memory._free_address_space();"
        "size = free_memory.psutil.Process().memory_info().vms;"
        f"resource.setrlimit(resource.RLIMIT_AS, (size + 10**9, {resource.RLIM_INFINITY}));"
        "print(before, free_memory.free_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before, free = done.stdout.split()
    assert before == "None" and 0.9e9 < int(free) <= 1.01e9


def test_words_for_what_does_not_fit_say_how_much_can_be_used():
    plan = planning.Plan(100, 100, 1, 23_900_000_000, 24_600_000_000, None)
    assert not plan.fits
    assert "needs 23.9 GB of memory and 22.1 GB of 24.6 GB that are free can be used" in (
        planning.advice(plan, SMALL)
    )
