"""Corners of use: odd names, devices that are not there, flags without effect, odd files."""

import json
import os
import struct
import subprocess
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import jaxstyle.cli.run as run_module
from jaxstyle import JaxstyleError, images
from jaxstyle.cli import main
from jaxstyle.errors import memory_errors

COMMAND = Path(sys.executable).with_name("jaxstyle")


def ran(environment, *words, **options):
    return subprocess.run(
        [COMMAND, *map(str, words)], env=environment, capture_output=True, timeout=120, **options
    )


@pytest.mark.parametrize("backend", ["cuda", "tpu", "nonsense"])
def test_a_backend_that_is_not_there_is_named_in_a_line(environment, files, tmp_path, backend):
    env = {**environment, "JAX_PLATFORMS": backend}
    ended = ran(env, "doctor")
    assert ended.returncode == 1 and b"Traceback" not in ended.stderr
    assert f"JAX_PLATFORMS={backend}".encode() in ended.stdout
    ended = ran(env, "stylize", files["content"], files["style"], "-o", tmp_path / "o.png")
    assert ended.returncode == 2 and ended.stderr.count(b"\n") == 1
    assert f"JAX_PLATFORMS={backend}".encode() in ended.stderr


def test_commands_about_files_need_no_accelerator(environment, stylize, tmp_path):
    stylize(tmp_path / "o.png")
    env = {**environment, "JAX_PLATFORMS": "cuda"}
    for words in (("show", tmp_path / "o.png"), ("weights", "verify", "compact")):
        ended = ran(env, *words)
        assert ended.returncode == 0 and ended.stderr == b"", ended.stderr


def test_a_cache_that_is_a_file_is_found_by_doctor(run, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXSTYLE_CACHE", str(tmp_path / "file"))
    code, out, _ = run("doctor")
    assert code == 1 and "is a file; set JAXSTYLE_CACHE" in out


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"two\nlines.png", "Käse.png".encode()])
def test_any_name_is_kept_in_the_record(environment, files, objective, tmp_path, name):
    folder = os.fsencode(tmp_path)
    content = folder + b"/" + name
    Path(os.fsdecode(content)).write_bytes(files["content"].read_bytes())
    words = ["stylize", os.fsdecode(content), files["style"], "-o", tmp_path / "o.png", "--quiet"]
    ended = ran(environment, *words, *objective, "--steps", 2)
    assert ended.returncode == 0, ended.stderr
    ended = ran(environment, "show", tmp_path / "o.png")
    assert ended.returncode == 0 and b"damaged" not in ended.stderr, ended.stderr
    again = ["stylize", "--from", tmp_path / "o.png", "-o", tmp_path / "again.png", "--quiet"]
    ended = ran(environment, *again)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "o.png").read_bytes() == (tmp_path / "again.png").read_bytes()


