"""Grids: what a file may say, that cells as batch elements stay themselves, that nothing is
lost."""

import csv
import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import jaxstyle
from jaxstyle import sweep as grids
from jaxstyle.cli import main
from jaxstyle.engine import chunk, free_memory, loop, memory, results
from jaxstyle.engine.memory import program_bytes
from jaxstyle.engine.preparation import prepare
from jaxstyle.engine.problem import stack
from jaxstyle.errors import JaxstyleError
from jaxstyle.sweep import FinishedCell, read_results
from jaxstyle.sweep import batches as batches_module
from jaxstyle.sweep.grid_file import KEYS, parse
from jaxstyle.weights import save_network

COMMAND = Path(sys.executable).with_name("jaxstyle")
BASE = 'content = "content.png"\nstyle = "style.png"\n'


def image(path, *size, seed):
    pixels = np.random.default_rng(seed).random((*size, 3))
    smooth = Image.fromarray((pixels * 255).astype(np.uint8)).resize(size[::-1])
    smooth.save(path)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, make_network):
    """A folder with images, weights and a grid file of six small cells."""
    folder = tmp_path_factory.mktemp("inputs")
    image(folder / "content.png", 24, 32, seed=1)
    image(folder / "other.png", 24, 32, seed=2)
    image(folder / "tall.png", 32, 24, seed=3)
    image(folder / "style.png", 36, 28, seed=4)
    image(folder / "style2.png", 20, 40, seed=5)
    save_network(make_network(blocks=2).replace(source="random"), folder / "narrow.safetensors")
    return folder


OBJECTIVE = """
weights = "narrow.safetensors"
content_layers = "relu2_2"
style_layers = "relu1_1,relu2_1:2"
"""
SMALL = f"""[base]
{BASE}{OBJECTIVE}
steps = 4
[grid]
init = ["content", "noise"]
style_weight = [10, 100.0, 1e3]
"""


@pytest.fixture
def grid_file(inputs):
    """Write a grid file beside the images."""
    numbers = itertools.count()

    def write(text):
        path = inputs / f"grid{os.getpid()}-{next(numbers)}.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def command(capsys, cache_folder, monkeypatch):
    """Run a command in this process: its exit code, standard output and standard error."""
    monkeypatch.setenv("JAXSTYLE_CACHE", str(cache_folder))
    names = (
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
        "jax_compilation_cache_max_size",
    )
    before = {name: getattr(jax.config, name) for name in names}

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return (ended.value.code or 0, *capsys.readouterr())

    yield run
    for name, value in before.items():
        jax.config.update(name, value)


def contents(folder):
    """Bytes of every cell's image and what its report says but for the time it took."""
    found = {}
    for path in sorted((folder / "cells").iterdir()):
        if path.suffix == ".json":
            report = json.loads(path.read_text())
            for name in ("seconds", "digest", "environment"):
                del report[name]
            del report["cell"]["seconds"], report["images"]["output"]["path"]
            found[path.name] = report
        else:
            found[path.name] = path.read_bytes()
    return found


