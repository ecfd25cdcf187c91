"""The studio in headless Chromium, from end to end."""

import io
import json

import pytest
from browser import CHROMIUM, Browser
from PIL import Image

from jaxstyle.images import encode_image
from jaxstyle.monitor.serve import serve
from jaxstyle.provenance.record import parse_record
from jaxstyle.studio import Folder, RunQueue, StudioView

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture
def browser(tmp_path):
    browser = Browser(tmp_path / "profile")
    yield browser
    browser.close()


def text_of(selector):
    return f"document.querySelector('{selector}').textContent"


def count(selector):
    return f"document.querySelectorAll('{selector}').length"


def pressable(selector):
    return f"document.querySelector('{selector}:enabled')?.offsetParent"


def test_from_a_photograph_to_variations(browser, tmp_path, network, make_image):
    photo, painting = tmp_path / "cat.png", tmp_path / "painting.png"
    photo.write_bytes(encode_image(make_image(48, 64, seed=1), "PNG"))
    painting.write_bytes(encode_image(make_image(64, 64, seed=2), "PNG"))
    (tmp_path / "broken.png").write_text("no image")
    folder = Folder(tmp_path / "studio")
    folder.add("styles", "earlier.png", encode_image(make_image(40, 40, seed=3), "PNG"))
    queue = RunQueue(folder, network=network, weights="narrow")
    queue.start()
    with serve(StudioView(queue)) as page:
        browser.goto(page.address)
        browser.wait(count("#styles [data-number]") + " == 1")
        # What cannot be done is said where the person looks.
        browser.click("#run")
        browser.wait(text_of("#run-error") + ".startsWith('photograph: none is chosen')")
        browser.choose_files("#photos-file", tmp_path / "broken.png")
        browser.wait(text_of("#photos-error") + ".startsWith('broken.png is not an image')")
        browser.choose_files("#photos-file", photo)
        browser.wait(count("#photos input:checked") + " == 1")
        assert browser.run("document.querySelector('#photos-error').hidden")
        browser.choose_files("#styles-file", painting)
        browser.wait(count("#styles input:checked") + " == 1")

        browser.run("at('size').value = 64; at('steps').value = 500000; at('start').value = 'each'")
        browser.click("#run")
        browser.wait("state.running && state.running.step > 0")
        browser.wait("at('after').naturalWidth == 64 && at('before').naturalWidth == 64")
        browser.wait(count("#tabs button") + " == 3 && at('curves').naturalWidth == 640")
        assert browser.run(text_of("#live-words")).startswith("step ")
        browser.click("#tabs button:nth-child(2)")
        browser.wait("at('after').src.includes('live/1')")
        # The slider uncovers the photograph from the left, with keys too.
        browser.run("at('slider').focus()")
        for _ in range(3):
            browser.press("ArrowRight", 39)
        assert browser.run("at('after').style.clipPath") == "inset(0px 0px 0px 3%)"

        browser.click("#stop")
        browser.wait("state.results.length == 3 && !at('about').hidden")
        assert "image 2 · 64×48" in browser.run(text_of("#about-words"))
        assert "stopped after" in browser.run(text_of("#about-words"))

        link = "at('download')"
        assert browser.run(f"{link}.download") == "cat-2.png"
        sent = bytes(
            browser.run(
                f"fetch({link}.href).then(a => a.arrayBuffer()).then(b => [...new Uint8Array(b)])"
            )
        )
        assert sent == folder.image(2).read_bytes()
        record = parse_record(Image.open(io.BytesIO(sent)).info["jaxstyle"])
        assert record.recipe.init == "noise" and record.content.path.name == "0001-cat.png"

        browser.click("#more")
        browser.wait("state.running && state.running.step > 0")
        browser.click("#run")
        browser.wait(count("#queue li") + " == 2")
        browser.click("#queue li:nth-child(2) button:nth-of-type(2)")
        browser.wait("state.entries.length == 1")
        # A reload, or a second tab, finds everything.
        browser.goto(page.address)
        browser.wait("state.results.length == 3 && state.running")
        assert len(page.view._pages) == 2 and all(page.view._pages)
        assert browser.run("[at('size').value, at('start').value]") == ["64", "each"]
        browser.wait(pressable("#stop"))
        browser.click("#stop")
        browser.wait("state.results.length == 4 && !at('about').hidden")
        assert "strength 0.65" in browser.run(text_of("#about-words"))
        about = json.loads((folder.path / "results" / "0004.json").read_text())
        assert about["settings"]["strength"] == 0.65 and about["settings"]["starts"] == ["noise"]

        # Two finished images side by side, and the strip by keys.
        browser.run("at('against').value = '1'; at('against').dispatchEvent(new Event('change'))")
        browser.wait("at('before').src.endsWith('image/1') && at('after').src.endsWith('image/4')")
        browser.run("document.querySelector('#strip [tabindex=\"0\"]').focus()")
        browser.press("ArrowRight", 39)
        browser.wait("at('after').src.endsWith('image/3')")

        for width, dark in ((390, False), (390, True), (1280, True)):
            browser.show(width, 844, dark=dark)
            assert browser.run("document.documentElement.scrollWidth") <= width
            color = browser.run("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, color[4:-1].split(", "))) < 200) == dark

        browser.click("#remove")
        assert len(queue.results()) == 4
        browser.click("#remove")
        browser.wait("state.results.length == 3")
        queue.end()
    assert all(url.startswith(page.address) for url in browser.asked)
    # The refusals; the address of a removed image may be asked for once more.
    assert all(said.startswith("Failed to load resource") for said in browser.said)
