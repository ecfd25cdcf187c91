"""What is watched of a run: curves, the notebook's canvas, the page over HTTP and in Chromium."""

import io
import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from helpers import STYLE_LOSS
from PIL import Image

import jaxstyle
from jaxstyle import JaxstyleError, Recipe, sweep
from jaxstyle.cli.browser import keep_open
from jaxstyle.cli.run import _labels
from jaxstyle.images.curves import MAX_POINTS, svg_curves
from jaxstyle.monitor import notebook
from jaxstyle.monitor.live import Live
from jaxstyle.monitor.serve import GridView, RunView, serve
from jaxstyle.monitor.serve.server import check_port

COMMAND = Path(sys.executable).with_name("jaxstyle")
RECIPE = Recipe(
    content_layers="relu2_2",
    style_layers="relu1_1",
    style_loss=STYLE_LOSS,
    steps=4,
    size=0,
    noise_std=30,
    init="noise",
)


@pytest.fixture(scope="module")
def small(make_network, make_image):
    """Make a problem of two steps a chunk: of one image, or of batch elements."""
    network = make_network(blocks=2)

    def small(**options):
        return jaxstyle.prepare(
            make_image(24, 30, seed=1), make_image(20, 20, seed=2),
            recipe=RECIPE, network=network, **options,
        )  # fmt: skip

    return small


@pytest.fixture(scope="module")
def iterates(small):
    """The iterates of one image and of two batch elements, run once."""
    problems = {1: small(), 2: small(elements=["noise", "noise"])}
    return {
        elements: list(jaxstyle.iterates(problem, chunk_size=2))
        for elements, problem in problems.items()
    }


def live_after(seen, **options):
    live = Live(RECIPE.steps, **options)
    for iterate in seen:
        live.tick(iterate)
    return live


class TestCurves:
    def points(self, svg):
        root = ElementTree.fromstring(svg)
        lines = root.findall("{http://www.w3.org/2000/svg}polyline")
        return [
            [tuple(map(float, p.split(","))) for p in line.get("points").split()] for line in lines
        ]

    def test_a_line_falls_as_its_logarithm_does(self):
        (line,) = self.points(svg_curves({"loss": ([0, 1, 2], [100.0, 10.0, 1.0])}))
        x, y = np.transpose(line)
        assert np.diff(x) == pytest.approx(np.diff(x)[0]) and np.diff(x)[0] > 0
        assert np.diff(y) == pytest.approx(np.diff(y)[0], abs=0.11) and np.diff(y)[0] > 0

    def test_what_has_no_logarithm_is_left_out(self):
        values = [1.0, np.nan, 0.0, -1.0, np.inf, 2.0]
        (line,) = self.points(svg_curves({"loss": (range(6), values)}))
        assert len(line) == 2

    @pytest.mark.parametrize("curves", [{}, {"a": ([], [])}, {"a": ([0], [np.nan])}])
    def test_nothing_to_draw(self, curves):
        assert all(line == [] for line in self.points(svg_curves(curves)))

    def test_long_curves_are_thinned_and_keep_their_ends(self):
        steps = np.arange(5000)
        (line,) = self.points(svg_curves({"a": (steps, 10.0 ** (-steps / 1000))}))
        assert len(line) <= MAX_POINTS
        whole = self.points(svg_curves({"a": ([0, 4999], [1.0, 10**-4.999])}))[0]
        assert (line[0], line[-1]) == (whole[0], whole[-1])

    def test_a_value_far_below_the_others_does_not_flatten_them(self):
        curves = {"loss": ([0, 1], [1e3, 10.0]), "content": ([0, 1], [1e-8, 1.0])}
        loss, content = self.points(svg_curves(curves, height=240))
        assert loss[1][1] - loss[0][1] > 240 / 4
        assert content[0][1] > content[1][1]

    def test_no_curve_crosses_the_legend(self):
        labels = [f"content start, seed {n}" for n in range(8)]
        svg = svg_curves({label: ([0, 1], [100.0, 1.0]) for label in labels})
        texts = ElementTree.fromstring(svg).findall("{http://www.w3.org/2000/svg}text")
        legend = {t.text: (float(t.get("x")), float(t.get("y"))) for t in texts if t.text in labels}
        assert len(set(legend.values())) == len(labels)
        highest = min(y for line in self.points(svg) for _, y in line)
        assert max(y for _, y in legend.values()) < highest

    def test_labels_are_text(self):
        svg = svg_curves({"<script>alert(1)</script>": ([0], [1.0])})
        assert "<script" not in svg and ElementTree.fromstring(svg) is not None


