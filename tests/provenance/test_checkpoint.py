"""Nothing lost: checkpoints, interruptions, full disks, vanished folders, losses that explode."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import STYLE_LOSS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save

from jaxstyle import JaxstyleError, Recipe
from jaxstyle.config.choices import OPTIMIZERS
from jaxstyle.engine import divergence, loop, results
from jaxstyle.engine.compilation import carry_shapes
from jaxstyle.engine.divergence import diverged, ended_above
from jaxstyle.engine.iterate import run_state
from jaxstyle.engine.loop import iterates
from jaxstyle.engine.preparation import prepare
from jaxstyle.engine.results import finish
from jaxstyle.provenance.checkpoint import KEYWORD, load_state, read_checkpoint

COMMAND = Path(sys.executable).with_name("jaxstyle")
# More for a long run by hand.
KILLS = int(os.environ.get("JAXSTYLE_TEST_KILLS", "2"))


def one_problem(make_network, make_image, *, elements=None, **settings):
    recipe = Recipe(
        content_layers="relu1_2", style_layers="relu1_1", style_weight=200, steps=6,
        **{"style_loss": STYLE_LOSS, **settings},
    )  # fmt: skip
    return prepare(
        make_image(16, 20, seed=1), make_image(18, 16, seed=2), recipe=recipe,
        network=make_network(blocks=1), elements=elements,
    )  # fmt: skip


def is_whole(path):
    with Image.open(path) as image:
        image.load()
    return True


@pytest.fixture(scope="module")
def kept(tmp_path_factory, files, compilation_cache):
    """A whole run of 8 steps with its report, and a checkpoint of its fourth step."""
    from jaxstyle.cli import main

    folder = tmp_path_factory.mktemp("kept")
    flags = [
        "--weights", files["weights"], "--content-layers", "relu2_2", "--style-layers",
        "relu1_1,relu2_1:2", "--style-weight", 200, "--quiet",
    ]  # fmt: skip
    images = [files["content"], files["style"]]
    for steps, name in ((8, "whole"), (4, "half")):
        with pytest.raises(SystemExit) as ended:
            main(
                [
                    str(a)
                    for a in (
                        "stylize", *images, "-o", folder / f"{name}.png", *flags, "--steps",
                        steps, "--checkpoint", folder / f"{name}.ck", "--report",
                        folder / f"{name}.json",
                    )
                ]
            )  # fmt: skip
        assert not ended.value.code
    return folder, flags, images


class TestResume:
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_ends_at_the_bits_of_a_run_that_never_stopped(
        self, optimizer, make_network, make_image
    ):
        # Without kinks, on which fixed steps would explode.
        problem = one_problem(make_network, make_image, optimizer=optimizer, tv_weight=0.0)
        whole = list(iterates(problem, chunk_size=3))
        run = iterates(problem, chunk_size=3)
        state = run_state([next(run), next(run)])
        again = list(iterates(problem, chunk_size=3, state=state))
        assert [i.step for i in again] == [3, 6]
        expected, found = finish(problem, whole)[0], finish(problem, again)[0]
        assert np.array_equal(expected.image, found.image)
        for one, other in zip(expected.history, found.history, strict=True):
            assert np.array_equal(one, other)
        assert expected.evaluations == found.evaluations and expected.loss == found.loss

    def test_chunks_end_on_the_same_steps(self, make_network, make_image):
        problem = one_problem(make_network, make_image, optimizer="sgd")
        run = iterates(problem, chunk_size=2)
        state = run_state([next(run), next(run)])
        again = list(iterates(problem, chunk_size=3, state=state))
        assert [i.step for i in again] == [2, 3, 6]
        expected, found = (
            finish(problem, list(iterates(problem, chunk_size=3)))[0],
            finish(problem, again)[0],
        )
        assert np.array_equal(expected.image, found.image)

    def test_a_batch_too(self, make_network, make_image):
        problem = one_problem(
            make_network, make_image, elements=["noise", "content"], style_loss=Recipe().style_loss
        )
        whole = finish(problem, list(iterates(problem, chunk_size=3)))
        run = iterates(problem, chunk_size=3)
        state = run_state([next(run), next(run)])
        again = finish(problem, list(iterates(problem, chunk_size=3, state=state)))
        for one, other in zip(whole, again, strict=True):
            assert np.array_equal(one.image, other.image)
            assert np.array_equal(one.history.loss, other.history.loss)

    def test_the_state_is_the_callers_to_use_twice(self, make_network, make_image):
        problem = one_problem(make_network, make_image)
        state = run_state([next(iterates(problem))])
        first, second = (list(iterates(problem, chunk_size=6, state=state))[-1] for _ in range(2))
        assert np.array_equal(first.image, second.image)

    def test_the_command_writes_the_same_bytes(self, kept, tmp_path, run):
        folder, _, _ = kept
        code, _, err = run(
            "stylize", "-o", tmp_path / "o.png", "--resume", folder / "half.ck", "--steps", 8,
            "--quiet", "--report", tmp_path / "o.json", "--checkpoint", tmp_path / "o.ck",
        )  # fmt: skip
        assert code == 0 and err == ""
        assert (tmp_path / "o.png").read_bytes() == (folder / "whole.png").read_bytes()
        one, other = (
            json.loads(p.read_text()) for p in (folder / "whole.json", tmp_path / "o.json")
        )
        for key in ("history", "loss", "terms", "initial", "evaluations", "steps", "recipe"):
            assert one[key] == other[key], key
        ours, theirs = load_file(tmp_path / "o.ck"), load_file(folder / "whole.ck")
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours)

    def test_a_finished_run_is_written_again(self, kept, tmp_path, run):
        folder, flags, images = kept
        code, *_ = run(
            "stylize", *images, "-o", tmp_path / "o.png", *flags, "--resume", folder / "whole.ck"
        )
        assert code == 0
        assert (tmp_path / "o.png").read_bytes() == (folder / "whole.png").read_bytes()

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("--content-weight", 3), "--content-weight 5.0, not 3.0"),
            (("--style-layers", "relu1_1"), "--style-layers"),
            (("--optimizer", "adam"), "--optimizer lbfgs, not adam"),
            (("--steps", 3), "--steps 4, not 3"),
            (("--schedule", "cosine"), "--schedule constant, not cosine"),
            (("--seed", 9), "--seed 0, not 9"),
            (("--batch", 2), "--batch 1, not 2"),
            (("--weights", "compact"), "weights"),
            (("--init", "noise"), "--init content, not noise"),
        ],
    )
    def test_another_recipe_is_refused_by_name(self, flags, words, kept, tmp_path, run):
        folder, _, _ = kept
        out = tmp_path / "o.png"
        code, _, err = run("stylize", "-o", out, "--resume", folder / "half.ck", *flags)
        assert code == 2 and words in err and err.count("\n") == 1
        assert not out.exists()

    def test_other_images_are_refused_by_digest(self, kept, files, tmp_path, run):
        folder, _, images = kept
        for others, word in (
            ((files["start"], images[1]), "content"),
            ((images[0], files["style2"]), "style 1"),
            ((*images, files["style2"]), "style 2"),
        ):
            resumed = ("-o", tmp_path / "o.png", "--resume", folder / "half.ck")
            code, _, err = run("stylize", *others, *resumed)
            assert code == 2 and f"another image as {word} " in err, err

    def test_usage(self, kept, files, tmp_path, run):
        folder, flags, images = kept
        out = ("-o", tmp_path / "o.png", *flags)
        for extra, words in (
            (("--checkpoint-every", 2), "needs a file to write"),
            (("--checkpoint", tmp_path / "c", "--checkpoint-every", 0), "--checkpoint-every: 0"),
            (("--checkpoint", tmp_path / "o.png"), "is the file of -o too"),
            (("--report", images[1]), "is the file of STYLE too"),
            (("--checkpoint", images[0]), "is the file of CONTENT too"),
            (("-o", images[0]), "is the file of CONTENT too"),
            (("--report", tmp_path / "o-001.png", "--batch", 2), "is the file of -o too"),
            (("--report", files["start"], "--init", files["start"]), "is the file of --init too"),
            (("--save-every", 1, "--report", tmp_path / "o-step0002.png"), "of --save-every too"),
            (
                ("--steps", 2**31 - 1, "--save-every", 7, "--report", tmp_path / "o-step70000.png"),
                "of --save-every too",
            ),
            (("--checkpoint", tmp_path / "no" / "c"), "--checkpoint"),
            (("--resume", tmp_path / "no"), "does not exist"),
            (("--resume", files["weights"]), "is not a checkpoint"),
            (("--resume", images[0]), "no whole checkpoint"),
            (("--resume", folder / "half.ck", "--preset", "default"), "give one"),
        ):
            code, _, err = run("stylize", *images, *out, *extra)
            assert code == 2 and words in err and err.count("\n") == 1, err


@pytest.fixture(scope="module")
def half_way(kept):
    path = kept[0] / "half.ck"
    with safe_open(path, framework="np") as file:
        return load_file(path), file.metadata()[KEYWORD], path.read_bytes()


class TestHostileCheckpoints:
    """Whatever a file holds, it is a run's state or a line of refusal."""

    @pytest.fixture
    def problem(self, make_network, make_image):
        return one_problem(make_network, make_image)

    def refused(self, path, problem=None):
        with pytest.raises(JaxstyleError, match="--resume") as error:
            checkpoint = read_checkpoint(path)
            load_state(checkpoint, problem)
        assert "\n" not in str(error.value)

    def test_of_another_problem(self, kept, problem):
        self.refused(kept[0] / "half.ck", problem)

    @pytest.mark.parametrize("change", ["lack", "extra", "shape", "type", "value", "history"])
    def test_arrays_that_do_not_fit(self, change, kept, problem, tmp_path):
        state = run_state([next(iterates(problem))])
        from jaxstyle.provenance.checkpoint import save_checkpoint

        inputs = {
            "content": {"path": "c", "sha256": "0" * 64, "size": [1, 1]}, "styles": [], "init": None
        }  # fmt: skip
        path = tmp_path / "a.ck"
        save_checkpoint(path, state, problem=problem, weights="w", inputs=inputs)
        good = load_state(read_checkpoint(path), problem)
        assert jax.tree.structure(good.carry) == jax.tree.structure(carry_shapes(problem))
        arrays = load_file(path)
        with safe_open(path, framework="np") as file:
            text = file.metadata()[KEYWORD]
        name = "carry.state.point.position"
        if change == "lack":
            del arrays[name]
        elif change == "extra":
            arrays["more"] = np.zeros(3, np.float32)
        elif change == "shape":
            arrays[name] = arrays[name][:4].copy()
        elif change == "type":
            arrays[name] = arrays[name].astype(np.float16)
        elif change == "value":
            arrays[name][0, 0, 0] += 1
        else:
            arrays["history.step"] = arrays["history.step"] + 1
        path.write_bytes(save(arrays, {KEYWORD: text}))
        self.refused(path, problem)

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_damaged_bytes(self, data, half_way, problem, tmp_path):
        raw = bytearray(half_way[2])
        path = tmp_path / "x.ck"
        if data.draw(st.booleans()):
            raw = raw[: data.draw(st.integers(0, len(raw)))]
        else:
            head = 8 + int.from_bytes(raw[:8], "little")
            for _ in range(data.draw(st.integers(1, 4))):
                raw[data.draw(st.integers(0, head))] = data.draw(st.integers(0, 255))
        path.write_bytes(bytes(raw))
        self.refused(path, problem)

    @settings(
        max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(data=st.data())
    def test_a_lying_description(self, data, half_way, tmp_path):
        described = json.loads(half_way[1])
        keys = st.sampled_from([k for k in described if k not in ("terms",)])
        junk = st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=5,
        )
        described[data.draw(keys)] = data.draw(junk)
        path = tmp_path / "x.ck"
        path.write_bytes(save({"a": np.zeros(1)}, {KEYWORD: json.dumps(described)}))
        try:
            checkpoint = read_checkpoint(path)
        except JaxstyleError as error:
            assert "\n" not in str(error)
        else:
            assert checkpoint.elements >= 1 and checkpoint.record.steps >= 0


