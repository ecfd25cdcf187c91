"""Standard streams, signals and terminals as they are in use: nothing said can cost a run."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from PIL import Image

from jaxstyle.monitor.interrupts import no_interrupt_lost

COMMAND = Path(sys.executable).with_name("jaxstyle")


@pytest.fixture
def command(files, objective, environment, tmp_path):
    """Words of a `stylize` that runs as a process; the output is tmp_path / "o.png"."""

    def command(*flags, steps=100):
        words = [COMMAND, "stylize", files["content"], files["style"], "-o", tmp_path / "o.png"]
        return [*map(str, (*words, *objective, "--steps", steps, *flags))]

    return command


@pytest.mark.parametrize(
    "how",
    ["2>/dev/full", "2>/dev/full --quiet", "2>&-", "2>&- >&-", "2>&1 | head -1"],
)
def test_standard_error_that_cannot_be_written_costs_nothing(command, environment, tmp_path, how):
    words = command("--report", tmp_path / "r.json", "--optimizer", "adam")
    words = " ".join(f"'{word}'" for word in words)
    redirected, _, flag = how.partition(" --")
    line = f"{words} {'--' + flag if flag else ''} {redirected}"
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line], env=environment, capture_output=True, timeout=120
    )
    assert ended.returncode == 0, ended
    with Image.open(tmp_path / "o.png") as image:
        image.load()
    assert json.loads((tmp_path / "r.json").read_text())["steps"] == 100


def begun(words, environment, **options):
    process = subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    assert process.stderr.readline().startswith("compiling")
    assert process.stderr.readline().startswith("step 0/")
    assert process.stderr.readline().startswith("step ")
    return process


def test_a_closed_terminal_keeps_image_and_checkpoint(command, environment, tmp_path):
    words = command("--checkpoint", tmp_path / "c.ck", steps=6000)
    # Where the tests themselves run under nohup, too.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)}
    with begun(words, environment, **heard) as process:
        process.stderr.close()  # as the terminal is gone with it
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=120) == 143
    with Image.open(tmp_path / "o.png") as image:
        image.load()
    assert (tmp_path / "c.ck").exists()


def test_nohup_goes_on(command, environment, tmp_path):
    words = command(steps=600)
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with begun(words, environment, **ignore) as process:
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0 and "stopped" not in err


def test_the_first_ctrl_c_is_answered(command, environment, tmp_path):
    with begun(command(steps=6000), environment) as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Ctrl-C again" in err and "stopped at step" in err.splitlines()[-1]


def test_every_line_of_the_json_log_is_json(command, environment, tmp_path):
    words = command("--log-json", steps=6000)
    process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
    lines = [process.stderr.readline(), process.stderr.readline()]
    process.send_signal(signal.SIGINT)
    lines += process.communicate(timeout=120)[1].splitlines()
    assert process.returncode == 130
    found = [json.loads(line) for line in lines if line]
    assert "stopped" in found[-1]["notice"]
    ended = subprocess.run(
        [*words, "--size", "3"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 2
    assert "size" in json.loads(ended.stderr.splitlines()[-1])["error"]


def shown_on_terminal(words, environment, columns):
    """Run a command on a terminal and give all it drew there."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(words, env=environment, stdout=side, stderr=side, stdin=side)
    os.close(side)
    drawn = b""
    while True:
        try:
            part = os.read(main, 65_536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        drawn += part
    os.close(main)
    assert process.wait(timeout=120) == 0, drawn
    return drawn.decode()


def lines_on_terminal(words, environment, columns):
    """Return the texts that a command drew on a terminal, one redrawing each."""
    env = {**environment, "TERM": "xterm-256color"}
    env.pop("COLUMNS", None)
    drawn = shown_on_terminal(words, env, columns)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn).replace("\r", "\n").splitlines()


def test_the_progress_fits_into_80_columns(command, environment):
    lines = lines_on_terminal(command(steps=200), environment, 80)
    last = [line for line in lines if line.startswith("step 200/200")][-1]
    assert "loss" in last and len(last.rstrip()) <= 80
    assert re.match(r"step 200/200 +\d+ s left ", last) and "…" not in last
    # A clock from the beginning, as JAX loads and programs compile for seconds.
    assert any(line.startswith("preparing … 0:00:0") for line in lines)
    assert any(re.match(r"step 0/200 .*0:00:0\d .*compiling …", line) for line in lines)


def test_the_progress_names_the_scale(command, environment):
    lines = lines_on_terminal(command("--scales", 2, steps=20), environment, 80)
    assert any(re.match(r"step 20/40 .*scale 2/2 +compiling …", line) for line in lines)
    last = [line for line in lines if line.startswith("step 40/40")][-1]
    assert "scale 2/2" in last and "loss" in last and len(last.rstrip()) <= 80


def test_a_narrow_terminal_keeps_step_and_time_left(command, environment):
    lines = lines_on_terminal(command("--scales", 2, steps=20), environment, 40)
    assert any(re.match(r"step 40/40 +\d+ s left ", line) for line in lines)


def test_a_dumb_terminal_gets_lines(command, environment):
    env = {**environment, "TERM": "dumb", "COLUMNS": "80"}
    drawn = shown_on_terminal(command(steps=200), env, 80)
    assert drawn.count("step ") > 5 and "step 200/200  loss" in drawn


def test_an_interrupt_that_python_drops_comes_again():
    """As JAX's callback of the garbage collector drops it, or the end of an object."""

    class Ended:
        def __del__(self):
            raise KeyboardInterrupt

    # A shell's background job ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with no_interrupt_lost(), pytest.raises(KeyboardInterrupt):
            Ended()
            time.sleep(30)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_errors_that_python_drops_are_shown(monkeypatch):
    class Ended:
        def __del__(self):
            raise ValueError("shown")

    shown = []
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    with no_interrupt_lost():
        Ended()
    assert [type(dropped.exc_value) for dropped in shown] == [ValueError]
    assert sys.unraisablehook == shown.append