class TestLive:
    def test_nothing_yet(self):
        live = Live(4)
        assert live.view() is None and "<svg" in live.curves()
        with pytest.raises(LookupError):
            live.image(0)

    def test_numbers_are_the_last_iterates(self, iterates):
        live = live_after(iterates[1])
        view, last = live.view(), iterates[1][-1]
        assert (view.step, view.steps, view.labels) == (4, 4, ("loss",))
        assert view.losses == (float(last.loss),)
        assert view.terms[0] == {k: float(v) for k, v in last.terms._asdict().items()}
        assert sum(view.terms[0].values()) == pytest.approx(view.losses[0], rel=1e-5)
        assert view.seconds_left == 0 and view.evaluations_per_second > 0
        assert live.curves().count("<polyline") == 1 + len(last.terms)

    def test_a_curve_an_element(self, iterates):
        live = live_after(iterates[2], labels=("left", "right"))
        assert live.view().labels == ("left", "right")
        assert live.curves().count("<polyline") == 2 and "right" in live.curves()

    def test_images_are_the_elements(self, iterates):
        live, last = live_after(iterates[2]), iterates[2][-1]
        for element in (0, 1):
            data = live.image(element, format="PNG")
            shown = np.asarray(Image.open(io.BytesIO(data)), np.float32) / 255
            assert np.abs(shown - np.asarray(last.image[element])).max() <= 0.5 / 255 + 1e-6
        small = Image.open(io.BytesIO(live.image(1, longest_side=15)))
        assert small.size == (15, 12)
        for element in (-1, 2):
            with pytest.raises(LookupError):
                live.image(element)


class TestNotebook:
    """Outside a notebook; the notebooks themselves are run by `test_notebooks.py`."""

    def test_watching_changes_nothing(self, small, capsys):
        problem = small()
        (watched,) = notebook.watch(problem, chunk_size=2)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("step 0/4  loss ") and lines[-1].startswith("step 4/4  loss ")
        seen = list(jaxstyle.iterates(problem, chunk_size=2))
        (alone,) = jaxstyle.finish(problem, seen)
        assert (watched.image == alone.image).all() and watched.loss == alone.loss

    def test_stopping_keeps_the_best_image(self, small, capsys, monkeypatch):
        def press(canvas, live, **words):
            update(canvas, live, **words)
            if live.view().step == 2 and not words:
                raise KeyboardInterrupt

        update = notebook._Canvas.update
        monkeypatch.setattr(notebook._Canvas, "update", press)
        results = notebook.watch(
            small(elements=["noise", "content"]), chunk_size=2, labels=["n", "c"]
        )
        assert [result.steps for result in results] == [2, 2]
        assert all(np.isfinite(result.image).all() for result in results)
        last = capsys.readouterr().out.splitlines()[-1]
        assert "stopped" in last and "best batch element" in last

    def test_a_grid_goes_on_where_it_stopped(self, files, tmp_path, capsys, monkeypatch):
        base = {"content": files["content"], "style": files["style"], "weights": files["weights"]}
        text = "[base]\n" + "".join(f'{name} = "{path}"\n' for name, path in base.items())
        text += 'content_layers = "relu1_1"\nstyle_layers = "relu1_1"\nsteps = 1\n'
        (tmp_path / "grid.toml").write_text(text + "[grid]\nstyle_weight = [1.0, 2.0]\n")
        cells = notebook.watch_grid(tmp_path / "grid.toml", tmp_path / "out", elements=1)
        assert [cell.settings for cell in cells] == [{"style_weight": 1.0}, {"style_weight": 2.0}]
        assert all(cell.image_path.is_file() and np.isfinite(cell.loss) for cell in cells)
        assert "2 of 2 cells" in capsys.readouterr().out.splitlines()[-1]
        monkeypatch.setattr(
            "jaxstyle.sweep.executors.iterates", lambda *a, **k: pytest.fail("it ran")
        )
        again = notebook.watch_grid(tmp_path / "grid.toml", tmp_path / "out")
        assert [cell.loss for cell in again] == [cell.loss for cell in cells]

    def test_show_and_devices_as_text(self, make_image, capsys):
        notebook.show([make_image(16, 20), make_image(18, 16)], labels=["a", "b"])
        notebook.show(make_image(16, 20))
        notebook.describe_devices()
        out = capsys.readouterr().out
        assert "image a: 20x16" in out and "image b: 16x18" in out and "JAX" in out
        with pytest.raises(JaxstyleError, match="^labels: 2 are given for 1 images; "):
            notebook.show([make_image(16, 16)], labels=["a", "b"])
        for nothing in ([], np.zeros((0, 8, 8, 3))):
            with pytest.raises(JaxstyleError, match="^images: .* no image to show; give at least"):
                notebook.show(nothing)


