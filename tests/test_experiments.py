"""The article's experiments: each runs at tiny size and computes its claim's number."""

import dataclasses
import json
import math
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments"
NAMES = sorted(path.parent.name for path in FOLDER.glob("e*/experiment.py"))
pytest.importorskip("matplotlib", reason="the plots' extra: pip install 'jaxstyle[experiments]'")
pytest.importorskip("skimage", reason="the photograph: pip install 'jaxstyle[demo]'")


@pytest.fixture(scope="module")
def tools():
    """The experiments' modules, which are scripts beside each other."""
    sys.path.insert(0, str(FOLDER))
    import harness
    import measures
    import pages
    import run

    yield {"harness": harness, "measures": measures, "pages": pages, "run": run}
    sys.path.remove(str(FOLDER))


def finite(value):
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def test_there_are_ten_claims_and_the_initial_images():
    assert [name[:3] for name in NAMES] == [f"e{number:02}" for number in range(1, 12)]


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_computes_its_number(name, tools, files, tmp_path, compilation_cache, capsys):
    harness, run = tools["harness"], tools["run"]
    experiment = run.load(name)
    assert experiment.name == name
    tiny = harness.SCALES["tiny"]
    scale = dataclasses.replace(tiny, base={**tiny.base, "weights": str(files["weights"])})
    out = files["weights"].parent / "experiments"
    run.carry_out(experiment, scale, out, tmp_path)
    results = json.loads((tmp_path / "results.json").read_bytes())
    assert tuple(results["pairs"]) == experiment.pairs
    assert results["evaluations"] > results["cells"] > 0
    assert 0 < (tmp_path / "sheet.jpg").stat().st_size <= harness.LARGEST_SHEET
    assert "prefers-color-scheme: dark" in (tmp_path / "plot.svg").read_text()
    page = (tmp_path / "README.md").read_text()
    assert experiment.claim in page
    for found in results["pairs"].values():
        assert found["verdict"] in (harness.HOLDS, harness.PARTLY, harness.CONTRADICTED)
        assert found["said"] and found["numbers"] and finite(found["numbers"])
        for part in (found["verdict"], found["number"], *found["said"]):
            assert part in page


def test_pairs_that_differ_hold_in_part(tools):
    harness = tools["harness"]
    assert harness.overall([harness.HOLDS, harness.HOLDS]) == harness.HOLDS
    assert harness.overall([harness.HOLDS, harness.CONTRADICTED]) == harness.PARTLY
    assert harness.overall([harness.CONTRADICTED]) == harness.CONTRADICTED


@pytest.mark.parametrize(
    "name", [name for name in NAMES if (FOLDER / name / "results.json").exists()]
)
def test_what_is_kept_is_whole(name, tools):
    folder = FOLDER / name
    results = json.loads((folder / "results.json").read_bytes())
    experiment = tools["run"].load(name)
    assert results["claim"] == experiment.claim and results["scale"] == "small"
    assert (folder / "sheet.jpg").stat().st_size <= 600_000 and (folder / "plot.svg").exists()
    page, index = (folder / "README.md").read_text(), (FOLDER / "README.md").read_text()
    assert results["verdict"] == tools["harness"].overall(
        [found["verdict"] for found in results["pairs"].values()]
    )
    assert f"**{results['verdict']}**" in index
    for found in results["pairs"].values():
        assert found["number"] in page and found["number"] in index


@pytest.mark.parametrize("path", sorted(FOLDER.glob("e*/*.toml")), ids=lambda p: p.stem)
def test_grid_files_are_ones_that_the_command_reads(path, tools):
    from jaxstyle.sweep.grid_file import parse

    parse(path.read_text(), path)
    experiment = tools["run"].load(path.parent.name)
    for scale in tools["harness"].SCALES.values():
        base, grid = tools["harness"].brought_to(experiment, scale, path)
        if scale.name == "tiny":
            assert base.get("steps", 5) <= 5 >= max(grid.get("steps", [5]))
        text = tools["harness"].as_toml({"base": base, "grid": grid})
        assert tomllib.loads(text) == {"base": base, "grid": grid}
        parse(text, path)


def test_scales_replace_values_and_axes(tools):
    tables = {"base": {"size": 64, "steps": 9}, "grid": {"seed": [0, 1], "tv_weight": [0.0]}}
    over = {"size": 32, "seed": [5], "tv_weight": 1.0, "noise_std": [1.0], "weights": "vgg19"}
    base, grid = tools["harness"].scaled(tables, over)
    assert base == {"size": 32, "steps": 9, "weights": "vgg19"}
    assert grid == {"seed": [5], "tv_weight": [0.0]}
    assert tables["base"]["size"] == 64


class TestMeasures:
    @pytest.fixture(autouse=True)
    def _measures(self, tools):
        self.measures = tools["measures"]

    @pytest.mark.parametrize("std", [5.0, 20.0])
    def test_noise_is_found_and_structure_is_not(self, std, make_image):
        y, x = np.mgrid[0:96, 0:96] / 96
        smooth = np.stack([x, y, 0.5 + 0.3 * np.sin(3 * x)], -1)
        noise = np.random.default_rng(0).normal(size=smooth.shape) * std / 255
        assert self.measures.noise_level(smooth) < 0.1
        assert self.measures.noise_level(smooth + noise) == pytest.approx(std, rel=0.05)

    def test_steps_to_a_share_of_the_way(self):
        # From 1e4 down to 1: nine tenths of the logarithm are reached at 10^0.4.
        values = 10 ** np.linspace(4, 0, 41)
        assert self.measures.first_step_within(values, 0.899) == 36
        assert self.measures.first_step_within(np.array([1.0, 100, 10, 1]), 0.5) == 2
        # A lower value before the highest is no part of the fall.
        assert self.measures.first_step_within(np.array([0.01, 100, 10, 1]), 0.9) == 3

    def test_patches_of_an_image_are_where_they_are(self, make_image):
        image = make_image(40, 48, seed=1)
        distance = self.measures.patch_distance
        assert distance(image, image) == 0
        assert distance(image[::-1, ::-1], image) < distance(make_image(seed=5), image)
        # The patch in its own place is 10 away; another may be nearer.
        offset = distance(image + 10 / 255, image)
        # About 10: the directions are random.
        assert 5 < offset < 12

    def test_correlations(self, make_image):
        one, other = make_image(seed=1), make_image(seed=2)
        for measure in (self.measures.correlation, self.measures.fine_correlation):
            assert measure(one, one) == pytest.approx(1) and measure(one, 1 - one) < -0.99
            assert abs(measure(one, other)) < 0.9

    def test_oscillations_are_counted(self, tools):
        import importlib

        peaks = importlib.import_module("e08_adam_oscillates.experiment").peaks
        steps = np.arange(200)
        assert len(peaks(np.exp(-steps / 50))) == 0
        assert len(peaks(2 + np.sin(steps / 200 * 2 * np.pi * 5))) == 5
        assert len(peaks(2 + 0.01 * np.sin(steps))) == 0
