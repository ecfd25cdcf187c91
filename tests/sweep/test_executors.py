"""Grids elsewhere: what a worker does and loses leaves the cells of a run at home."""

import contextlib
import dataclasses
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import psutil
import pytest
from helpers import STYLE_LOSS
from PIL import Image

from jaxstyle import JaxstyleError
from jaxstyle import sweep as grids
from jaxstyle.cli import main
from jaxstyle.engine import free_memory, memory
from jaxstyle.sweep.batches import Batch, batches
from jaxstyle.sweep.executors import (
    Finished,
    _apart,
    executor_option,
    local,
    on_ray,
    on_slurm,
    outcome_of,
)
from jaxstyle.weights import load_network, save_network

GRID = f"""[base]
content = "content.png"
style = "style.png"
weights = "narrow.safetensors"
content_layers = "relu2_2"
style_layers = "relu1_1"
style_loss = "{STYLE_LOSS}"
steps = 3
[grid]
init = ["content", "noise"]
style_weight = [10.0, 1000.0]
"""


@pytest.fixture(scope="module")
def groups(tmp_path_factory, make_network):
    """Four cells."""
    folder = tmp_path_factory.mktemp("inputs")
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)
    for name in ("content", "style"):
        Image.fromarray(np.roll(pixels, 50)).save(folder / f"{name}.png")
    save_network(make_network(blocks=2).replace(source="random"), folder / "narrow.safetensors")
    (folder / "grid.toml").write_text(GRID)
    return grids.group_cells(grids.cells(grids.read(folder / "grid.toml"), load_network))


@pytest.fixture(autouse=True)
def programs(cache_folder, monkeypatch):
    """Workers find compiled what has been compiled here."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache_folder / "programs"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def run(groups, folder, executor=None, show=lambda progress: None):
    """Run in two batches; the number of times that each cell was saved."""
    saved = []

    class Counting(grids.Store):
        def save(self, cell, *arguments, **options):
            saved.append(cell.key)
            return super().save(cell, *arguments, **options)

    with (store := Counting(folder)).open():
        grids.run(groups, {}, store, elements=2, executor=executor, show=show)
    return sorted(saved)


@pytest.fixture(scope="module")
def at_home(groups, tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    run(groups, folder)
    return folder


def assert_same_cells(folder, at_home):
    images = {path.name: path.read_bytes() for path in (at_home / "cells").glob("*.png")}
    assert len(images) == 4
    found = {path.name: path.read_bytes() for path in (folder / "cells").glob("*.png")}
    assert found == images
    assert len(list((folder / "cells").iterdir())) == 8


class Killer:
    """Kills the first process below this one whose command line has a text, once."""

    def __init__(self, text):
        self.text, self.killed = text, None

    def __call__(self, progress):
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if self.killed is None and self.text in " ".join(process.cmdline()):
                    self.killed = process.pid
                    os.kill(process.pid, signal.SIGKILL)


def test_ray_loses_a_worker_and_no_cell(groups, at_home, tmp_path):
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        killer = Killer("ray::outcome_of")
        saved = run(groups, tmp_path, on_ray({}), killer)
        assert ray.is_initialized(), "a cluster that was there before is left alone"
    finally:
        ray.shutdown()
    assert killer.killed is not None
    assert saved == sorted(cell.key for group in groups for cell in group.cells)
    assert_same_cells(tmp_path, at_home)


def test_slurm_loses_a_job_and_no_cell(groups, at_home, tmp_path):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    # Processes of this machine in the place of Slurm's.
    killer = Killer("submitit.core._submit")
    saved = run(groups, tmp_path, on_slurm(tmp_path / ".slurm", {"cluster": "local"}), killer)
    assert killer.killed is not None
    assert saved == sorted(cell.key for group in groups for cell in group.cells)
    assert_same_cells(tmp_path, at_home)


def test_an_error_of_a_problem_is_ours(groups, tmp_path):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    # Cells of two sizes do not make a batch: what a worker refuses.
    cell, other = groups[0].cells[:2]
    content = other.inputs.content
    half = content._replace(
        pixels=content.pixels[::2], report={**content.report, "sha256": "another"}
    )
    halved = dataclasses.replace(other, inputs=other.inputs._replace(content=half))
    batch = Batch(groups[0], (cell, halved))
    with pytest.raises(JaxstyleError, match="batch elements of one program"):
        list(on_slurm(tmp_path, {"cluster": "local"})([batch]))


def test_the_memory_that_counts_is_where_cells_run(groups, monkeypatch):
    monkeypatch.setattr(free_memory, "free_bytes", lambda: 1_000)
    with pytest.raises(JaxstyleError, match="can be used"):
        grids.check(groups)
    grids.check(groups, here=False)
    places = []

    def elsewhere(batches):
        places.extend(len(batch.places) for batch in batches)
        yield from ()

    with monkeypatch.context() as patch:
        # Nothing is compiled to choose a batch.
        patch.setattr(memory, "program_bytes", None)
        grids.run(groups, {}, None, executor=elsewhere)
    assert places == [len(group.cells) for group in groups]
    # A worker looks at its own.
    network, cells = _apart(batches(groups[0], 2, groups[0].cells)[0])
    refused = outcome_of(network, cells, groups[0].own_targets)
    assert "--lanes: 2 cells" in str(refused) and "give --lanes 1" in str(refused)
    refused = outcome_of(network, cells[:1], groups[0].own_targets)
    assert isinstance(refused, JaxstyleError) and "an image of 20x24 needs" in str(refused)


def test_batches_are_taken_one_by_one_at_home(groups):
    taken = []

    def planned():
        for batch in batches(groups[0], 2, groups[0].cells):
            taken.append(batch)
            yield batch

    for event in local(jax.devices()[:1])(planned()):
        if isinstance(event, Finished):
            assert taken == [event.batch]
            break


def test_options():
    assert executor_option("num_gpus=0.5") == ("num_gpus", 0.5)
    assert executor_option("slurm_partition=gpu") == ("slurm_partition", "gpu")
    assert executor_option("a=b=c") == ("a", "b=c")
    for wrong in ("num_gpus", "=1", "a b=1"):
        with pytest.raises(JaxstyleError, match="is not KEY=VALUE"):
            executor_option(wrong)


@pytest.mark.parametrize(
    ("flags", "message"),
    (
        (
            ("--executor-option", "a=1"),
            "--executor-option: a=1 has no effect with --executor local",
        ),
        (("--executor", "ray", "--devices", "1"), "--devices: 1 works with --executor local only"),
        (("--executor", "moon"), "'moon' is not one of"),
    ),
)
def test_flags_that_do_not_fit(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        main(["grid", "x.toml", "-o", str(tmp_path / "out"), *flags])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_engine_that_is_not_here(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(JaxstyleError, match=r"install jaxstyle\[ray\]"):
        on_ray({})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(JaxstyleError, match=r"install jaxstyle\[slurm\]"):
        on_slurm(Path("x"), {})


def test_no_slurm_here(groups, tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JaxstyleError, match="--executor: slurm cannot be used"):
        next(on_slurm(tmp_path / "jobs", {})([]))