@pytest.fixture
def page(iterates, make_image):
    live = live_after(iterates[2][:2], labels=("a", "b"))
    with serve(RunView(live, make_image(24, 30, seed=1))) as page:
        yield page


class TestPage:
    def get(self, page, path="", **options):
        return httpx.get(page.address + path, **options)

    def test_state_is_the_runs(self, page, iterates):
        state = self.get(page, "state").json()
        assert (state["step"], state["steps"], state["labels"]) == (2, 4, ["a", "b"])
        assert state["losses"] == iterates[2][1].loss.astype(float).tolist()
        assert state["message"] == "" and not state["stopping"]
        page.view.live.tick(iterates[2][2])
        assert self.get(page, "state").json()["step"] == 4

    def test_images_and_curves(self, page):
        for path in ("content", "picture/0", "picture/1?step=2"):
            answer = self.get(page, path)
            assert answer.headers["content-type"] == "image/jpeg"
            assert Image.open(io.BytesIO(answer.content)).size == (30, 24)
        assert self.get(page, "curves").text.count("<polyline") == 2
        assert self.get(page, "picture/2").status_code == 404

    def test_nothing_comes_from_elsewhere(self, page):
        text = "".join(self.get(page, name).text for name in ("", "page.js", "run.js", "page.css"))
        assert not re.search(r"https?:|//[a-z]|@import", text.replace("  //", ""))
        policy = self.get(page).headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy

    def test_only_who_has_the_token_is_answered(self, page):
        base, token = page.address.rstrip("/").rsplit("/", 1)
        assert len(token) >= 32
        for wrong in ("", "x" * len(token), token[:-1], token + "x", "%00", "é"):
            for path in ("", "state", "content", "page.js"):
                assert httpx.get(f"{base}/{wrong}/{path}").status_code == 404, wrong
        assert httpx.post(f"{base}/{token[:-1]}/stop").status_code == 404
        assert not page.stopped

    @pytest.mark.parametrize("path", ["../page.py", "..%2fpage.py", "server.py", "picture/x"])
    def test_only_its_own_files_are_given(self, page, path):
        assert self.get(page, path).status_code == 404

    def test_another_name_for_this_machine_is_refused(self, page):
        assert self.get(page, "state", headers={"Host": "evil.example"}).status_code == 400

    def test_the_button(self, page):
        assert self.get(page, "stop").status_code == 404 and not page.stopped
        assert httpx.post(page.address + "stop").status_code == 200
        assert page.stopped and self.get(page, "state").json()["stopping"]

    def test_it_listens_on_this_machine_alone(self, page):
        assert page.address.startswith("http://127.0.0.1:")

    def test_the_end_is_told_to_who_looks(self, page):
        self.get(page, "state")
        told = []
        asking = threading.Timer(0.2, lambda: told.append(self.get(page, "state").json()))
        asking.start()
        page.finish("done; the image is in out.png", wait=20)
        asking.join()
        assert told[0]["message"] == "done; the image is in out.png"

    def test_the_end_is_told_to_every_page(self, page):
        for name in ("first", "second"):
            self.get(page, f"state?page={name}")
        ended = threading.Thread(target=page.finish, args=("done",), kwargs={"wait": 60})
        ended.start()
        while self.get(page, "state?page=first").json()["message"] != "done":
            pass
        # The other one has not asked again.
        assert page.view.has_unanswered_pages(60) and ended.is_alive()
        assert self.get(page, "state?page=second").json()["message"] == "done"
        assert not page.view.has_unanswered_pages(60)
        ended.join(60)
        assert not ended.is_alive()

    def test_a_page_that_waits_is_told_of_the_end_at_once(self, page, monkeypatch):
        monkeypatch.setattr("jaxstyle.monitor.serve.view.HELD", 60)
        told = []
        asking = threading.Thread(
            target=lambda: told.append(self.get(page, "state?wait=end", timeout=50).json())
        )
        asking.start()
        page.finish("done", wait=0)
        asking.join(50)
        assert told[0]["message"] == "done"

    def test_on_a_terminal_the_command_waits_for_its_page(self, page, monkeypatch, capsys):
        monkeypatch.setattr("jaxstyle.monitor.serve.server.WATCHED_WITHIN", 1)
        keep_open(page)
        monkeypatch.setattr("os.isatty", lambda descriptor: True)
        monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
        # No page is open.
        keep_open(page)
        assert capsys.readouterr().err == ""
        self.get(page, "state")
        waiting = threading.Thread(target=keep_open, args=(page,))
        waiting.start()
        for _ in range(3):
            assert self.get(page, "state?page=other").status_code == 200 and waiting.is_alive()
        waiting.join(60)
        assert not waiting.is_alive() and not page.is_open
        assert "the page stays until it is closed" in capsys.readouterr().err

    def test_a_port_that_is_taken(self, page):
        port = int(page.address.split(":")[2].split("/")[0])
        with pytest.raises(JaxstyleError, match=f"--serve: port {port} "):
            check_port(port, argument="--serve")
        # Who calls it from Python has no flag.
        with (
            pytest.raises(JaxstyleError, match=f"^port: port {port} "),
            serve(page.view, port=port),
        ):
            pass

    def test_without_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        with pytest.raises(JaxstyleError, match=r"jaxstyle\[serve\]"):
            check_port(0)

    def test_numbers_that_are_not_finite(self, iterates, make_image):
        bad = iterates[1][1]._replace(loss=np.float32(np.nan))
        live = live_after([iterates[1][0], bad])
        with serve(RunView(live, make_image(16, 16))) as page:
            assert self.get(page, "state").json()["losses"] == [None]