@pytest.fixture
def start(kept, environment, tmp_path):
    """Start a long run as a process; wait until it has written its first checkpoint."""

    def start(*extra, output=None, wait=True, temporary=None, **how):
        _, flags, images = kept
        checkpoint = tmp_path / "run.ck"
        process = subprocess.Popen(
            [
                str(a)
                for a in (
                    COMMAND, "stylize", *images, "-o", output or tmp_path / "out.png", *flags,
                    "--style-loss", STYLE_LOSS, "--steps", 100000, "--checkpoint", checkpoint,
                    "--checkpoint-every", 1, *extra,
                )
            ],
            env=environment | ({"TMPDIR": str(temporary)} if temporary else {}),
            stderr=subprocess.PIPE, text=True, **how,
        )  # fmt: skip
        until = time.monotonic() + 120
        while wait and not checkpoint.exists() and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        return process, checkpoint

    return start


def resumes(run, checkpoint, folder):
    """Go two steps further from a checkpoint."""
    steps = read_checkpoint(checkpoint).record.steps
    # Not to the end of the long run: what the checkpoint knows as its steps may grow only.
    arrays = load_file(checkpoint)
    assert len(arrays["history.step"]) == steps + 1
    with safe_open(checkpoint, framework="np") as file:
        described = json.loads(file.metadata()[KEYWORD])
    described["recipe"]["steps"] = max(steps, 1)
    short = folder / "short.ck"
    short.write_bytes(save(arrays, {KEYWORD: json.dumps(described)}))
    out = folder / "resumed.png"
    code, _, err = run(
        "stylize", "-o", out, "--resume", short, "--steps", max(steps, 1) + 2, "--quiet"
    )
    assert code == 0 and is_whole(out), err


