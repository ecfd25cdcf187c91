"""Rooms import one way: a room never knows one above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxstyle

ROOT = Path(jaxstyle.__file__).parent
# From the ground up; a room imports from its own floor's room and those below.
FLOORS = (
    {"bounds", "colours", "errors", "heap", "interrupts", "curves"},
    {"checks", "winograd", "divergence", "files"},
    {"convolution"},
    {"vgg"},
    {"losses", "variation", "images", "weights", "sharding"},
    {"masks", "styles"},
    {"recipe", "sheets", "tiles"},
    {"peers"},
    {"objective", "optimisers"},
    {"sizing", "targets"},
    {"prepare"},
    {"programs"},
    {"descent"},
    {"run"},
    {"memory", "report"},
    {"inputs", "pace"},
    {"progress", "record", "live"},
    {"api", "checkpoint", "grid"},
    {"serve"},
    {"notebook"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# What is allowed to know almost nothing.
ALONE = {
    "bounds": set(),
    "errors": set(),
    "interrupts": set(),
    "curves": set(),
    "files": {"errors"},
    "images": {"errors", "files"},
    "colours": set(),
    "winograd": set(),
    "convolution": {"winograd"},
    "vgg": {"convolution", "errors", "winograd"},
    "losses": set(),
    "variation": set(),
    "masks": {"colours", "errors", "images", "vgg"},
    "styles": {"errors", "losses"},
    "sheets": {"errors", "images"},
    "recipe": {"bounds", "checks", "errors", "styles", "variation", "vgg"},
    "peers": {"errors", "recipe"},
    "tiles": {"vgg"},
    "objective": {
        *("colours", "errors", "losses", "masks", "recipe", "sharding", "styles", "tiles"),
        *("variation", "vgg"),
    },
    "optimisers": {"errors", "recipe", "sharding", "vgg"},
    "sharding": {"errors"},
    "weights": {"errors", "files", "vgg"},
}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def room_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(path):
    """Full names of the modules that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "jaxstyle":
                yield from (f"jaxstyle.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_below(path):
    room = room_of(path)
    for name in imports_of(path):
        assert name.split(".")[0] not in ("torch", "torchvision"), name
        if name.startswith("jaxstyle."):
            other = name.split(".")[1]
            if other == room:
                continue
            assert FLOOR[other] < FLOOR[room], f"{room} imports {name}"
            assert other in ALONE.get(room, FLOOR), f"{room} imports {name}"


def test_every_room_has_a_floor():
    assert {room_of(path) for path in FILES} - {"data"} == set(FLOOR)


def test_importing_everything_imports_no_torch():
    code = (
        "import sys, pkgutil, importlib, jaxstyle\n"
        "for m in pkgutil.walk_packages(jaxstyle.__path__, 'jaxstyle.'):\n"
        "    importlib.import_module(m.name)\n"
        "bad = {'torch', 'torchvision', 'tensorflow', 'matplotlib'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_room_can_be_read_in_one_sitting():
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 600, path
