"""The notebooks are run at tiny size; git holds them without outputs."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
TINY = "size, steps = 48, 2"

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def tags(cell):
    return cell["metadata"].get("tags", [])


@each
def test_outputs_are_stripped(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert tags(code[0]) == ["install"] and "describe_devices" in "".join(code[1]["source"])
    assert sum("parameters" in tags(cell) for cell in code) == 1


@each
def test_conventions_of_the_platforms(path):
    book = json.loads(path.read_text(encoding="utf-8"))
    badge, *_ = book["cells"][0]["source"]
    assert badge.startswith("[![Open in Colab](") and f"/{path.name})" in badge
    text = "".join("".join(cell["source"]) for cell in book["cells"])
    # Forms, an upload, a download, and a Kaggle without internet.
    for convention in (
        "@title Install", "@param {type:\"integer\"}", "upload=upload", "notebook.download(",
        "/kaggle/input", "Settings, Internet",
    ):  # fmt: skip
        assert convention in text, convention
    # The painted style is imported, not pasted.
    assert "import paint" in text and "def " not in text


@each
def test_it_runs(path, tmp_path, environment, monkeypatch):
    pytest.importorskip("ipykernel", reason="notebooks run in a kernel")
    nbclient = pytest.importorskip("nbclient", reason="runs notebooks")
    nbformat = pytest.importorskip("nbformat", reason="reads notebooks")
    pytest.importorskip("skimage", reason="the notebooks' photograph is scikit-image's")
    book = nbformat.read(path, as_version=4)
    book.cells = [cell for cell in book.cells if "install" not in tags(cell)]
    for cell in book.cells:
        if "parameters" in tags(cell):
            cell.source = TINY
    cache = Path(environment["JAXSTYLE_CACHE"]) / "in-process"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    shown = [
        output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs
    ]  # fmt: skip
    pages = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    # Updated in place: what is left of a watched run is its last page.
    watched = [page for page in pages if "<svg" in page]
    assert watched
    assert all("data:image/jpeg;base64," in page or "<a href=" in page for page in pages)
    assert any("<a href=" in page for page in pages)
    assert all("step 2/2" in page or "cells" in page for page in watched)
