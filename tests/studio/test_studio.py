"""The studio without a browser: settings, folder, queue, and what its page is answered."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import jaxstyle
from jaxstyle import JaxstyleError
from jaxstyle.images import encode_image, load_image
from jaxstyle.monitor.serve import serve
from jaxstyle.provenance.record import read_record
from jaxstyle.studio import Folder, RunQueue, StudioView
from jaxstyle.studio.settings import Settings

COMMAND = Path(sys.executable).with_name("jaxstyle")
PATIENCE = 600
SHORT = {"size": 32, "steps": 2, "preset": "default"}


def wait_until(what):
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


def open_queue(folder, network):
    return RunQueue(Folder(folder), network=network, weights="narrow")


@pytest.fixture
def filled(tmp_path, make_image):
    """A folder with a photograph and two styles."""
    folder = Folder(tmp_path / "studio")
    folder.add("photos", "cat.png", encode_image(make_image(32, 40, seed=1), "PNG"))
    for seed in (2, 3):
        folder.add("styles", f"{seed}.png", encode_image(make_image(36, 36, seed=seed), "PNG"))
    return folder


class TestSettings:
    def test_there_and_back(self):
        settings = Settings(1, (2, 3), strength=0.7, starts=("noise", "content"), seed=5)
        sent = json.loads(json.dumps(settings.as_dict()))
        assert Settings.from_dict(sent) == settings
        assert settings.of_image(1) == Settings(1, (2, 3), strength=0.7, seed=6)

    @pytest.mark.parametrize(
        "given, named",
        [
            ([], "run:"),
            ({}, "photograph: none is chosen"),
            ({"photo": 1}, "style: none is chosen"),
            ({"photo": 1, "styles": "1"}, "styles:"),
            ({"photo": True, "styles": [1]}, "photograph:"),
            ({"photo": 1, "styles": [1], "size": 1}, "size: 1 is out of range"),
            ({"photo": 1, "styles": [1], "size": "64"}, "size: '64'"),
            ({"photo": 1, "styles": [1], "strength": 2}, "strength: 2"),
            ({"photo": 1, "styles": [1], "starts": []}, "images: 0"),
            ({"photo": 1, "styles": [1], "starts": ["noise"] * 10}, "images: 10"),
            ({"photo": 1, "styles": [1], "starts": ["/etc/passwd"]}, "start: '/etc/passwd'"),
            ({"photo": 1, "styles": [1], "continues": "x"}, "continues: 'x'"),
            ({"photo": 1, "styles": [1], "preset": "x"}, "preset: 'x' does not exist"),
            ({"photo": 1, "styles": [1], "steps": 0}, "steps: 0"),
            ({"photo": 1, "styles": [1], "seed": -1}, "seed: -1"),
            ({"photo": 1, "styles": [1], "mask": "x"}, "mask"),
        ],
    )
    def test_what_is_refused_by_name(self, given, named):
        with pytest.raises(JaxstyleError, match=re.escape(named)) as refused:
            Settings.from_dict(given)
        assert "\n" not in str(refused.value)


class TestFolder:
    def test_the_same_image_is_kept_once(self, filled, make_image):
        data = encode_image(make_image(32, 40, seed=1), "PNG")
        assert filled.add("photos", "other.png", data).number == 1
        assert filled.add("photos", "b.png", encode_image(make_image(seed=9), "PNG")).number == 2
        assert [image.name for image in filled.given("photos")] == ["cat.png", "b.png"]

    def test_no_number_is_given_twice(self, filled, make_image):
        filled.forget("styles", 2)
        filled.forget("styles", 1)
        data = [encode_image(make_image(seed=seed), "PNG") for seed in (8, 9)]
        assert filled.add("styles", "a.png", data[0]).number == 3
        # After a restart too.
        assert Folder(filled.path).add("styles", "b.png", data[1]).number == 4
        assert filled.add("photos", "c.png", data[0]).number == 2

    @pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"0" * 50])
    def test_what_is_no_image_is_refused_and_not_kept(self, filled, data):
        with pytest.raises(JaxstyleError, match=r"^a\.png is ") as refused:
            filled.add("photos", "a.png", data)
        assert str(filled.path) not in str(refused.value)
        assert [f.name for f in (filled.path / "photos").iterdir()] == ["0001-cat.png"]

    @pytest.mark.parametrize("name", ["../../x.png", "..\\x.png", "/etc/x.png", "\0/..x.png", ""])
    def test_names_from_elsewhere_stay_in_the_folder(self, filled, make_image, name):
        added = filled.add("photos", name, encode_image(make_image(seed=7), "PNG"))
        assert added.file.parent == filled.path / "photos" and added.file.is_file()

    def test_painted_styles_come_with_an_empty_folder(self, tmp_path, filled, monkeypatch):
        monkeypatch.setattr("jaxstyle.studio.folder.PAINTED_SIDE", 32)
        folder = Folder(tmp_path / "new")
        folder.paint_styles()
        assert len(folder.given("styles")) == 3
        filled.paint_styles()
        assert len(filled.given("styles")) == 2

    def test_what_is_no_folder(self, tmp_path, run):
        (tmp_path / "file").write_text("")
        with pytest.raises(JaxstyleError, match=r"^folder: .*file cannot be made"):
            Folder(tmp_path / "file")
        code, _, err = run("studio", "-o", tmp_path / "file", "--weights", "compact")
        assert code == 2 and f"error: -o: {tmp_path / 'file'} cannot be made" in err


@pytest.fixture
def started(filled, network):
    queue = open_queue(filled.path, network)
    queue.start()
    yield queue
    queue.end()


class TestQueue:
    def test_an_image_is_what_the_library_makes_of_it(self, started, filled, network):
        number = started.add(Settings(1, (1, 2), strength=0.7, seed=3, **SHORT))
        wait_until(lambda: number in started.results())
        about = started.results()[number]
        photo, *styles = (
            filled.find(kind, n).file for kind, n in (("photos", 1), ("styles", 1), ("styles", 2))
        )
        alone = jaxstyle.stylize(
            photo, styles, network=network, strength=0.7, seed=3, size=32, steps=2
        )
        kept = load_image(filled.image(number))
        np.testing.assert_allclose(kept, alone.image, atol=0.5 / 255 + 1e-6)
        assert about["loss"] == pytest.approx(alone.loss, rel=1e-6) and not about["stopped"]
        assert (about["photo"], about["styles"]) == ("cat.png", ["2.png", "3.png"])
        record = read_record(filled.image(number))
        assert record.content.path == photo and record.recipe.seed == 3 and record.steps == 2
        assert record.unresolved["strength"] == 0.7 and "seed" not in record.unresolved
        # Continued at one scale, from the image itself.
        larger = started.add(Settings(1, (1,), continues=number, **SHORT | {"size": 48}))
        wait_until(lambda: larger in started.results())
        record = read_record(filled.image(larger))
        assert (record.recipe.size, record.recipe.scales) == (48, 1)
        assert record.init.path == filled.image(number)
        assert (started.results()[larger]["width"], record.recipe.upscale) == (48, True)

    def test_several_starts_are_images_of_their_own(self, started, filled):
        first = started.add(Settings(1, (1,), starts=("content", "noise"), seed=4, **SHORT))
        wait_until(lambda: len(started.results()) == 2)
        made = [read_record(filled.image(number)).recipe for number in (first, first + 1)]
        assert [(r.init, r.seed) for r in made] == [("content", 4), ("noise", 5)]
        assert {about["run"] for about in started.results().values()} == {first}
        assert started.results()[first + 1]["settings"]["starts"] == ("noise",)

    def test_stop_and_keep_and_one_at_a_time(self, started, filled, network):
        long = started.add(Settings(1, (1,), **SHORT | {"steps": 500_000}))
        next_one = started.add(Settings(1, (2,), **SHORT))
        wait_until(lambda: started.running and started.running.live.view())
        assert [e.status for e in started.entries()] == ["running", "waiting"]
        with pytest.raises(JaxstyleError, match="is under way"):
            started.remove(long)
        # What a process that is killed now would find again.
        assert [found["styles"] for found in filled.queue()] == [[1], [2]]
        again = open_queue(filled.path, network)
        assert [e.settings.styles for e in again.entries()] == [(1,), (2,)]
        started.stop.set()
        wait_until(lambda: len(started.results()) == 2)
        assert started.results()[long]["stopped"] and not started.results()[next_one]["stopped"]
        assert filled.queue() == [] and started.entries() == []
        again = open_queue(filled.path, network)
        assert again.results().keys() == {long, next_one}
        assert again.add(Settings(1, (1,), **SHORT)) == next_one + 1

    def test_numbers_of_removed_images_are_not_given_again(self, filled, network, make_image):
        about = {"settings": Settings(1, (1,)).as_dict()}
        for number in (1, 2):
            filled.image(number).write_bytes(encode_image(make_image(), "PNG"))
            filled.keep(number, about, "")
        open_queue(filled.path, network).remove(2)
        again = open_queue(filled.path, network)
        assert again.results().keys() == {1} and again.add(Settings(1, (1,), **SHORT)) == 3

    def test_what_fails_is_told_and_the_next_goes_on(self, filled, network, make_image):
        queue = open_queue(filled.path, network)
        number = queue.add(Settings(1, (2,), **SHORT))
        filled.forget("styles", 2)
        after = queue.add(Settings(1, (1,), **SHORT))
        queue.start()
        wait_until(lambda: after in queue.results())
        queue.end()
        (failed,) = queue.entries()
        assert (failed.number, failed.status) == (number, "failed") and "removed" in failed.error
        queue.remove(number)
        queue.remove(after)
        assert not queue.entries() and not queue.results()
        assert not list((filled.path / "results").iterdir())

    def test_one_studio_a_folder(self, started, filled, network):
        with pytest.raises(JaxstyleError, match="another studio has"):
            open_queue(filled.path, network).start()
        started.end()
        again = open_queue(filled.path, network)
        again.start()
        again.end()

    @pytest.mark.parametrize(
        "settings, named",
        [
            (Settings(7, (1,)), "photos: one was removed"),
            (Settings(1, (9,)), "styles: one was removed"),
            (Settings(1, (1,), continues=3), "continues: the image was removed"),
        ],
    )
    def test_what_is_not_there_is_refused_at_once(self, filled, network, settings, named):
        with pytest.raises(JaxstyleError, match=named):
            open_queue(filled.path, network).add(settings)

    def test_layers_that_the_network_lacks_are_refused_at_once(self, filled, make_network):
        with pytest.raises(JaxstyleError, match="relu5_2"):
            open_queue(filled.path, make_network(blocks=4)).add(Settings(1, (1,), preset="keras"))


class TestPage:
    @pytest.fixture
    def page(self, filled, network):
        with serve(StudioView(open_queue(filled.path, network))) as page:
            yield page

    def test_nothing_comes_from_elsewhere(self, page):
        names = ("", "studio.js", "studio.css")
        text = "".join(httpx.get(page.address + name).text for name in names)
        assert not re.search(r"https?:|//[a-z]|@import", text)
        assert "unsafe" not in httpx.get(page.address).headers["content-security-policy"]

    def test_uploads_and_their_refusals(self, page, make_image, monkeypatch):
        send = page.address + "upload?kind=photos&name=b.png"
        assert httpx.post(send, content=encode_image(make_image(seed=8), "PNG")).json() == {
            "number": 2
        }
        answer = httpx.post(send, content=b"nothing")
        assert answer.status_code == 400 and answer.json()["error"].startswith("b.png is not an")
        monkeypatch.setattr("jaxstyle.monitor.serve.app.LARGEST_BODY", 2**20)
        answer = httpx.post(send, content=b"0" * (3 * 2**20))
        assert answer.status_code == 413 and "has 3 MB, and at most 1" in answer.json()["error"]
        state = httpx.get(page.address + "state").json()
        assert [image["name"] for image in state["photos"]] == ["cat.png", "b.png"]
        assert httpx.post(page.address + "upload?kind=results&name=x").status_code == 404

    def test_every_tab_has_a_name(self, page):
        script = httpx.get(page.address + "studio.js").text
        assert "`state?since=${state.version}&page=${tab}`" in script
        for name in ("first", "second"):
            httpx.get(page.address + f"state?page={name}")
        page.view.message = "ended"
        httpx.get(page.address + "state?page=first")
        assert page.view.has_unanswered_pages(60)

    def test_what_has_not_changed_is_not_sent_again(self, page):
        page.view.queue.note_change()
        state = httpx.get(page.address + "state").json()
        again = httpx.get(f"{page.address}state?since={state['version']}").json()
        assert "photos" in state and "photos" not in again
        httpx.post(page.address + "forget", json={"kind": "photos", "number": 1})
        assert httpx.get(f"{page.address}state?since={state['version']}").json()["photos"] == []

    def test_only_who_has_the_token_may_ask(self, page):
        wrong = page.address[:-2] + "/"
        for name in ("upload?kind=photos", "run", "remove", "forget"):
            assert httpx.post(wrong + name, content=b"{}").status_code == 404
        assert httpx.post(page.address + "run", headers={"Host": "evil.example"}).status_code == 400

    @pytest.mark.parametrize("path", ["small/1", "whole/1", "photos/9", "content", "live/0", "x"])
    def test_what_is_not_there(self, page, path):
        assert httpx.get(page.address + path).status_code == 404
        assert httpx.post(page.address + "remove", json={"number": 5}).status_code == 404

    def test_refusals_are_one_line(self, page):
        for body in (b"", b"[", b"{}", b'{"photo": 1, "styles": [1], "size": 5}'):
            answer = httpx.post(page.address + "run", content=body)
            assert answer.status_code == 400 and "\n" not in answer.json()["error"]


def test_a_port_that_is_taken_after_its_check(run, filled, network, monkeypatch):
    monkeypatch.setattr("jaxstyle.monitor.serve.server.check_port", lambda *_, **__: None)
    monkeypatch.setattr("jaxstyle.weights.load_network", lambda name: network)
    monkeypatch.setattr(RunQueue, "start", lambda self: None)
    with serve(StudioView(open_queue(filled.path, network))) as page:
        port = page.address.split(":")[2].split("/")[0]
        code, _, err = run("studio", "-o", filled.path, "--port", port)
    assert code == 2 and f"jaxstyle: error: --port: port {port} " in err, err


def test_the_command_ends_with_ctrl_c_and_goes_on_after(filled, network, tmp_path, environment):
    from jaxstyle.weights import save_network

    save_network(network.replace(source="random"), tmp_path / "narrow.safetensors")
    settings = Settings(1, (1,), **SHORT | {"steps": 500_000})
    filled.keep_queue([settings.as_dict()])
    arguments = ["studio", "-o", filled.path, "--weights", tmp_path / "narrow.safetensors"]
    with subprocess.Popen(
        [COMMAND, *map(str, arguments)], env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        address = next(filter(None, (re.search(r"http\S+", line) for line in process.stderr)))[0]
        wait_until(lambda: httpx.get(address + "state", timeout=60).json()["running"])
        state = httpx.get(address + "state", timeout=60).json()
        assert state["running"]["steps"] == 500_000 and state["entries"][0]["status"] == "running"
        shown = httpx.get(address + "live/0", timeout=60).content
        assert Image.open(io.BytesIO(shown)).size == (32, 26)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert err.splitlines()[-1].startswith("jaxstyle: the studio has ended"), err
    (about,) = filled.results().values()
    assert about["stopped"] and filled.queue() == [] and filled.image(1).is_file()
