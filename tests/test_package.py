"""What is installed from a wheel works outside the checkout, weights included."""

import email
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxstyle.images import load_image, save_image

ROOT = Path(__file__).parents[1]
DATA = ("manifest.toml", "medium.safetensors", "compact.safetensors")


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
    # Pages, scripts and styles too.
    others = [p for p in (ROOT / "jaxstyle").rglob("*.*") if p.suffix in (".html", ".js", ".css")]
    assert others and {p.relative_to(ROOT).as_posix() for p in others} <= set(names)
    with tarfile.open(sdist) as archive:
        kept = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"weights/{name}" for name in DATA} <= kept
    assert {"pyproject.toml", "README.md", "LICENSE"} <= kept


def test_the_metadata_is_complete(built):
    wheel = zipfile.ZipFile(built[0])
    (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    metadata = email.message_from_string(wheel.read(name).decode("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert metadata["Name"] == "jaxstyle" and metadata["Version"] == project["version"]
    assert metadata["Summary"] and metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# jaxstyle")
    assert set(metadata.get_all("Provides-Extra")) == set(project["optional-dependencies"])
    for requirement in project["dependencies"]:
        # Every dependency has a lower bound that was tried.
        assert ">=" in requirement, requirement
    files = wheel.namelist()
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in files)
    assert not any(n.startswith(("tests", "experiments", "docs")) for n in files)


def test_the_lock_and_the_lowest_versions_follow_the_requirements():
    packaging = pytest.importorskip("packaging.requirements", reason="pytest has it")
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def requirements(group):
        for text in group:
            requirement = packaging.Requirement(text)
            if requirement.name != project["name"]:
                yield requirement
            for extra in requirement.extras if requirement.name == project["name"] else ():
                yield from requirements(extras[extra])

    def pins(text):
        # A line each, but for the digests and a second version for other Pythons.
        lines = (line.partition(" ")[0].split("==") for line in text.splitlines() if "==" in line)
        return {canonicalize_name(name): version for name, version in reversed(list(lines))}

    lowest = subprocess.run(
        [sys.executable, ROOT / ".ci" / "lowest.py"], capture_output=True, text=True, check=True
    )
    lowest = pins(lowest.stdout)
    lock = pins((ROOT / "requirements-test.lock").read_text(encoding="utf-8"))
    wanted = list(requirements([*project["dependencies"], *extras["test"]]))
    assert len(wanted) > 25
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(lock[name]), f"{requirement}: make lock"
        assert requirement.specifier.contains(lowest[name]), requirement


def test_what_is_cited_is_what_is_released():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"version: {project['version']}" in cited and "license: MIT" in cited
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {project['version']}" in changelog


def test_the_wheel_stylizes_outside_the_checkout(built, tmp_path):
    """In a clean environment that sees this one's packages, but not this checkout."""
    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    scripts = place / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / Path(sys.executable).name
    if not python.exists():
        python = scripts / "python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    # A path in PYTHONPATH's place: .pth files in it, as of editable installs, are not read.
    ours = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(ours)), encoding="utf-8")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    clean["JAXSTYLE_CACHE"] = str(tmp_path / "cache")
    # Compiled as for a user, not as fast as for the suite.
    for name in ("XLA_FLAGS", "OPENBLAS_NUM_THREADS"):
        clean.pop(name, None)

    def command(*arguments):
        return subprocess.run(
            list(map(str, arguments)), cwd=tmp_path, env=clean, capture_output=True, text=True
        )

    install = ("-m", "pip", "--python", python, "install", "--no-index", "--no-deps")
    done = command(sys.executable, *install, "--force-reinstall", built[0])
    assert done.returncode == 0, done.stderr
    where = command(python, "-c", "import jaxstyle; print(jaxstyle.__file__)")
    assert where.stdout.startswith(str(site)), where.stderr
    rng = np.random.default_rng(0)
    for name in ("content.png", "style.png"):
        save_image(tmp_path / name, rng.random((32, 32, 3), np.float32))
    done = command(
        scripts / "jaxstyle", "stylize", "content.png", "style.png", "-o", "out.png",
        "--weights", "compact", "--steps", 1, "--quiet",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert load_image(tmp_path / "out.png").shape == (32, 32, 3)
