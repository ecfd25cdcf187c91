"""Every command and Python block of README and docs runs, at tiny size; the site builds."""

import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import STYLE_LOSS
from PIL import Image

import jaxstyle
from jaxstyle import Recipe
from jaxstyle.weights import save_network

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]
# A block that cannot run here says so, and why, in a comment on the line before it.
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+?) -->\n)?^(?P<indent> *)```(?P<kind>\w*)\n"
    r"(?P<code>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
# Few sizes, so that few programs are compiled.
IMAGES = {
    "photo.jpg": (40, 48),
    "painting.jpg": (36, 36),
    "first.jpg": (36, 36),
    "second.jpg": (36, 36),
    "sky.png": (40, 48),
    "ground.png": (40, 48),
    "blue.png": (36, 36),
}
TINY = {"--size": "40", "--steps": "3", "--tile": "32", "--save-every": "2"}


def blocks(page):
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        lines = match["code"].splitlines()
        code = "\n".join(line.removeprefix(match["indent"]) for line in lines)
        yield match["kind"], code, match["reason"]


def commands(code):
    """The lines of a shell block, those that end in a backslash joined with the next."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield words


def shrunk(words):
    """Return a command other sizes and numbers of steps, and nothing else."""
    words = [
        TINY.get(before, word) for before, word in zip(["", *words], words, strict=False)
    ]  # fmt: skip
    return words


@pytest.fixture
def place(tmp_path, monkeypatch, make_image, make_network, cache_folder, compilation_cache):
    """A folder with images, and a cache where a narrow network stands in for VGG-19."""
    for seed, (name, size) in enumerate(IMAGES.items()):
        pixels = (make_image(*size, seed=seed) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "photo.jpg").write_bytes((tmp_path / "photo.jpg").read_bytes())
    cache = tmp_path / "cache"
    cache.mkdir()
    save_network(make_network(), cache / "vgg19.safetensors")
    monkeypatch.setenv("JAXSTYLE_CACHE", str(cache))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache_folder / "programs"))
    # The default recipe, shallow and short: it is compiled some twenty times.
    tiny = Recipe(
        content_layers="relu2_1", style_layers="relu1_1", style_loss=STYLE_LOSS, size=32, steps=2
    )
    monkeypatch.setitem(jaxstyle.presets, "default", tiny)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_every_block_runs(page, place, run, capsys):
    namespace = {}
    # A page's grid file, which a command may name before the page shows it.
    for code in (code for kind, code, _ in blocks(page) if kind == "toml" and "[grid]" in code):
        code = re.sub(r"^size = \d+", "size = 32", code, flags=re.MULTILINE)
        code = re.sub(r"^steps = \d+", "steps = 2", code, flags=re.MULTILINE)
        (place / "grid.toml").write_text(code, encoding="utf-8")
    for kind, code, reason in blocks(page):
        assert kind, f"a block of {page.name} does not say what it is: {code[:60]}"
        if reason:
            continue
        if kind == "python":
            code = re.sub(r"\bsize=\d+", "size=32", code)
            code = re.sub(r"\bsteps=\d+", "steps=2", code)
            exec(compile(code, f"{page.name}: {code[:60]!r}", "exec"), namespace)
        elif kind == "sh":
            for words in commands(code):
                assert words[0] == "jaxstyle", f"{page.name}: mark {words} as not run"
                if words[1] == "sample":
                    # Written for folders without images.
                    (place / words[2]).unlink(missing_ok=True)
                    (place / words[3]).unlink(missing_ok=True)
                exit_code, _, err = run(*shrunk(words)[1:])
                # `doctor` tells of this machine.
                assert exit_code in ((0, 1) if words[1] == "doctor" else (0,)), (words, err)
        else:
            assert kind in ("text", "toml", "json"), kind


def test_blocks_that_are_not_run_say_why():
    skipped = [reason for page in PAGES for _, _, reason in blocks(page) if reason]
    run = [code for page in PAGES for _, code, reason in blocks(page) if not reason]
    assert all(len(reason) > 5 for reason in skipped) and len(run) > 3 * len(skipped)


def test_every_public_name_is_in_the_reference():
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^::: jaxstyle\.(\w+)$", text, re.MULTILINE))
    public = {
        name for name, thing in ((name, getattr(jaxstyle, name)) for name in dir(jaxstyle))
        if not name.startswith("_") and type(thing).__name__ != "module"
    }  # fmt: skip
    assert documented >= public, public - documented


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_site_builds_without_a_warning(tmp_path):
    for name in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
        pytest.importorskip(name, reason="the extra `docs` builds the site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "maths" / "index.html").read_text(encoding="utf-8")
    assert "<math" in page and "$$" not in page and "\\(" not in page
    reference = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert 'id="jaxstyle.stylize"' in reference and "longest side of at most" in reference
    # Nothing is loaded from elsewhere.
    assert not re.search(r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//', page)


def test_the_gallery_is_what_its_script_writes():
    pytest.importorskip("skimage", reason="the extra demo is not installed")
    sys.path.insert(0, str(ROOT / "experiments" / "figures"))
    import gallery

    assert gallery.page() == (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    shown = {s.name for several in gallery.SECTIONS.values() for s in several} | set(gallery.GIVEN)
    assert shown == {path.stem for path in (ROOT / "docs" / "gallery").glob("*.jpg")}
    assert sum(path.stat().st_size for path in (ROOT / "docs" / "gallery").glob("*")) < 2.5e6


def test_the_generated_pages_are_in_step():
    done = subprocess.run(
        [sys.executable, "-c", "import generate; print(*generate.pages().values(), sep='\\0')"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "docs"), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    written = [(ROOT / "docs" / name).read_text() for name in ("flags.md", "settings.md")]
    assert done.stdout.removesuffix("\n").split("\0") == written, "run docs/generate.py"
    for field in dataclasses.fields(Recipe):
        assert f"--{field.name.replace('_', '-')}" in written[0] and f"`{field.name}`" in written[1]
    for field in jaxstyle.Result._fields:
        assert f"| `{field}` |" in written[1]