class TestFile:
    def test_expands_every_combination_the_last_fastest(self):
        text = f'[base]\n{BASE}seed = 5\n[grid]\nseed = [1, 2]\ninit = ["noise", "style"]\n'
        found = parse(text, Path("g.toml")).combinations()
        assert [(c["seed"], c["init"]) for c in found] == [
            (1, "noise"), (1, "style"), (2, "noise"), (2, "style"),
        ]  # fmt: skip
        assert all(c["content"] == "content.png" for c in found)

    def test_without_lists_it_is_one_cell(self):
        assert len(parse(f"[base]\n{BASE}", Path("g.toml")).combinations()) == 1

    BAD = {
        "unknown key": ("[base]\nstyle_wieght = 1", ["style_wieght", "style_weight?"]),
        "flag spelling": ("[grid]\nstyle-weight = [1]", ["style-weight", "style_weight?"]),
        "not a setting": ("[base]\nzzz = 3", ["zzz", "choose from"]),
        "no list": ("[grid]\nseed = 3", ["seed", "3", "[base]"]),
        "empty list": ("[grid]\nseed = []", ["seed", "empty"]),
        "twice": ("[grid]\ncontent_weight = [1, 2, 1.0]", ["content_weight", "twice"]),
        "list in base": ('[base]\ncontent = ["a", "b"]', ["content", "[grid]"]),
        "text for number": ('[base]\nsteps = "10"', ["steps", "'10'", "whole number"]),
        "number for text": ("[base]\ninit = 3", ["init", "3", "text"]),
        "true for number": ("[base]\nsteps = true", ["steps", "True"]),
        "fraction": ("[base]\nsteps = 1.5", ["steps", "1.5"]),
        "date": ("[base]\nseed = 2020-01-01", ["seed", "2020"]),
        "outside": ("seed = 3", ["seed", "[base]"]),
        "another table": ("[other]\nseed = 3", ["other", "[base]"]),
        "no style": ('[base]\ncontent = "a.png"', ["style", "[base]"]),
        "too many": (
            f"[base]\n{BASE}[grid]\n"
            + "".join(f"{k} = {list(range(100))}\n" for k in ("seed", "style_weight", "tv_weight")),
            ["1000000", "100000"],
        ),
    }

    @pytest.mark.parametrize("case", BAD)
    def test_refuses(self, case):
        text, expected = self.BAD[case]
        with pytest.raises(JaxstyleError) as error:
            parse(text, Path("g.toml"))
        for part in expected:
            assert part in str(error.value)

    def test_a_number_of_more_digits_than_python_reads(self, grid_file):
        with pytest.raises(JaxstyleError, match="is not TOML.*digits") as error:
            grids.read(grid_file(f"[base]\nsteps = 1{5000 * '0'}\n"))
        assert "\n" not in str(error.value)

    def test_a_byte_order_mark_is_read_over(self, grid_file):
        text = f"[base]\n{BASE}"
        assert grids.read(grid_file("\ufeff" + text)).base == grids.read(grid_file(text)).base

    def test_a_file_that_is_not_toml(self, grid_file):
        with pytest.raises(JaxstyleError, match="is not TOML.*line 1"):
            grids.read(grid_file("[base\n"))
        with pytest.raises(JaxstyleError, match="does not exist"):
            grids.read(Path("none.toml"))
        with pytest.raises(JaxstyleError, match="cannot be read.*UTF-8"):
            path = grid_file("")
            path.write_bytes(b"\xff")
            grids.read(path)

    VALUES = st.recursive(
        st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=5,
    )

    @staticmethod
    def toml(value):
        if isinstance(value, list):
            return "[" + ", ".join(map(TestFile.toml, value)) + "]"
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        # TOML wants the characters escaped that JSON leaves: there is DEL.
        return json.dumps(value).replace("\x7f", "\\u007f")

    @given(
        base=st.dictionaries(st.sampled_from(KEYS) | st.text("abc_", min_size=1), VALUES),
        axes=st.dictionaries(st.sampled_from(KEYS), VALUES | st.lists(VALUES)),
    )
    @settings(max_examples=150, deadline=None)
    def test_any_values_are_expanded_or_refused_in_a_line(self, base, axes):
        lines = ["[base]", *(f"{k} = {self.toml(v)}" for k, v in base.items())]
        lines += ["[grid]", *(f"{k} = {self.toml(v)}" for k, v in axes.items())]
        try:
            text = "\n".join(lines).encode().decode()
        except UnicodeEncodeError:
            return  # A lone surrogate, which no file holds.
        try:
            grid = parse(text, Path("g.toml"))
        except JaxstyleError as error:
            assert any(key in str(error) for key in (*base, *axes, "content", "style"))
            return
        except ValueError:
            assert "\\ud" in text  # Surrogates escaped, which TOML forbids.
            return
        found = grid.combinations()
        assert len(found) == math.prod(len(values) for values in axes.values())
        for settings_, values in zip(found, itertools.product(*axes.values()), strict=True):
            assert [settings_[k] for k in axes] == list(values)

    @given(st.lists(st.floats(0, 1e6), min_size=1, max_size=4, unique=True), st.integers(1, 3))
    @settings(max_examples=20, deadline=None)
    def test_good_values_give_recipes(self, weights, seeds):
        text = f"[base]\n{BASE}[grid]\nstyle_weight = {weights}\nseed = {list(range(seeds))}"
        found = parse(text, Path("g.toml")).combinations()
        assert [c["style_weight"] for c in found] == [w for w in weights for _ in range(seeds)]
        for c in found:
            jaxstyle.Recipe(style_weight=c["style_weight"], seed=c["seed"])