def test_a_loop_of_links_is_a_line(run, files, objective, tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for words in (
        (tmp_path / "a", files["style"], "-o", tmp_path / "o.png"),
        (files["content"], files["style"], "-o", tmp_path / "a" / "o.png"),
    ):
        code, _, err = run("stylize", *words, *objective)
        assert code == 2 and err.count("\n") == 1, err


def test_a_deleted_working_directory_is_a_line(environment, tmp_path):
    (tmp_path / "gone").mkdir()
    line = f"cd {tmp_path}/gone && rmdir ../gone && {COMMAND} weights list"
    ended = subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2 and "working directory" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


class TestReports:
    def test_a_dash_is_standard_output(self, run, files, objective, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        words = ("stylize", files["content"], files["style"], "-o", "o.png", *objective)
        code, out, _ = run(*words, "--steps", 2, "--report", "-", "--quiet")
        assert code == 0 and json.loads(out)["steps"] == 2
        assert [p.name for p in tmp_path.iterdir()] == ["o.png"]

    @pytest.mark.parametrize("target", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
    def test_a_log_is_written_to_not_replaced(
        self, environment, files, objective, tmp_path, target
    ):
        log = tmp_path / "log"
        log.write_text("before\n")
        words = ["stylize", files["content"], files["style"], "-o", tmp_path / "o.png", *objective]
        with open(log, "a") as stream:
            subprocess.run(
                [*map(str, (COMMAND, *words, "--steps", 2, "--report", target, "--quiet"))],
                env=environment, stdout=stream, check=True, timeout=120,
            )  # fmt: skip
        first, rest = log.read_text().split("\n", 1)
        assert first == "before" and json.loads(rest)["steps"] == 2

    def test_a_pipe_and_a_device(self, environment, files, objective, tmp_path):
        words = ["stylize", files["content"], files["style"], "-o", tmp_path / "o.png", *objective]
        ended = ran(environment, *words, "--steps", 2, "--report", "/dev/stdout", "--quiet")
        assert ended.returncode == 0 and json.loads(ended.stdout)["steps"] == 2, ended.stderr
        ended = ran(environment, *words, "--steps", 2, "--report", "/dev/null", "--quiet")
        assert ended.returncode == 0 and ended.stdout == b"", ended.stderr
        assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--learning-rate", 0.1), "--learning-rate 0.1"),
        (("--momentum", 0.5), "--momentum 0.5"),
        (("--adam-b2", 0.9), "--adam-b2 0.9"),
        (("--decay", 0.1, "--optimizer", "adam"), "--decay 0.1"),
        (("--history-size", 3, "--optimizer", "adam"), "--history-size 3"),
        (("--seed", 3), "--seed 3"),
        (("--noise-std", 3), "--noise-std 3"),
    ],
)
def test_a_flag_without_effect_is_said(stylize, tmp_path, flags, named):
    err = stylize(tmp_path / "o.png", *flags)
    assert f"{named} has no effect" in err
    assert "has no effect" not in stylize(tmp_path / "o.png", *flags, "--quiet")


def test_flags_that_have_an_effect_are_not_named(stylize, tmp_path):
    flags = ("--optimizer", "adam", "--learning-rate", 0.01, "--init", "noise", "--seed", 3)
    assert "has no effect" not in stylize(tmp_path / "o.png", *flags, "--noise-std", 3)


def test_an_unset_variable_does_not_paint_without_style(run, files, tmp_path):
    words = ("stylize", files["content"], files["style"], "-o", tmp_path / "o.png")
    code, _, err = run(*words, "--style-layers", "")
    assert code == 2 and "--style-layers: the list is empty" in err


def test_a_port_that_is_a_file(run, files, tmp_path):
    code, _, err = run("stylize", "--serve", files["content"], files["style"], "-o", "o.png")
    assert code == 2 and "is not a port; put --serve last" in err


def test_a_path_of_the_record_is_said_to_be_one(stylize, run, files, tmp_path):
    moved = tmp_path / "moved.png"
    moved.write_bytes(files["content"].read_bytes())
    words = ("stylize", moved, files["style"], "-o", tmp_path / "o.png", "--steps", 1)
    assert run(*words, "--weights", files["weights"], "--content-layers", "relu1_1",
               "--style-layers", "relu1_1")[0] == 0  # fmt: skip
    moved.unlink()
    code, _, err = run("stylize", "--from", tmp_path / "o.png", "-o", tmp_path / "again.png")
    assert code == 2 and "does not exist" in err and "the record in" in err, err


def test_a_style_that_is_too_thin_is_named(run, files, objective, tmp_path):
    Image.fromarray(np.zeros((16, 400, 3), np.uint8)).save(tmp_path / "thin.png")
    words = ("stylize", files["content"], tmp_path / "thin.png", "-o", tmp_path / "o.png")
    code, _, err = run(*words, *objective, "--size", 64)
    assert code == 2 and "STYLE: size 64" in err, err


def test_a_windows_path_between_double_quotes(run, tmp_path):
    (tmp_path / "g.toml").write_text('[base]\ncontent = "C:\\Users\\me\\a.png"\n')
    code, _, err = run("grid", tmp_path / "g.toml", "-o", tmp_path / "out")
    assert code == 2 and "single quotes" in err


def test_a_jpeg_of_12_bits_is_called_one(tmp_path):
    frame = struct.pack(">HHBHHB", 0xFFC1, 11, 12, 32, 32, 1) + bytes([1, 0x11, 0])
    (tmp_path / "deep.jpg").write_bytes(b"\xff\xd8" + frame + b"\xff\xd9")
    with pytest.raises(JaxstyleError, match="JPEG of a kind that is not read"):
        images.load_image(tmp_path / "deep.jpg")


def test_a_grid_says_which_images_are_the_same(run, files, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(files["content"].read_bytes())
    (tmp_path / "g.toml").write_text(
        f"[base]\nstyle = '{files['style']}'\nweights = '{files['weights']}'\nsteps = 1\n"
        "content_layers = 'relu1_1'\nstyle_layers = 'relu1_1'\n"
        "[grid]\ncontent = ['a.png', 'b.png']\n"
    )
    code, _, err = run("grid", tmp_path / "g.toml", "-o", tmp_path / "out", "--quiet")
    assert code == 0 and "the number of cells is 1, not 2" in err


def test_what_does_not_fit_into_memory_is_a_line():
    with pytest.raises(JaxstyleError, match="does not fit into memory"), memory_errors():
        raise MemoryError


def test_a_soft_edge_is_as_light_as_it_was(run, files, objective, tmp_path):
    """Over black and over white the output shows what the content did, but for the painting."""
    pixels = np.full((32, 40, 4), 128, np.uint8)
    pixels[..., :3] = 15
    Image.fromarray(pixels).save(tmp_path / "soft.png")
    words = ("stylize", tmp_path / "soft.png", files["style"], "-o", tmp_path / "o.png")
    flags = ("--style-weight", 0, "--tv-weight", 0, "--steps", 1, "--quiet")
    assert run(*words, *objective, *flags)[0] == 0
    found = np.asarray(Image.open(tmp_path / "o.png")) / 255
    np.testing.assert_allclose(found[..., 3], 128 / 255, atol=1e-3)
    over_black = found[..., :3] * found[..., 3:]
    np.testing.assert_allclose(over_black, 15 / 255 * 128 / 255, atol=0.02)


def test_ctrl_c_while_the_command_loads_is_a_line(monkeypatch, capsys):
    class Loading(types.ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "jaxstyle.cli.app", Loading("app"))
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "jaxstyle: stopped; no file was left half-written\n"


def test_a_loss_that_never_moves_is_said(stylize, monkeypatch, tmp_path):
    monkeypatch.setattr(run_module, "stood_still", lambda result: True)
    err = stylize(tmp_path / "o.png", "--content-weight", 1e18)
    assert "warning: the loss stayed as it was: a weight of 1e+18 is too large" in err


@pytest.mark.parametrize(
    ("losses", "still"), [([3.0, 3.0, 3.0], True), ([3.0, 3.0, 2.0], False), ([0.0] * 3, False)]
)
def test_a_standstill_is_of_all_steps(losses, still):
    history = SimpleNamespace(loss=np.asarray(losses))
    result = SimpleNamespace(history=history, recipe=SimpleNamespace(steps=2))
    assert run_module.stood_still(result) is still


def test_an_initial_image_that_is_no_file_names_the_choices(run, files, objective, tmp_path):
    code, _, err = run(
        "stylize", files["content"], files["style"], "-o", tmp_path / "o.png", *objective,
        "--init", "blob",
    )  # fmt: skip
    assert code == 2 and err.count("\n") == 1
    assert "--init" in err and "blob" in err and "content, noise, style" in err