def test_the_command_shows_a_page_and_its_button_ends_it(files, objective, tmp_path, environment):
    arguments = [
        "stylize", files["content"], files["style"], "-o", tmp_path / "o.png",
        "--report", tmp_path / "o.json", *objective, "--steps", 500_000, "--log-json", "--serve",
    ]  # fmt: skip
    with subprocess.Popen(
        [COMMAND, *map(str, arguments)], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        # On a busy machine XLA may have something to say before.
        lines = (line for line in process.stderr if line.startswith('{"page"'))
        address = json.loads(next(lines))["page"]
        assert process.stderr.readline() and process.stderr.readline()
        assert httpx.get(address + "state", timeout=60).json()["steps"] == 500_000
        request = urllib.request.Request(address + "stop", method="POST")
        assert urllib.request.urlopen(request, timeout=60).status == 200
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert err.splitlines()[-1].startswith('{"notice": "stopped at step ')
    report = json.loads((tmp_path / "o.json").read_text())
    assert 0 < report["steps"] < 500_000 and (tmp_path / "o.png").is_file()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=5)


def test_images_of_a_batch_are_named_by_what_they_are():
    paths = [Path("a-000.png"), Path("a-001.png")]
    assert _labels(Recipe(init="noise", seed=7), paths) == ["seed 7", "seed 8"]
    assert _labels(Recipe(init="content", noise_blend=0.5), paths) == ["seed 0", "seed 1"]
    assert _labels(Recipe(init="content"), paths) == ["a-000.png", "a-001.png"]
    assert _labels(Recipe(init="noise"), paths[:1]) is None


