"""`stylize` on a folder, and `texture`."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxstyle
from jaxstyle.engine import free_memory, memory, planning
from jaxstyle.engine.results import finish
from jaxstyle.images import image_size, load_image
from jaxstyle.provenance.record import read_record

COMMAND = Path(sys.executable).with_name("jaxstyle")


@pytest.fixture
def folder(files, tmp_path):
    """A folder with two images and a file that is none."""
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(files["content"], photos / "one.png")
    shutil.copy(files["style"], photos / "two.jpg")
    (photos / "notes.txt").write_text("not an image")
    return photos


class TestFolder:
    def paint(self, run, folder, files, objective, tmp_path, *flags):
        return run(
            "stylize", folder, files["style2"], "-o", tmp_path / "out", *objective,
            "--steps", 2, "--quiet", *flags,
        )  # fmt: skip

    def test_every_image_as_alone(self, run, folder, files, objective, tmp_path):
        code, _, err = self.paint(run, folder, files, objective, tmp_path)
        assert code == 0, err
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.png", "two.png"]
        run(
            "stylize", folder / "two.jpg", files["style2"], "-o", tmp_path / "two.png",
            *objective, "--steps", 2, "--quiet",
        )  # fmt: skip
        mine, alone = (load_image(tmp_path / name) for name in ("out/two.png", "two.png"))
        np.testing.assert_array_equal(mine, alone)

    def test_goes_on_where_it_stopped(self, run, folder, files, objective, tmp_path):
        self.paint(run, folder, files, objective, tmp_path)
        before = (tmp_path / "out" / "one.png").stat().st_mtime_ns
        (tmp_path / "out" / "two.png").unlink()
        code, _, err = self.paint(run, folder, files, objective, tmp_path)
        assert code == 0 and "1 of 2 images are already in" in err
        assert (tmp_path / "out" / "one.png").stat().st_mtime_ns == before
        assert (tmp_path / "out" / "two.png").exists()

    def test_a_failed_image_is_named_and_the_others_painted(
        self, run, folder, files, objective, tmp_path
    ):
        (folder / "broken.png").write_text("no image")
        code, _, err = self.paint(run, folder, files, objective, tmp_path)
        assert code == 2 and "1 of 3 images failed: broken.png" in err.splitlines()[-1]
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["one.png", "two.png"]

    @pytest.mark.parametrize("flags", [("--report", "r.json"), ("--batch", 2)])
    def test_options_of_one_image_are_refused(self, flags, run, folder, files, objective, tmp_path):
        code, _, err = self.paint(run, folder, files, objective, tmp_path, *flags)
        assert code == 2 and f"{flags[0]}: works with one image" in err

    def test_equal_sizes_run_as_a_batch(self, run, folder, files, objective, tmp_path, make_image):
        for seed in (5, 6):
            pixels = (make_image(32, 40, seed=seed) * 255).round().astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"three{seed}.png")
        (folder / "broken.png").write_text("no image")
        code, _, err = self.paint(run, folder, files, objective, tmp_path, "--log-json")
        assert code == 2 and "1 of 5 images failed: broken.png" in err.splitlines()[-1]
        lines = [line for line in map(json.loads, err.splitlines()) if "images" in line]
        # one, three5 and three6 together, two alone; of four steps none was done when it was told.
        assert {line["running"] for line in lines} == {3, 1}
        assert {line["images"] for line in lines} == {0, 3} and lines[-1]["total"] == 5
        assert lines[-1]["seconds_left"] == 0 and lines[-1]["best"] is None
        alone = tmp_path / "alone.png"
        for name in ("one", "three5", "three6"):
            run(
                "stylize", folder / f"{name}.png", files["style2"], "-o", alone, *objective,
                "--steps", 2, "--quiet",
            )  # fmt: skip
            mine = load_image(tmp_path / "out" / f"{name}.png")
            np.testing.assert_allclose(mine, load_image(alone), atol=2 / 255)
            record = read_record(tmp_path / "out" / f"{name}.png")
            assert record.content.path == folder / f"{name}.png"
        # One that is made again has its old place, and so its bytes.
        made = tmp_path / "out" / "three5.png"
        before = made.read_bytes()
        made.unlink()
        self.paint(run, folder, files, objective, tmp_path)
        assert made.read_bytes() == before

    def test_orientation_decides_the_size(self, folder):
        upright = Image.open(folder / "two.jpg")
        exif = upright.getexif()
        exif[0x0112] = 6
        upright.save(folder / "turned.jpg", exif=exif)
        for name in ("one.png", "two.jpg", "turned.jpg"):
            assert image_size(folder / name) == load_image(folder / name).shape[:2]

    def test_what_no_image_could_do_without_ends_at_once(
        self, run, folder, files, objective, tmp_path
    ):
        code, _, err = run(
            "stylize", folder, tmp_path / "nothing.png", "-o", tmp_path / "out", *objective
        )
        assert code == 2 and err.count("\n") == 1 and "STYLE" in err and "does not exist" in err
        code, _, err = self.paint(
            run, folder, files, objective, tmp_path, "--style-layers", "relu5_1"
        )
        assert code == 2 and err.count("\n") == 1 and "--style-layers" in err

    def test_ctrl_c_and_on(self, run, folder, files, objective, tmp_path, environment):
        command = [
            COMMAND, "stylize", folder, files["style2"], "-o", tmp_path / "out", *objective,
            "--steps", 500_000, "--log-json",
        ]  # fmt: skip
        with subprocess.Popen(
            [*map(str, command)], env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            next(line for line in process.stderr if '"running"' in line)
            process.send_signal(signal.SIGINT)
            err = process.stderr.read()
        assert process.returncode == 130 and "stopped with 0 of 2 images done" in err
        assert list((tmp_path / "out").iterdir()) == []
        assert self.paint(run, folder, files, objective, tmp_path)[0] == 0

    def test_two_inputs_of_one_output(self, run, folder, files, objective, tmp_path):
        shutil.copy(folder / "one.png", folder / "one.jpg")
        code, _, err = self.paint(run, folder, files, objective, tmp_path)
        assert code == 2 and "would both be written to one.png" in err

    def test_an_empty_folder(self, run, files, objective, tmp_path):
        (tmp_path / "empty").mkdir()
        code, _, err = self.paint(run, tmp_path / "empty", files, objective, tmp_path)
        assert code == 2 and "has no image" in err


class TestTexture:
    FLAGS = ("--style-layers", "relu1_1,relu2_1", "--steps", 3, "--size", 48, "--quiet")

    def test_size_and_report(self, run, files, tmp_path):
        code, _, err = run(
            "texture", files["style"], "-o", tmp_path / "t.png", "--weights", files["weights"],
            "--aspect", "3:2", *self.FLAGS,
            "--report", tmp_path / "t.json",
        )  # fmt: skip
        assert code == 0 and err == "", err
        with Image.open(tmp_path / "t.png") as image:
            assert image.size == (48, 32)
        report = json.loads((tmp_path / "t.json").read_text())
        assert report["terms"]["content"] == 0 and report["images"]["content"] is None
        assert report["loss"] < report["initial"]["loss"]

    def make(self, run, files, output, *flags):
        return run(
            "texture", files["style"], "-o", output, "--weights", files["weights"],
            "--style-layers", "relu1_1,relu2_1", "--steps", 3, "--size", 48, *flags,
        )  # fmt: skip

    def test_ctrl_c_keeps_the_image_and_says_so(self, run, interrupted, files, tmp_path):
        code, _, err = self.make(run, files, tmp_path / "t.png")
        assert code == 130 and "stopped at step 0; the best image so far is in " in err, err
        assert image_size(tmp_path / "t.png") == (48, 48)

    def test_what_diverged_is_no_success(self, run, files, tmp_path):
        flags = ("--optimizer", "sgd", "--learning-rate", 1e6, "--quiet")
        code, _, err = self.make(run, files, tmp_path / "t.png", *flags)
        assert code == 3 and "warning: the loss went up" in err, err

    def test_an_image_that_cannot_be_written_is_kept_elsewhere(
        self, run, files, tmp_path, monkeypatch
    ):
        (tmp_path / "away").mkdir()
        # It vanishes while the texture is made.
        monkeypatch.setattr(
            "jaxstyle.cli.run.finish", lambda *a: (shutil.rmtree(tmp_path / "away"), finish(*a))[1]
        )
        code, _, err = self.make(run, files, tmp_path / "away" / "t.png")
        kept = Path(err.rsplit("the image is kept in ", 1)[1].strip())
        assert code == 2 and image_size(kept) == (48, 48)
        shutil.rmtree(kept.parent)

    def test_less_memory_means_fewer_pairs(self, run, files, tmp_path, monkeypatch):
        monkeypatch.setattr(planning, "needed_bytes", lambda h, w, **_: 1000 * h * w)
        monkeypatch.setattr(planning, "upper_bound", lambda *_, **__: 10**12)
        free = int((1000 - 7.5 * 24) * 48 * 48 / memory.USABLE)
        monkeypatch.setattr(free_memory, "free_bytes", lambda: free)
        code, _, err = self.make(run, files, tmp_path / "t.png")
        assert code == 0 and "L-BFGS keeps 12 pairs" in err, err

    def test_the_painting_is_never_replaced(self, run, files, tmp_path):
        painting = tmp_path / "painting.png"
        shutil.copy(files["style2"], painting)
        code, _, err = run("texture", painting, "-o", painting, "--weights", files["weights"])
        assert code == 2 and "is the file of STYLE too" in err

    @pytest.mark.parametrize("aspect", ["3", "0:1", "a:b", "1:-2", "nan:1"])
    def test_an_aspect_that_is_none(self, aspect, run, files, tmp_path):
        code, _, err = run("texture", files["style"], "-o", tmp_path / "t.png", "--aspect", aspect)
        assert code == 2 and f"--aspect: '{aspect}'" in err and err.count("\n") == 1

    def test_the_function_ignores_what_content_would_say(self, make_network, make_image):
        settings = {"style_layers": "relu1_1", "content_layers": "relu1_1", "steps": 2}
        network = make_network(blocks=1)
        result = jaxstyle.texture(make_image(seed=1), size=(20, 24), network=network, **settings)
        assert result.image.shape == (20, 24, 3) and result.terms.content == 0
        assert result.loss < result.initial_loss
