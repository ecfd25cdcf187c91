"""Packages import one way: a package never imports one above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxstyle

ROOT = Path(jaxstyle.__file__).parent
# From the bottom up; a package imports from itself and from those before it.
ORDER = (
    *("errors", "files"),
    *("config", "images", "nn", "weights", "losses", "optim", "engine"),
    *("provenance", "sweep", "monitor", "studio", "notebook", "api", "cli", "__main__"),
)
# What is allowed to import almost nothing.
ALONE = {
    "errors": set(),
    "files": {"errors"},
    "config": {"errors"},
    "images": {"errors", "files"},
    "nn": {"config", "errors"},
    "weights": {"config", "errors", "files", "nn"},
    "optim": {"config", "errors", "nn"},
}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def package_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path):
    """Full names of the modules that a file imports when it runs, wherever in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "jaxstyle":
                yield from (f"jaxstyle.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_imports_only_from_below(path):
    package = package_of(path)
    for name in imports_of(path):
        assert name.split(".")[0] not in ("torch", "torchvision"), name
        if name.startswith("jaxstyle."):
            other = name.split(".")[1]
            if other == package:
                continue
            assert ORDER.index(other) < ORDER.index(package), f"{package} imports {name}"
            assert other in ALONE.get(package, ORDER), f"{package} imports {name}"


def test_every_package_has_a_place():
    assert {package_of(path) for path in FILES} - {"data"} == set(ORDER)


def test_no_function_hides_a_module_of_its_name():
    code = (
        "import importlib, inspect, pkgutil, sys, jaxstyle\n"
        "names = [m.name for m in pkgutil.walk_packages(jaxstyle.__path__, 'jaxstyle.')]\n"
        "for name in names:\n"
        "    importlib.import_module(name)\n"
        "for name in names:\n"
        "    package, _, last = name.rpartition('.')\n"
        "    there = getattr(sys.modules[package], last)\n"
        "    assert inspect.ismodule(there), f'{name} is hidden by {there!r}'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_configuration_and_help_need_no_jax():
    code = (
        "import sys, jaxstyle.config.presets, jaxstyle.cli.stylize, jaxstyle.cli.weights\n"
        "from jaxstyle.cli.app import app\n"
        "for name in app.list_commands(None):\n"
        "    app.get_command(None, name)\n"
        "slow = {'jax', 'flax', 'optax', 'jaxopt', 'scipy'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_importing_everything_imports_no_torch():
    code = (
        "import sys, pkgutil, importlib, jaxstyle\n"
        "for m in pkgutil.walk_packages(jaxstyle.__path__, 'jaxstyle.'):\n"
        "    importlib.import_module(m.name)\n"
        "bad = {'torch', 'torchvision', 'tensorflow', 'matplotlib'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_module_can_be_read_in_one_sitting():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 600, path