@pytest.fixture
def open_browser(tmp_path):
    """Open an address in a Chromium of its own."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    opened = []

    def open_browser(address, **size):
        opened.append(Browser(tmp_path / f"profile{len(opened)}", **size))
        opened[-1].goto(address)
        return opened[-1]

    yield open_browser
    for browser in opened:
        browser.close()


def test_pages_outlive_the_run(iterates, make_image, open_browser):
    live = live_after(iterates[2][:2], labels=("seed 0", "seed 1"))
    with serve(RunView(live, make_image(24, 30, seed=1))) as served:
        pages = [open_browser(served.address) for _ in range(2)]
        for page in pages:
            page.wait("at('picture').naturalWidth == 30 && at('lanes').children.length == 2")
        live.tick(iterates[2][2])
        served.finish("done; the image is in out.png", wait=60)
        for page in pages:
            page.wait("at('status').textContent.endsWith('done; the image is in out.png')")
        # Loaded again while the command lasts.
        pages[0].goto(served.address)
        pages[0].wait("at('status').textContent.endsWith('done; the image is in out.png')")
    for page in pages:
        page.wait("at('status').textContent.endsWith('cannot be loaded again)')")
        assert "; the image is in out.png (the command" in page.run("at('status').textContent")
        assert page.run("at('stop').disabled")
        shown = page.run("at('picture').src")
        page.click("#lanes button:nth-child(2)")
        page.wait(f"at('picture').src != '{shown}' && at('picture').naturalWidth == 30")
        for image in ("picture", "content", "curves"):
            page.wait(f"at('{image}').src.startsWith('blob:') && at('{image}').naturalWidth > 0")


@pytest.mark.parametrize(
    ("height", "width", "batch", "window"),
    [(60, 20, 1, (1280, 600)), (90, 6, 1, (1280, 700)), (30, 20, 2, (1000, 500))],
)
def test_portraits_are_no_higher_than_the_window(
    height, width, batch, window, iterates, make_image, open_browser
):
    live = live_after(iterates[batch][:2])
    with serve(RunView(live, make_image(height, width, seed=1))) as served:
        page = open_browser(served.address, width=window[0], height=window[1])
        page.wait("at('picture').naturalWidth && at('content').naturalWidth")
        page.wait("document.querySelector('label').getBoundingClientRect().bottom < innerHeight")
        assert page.run("at('frame').getBoundingClientRect().height > 100")


PATIENCE = 60_000


def expect_property(expect, name, locator, value):
    expect(locator).to_have_js_property(name, value, timeout=PATIENCE)


@contextmanager
def in_browser(served):
    """Open a served page in Chromium; in the end nothing was said or asked for elsewhere."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    browsers = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    with browsers.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, said, asked = browser.new_page(), [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(served.address)
        yield page, browsers.expect
        assert all(url.startswith(served.address) for url in asked)
        assert said == []
        browser.close()