class TestInterruptions:
    @pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_keeps_image_report_and_checkpoint(self, sent, code, start, run, tmp_path):
        report = tmp_path / "r.json"
        process, checkpoint = start("--report", report)
        process.send_signal(sent)
        _, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        assert "stopped at step" in err and "Traceback" not in err
        assert is_whole(tmp_path / "out.png")
        steps = json.loads(report.read_text())["steps"]
        assert steps == read_checkpoint(checkpoint).record.steps
        resumes(run, checkpoint, tmp_path)

    def test_kill_9_at_any_moment_leaves_whole_files(self, start, run, tmp_path):
        rng = random.Random(0)
        for _ in range(KILLS):
            process, checkpoint = start("--save-every", 1)
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL
            shown = [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
            assert all(is_whole(p) for p in shown if p.suffix == ".png")
            resumes(run, checkpoint, tmp_path)
            for path in tmp_path.iterdir():
                path.unlink()

    @pytest.mark.parametrize(
        ("room", "code", "there"),
        [
            # The image has 4 kB, the report of so many steps and a checkpoint more than 10.
            (8_000, 2, ["out.png"]),
            (1_000, 2, []),
        ],
    )
    def test_a_full_disk_costs_what_does_not_fit(self, room, code, there, start, tmp_path):
        def bound():
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

        folder, elsewhere = tmp_path / "out", tmp_path / "tmp"
        folder.mkdir()
        elsewhere.mkdir()
        (folder / "report.json").write_text("the one before")
        process, checkpoint = start(
            "--steps", 100, "--report", folder / "report.json", "--checkpoint", folder / "run.ck",
            output=folder / "out.png", wait=False, preexec_fn=bound, temporary=elsewhere,
        )  # fmt: skip
        _, err = process.communicate(timeout=120)
        assert process.returncode == code and "Traceback" not in err, err
        assert err.count("warning: --checkpoint") == 1 and "the run goes on" in err
        lost = "--report" if there else "-o"
        assert err.count("jaxstyle: error:") == 1
        assert f"error: {lost} " in err.splitlines()[-1] and "make room" in err
        assert sorted(p.name for p in folder.iterdir()) == sorted([*there, "report.json"])
        assert (folder / "report.json").read_text() == "the one before"
        assert all(is_whole(folder / name) for name in there)
        assert not list(elsewhere.iterdir())

    def test_an_output_folder_that_vanishes_costs_no_image(self, start, run, tmp_path):
        folder = tmp_path / "away"
        folder.mkdir()
        (tmp_path / "tmp").mkdir()
        process, checkpoint = start(output=folder / "o.png")
        shutil.rmtree(folder)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2 and "Traceback" not in err
        assert err.count("jaxstyle: error: -o") == 1
        kept = Path(err.rsplit("the image is kept in ", 1)[1].strip())
        assert is_whole(kept)
        shutil.rmtree(kept.parent)
        resumes(run, checkpoint, tmp_path)

    def test_a_folder_that_cannot_be_written_is_refused_first(self, kept, run, tmp_path):
        # A file in the place of the folder also holds for root, whom permissions do not stop.
        (tmp_path / "file").write_text("")
        folder, flags, images = kept
        for flag in ("-o", "--checkpoint"):
            arguments = {"-o": tmp_path / "o.png"} | {flag: tmp_path / "file" / "x.png"}
            code, _, err = run("stylize", *images, *sum(arguments.items(), ()), *flags)
            assert code == 2 and flag in err and err.count("\n") == 1
        assert [p.name for p in tmp_path.iterdir()] == ["file"]

    @pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not stop root")
    def test_a_read_only_folder_is_refused_first(self, kept, run, tmp_path):
        folder, flags, images = kept
        tmp_path.chmod(0o500)
        code, _, err = run("stylize", *images, "-o", tmp_path / "o.png", *flags)
        tmp_path.chmod(0o700)
        assert code == 2 and "not writable" in err


class TestDivergence:
    def test_what_counts(self):
        losses = np.array([[1, 2, 3], [1, np.nan, 1], [1, np.inf, 1], [1, 2e4, 1], [0, 9e9, 1]])
        assert diverged(losses[:, 0], losses).tolist() == [False, True, True, True, False]

    @pytest.mark.parametrize(
        ("losses", "rose"),
        [
            ([2, 5, 3], True),
            ([2, 1, 3], False),
            ([2, 5, 2], False),
            ([2, 2], False),
            ([2], False),
            # It passed below the start once, and ended exploded.
            ([2, 1, 3e4], True),
        ],
    )
    def test_a_run_that_ended_above(self, losses, rose):
        assert ended_above(np.array(losses)) == rose

    def test_a_run_near_the_largest_number_ended_above(self):
        assert not ended_above(np.array([5e36, 5e36], np.float32))

    def test_full_steps_may_pass_any_multiple_of_the_start(self):
        losses = np.array([[1, 6e8, 0.5], [1, np.nan, 1]])
        bound = divergence.divergence_bound("lbfgs-fixed")
        assert diverged(losses[:, 0], losses, bound=bound).tolist() == [False, True]
        assert divergence.divergence_bound("adam") == divergence.EXPLOSION

    def test_elements_fail_alone_and_the_run_goes_on(self, make_network, make_image):
        wild = np.full((16, 20, 3), 3e18, np.float32)  # its Gram matrices are beyond float32
        problem = one_problem(
            make_network, make_image, elements=[wild, "content"], optimizer="adam", bounds="none"
        )
        lost, good = finish(problem, list(iterates(problem, chunk_size=2)))
        assert lost.diverged and not good.diverged and good.steps == 6
        alone = one_problem(make_network, make_image, optimizer="adam", bounds="none")
        other = finish(alone, list(iterates(alone, chunk_size=2)))[0]
        assert good.loss == pytest.approx(other.loss, rel=1e-5)

    def test_all_lost_stops_early(self, make_network, make_image):
        problem = one_problem(
            make_network, make_image, optimizer="sgd", learning_rate=1e9, bounds="none"
        )
        seen = list(iterates(problem, chunk_size=2))
        assert seen[-1].step == 2 and finish(problem, seen)[0].diverged
        assert np.isfinite(seen[-1].image).all()

    @pytest.mark.parametrize(
        ("optimizer", "rate", "bounds"),
        [
            ("adam", 10, "none"), ("sgd", 1e6, "none"), ("rmsprop", 100, "none"),
            # Kept in [0, 1] nothing explodes: the image goes black and white and stays so.
            ("adam", 10, "soft"), ("sgd", 1e6, "soft"),
        ],
    )  # fmt: skip
    def test_the_command_tells_once_and_exits_3(self, optimizer, rate, bounds, kept, run, tmp_path):
        _, flags, images = kept
        code, _, err = run(
            "stylize", *images, "-o", tmp_path / "o.png", *flags, "--optimizer", optimizer,
            "--style-loss", "gram", "--learning-rate", rate, "--steps", 30, "--bounds", bounds,
            "--report", tmp_path / "r.json",
        )  # fmt: skip
        how = "exploded" if bounds == "none" else "went up"
        assert code == 3 and err.count(f"warning: the loss {how}") == 1 == err.count("\n"), err
        assert is_whole(tmp_path / "o.png")
        report = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
        assert (report["steps"] < 30) == (bounds == "none")
        assert report["loss"] <= report["initial"]["loss"] * 1.01

    def test_a_result_better_than_the_start_exits_0(self, kept, run, tmp_path, monkeypatch):
        # An explosion after some descent, without looking for a rate that has one.
        def exploded(initial, losses, *, bound):
            return np.any(losses < 0.5 * np.asarray(initial)[..., None], -1)

        for module in (loop, results):
            monkeypatch.setattr(module, "diverged", exploded)
        _, flags, images = kept
        code, _, err = run(
            "stylize", *images, "-o", tmp_path / "o.png", *flags, "--steps", 60,
            "--report", tmp_path / "r.json",
        )  # fmt: skip
        report = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
        assert code == 0 and "better than the start" in err and "no better" not in err, err
        assert (
            report["loss"] < report["initial"]["loss"]
            and report["steps"] < 60
            and report["diverged"]
        )
