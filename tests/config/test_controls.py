"""The artist's controls on the command line: what they change, and that they are kept."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxstyle import Recipe

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
        """An image `name.png`, its report `name.json` and its checkpoint `name.ck`."""
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

        Gives the report's recipe.
        """
        self("whole", *flags, styles=styles, steps=steps)
        files = {name: self.folder / f"{name}.png" for name in ("whole", "again", "resumed")}
        self.repeated("--from", files["whole"], "-o", files["again"])
        assert files["again"].read_bytes() == files["whole"].read_bytes()
        self("half", *flags, styles=styles, steps=steps // 2)
        self.repeated("--resume", self.folder / "half.ck", "--steps", steps, "-o", files["resumed"])
        assert files["resumed"].read_bytes() == files["whole"].read_bytes()
        return report(self.folder / "whole.json")["recipe"]

    def repeated(self, *flags):
        code, _, err = self.run("stylize", *flags, "--quiet")
        assert code == 0 and err == "", err


@pytest.fixture
def control(run, files, objective, tmp_path):
    return Control(run, files, objective, tmp_path)


@pytest.fixture
def grid(run, files, objective, tmp_path):
    """Run a grid with settings in its two tables; gives the reports of its cells."""

    def grid(axes, base, steps=3):
        names = [str(flag).removeprefix("--").replace("-", "_") for flag in objective[::2]]
        pairs = zip(names, objective[1::2], strict=True)
        text = "\n".join(
            f"{n} = {v if isinstance(v, int) else json.dumps(str(v))}" for n, v in pairs
        )
        folder = tmp_path / "grid"
        (tmp_path / "grid.toml").write_text(
            f"[base]\nsteps = {steps}\ncontent = {str(files['content'])!r}\n{text}\n{base}\n"
            f"[grid]\n{axes}\n"
        )
        code, _, err = run("grid", tmp_path / "grid.toml", "-o", folder, "--quiet")
        assert code == 0 and err == "", err
        return [report(path) for path in sorted((folder / "cells").glob("*.json"))]

    return grid


class TestStyles:
    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("--style-blend", "0,0"), ["--style-blend", "all 0"]),
            (("--style-blend", "1,-1"), ["--style-blend", "negative"]),
            (("--style-blend", "1,1"), ["--style-blend", "1 style"]),
            (("--style-blend", "much"), ["--style-blend", "not a list of numbers"]),
            (("--style-scale", "0"), ["--style-scale", "at most 8"]),
            (("--style-scale", "0.1"), ["--style-scale", "33x36", "4 pixels"]),
        ],
    )
    def test_what_does_not_fit(self, control, flags, words):
        line = control.refused(*flags)
        assert all(word in line for word in words), line


@pytest.fixture
def masks(tmp_path_factory):
    """Masks for the content (40x32) and the style (33x36), at other sizes."""
    folder = tmp_path_factory.mktemp("masks")
    left = np.zeros((64, 80), np.uint8)
    left[:, :40] = 255
    top = np.zeros((36, 33), np.uint8)
    top[:18] = 255
    found = {"left": left, "right": 255 - left, "top": top, "square": left[:, :64]}
    found["black"] = 0 * left
    found["dot"] = found["black"].copy()
    found["dot"][0, 0] = 9
    for name, mask in found.items():
        Image.fromarray(mask).save(folder / f"{name}.png")
    return {name: folder / f"{name}.png" for name in found}


class TestMasks:
    def test_a_mask_of_the_content(self, control, masks):
        flags = ("--content-weight", 30, "--init", "style")
        plain = control("plain", *flags)
        masked = control("masked", *flags, "--content-mask", masks["left"])
        assert (plain != masked).any()
        images = report(control.folder / "masked.json")["images"]
        assert images["content_mask"]["path"] == str(masks["left"]) and "masks" not in images

    def test_regions(self, control, masks):
        both = ("style", "style2")
        regions = ("--mask", masks["left"], masks["top"], "--mask", masks["right"], "-")
        guided = control("guided", *regions, styles=both)
        assert (control("blend", styles=both) != guided).any()
        found = report(control.folder / "guided.json")
        assert found["recipe"]["mask"] == [[str(a), str(b)] for a, b in (regions[1:3], regions[4:])]
        (first, second) = found["images"]["masks"]
        assert first[0]["size"] == [80, 64] and second[1] is None
        scored = ("evaluate", control.folder / "guided.png", "--content", control.files["content"])
        scored += ("--style", control.files["style"], "--style", control.files["style2"], "--json")
        code, out, err = control.run(*scored, *control.objective, *regions)
        assert code == 0, err
        masked = json.loads(out)["loss"]
        assert masked == pytest.approx(found["loss"], rel=0.05)
        code, out, _ = control.run(*scored, *control.objective)
        assert json.loads(out)["loss"] != pytest.approx(masked, rel=0.005)

    def test_what_does_not_fit(self, control, masks):
        def line(*flags, **more):
            return control.refused(*flags, **more)

        words = line("--content-mask", masks["square"])
        assert words.startswith("--content-mask: ") and "64x64" in words and "40x32" in words
        assert "black" in line("--content-mask", masks["black"])
        words = line("--content-mask", masks["dot"])
        assert words.startswith("--content-mask: ") and "nothing at relu2_2" in words
        assert "style region 1" in line("--mask", "-", masks["left"])
        assert "region 1" in line("--mask", masks["square"], "-")
        words = line("--mask", "-", "-", styles=("style", "style2"))
        assert words.startswith("--mask: 1 pairs") and "2 style images" in words
        for loss in ("patches", "sliced-wasserstein"):
            words = line("--mask", "-", "-", "--style-loss", loss)
            assert words.startswith("--mask: ") and loss in words
        words = line("--mask", control.files["weights"], "-")
        assert words.startswith("--mask") and "not an image" in words


