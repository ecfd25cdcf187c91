"""What a run needs is told before it runs, and refused where it is not there."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxstyle
from jaxstyle import JaxstyleError, Recipe, images, memory
from jaxstyle.programs import lowered

SMALL = Recipe(size=0, content_layers="relu2_1", style_layers="relu1_1,relu2_1", history_size=3)


@pytest.fixture(scope="module")
def small(make_network):
    return make_network(blocks=2)


@pytest.fixture(scope="module")
def found(small):
    return jaxstyle.plan(96, 128, recipe=SMALL, network=small)


def test_the_programs_own_arrays_are_counted(small, found, make_picture):
    """At least the state that a real run carries, counted from its arrays."""
    job = jaxstyle.prepare(make_picture(96, 128), make_picture(40, 40), recipe=SMALL, network=small)
    state = jaxstyle.lbfgs(history_size=3).init(
        jax.jit(jaxstyle.make_objective(small, job.targets, job.recipe)), job.start
    )
    arrays = sum(leaf.nbytes for leaf in jax.tree.leaves((state, job.targets, small)))
    assert arrays < found.needed < 10 * arrays


def test_shapes_lower_to_the_program_that_runs(small, make_picture):
    job = jaxstyle.prepare(make_picture(), make_picture(), recipe=SMALL, network=small)
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype), job.start)
    text = lowered(job._replace(start=shapes), every=2).as_text()
    assert text == lowered(job, every=2).as_text()


def test_largest_is_where_needed_meets_free(small, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 40_000_000)
    plan = jaxstyle.plan(96, 128, recipe=SMALL, network=small)
    assert plan.fits and plan.largest % 16 == 0
    height = plan.largest * 96 // 128
    needed = memory.needed_bytes(height, plan.largest, recipe=SMALL, network=small)
    # Sixteen pixels of rounding leave a few per cent.
    assert 0.9 < needed / (memory.USABLE * 40_000_000) < 1.02


def test_pictures_beyond_32_bits_are_extrapolated(small):
    settings = {"recipe": SMALL.resolved(small), "network": small}
    large = memory.needed_bytes(60_000, 60_000, **settings)
    assert large == pytest.approx(225 * memory.needed_bytes(4000, 4000, **settings), rel=0.02)


@pytest.mark.parametrize(
    "changes",
    [{}, {"tile": 64}, {"history_size": 20}, {"optimizer": "adam"}, {"content_layers": "relu1_1"}],
)
def test_the_quick_bound_is_above_the_truth(small, changes):
    recipe = dataclasses.replace(SMALL, **changes).resolved(small)
    settings = {"recipe": recipe, "network": small}
    assert memory.upper_bound(200, 300, **settings) > memory.needed_bytes(200, 300, **settings)


def test_a_run_too_large_is_refused_with_ways_out(small, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 8_000_000)
    recipe = dataclasses.replace(SMALL, history_size=20)
    with pytest.raises(JaxstyleError, match=r"^size: .*--size \d+, --tile 512, --history-size 5"):
        memory.check(200, 200, recipe=recipe, network=small)
    monkeypatch.setattr(memory, "free_bytes", lambda: None)
    memory.check(200, 200, recipe=recipe, network=small)


def test_a_size_below_one_is_refused(small):
    with pytest.raises(JaxstyleError, match="width: 0 is out of range"):
        jaxstyle.plan(10, 0, recipe=SMALL, network=small)


def test_plan_command(run):
    code, out, err = run(*"plan --size 128 --weights compact --history-size 5 --json".split())
    assert code == 0, err
    found = json.loads(out)
    assert found["fits"] and found["width"] == found["height"] == 128
    assert found["free"] > found["needed"] > 2 * 5 * 128 * 128 * 12


def test_stylize_refuses_what_cannot_fit(run, tmp_path, make_picture):
    images.save_image(tmp_path / "in.png", make_picture())
    code, _, err = run(
        "stylize", tmp_path / "in.png", tmp_path / "in.png", "-o", tmp_path / "out.png",
        "--size", 60_000, "--upscale", "--weights", "compact",
    )  # fmt: skip
    assert code == 2
    assert err.startswith("jaxstyle: error: --size: a picture of 60000x60000 needs")
    assert err.count("\n") == 1 and "--tile" in err
    assert not (tmp_path / "out.png").exists()