class TestCells:
    @pytest.fixture
    def cells(self, grid_file):
        def cells(text):
            return grids.cells(grids.read(grid_file(text)), jaxstyle.load_network)

        return cells

    def test_keys_follow_what_a_result_depends_on(self, cells, inputs):
        base = f"[base]\n{BASE}{OBJECTIVE}"
        one = cells(base)[0].key
        assert cells(base + "preset = 'default'\n")[0].key == one
        assert cells(base + "history_size = 20\n")[0].key == one
        assert (
            cells(base + "content_weight = 3\n")[0].key
            == cells(base + "content_weight = 3.0\n")[0].key
        )
        (inputs / "copy.png").write_bytes((inputs / "content.png").read_bytes())
        assert cells(base.replace("content.png", "copy.png"))[0].key == one
        changed = {
            cells(base.replace("content.png", "other.png"))[0].key,
            cells(base.replace("style.png", "style2.png"))[0].key,
            cells(base.replace('"style.png"', '["style.png", "style2.png"]'))[0].key,
            *(cells(f"{base}{line}\n")[0].key for line in (
                "seed = 1", "steps = 7", "init = 'other.png'", "init = 'tall.png'",
            )),
        }  # fmt: skip
        assert len(changed | {one}) == 8

    def test_losses_compare_where_only_the_optimization_differs(self, cells):
        base = f"[base]\n{BASE}{OBJECTIVE}[grid]\n"
        alike = (
            "seed = [1, 2]", "optimizer = ['adam', 'lbfgs']", "init = ['noise', 'other.png']",
            "steps = [1, 2]", "learning_rate = [0.1, 0.2]", "bounds = ['soft', 'none']",
            "scale_side = [16, 20]", "scale_content = [1, 2]",
        )  # fmt: skip
        different = (
            "style_weight = [1, 2]", "size = [24, 28]", "style = ['style.png', 'style2.png']",
            "content_layers = ['relu1_1', 'relu2_2']", "pooling = ['max', 'avg']",
            "preset = ['default', 'neural-style']", "margin = [0, 8]",
        )  # fmt: skip
        for line in alike:
            first, second = cells(base + line)
            assert first.objective == second.objective and first.key != second.key, line
        for line in different:
            text = base.replace('style = "style.png"\n', "") if line[:7] == "style =" else base
            first, second = cells(text + line)
            assert first.objective != second.objective, line

    def test_groups_are_what_numbers_cannot_change(self, cells):
        text = f"""[base]\n{BASE}{OBJECTIVE}[grid]
        content = ["content.png", "other.png", "tall.png"]
        style = ["style.png", "style2.png", ["style.png", "style2.png"]]
        style_weight = [1, 2]
        init = ["noise", "other.png"]
        noise_std = [0, 1.5]
        seed = [1, 2]
        """
        groups = grids.group_cells(cells(text))
        assert [len(group.cells) for group in groups] == [2 * 3 * 16, 3 * 16]
        assert [group.shape for group in groups] == [(24, 32, 3), (32, 24, 3)]
        first_order = f"""[base]\n{BASE}{OBJECTIVE}optimizer = "adam"\n[grid]
        learning_rate = [1e-3, 0.1]
        schedule = ["constant", "linear"]
        decay = [0.1, 0.5]
        """
        assert [len(g.cells) for g in grids.group_cells(cells(first_order))] == [4, 4]
        for line in (
            "optimizer = ['lbfgs', 'adam']",
            "size = [22, 30]",
            "steps = [2, 3]",
            "style_layers = ['relu1_1', 'relu1_2']",
            "pooling = ['max', 'avg']",
        ):
            assert len(grids.group_cells(cells(f"[base]\n{BASE}{OBJECTIVE}[grid]\n{line}"))) == 2
        weights = "[grid]\nstyle_layers = [{relu1_1 = 1}, {relu1_1 = 2.5}, 'relu1_1:3']"
        assert len(grids.group_cells(cells(f"[base]\n{BASE}{OBJECTIVE}{weights}"))) == 1

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("style_weight = -1", ["[base] style_weight", "-1", "out of range"]),
            ("style_weight = nan", ["style_weight", "nan"]),
            (f"style_weight = 1{400 * '0'}", ["style_weight", "10000", "out of range"]),
            (f"style_weight = 0x{5000 * 'f'}", ["style_weight", "digits", "out of range"]),
            (f"seed = 0x{5000 * 'f'}", ["seed", "digits", "out of range"]),
            ("history_size = 100000", ["history_size", "1 to 1000"]),
            ("scales = 2147483647", ["scales", "1 to 16"]),
            ("optimizer = 'bfgs'", ["[base] optimizer", "'bfgs'", "choose from"]),
            ("preset = 'none'", ["[base] preset", "'none'", "choose from"]),
            ("init = 'none.png'", ["[base] init", "none.png", "does not exist"]),
            ("style_layers = 'relu4_1'", ["style_layers", "relu4_1"]),
            ("style_layers = 'relu9_1'", ["style_layers", "relu9_1"]),
            ("content = 'none.png'", ["[base] content", "none.png"]),
            ("weights = 'none'", ["[base] weights", "none"]),
        ],
    )
    def test_refuses(self, cells, line, expected):
        key = line.split()[0]
        kept = [x for x in f"{BASE}{OBJECTIVE}".splitlines() if not x.startswith(f"{key} ")]
        with pytest.raises(JaxstyleError) as error:
            cells("\n".join(["[base]", *kept, line]))
        for part in expected:
            assert part in str(error.value)

    def test_paths_are_relative_to_the_file_or_else_to_the_current_folder(
        self, cells, inputs, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        image(tmp_path / "here.png", 24, 32, seed=9)
        found = cells(f"[base]\n{BASE}{OBJECTIVE}".replace("style.png", "here.png"))[0]
        assert found.inputs.content.report["path"] == str(inputs / "content.png")
        assert found.inputs.styles[0].report["path"] == "here.png"

    def test_names_are_names_of_files(self, cells, inputs):
        axes = (
            f"[grid]\ninit = ['noise', '{inputs}/content.png']\nstyle_layers = ['all', 'relu1_1:2']"
        )
        found = cells(f"[base]\n{BASE}{OBJECTIVE}".replace("style_layers", "#") + axes)
        assert [cell.name[:-13] for cell in found] == [
            "init=noise_style_layers=all",
            "init=noise_style_layers=relu1_1_2",
            "init=content_style_layers=all",
            "init=content_style_layers=relu1_1_2",
        ]


@pytest.fixture(scope="module")
def problems(make_network, make_image):
    network = make_network(blocks=2)
    recipe = jaxstyle.Recipe(
        content_layers="relu2_2", style_layers="relu1_1,relu2_1", steps=5, init="noise",
        schedule="cosine", decay=0.1,
    )  # fmt: skip

    def problem(k, **changes):
        return prepare(
            make_image(24, 20, seed=k % 2),
            make_image(20, 24, seed=2 + k % 3),
            recipe=dataclasses.replace(
                recipe, **{"style_weight": 10.0**k, "seed": k, "learning_rate": 0.01} | changes
            ),
            network=network,
        )

    return problem


class TestBatchSharding:
    def run(self, problem):
        return results.finish(problem, list(loop.iterates(problem)))

    @pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
    def test_each_element_is_the_run_alone(self, problems, optimizer):
        several = [problems(k, optimizer=optimizer, learning_rate=1e-3 * 10.0**k) for k in range(3)]
        for problem, element in zip(several, self.run(stack(several)), strict=True):
            alone = self.run(problem)[0]
            assert element.recipe == alone.recipe == problem.recipe
            np.testing.assert_allclose(element.initial_loss, alone.initial_loss, rtol=1e-5)
            np.testing.assert_allclose(element.history.loss, alone.history.loss, rtol=2e-2)
            np.testing.assert_allclose(element.loss, alone.loss, rtol=2e-2)

    def test_neighbors_do_not_matter_to_the_bit(self, problems):
        several = [problems(k) for k in range(5)]
        first = self.run(stack([several[0], several[1], several[2]]))
        # A neighbor that is not a number is the worst there can be.
        spoiled = several[4]._replace(start=several[4].start * np.nan)
        second = self.run(stack([spoiled, several[1], several[3]]))
        np.testing.assert_array_equal(first[1].image, second[1].image)
        np.testing.assert_array_equal(first[1].history.loss, second[1].history.loss)
        assert not np.array_equal(first[0].image, second[0].image)

    def test_an_element_that_diverges_ends_as_alone(self, problems):
        several = [
            problems(k, optimizer="adam", learning_rate=rate, bounds="none")
            for k, rate in ((0, 1e-3), (1, 1e4))
        ]

        def run(problem):
            return results.finish(problem, list(loop.iterates(problem, chunk_size=1)))

        good, lost = run(stack(several))
        (alone,) = run(several[1])
        assert lost.diverged and alone.diverged and not good.diverged
        assert good.steps == 5 and good.evaluations == 6
        assert lost.steps == alone.steps < 5 and lost.evaluations == alone.evaluations
        np.testing.assert_allclose(lost.history.loss, alone.history.loss, rtol=1e-4)
        np.testing.assert_allclose(lost.image, alone.image, atol=1e-6)

    def test_other_numbers_use_the_same_program(self, problems):
        self.run(stack([problems(0), problems(1), problems(2)]))
        before = chunk.run_chunk._cache_size(), chunk.init_carry._cache_size()
        self.run(stack([problems(3), problems(2), problems(4)]))
        assert (chunk.run_chunk._cache_size(), chunk.init_carry._cache_size()) == before

    def test_what_does_not_fit_one_program_is_refused(self, problems):
        for changes in ({"optimizer": "adam"}, {"steps": 7}, {"pooling": "avg"}):
            with pytest.raises(JaxstyleError, match="problems: "):
                stack([problems(0), problems(1, **changes)])

    def test_networks_are_compared_by_their_weights(self, problems):
        first, second = problems(0), problems(1)
        named = [p._replace(network=p.network.replace(digest="same")) for p in (first, second)]
        assert named[0].network is not named[1].network
        assert stack(named).start.shape[0] == 2
        with pytest.raises(JaxstyleError, match="problems: their network"):
            stack([named[0], second._replace(network=second.network.replace(digest="other"))])

    def test_memory_grows_with_the_elements(self, problems):
        two, four = (program_bytes(stack([problems(0)] * k)) for k in (2, 4))
        history = 2 * 20 * 24 * 20 * 3 * 4
        assert four - two > 2 * history

    def test_as_many_as_memory_holds(self, grid_file, monkeypatch):
        text = f"[base]\n{BASE}{OBJECTIVE}[grid]\nseed = {list(range(20))}"
        (group,) = grids.group_cells(
            grids.cells(grids.read(grid_file(text)), jaxstyle.load_network)
        )
        monkeypatch.setattr(free_memory, "free_bytes", lambda: 10**12)
        monkeypatch.setattr(batches_module, "MAX_BATCH_SIZE", {})
        needed = []

        def program_bytes(problem, chunk_size):
            needed.append(1000 * len(problem.start) + 300)
            return needed[-1]

        monkeypatch.setattr(memory, "program_bytes", program_bytes)
        assert batches_module.elements_of(group) == 20
        monkeypatch.setattr(free_memory, "free_bytes", lambda: 10_000)
        # Eight at a time would do; seven give equally many batches.
        assert batches_module.elements_of(group) == 7
        monkeypatch.setattr(free_memory, "free_bytes", lambda: 10)
        assert batches_module.elements_of(group) == 1
        monkeypatch.setattr(free_memory, "free_bytes", lambda: None)
        assert batches_module.elements_of(group) == 20
        assert needed == [20_300] * 4

    def test_a_cell_keeps_its_place(self, grid_file):
        text = f"[base]\n{BASE}{OBJECTIVE}[grid]\nseed = {list(range(7))}"
        (group,) = grids.group_cells(
            grids.cells(grids.read(grid_file(text)), jaxstyle.load_network)
        )
        chunk_size = group.cells
        whole = batches_module.batches(group, 3, chunk_size)
        assert [batch.places for batch in whole] == [
            chunk_size[:3], chunk_size[3:6], (chunk_size[6], None, None),
        ]  # fmt: skip
        part = batches_module.batches(group, 3, [chunk_size[1], chunk_size[6]])
        assert [b.places for b in part] == [
            (None, chunk_size[1], None),
            (chunk_size[6], None, None),
        ]


@pytest.fixture(scope="module")
def finished(inputs, environment, tmp_path_factory):
    """The small grid, run by the installed command."""
    (inputs / "small.toml").write_text(SMALL)
    folder = tmp_path_factory.mktemp("grid") / "deep" / "out"
    done = subprocess.run(
        [COMMAND, "grid", inputs / "small.toml", "-o", folder, "--lanes", "3"],
        capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done


class TestCommand:
    def test_the_folder(self, finished):
        folder, _ = finished
        assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == [
            "cells", "contact_sheet.png", "index.html", "results.csv",
        ]  # fmt: skip
        endings = [p.suffix for p in (folder / "cells").iterdir()]
        assert sorted(endings) == [".json"] * 6 + [".png"] * 6

    def test_the_table(self, finished):
        folder, _ = finished
        with open(folder / "results.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        wanted = [(i, w) for i in ("content", "noise") for w in (10, 100, 1000)]
        assert [(row["init"], float(row["style_weight"])) for row in rows] == wanted
        for row in rows:
            terms = [float(row[f"loss_{term}"]) for term in ("content", "style", "tv")]
            assert float(row["loss"]) == pytest.approx(sum(terms), rel=1e-5)
            assert float(row["loss"]) < float(row["initial_loss"])
            assert int(row["evaluations"]) == 5 and float(row["seconds"]) > 0
            with Image.open(folder / row["image"]) as image:
                assert image.size == (32, 24)
            report = json.loads((folder / row["report"]).read_text())
            assert report["loss"] == float(row["loss"])
            assert len(report["history"]["loss"]) == 5
        assert len({row["loss"] for row in rows}) == 6
        assert len({row["objective"] for row in rows}) == 3

    def test_its_results_are_read(self, finished):
        folder, _ = finished
        cells = read_results(folder)
        wanted = [(i, w) for i in ("content", "noise") for w in (10, 100, 1000)]
        assert [(c.settings["init"], c.settings["style_weight"]) for c in cells] == wanted
        assert all(list(cell.settings) == ["init", "style_weight"] for cell in cells)
        with open(folder / "results.csv", newline="") as stream:
            rows = list(csv.DictReader(stream))
        for cell, row in zip(cells, rows, strict=True):
            assert cell.loss == float(row["loss"]) and cell.seconds == float(row["seconds"])
            assert cell.recipe.style_weight == float(row["style_weight"])
            assert cell.image_path == folder / row["image"] and cell.image.shape == (24, 32, 3)
            history = cell.report["history"]["loss"]
            assert cell.history("loss").tolist() == history and cell.lowest == min(history)

    def test_what_is_not_finite_is_read(self, finished, tmp_path):
        cell = read_results(finished[0])[0]
        report = {**cell.report, "loss": None, "history": {"loss": [None, 2.0, 3.0]}}
        cell = FinishedCell(report, cell.image_path, cell.settings)
        assert cell.loss == float("inf") and cell.lowest == 2
        assert np.isnan(cell.history("loss")[0])
        report["history"] = {"loss": [None]}
        assert cell.lowest == float("inf")

    def test_a_folder_without_results_is_told(self, tmp_path):
        with pytest.raises(JaxstyleError, match=r"no results of `jaxstyle grid`: No such file"):
            read_results(tmp_path)

    def test_pandas_reads_it(self, finished):
        pandas = pytest.importorskip("pandas")
        table = pandas.read_csv(finished[0] / "results.csv")
        assert table.loss.dtype.kind == table.style_weight.dtype.kind == "f"
        assert table.steps.dtype.kind == "i"

    def test_a_cell_is_what_stylize_makes(self, finished, inputs):
        folder, _ = finished
        path = next((folder / "cells").glob("init=noise_style_weight=100-*.json"))
        report = json.loads(path.read_text())
        network = jaxstyle.load_network(inputs / "narrow.safetensors")
        load = jaxstyle.images.load_image
        recipe = jaxstyle.Recipe(
            content_layers="relu2_2", style_layers="relu1_1,relu2_1:2", steps=4, init="noise",
            style_weight=100.0,
        )  # fmt: skip
        result = jaxstyle.stylize(
            load(inputs / "content.png"), load(inputs / "style.png"), recipe=recipe, network=network
        )
        assert report["recipe"] == json.loads(json.dumps(result.recipe.as_dict()))
        assert report["initial"]["loss"] == pytest.approx(result.initial_loss, rel=1e-5)
        assert report["loss"] == pytest.approx(result.loss, rel=1e-2)

    def test_the_page_needs_nothing_else(self, finished):
        text = (finished[0] / "index.html").read_text()
        seen = []

        class Parser(HTMLParser):
            def handle_starttag(self, tag, attributes):
                seen.append((tag, dict(attributes)))

        Parser().feed(text)
        cards = [a for tag, a in seen if tag == "article"]
        assert len(cards) == 6
        assert sum(tag == "polyline" for tag, _ in seen) == 6
        assert {json.loads(card["data-settings"])["init"] for card in cards} == {
            "content", "noise",
        }  # fmt: skip
        assert all(math.isfinite(float(card["data-loss"])) for card in cards)
        assert [card["data-objective"] for card in cards] == ["0", "1", "2"] * 2
        assert "do not compare" in text
        images = [a["src"] for tag, a in seen if tag == "img"]
        assert all(source.startswith("data:image/jpeg;base64,") for source in images)
        assert not any("src" in a for tag, a in seen if tag in ("script", "link"))
        for tag, attributes in seen:
            if tag == "a":
                assert (finished[0] / attributes["href"]).is_file()
        axes = [a["data-axis"] for tag, a in seen if tag == "select" and "data-axis" in a]
        assert axes == ["init", "style_weight"]

    def test_plain_lines_in_a_pipe(self, finished):
        lines = finished[1].stderr.splitlines()
        assert lines[0] == "cells 0/6  compiling …"
        # The style weights differ, and so do the objectives.
        assert lines[-2].startswith("cells 6/6  step 4/4") and "best" not in lines[-2]
        assert lines[-1] == f"jaxstyle: 6 cells are done; see {finished[0] / 'index.html'}"
        assert finished[1].stdout == "" and "\r" not in finished[1].stderr

    def test_run_again_it_runs_nothing(self, finished, command, inputs):
        folder, _ = finished
        before = {p: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}
        code, _, err = command("grid", inputs / "small.toml", "-o", folder)
        assert code == 0 and err.startswith("cells 6/6 done already\n")
        assert len(err.splitlines()) == 2 and "index.html" in err
        assert before == {p: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}

    def test_more_values_run_only_what_is_new(self, finished, command, grid_file, tmp_path):
        import shutil

        folder = shutil.copytree(finished[0], tmp_path / "copy")
        before = {p.name: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}
        text = SMALL.replace("1e3", "1e3, 1e4")
        code, _, err = command("grid", grid_file(text), "-o", folder, "--lanes", 3)
        assert code == 0 and err.startswith("cells 6/8 done already  compiling …\n")
        after = {p.name: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()}
        assert len(after) == 16 and before.items() <= after.items()

    @pytest.mark.parametrize(
        "damage", ["picture", "no image", "half report", "number", "empty report", "list report"]
    )
    def test_a_damaged_cell_is_run_again(self, finished, command, inputs, tmp_path, damage):
        import shutil

        folder = shutil.copytree(finished[0], tmp_path / "copy")
        wanted = contents(folder)
        report = sorted((folder / "cells").glob("*.json"))[2]
        image = report.with_suffix(".png")
        if damage == "picture":
            data = bytearray(image.read_bytes())
            data[-20] ^= 1
            image.write_bytes(data)
        elif damage == "no image":
            image.unlink()
        elif damage == "half report":
            report.write_text(report.read_text()[:400])
        elif damage == "number":
            text = report.read_text()
            loss = json.loads(text)["loss"]
            # The next float: the last digit may be more than a float has.
            report.write_text(text.replace(str(loss), str(np.nextafter(loss, np.inf)), 1))
        else:
            report.write_text("" if damage == "empty report" else "[]")
        others = {p: p.stat().st_mtime_ns for p in (folder / "cells").iterdir()
                  if p not in (report, image)}  # fmt: skip
        code, _, err = command("grid", inputs / "small.toml", "-o", folder)
        assert code == 0 and err.startswith("cells 5/6 done already"), err
        # In as many batch elements and beside copies of itself, it comes out as it did among
        # others.
        assert contents(folder) == wanted
        assert others == {p: p.stat().st_mtime_ns for p in others}

    def test_changed_inputs_are_other_cells(self, finished, command, inputs, tmp_path):
        import shutil

        folder = shutil.copytree(finished[0], tmp_path / "copy")
        beside = shutil.copytree(inputs, tmp_path / "inputs")
        image(beside / "style.png", 36, 28, seed=77)
        code, _, err = command("grid", beside / "small.toml", "-o", folder, "--lanes", 3)
        assert code == 0 and err.startswith("cells 0/6")

    @pytest.mark.parametrize(
        ("text", "flags", "expected"),
        [
            ("[base]\nseed = 'x'", [], ["seed", "'x'"]),
            (SMALL.replace("content.png", "none.png"), [], ["content", "none.png"]),
            (SMALL.replace("relu2_2", "relu5_2"), [], ["content_layers", "relu5_2"]),
            (SMALL.replace("steps = 4", "size = 1"), [], ["size", "1"]),
            (SMALL, ["--lanes", 0], ["--lanes", "0"]),
        ],
    )
    def test_bad_input_costs_one_line(self, command, grid_file, tmp_path, text, flags, expected):
        code, out, err = command("grid", grid_file(text), "-o", tmp_path / "out", *flags)
        assert code == 2 and out == ""
        assert err.startswith("jaxstyle: error: ") and err.count("\n") == 1
        for part in expected:
            assert part in err
        assert not list(tmp_path.iterdir())

    def test_the_folder_is_a_file_or_taken(self, command, grid_file, tmp_path):
        (tmp_path / "file").write_text("")
        code, _, err = command("grid", grid_file(SMALL), "-o", tmp_path / "file")
        assert code == 2 and "file" in err and "folder" in err
        with grids.Store(tmp_path / "out").open():
            code, _, err = command("grid", grid_file(SMALL), "-o", tmp_path / "out")
        assert code == 2 and "another jaxstyle grid" in err

    def test_the_folder_is_free_after_its_context(self, tmp_path):
        held = grids.Store(tmp_path).open()
        with held, pytest.raises(JaxstyleError, match="another jaxstyle grid"):
            grids.Store(tmp_path).open()
        with grids.Store(tmp_path).open():
            pass

    def test_the_folder_is_listed_once_for_all_cells(self, finished, grid_file, monkeypatch):
        (folder, _), listed = finished, []
        glob = Path.glob
        monkeypatch.setattr(
            Path, "glob", lambda path, what: listed.append(path) or glob(path, what)
        )
        cells = grids.cells(grids.read(grid_file(SMALL)), jaxstyle.load_network)
        assert len(grids.Store(folder).find(cells)) == len(cells) > 1
        assert len(listed) == 1

    LONG = SMALL.replace("steps = 4", "steps = 30") + "seed = [1, 2]\n"

    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
    def test_stopped_it_goes_on(self, inputs, environment, command, tmp_path, how):
        (inputs / "long.toml").write_text(self.LONG)
        arguments = [COMMAND, "grid", inputs / "long.toml", "--lanes", "2", "-o"]
        cells = tmp_path / "stopped" / "cells"
        process = subprocess.Popen(
            [*arguments, tmp_path / "stopped"], stderr=subprocess.PIPE, text=True, env=environment
        )
        with process:
            until = time.monotonic() + 120
            while len(list(cells.glob("*.json"))) < 3 and time.monotonic() < until:
                time.sleep(0.002)
            process.send_signal(how)
            _, err = process.communicate(timeout=60)
        kept = {p: p.stat().st_mtime_ns for p in cells.glob("*.json")}
        assert 3 <= len(kept) < 12, err
        if how == signal.SIGINT:
            assert process.returncode == 130, err
            assert "Traceback" not in err and f"{len(kept)} of 12 cells" in err.splitlines()[-1]
            with open(tmp_path / "stopped" / "results.csv", newline="") as stream:
                assert len(list(csv.DictReader(stream))) == len(kept)
        # As if a process had been killed in the middle of writing.
        (cells / ".jaxstyle-0123456789abcdef.tmp").write_bytes(b"half")
        again = subprocess.run(
            [*arguments, tmp_path / "stopped"], capture_output=True, text=True, env=environment
        )
        assert again.returncode == 0, again.stderr
        # An image whose report was not yet written belongs to no finished cell.
        assert again.stderr.startswith(f"cells {len(kept)}/12 done already")
        assert kept.items() <= {p: p.stat().st_mtime_ns for p in cells.glob("*.json")}.items()
        assert not list(cells.glob(".*"))
        if how == signal.SIGKILL:
            whole = tmp_path / "whole"
            assert command(*arguments[1:], whole, "--quiet")[0] == 0
            assert contents(tmp_path / "stopped") == contents(whole)
