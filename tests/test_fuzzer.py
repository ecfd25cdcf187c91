"""The fuzzer's targets read its own seeds; fuzzing itself is not part of the suite."""

import contextlib
import importlib.util
import sys
import types
from pathlib import Path

import pytest

from jaxstyle import JaxstyleError

pytest.importorskip("h5py")
FILE = Path(__file__).parent / "fuzz" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    """The fuzzer with a stand-in for atheris, which is not installed here."""
    stand_in = types.ModuleType("atheris")
    stand_in.instrument_imports = lambda **options: contextlib.nullcontext()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "atheris", stand_in)
        patch.setattr(sys, "path", list(sys.path))
        spec = importlib.util.spec_from_file_location("fuzz", FILE)
        module = importlib.util.module_from_spec(spec)
        # Its dataclasses look themselves up there.
        patch.setitem(sys.modules, "fuzz", module)
        from jaxstyle.engine import compilation

        patch.setattr(compilation, "carry_shapes", compilation.carry_shapes)
        spec.loader.exec_module(module)
        yield module


def test_every_target_reads_one_of_its_seeds(fuzz, tmp_path):
    for name, target in fuzz.TARGETS.items():
        path = tmp_path / f"input{target.ending}"
        errors = []
        for seed in target.seeds():
            path.write_bytes(target.wrap(seed))
            try:
                target.read(path)
                break
            except JaxstyleError as error:
                errors.append(str(error))
        else:
            pytest.fail(f"{name}: {errors}")