class TestColors:
    @pytest.mark.parametrize("how", ["luminance", "cholesky", "histogram"])
    def test_the_colors_come_nearer_to_the_contents(self, control, how):
        strong = ("--style-weight", 1e4, "--steps", 15)
        plain = control("plain", *strong)
        kept = control("kept", *strong, "--preserve-color", how)
        start = pixels(control.files["content"])

        def far(image):
            luma = np.array([0.299, 0.587, 0.114])
            chroma, wanted = (p - (p @ luma)[..., None] for p in (image, start))
            return np.abs(chroma - wanted).mean()

        assert far(kept) < 0.9 * far(plain)
        if how == "luminance":
            assert far(kept) < 0.3 * far(plain)
            found = report(control.folder / "kept.json")
            code, out, _ = control.run(
                "evaluate", control.folder / "kept.png", "--content", control.files["content"],
                "--style", control.files["style"], *control.objective, "--style-weight", 1e4,
                "--preserve-color", how, "--json",
            )  # fmt: skip
            assert code == 0
            assert json.loads(out)["loss"] == pytest.approx(found["loss"], rel=0.05)


EVERYTHING = (
    *("--style-blend", "3,1", "--style-scale", 0.8, "--preserve-color", "luminance"),
    *("--noise-blend", 0.2, "--noise-std", 20),
)


class TestEverything:
    """All controls at once: a run is what it is however it came about."""

    styles = ("style", "style2")

    def flags(self, masks):
        regions = ("--mask", masks["left"], masks["top"], "--mask", masks["right"], "-")
        return (*EVERYTHING, *regions, "--content-mask", masks["left"])

    def test_repeated_and_resumed(self, control, masks):
        recipe = control.kept(*self.flags(masks), styles=self.styles)
        assert recipe["style_blend"] == [3, 1] and recipe["noise_blend"] == 0.2
        # Another mask under the same name is another run.
        Image.open(masks["right"]).save(masks["left"])
        for flag, file, word in (("--from", "whole.png", "left"), ("--resume", "half.ck", "mask")):
            code, _, err = control.run(
                "stylize", flag, control.folder / file, "-o", control.folder / "no.png"
            )
            assert code == 2 and err.startswith(PREFIX) and word in err and err.count("\n") == 1

    def test_in_tiles_and_in_a_batch(self, control, masks):
        code, _, err = control.run(
            "stylize", control.files["content"], *(control.files[s] for s in self.styles),
            *control.objective, "--steps", 2, "--quiet", *self.flags(masks), "--batch", 2,
            "--tile", 16, "-o", control.folder / "o.png", "--style-loss", Recipe().style_loss,
        )  # fmt: skip
        assert code == 0 and err == "", err
        first, second = (pixels(control.folder / f"o-00{k}.png") for k in range(2))
        assert (first != second).any()

    def test_in_a_grid(self, grid, files, masks, control):
        styles = f"style = [{str(files['style'])!r}, {str(files['style2'])!r}]"
        left, right, top = (str(masks[name]) for name in ("left", "right", "top"))
        axes = [
            "style_blend = [[3, 1], '1,1']",
            f"mask = [[[{left!r}, {top!r}], [{right!r}, '-']], []]",
        ]
        base = ["style_scale = 0.8", f"content_mask = {left!r}", "preserve_color = 'luminance'"]
        base += ["noise_blend = 0.2", "noise_std = 20"]
        cells = grid("\n".join(axes), "\n".join([styles, *base]))
        assert len({cell["loss"] for cell in cells}) == 4
        control("whole", *self.flags(masks), styles=self.styles)
        (same,) = [
            cell["loss"] for cell in cells
            if cell["recipe"]["mask"] and cell["recipe"]["style_blend"] == [3, 1]
        ]  # fmt: skip
        alone = report(control.folder / "whole.json")["loss"]
        assert same == pytest.approx(alone, rel=1e-4)


class TestScales:
    def test_snapshots_and_numbers_of_all_scales(self, control, grid):
        flags = ("--scales", 2, "--optimizer", "adam", "--average", 0.9)
        control("whole", *flags, "--save-every", 2, steps=4)
        shapes = {
            step: pixels(control.folder / f"whole-step000{step}.png").shape[:2]
            for step in (2, 4, 6, 8)
        }
        assert shapes == {2: (16, 20), 4: (16, 20), 6: (32, 40), 8: (32, 40)}
        whole = report(control.folder / "whole.json")
        assert whole["steps"] == 8 and whole["history"]["step"] == list(range(9))
        assert whole["recipe"]["steps"] == 4 and whole["evaluations"] == 10
        control.repeated("--from", control.folder / "whole.png", "-o", control.folder / "a.png")
        assert (pixels(control.folder / "a.png") == pixels(control.folder / "whole.png")).all()
        cells = grid(
            "average = [0.9, 0.5]", "scales = 2\noptimizer = 'adam'\n"
            f"style = {str(control.files['style'])!r}", steps=4,
        )  # fmt: skip
        losses = {cell["recipe"]["average"]: cell["loss"] for cell in cells}
        assert losses[0.9] == pytest.approx(whole["loss"], rel=1e-3) != losses[0.5]

    def test_what_does_not_fit(self, control):
        assert "--scales: 5" in control.refused("--scales", 5)
        assert "--average" in control.refused("--average", 1)