def test_a_run_in_a_browser(iterates, make_image):
    live = live_after(iterates[2][:2], labels=("a", "b"))
    view = RunView(live, make_image(24, 30, seed=1))
    with serve(view) as served, in_browser(served) as (page, expect):
        # `expect` and not `wait_for_function`: the page's policy forbids evaluating strings.
        loaded = partial(expect_property, expect, "naturalWidth")
        loaded(page.locator("#picture"), 30)
        loaded(page.locator("#content"), 30)
        loaded(page.locator("#curves"), 720)
        status = expect(page.locator("#status"))
        status.to_contain_text("step 2/4", timeout=PATIENCE)
        assert page.locator("#terms tr").count() == 3
        # The slider uncovers the content image from the left.
        page.locator("#slider").fill("40")
        expect(page.locator("#over")).to_have_css("clip-path", "inset(0px 0px 0px 40%)")
        page.get_by_role("button", name="b", exact=True).click()
        source = re.compile("picture/1")
        expect(page.locator("#picture")).to_have_attribute("src", source, timeout=PATIENCE)
        live.tick(iterates[2][2])
        status.to_contain_text("step 4/4", timeout=PATIENCE)
        page.get_by_role("button", name="Stop and keep").click()
        status.to_contain_text("stopping", timeout=PATIENCE)
        assert served.stopped


@pytest.fixture(scope="module")
def painted(files, tmp_path_factory):
    """A grid of two times two cells, two at a time: folder, cells, what it told, reports."""
    folder = tmp_path_factory.mktemp("grid")
    base = {"content": files["content"], "style": files["style"], "weights": files["weights"]}
    text = "[base]\n" + "".join(f'{name} = "{path}"\n' for name, path in base.items())
    text += 'content_layers = "relu1_1"\nstyle_layers = "relu1_1"\nsteps = 2\n'
    text += '[grid]\nstyle_weight = [1.0, 2.0]\ninit = ["content", "noise"]\n'
    (folder / "grid.toml").write_text(text)
    cells = sweep.cells(sweep.read(folder / "grid.toml"), jaxstyle.load_network)
    store, told = sweep.Store(folder / "out"), []
    with store.open():
        reports = sweep.run(sweep.group_cells(cells), {}, store, elements=2, show=told.append)
    return folder / "out", cells, told, reports


@pytest.fixture
def grid_page(painted):
    """The page when the first two cells are finished and the others have begun."""
    folder, cells, told, reports = painted
    second = next(progress for progress in told if progress.done == 2)
    done = {c.key: reports[c.key] for c in cells if c not in second.places}
    view = GridView(folder, cells, done)
    view.tick(second)
    with serve(view) as page:
        yield page


