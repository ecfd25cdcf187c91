"""`jaxstyle.notebook`: images in and out, and the studio on the platforms that show notebooks."""

import socket
import sys
import threading
import types
from pathlib import Path

import httpx
import numpy as np
import pytest

from jaxstyle import JaxstyleError, notebook
from jaxstyle.images import load_image, save_image
from jaxstyle.studio import Folder


@pytest.fixture
def colab(monkeypatch):
    """What Google's module is asked for."""
    asked = []

    def record(name, answer=None):
        return lambda *a, **k: (asked.append((name, a, k)), answer)[1]

    output = types.SimpleNamespace(serve_kernel_port_as_iframe=record("iframe"))
    files = types.SimpleNamespace(
        upload=record("upload", {"mine.png": b""}), download=record("download")
    )
    for name, module in (("", types.ModuleType("colab")), (".output", output), (".files", files)):
        monkeypatch.setitem(sys.modules, f"google.colab{name}", module)
    return asked


@pytest.fixture
def in_notebook(monkeypatch):
    """What is displayed."""
    shown = []
    monkeypatch.setattr(notebook, "in_notebook", lambda: True)
    display = pytest.importorskip("IPython.display", reason="notebooks display through IPython")
    monkeypatch.setattr(display, "display", shown.append)
    return shown


@pytest.fixture
def studios(monkeypatch, tmp_path):
    """Studios without painted styles, ended after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxstyle.studio.folder.PAINTED", ())
    yield notebook._open
    for _, stack in notebook._open.values():
        stack.close()
    notebook._open.clear()


class TestChooseImage:
    def test_a_file_wins(self, tmp_path, make_image):
        save_image(tmp_path / "a.png", make_image(seed=1))
        found = notebook.choose_image(tmp_path / "a.png", builtin=make_image(seed=2), upload=True)
        np.testing.assert_array_equal(found, load_image(tmp_path / "a.png"))
        with pytest.raises(JaxstyleError, match="given .*nothing.png"):
            notebook.choose_image("nothing.png", builtin=make_image())

    def test_the_builtin_image_where_there_is_no_other(self, make_image, monkeypatch, tmp_path):
        monkeypatch.setattr(notebook, "KAGGLE_INPUT", tmp_path / "nothing")
        builtin = make_image()
        assert notebook.choose_image(builtin=builtin, upload=True) is builtin

    def test_kaggles_input_in_order(self, make_image, monkeypatch, tmp_path):
        monkeypatch.setattr(notebook, "KAGGLE_INPUT", tmp_path)
        (tmp_path / "set").mkdir()
        for name, seed in (("b.png", 1), ("set/a.png", 2)):
            save_image(tmp_path / name, make_image(seed=seed))
        (tmp_path / "notes.txt").write_text("")
        for number, name in enumerate(("b.png", "set/a.png")):
            found = notebook.choose_image(builtin=None, number=number)
            np.testing.assert_array_equal(found, load_image(tmp_path / name))
        assert notebook.choose_image(builtin=None, number=2) is None

    def test_a_number_below_0(self, make_image):
        with pytest.raises(JaxstyleError, match="^number: -1 is out of range; give "):
            notebook.choose_image(builtin=make_image(), number=-1)

    def test_colab_asks(self, colab, make_image, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        save_image("mine.png", make_image(seed=3))
        found = notebook.choose_image(builtin=None, upload=True)
        np.testing.assert_array_equal(found, load_image("mine.png"))
        assert [name for name, *_ in colab] == ["upload"]


def test_download(colab, in_notebook, monkeypatch, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"0")
    notebook.download(tmp_path / "a.png")
    assert colab == [("download", (str(tmp_path / "a.png"),), {})]
    for name in list(sys.modules):
        if name.startswith("google.colab"):
            monkeypatch.delitem(sys.modules, name)
    notebook.download(tmp_path / "a.png")
    assert in_notebook[0].path == str(tmp_path / "a.png")
    monkeypatch.setattr(notebook, "in_notebook", lambda: False)
    notebook.download(tmp_path / "a.png")
    assert str(tmp_path / "a.png") in capsys.readouterr().out
    with pytest.raises(JaxstyleError, match="nothing.png is not there"):
        notebook.download("nothing.png")


class TestStudio:
    def test_outside_a_notebook(self):
        with pytest.raises(JaxstyleError, match="run `jaxstyle studio`"):
            notebook.studio()

    def test_a_frame_and_one_server_a_folder(self, in_notebook, studios, capsys):
        for _ in range(2):
            notebook.studio("mine", weights="compact")
        first, second = in_notebook
        assert first.src == second.src and len(studios) == 1
        assert first.src in capsys.readouterr().out
        # Under whatever name a platform gives this machine, and in its frame.
        answer = httpx.get(first.src, headers={"Host": "1234-colab.example"})
        assert answer.status_code == 200 and "jaxstyle <span>studio" in answer.text
        policy = answer.headers["content-security-policy"]
        assert "frame-ancestors" not in policy and "default-src 'none'" in policy
        assert httpx.get(first.src[:-2] + "/").status_code == 404
        assert Path("mine/photos").is_dir()

    def test_a_port_that_is_taken_leaves_nothing_behind(self, in_notebook, studios):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(JaxstyleError, match=f"^port: port {port} "):
                notebook.studio("mine", weights="compact", port=port)
        assert not studios and not in_notebook
        notebook.studio("mine", weights="compact")
        assert len(studios) == len(in_notebook) == 1

    def test_a_folder_of_another_studio_leaves_no_server(self, in_notebook, studios, tmp_path):
        threads = {thread.name for thread in threading.enumerate()}
        lock = Folder(tmp_path / "mine").lock()
        with pytest.raises(JaxstyleError, match="^folder: another studio has"):
            notebook.studio("mine", weights="compact")
        lock.release()
        assert not studios and {thread.name for thread in threading.enumerate()} <= threads

    def test_colabs_proxy(self, colab, in_notebook, studios):
        notebook.studio(weights="compact", height=700)
        ((name, (port,), options),) = colab
        address = next(iter(studios.values()))[0].address
        assert (name, options["height"]) == ("iframe", "700") and not in_notebook
        assert address == f"http://127.0.0.1:{port}{options['path']}"

    def test_a_hubs_proxy(self, in_notebook, studios, monkeypatch):
        monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/me/")
        notebook.studio(weights="compact")
        (frame,) = in_notebook
        port, token = next(iter(studios.values()))[0].address.split(":")[2].split("/", 1)
        assert frame.src == f"/user/me/proxy/{port}/{token}"

    @pytest.mark.parametrize("variable", ["KAGGLE_KERNEL_RUN_TYPE", "SPACE_ID"])
    def test_platforms_without_a_proxy(self, variable, in_notebook, studios, monkeypatch, capsys):
        monkeypatch.setenv(variable, "x")
        notebook.studio(weights="compact")
        assert "notebook.watch" in capsys.readouterr().out and not studios and not in_notebook
