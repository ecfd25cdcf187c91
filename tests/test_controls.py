"""The artist's controls on the command line: what they change, and that they are kept."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PREFIX = "jaxstyle: error: "


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def report(path):
    return json.loads(Path(path).read_text())


class Control:
    """Runs of a control in the command, and what must hold of every control."""

    def __init__(self, run, files, objective, folder):
        self.run, self.files, self.objective, self.folder = run, files, objective, folder

    def __call__(self, name, *flags, styles=("style",), steps=3):
        """A picture `name.png`, its report `name.json` and its checkpoint `name.ck`."""
        code, _, err = self.run(
            "stylize", self.files["content"], *(self.files[s] for s in styles), *self.objective,
            *("--steps", steps, "--quiet", "-o", self.folder / f"{name}.png"),
            *("--report", self.folder / f"{name}.json", "--checkpoint", self.folder / f"{name}.ck"),
            *flags,
        )  # fmt: skip
        assert code == 0 and err == "", err
        return pixels(self.folder / f"{name}.png")

    def refused(self, *flags, styles=("style",)):
        """The one line of a run that is refused; nothing is written."""
        before = sorted(self.folder.iterdir())
        code, out, err = self.run(
            "stylize", self.files["content"], *(self.files[s] for s in styles), *self.objective,
            *("--steps", 3, "-o", self.folder / "refused.png"), *flags,
        )  # fmt: skip
        assert code == 2 and out == "" and sorted(self.folder.iterdir()) == before
        assert err.startswith(PREFIX) and err.count("\n") == 1, err
        return err.removeprefix(PREFIX)

    def kept(self, *flags, styles=("style",), steps=4):
        """Run with a control; `--from` and `--resume` must repeat it, byte for byte.

        Gives the picture and the report's recipe.
        """
        whole = self("whole", *flags, styles=styles, steps=steps)
        files = {name: self.folder / f"{name}.png" for name in ("whole", "again", "resumed")}
        self.repeated("--from", files["whole"], "-o", files["again"])
        assert files["again"].read_bytes() == files["whole"].read_bytes()
        self("half", *flags, styles=styles, steps=steps // 2)
        self.repeated("--resume", self.folder / "half.ck", "--steps", steps, "-o", files["resumed"])
        assert files["resumed"].read_bytes() == files["whole"].read_bytes()
        return whole, report(self.folder / "whole.json")["recipe"]

    def repeated(self, *flags):
        code, _, err = self.run("stylize", *flags, "--quiet")
        assert code == 0 and err == "", err


@pytest.fixture
def control(run, files, objective, tmp_path):
    return Control(run, files, objective, tmp_path)


@pytest.fixture
def grid(run, files, objective, tmp_path):
    """Run a grid with settings in its two tables; gives the reports of its cells."""

    def grid(axes, base=""):
        names = [str(flag).removeprefix("--").replace("-", "_") for flag in objective[::2]]
        pairs = zip(names, objective[1::2], strict=True)
        text = "\n".join(
            f"{n} = {v if isinstance(v, int) else json.dumps(str(v))}" for n, v in pairs
        )
        folder = tmp_path / "grid"
        (tmp_path / "grid.toml").write_text(
            f"[base]\ncontent = {str(files['content'])!r}\nsteps = 3\n{text}\n{base}\n"
            f"[grid]\n{axes}\n"
        )
        code, _, err = run("grid", tmp_path / "grid.toml", "-o", folder, "--quiet")
        assert code == 0 and err == "", err
        return [report(path) for path in sorted((folder / "cells").glob("*.json"))]

    return grid


class TestStyles:
    def test_a_blend_is_kept(self, control):
        both = ("style", "style2")
        blended, recipe = control.kept("--style-blend", "3,1", styles=both)
        assert recipe["style_blend"] == [3.0, 1.0]
        assert (control("equal", styles=both) != blended).any()
        first = control("first", "--style-blend", "1,0", styles=both)
        assert np.abs(first - control("alone")).max() <= 1

    def test_a_scale_is_kept(self, control):
        scaled, recipe = control.kept("--style-scale", 0.6)
        assert recipe["style_scale"] == 0.6 and (control("plain") != scaled).any()

    def test_in_a_grid(self, grid, files, control):
        styles = f"style = [{str(files['style'])!r}, {str(files['style2'])!r}]"
        cells = grid("style_blend = [[1, 0], [0, 1], '1,1']\nstyle_scale = [1, 0.6]", styles)
        assert len({cell["loss"] for cell in cells}) == 6
        control("alone", "--style-blend", "0,1", "--style-scale", 0.6, styles=("style", "style2"))
        alone = report(control.folder / "alone.json")
        (same,) = [
            cell["loss"] for cell in cells
            if (cell["recipe"]["style_blend"], cell["recipe"]["style_scale"]) == ([0, 1], 0.6)
        ]  # fmt: skip
        assert same == pytest.approx(alone["loss"], rel=1e-4)

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("--style-blend", "0,0"), ["--style-blend", "all 0"]),
            (("--style-blend", "1,-1"), ["--style-blend", "negative"]),
            (("--style-blend", "1,1"), ["--style-blend", "1 style"]),
            (("--style-blend", "much"), ["--style-blend", "no number"]),
            (("--style-scale", "0"), ["--style-scale", "at most 8"]),
            (("--style-scale", "0.1"), ["--style-scale", "33x36", "16 pixels"]),
        ],
    )
    def test_what_does_not_fit(self, control, flags, words):
        line = control.refused(*flags)
        assert all(word in line for word in words), line