class TestGridPage:
    def get(self, page, path=""):
        return httpx.get(page.address + path)

    def test_cells_fill_in(self, grid_page, painted):
        _, cells, told, reports = painted
        state = self.get(grid_page, "state").json()
        done = [found["cell"] for found in state["finished"]]
        assert (state["done"], state["total"], state["message"]) == (2, 4, "")
        assert [found["loss"] for found in state["finished"]] == [
            reports[cells[k].key]["loss"] for k in done
        ]
        running = {found["cell"]: found for found in state["running"]}
        assert sorted([*running, *done]) == [0, 1, 2, 3]
        begun = next(progress for progress in told if progress.done == 2)
        for element, cell in enumerate(begun.places):
            found = running[cells.index(cell)]
            assert found["loss"] == float(begun.iterate.loss[element])
            assert (found["step"], found["steps"]) == (0, 2)
        grid_page.view.keep(reports)
        rest = self.get(grid_page, "state?since=2").json()
        assert rest["running"] == [] and {f["cell"] for f in rest["finished"]} == set(running)

    def test_images_are_the_cells(self, grid_page, painted):
        folder, cells, told, reports = painted
        state = self.get(grid_page, "state").json()
        finished, running = state["finished"][0]["cell"], state["running"][0]["cell"]
        whole = (folder / "cells" / f"{cells[finished].name}.png").read_bytes()
        assert self.get(grid_page, f"whole/{finished}").content == whole
        begun = next(progress for progress in told if progress.done == 2)
        element = begun.places.index(cells[running])
        expected = {
            finished: np.asarray(Image.open(io.BytesIO(whole)), np.float32),
            running: np.asarray(begun.iterate.image[element]) * 255,
        }
        for cell, pixels in expected.items():
            shown = Image.open(io.BytesIO(self.get(grid_page, f"picture/{cell}").content))
            # As far as JPEG keeps them.
            assert np.abs(np.asarray(shown, np.float32) - pixels).mean() < 4
        for nothing in (
            f"whole/{running}",
            "picture/4",
            "whole/99",
            "picture",
            "curves",
            "cells/1",
        ):
            assert self.get(grid_page, nothing).status_code == 404, nothing

    def test_an_image_that_is_gone(self, grid_page, tmp_path, painted):
        _, cells, _, reports = painted
        with serve(GridView(tmp_path, cells, reports)) as page:
            assert self.get(page, "picture/0").status_code == 404
            assert self.get(page, "whole/0").status_code == 404

    def test_in_a_browser(self, grid_page, painted):
        *_, reports = painted

        def of(report):
            return report["recipe"]["style_weight"]

        with in_browser(grid_page) as (page, expect):
            expect(page.locator("figure.finished img")).to_have_count(2, timeout=PATIENCE)
            expect(page.locator("figure.running img")).to_have_count(2)
            expect(page.locator("#status")).to_contain_text("cells 2/4")
            # Style weights down the side, initial images along the top.
            expect(page.locator(".heading")).to_have_text(
                ["init = content", "init = noise", "style_weight = 1", "style_weight = 2"]
            )
            columns = page.locator("#cells").evaluate(
                "e => getComputedStyle(e).gridTemplateColumns"
            )
            assert len(columns.split()) == 3
            grid_page.view.keep(reports)
            expect(page.locator("figure.finished img")).to_have_count(4, timeout=PATIENCE)
            for image in page.locator("figure img").all():
                expect_property(expect, "naturalWidth", image, 40)
            # One for each style weight: losses of different weights do not compare.
            expect(page.locator("figure[data-best]")).to_have_count(2)
            least = (
                min(report["loss"] for report in reports.values() if of(report) == weight)
                for weight in (1.0, 2.0)
            )
            for best, marked in zip(least, page.locator("figure[data-best]").all(), strict=True):
                expect(marked).to_contain_text(f"loss {best:.4g}"[:8])
            page.get_by_role("button", name="Stop and keep").click()
            expect(page.locator("#status")).to_contain_text("stopping", timeout=PATIENCE)
            assert grid_page.stopped


def test_the_grid_command_shows_a_page_and_its_button_ends_it(run, painted, tmp_path, monkeypatch):
    file = painted[0].parent / "grid.toml"
    monkeypatch.setattr(GridView, "tick", lambda view, progress: view.stop.set())
    code, out, err = run("grid", file, "-o", tmp_path / "out", "--lanes", 2, "--serve")
    assert (code, out) == (0, "")
    assert re.search(r"^jaxstyle: see http://127\.0\.0\.1:\d+/[\w-]{32}/$", err, re.M)
    assert err.splitlines()[-1].startswith("jaxstyle: stopped with 0 of 4 cells done")
    monkeypatch.undo()
    assert run("grid", file, "-o", painted[0], "--serve", "--quiet")[2].count("\n") == 1
    # For programs: every line is JSON, also while cells are running.
    code, out, err = run("grid", file, "-o", tmp_path / "out", "--lanes", 2, "--log-json")
    *lines, notice = [json.loads(line) for line in err.splitlines()]
    assert (code, out) == (0, "") and len(lines) == 4
    assert notice["notice"].startswith("4 cells are done; see ")
    assert (lines[-1]["cells"], lines[-1]["total"], lines[-1]["running"]) == (2, 4, 2)
    assert lines[-1]["step"] == lines[-1]["steps"] == 2
    # Two style weights are two objectives, whose losses do not compare.
    assert lines[-1]["best"] is None and lines[-1]["loss"] is None
    text = file.read_text().replace("style_weight = [1.0, 2.0]", "seed = [1, 2]")
    (tmp_path / "seeds.toml").write_text(text)
    err = run("grid", tmp_path / "seeds.toml", "-o", tmp_path / "seeds", "--log-json")[2]
    last = json.loads(err.splitlines()[-2])
    assert {"cell", "seed", "init"} == last["best"].keys() and last["loss"] > 0
