"""What is installed from a wheel works outside the checkout, weights included."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxstyle.images import load_image, save_image

ROOT = Path(__file__).parents[1]
DATA = ("manifest.toml", "compact.safetensors")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    pytest.importorskip("hatchling", reason="the test extra builds the package with hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def test_wheel_and_sdist_hold_the_weights(built):
    wheel, sdist = built
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"jaxstyle/data/{name}" for name in DATA} <= set(names)
    assert "jaxstyle/py.typed" in names
    with tarfile.open(sdist) as archive:
        kept = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"weights/{name}" for name in DATA} <= kept
    assert {"pyproject.toml", "README.md", "LICENSE"} <= kept


def test_the_wheel_stylizes_outside_the_checkout(built, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(built[0]).extractall(site)
    rng = np.random.default_rng(0)
    for name in ("content.png", "style.png"):
        save_image(tmp_path / name, rng.random((32, 32, 3), np.float32))
    environment = {**os.environ, "PYTHONPATH": str(site), "JAXSTYLE_CACHE": str(tmp_path / "cache")}
    program = (
        "import jaxstyle, sys; from jaxstyle.cli import main; print(jaxstyle.__file__); main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, "stylize", "content.png", "style.png", "-o", "out.png",
         "--weights", "compact", "--steps", "1", "--quiet"],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(str(site))
    assert load_image(tmp_path / "out.png").shape == (32, 32, 3)
