"""`jaxstyle doctor`: what it looks at, and that what is wrong is said with its cure."""

import importlib
import json

import pytest

# The package's attribute of that name is the command.
doctor = importlib.import_module("jaxstyle.cli.doctor")


@pytest.fixture
def examined(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JAXSTYLE_CACHE", str(tmp_path))

    def examined():
        code, out, err = run("doctor", "--json")
        assert not err
        return code, {finding["what"]: finding for finding in json.loads(out)}

    return examined


def test_a_machine_in_order(run, examined):
    code, findings = examined()
    assert {"python", "jax", "jaxlib", "device 0", "cache folder", "weights compact"} <= {*findings}
    assert code == (1 if any(f["advice"] for f in findings.values()) else 0)
    assert not findings["weights compact"]["advice"]
    printed = run("doctor")[1]
    assert all(what in printed for what in findings)


def test_a_bad_version(examined, monkeypatch):
    actual = doctor.version
    monkeypatch.setattr(doctor, "version", lambda n: "0.10.2" if "jax" in n[:6] else actual(n))
    code, findings = examined()
    assert code == 1 and "39103" in findings["jax"]["advice"]
    # What is wrong on CPUs alone is no advice to who has a GPU.
    with monkeypatch.context() as patch:
        patch.setattr("jax.default_backend", lambda: "gpu")
        assert not examined()[1]["jax"]["advice"]
    monkeypatch.setattr(doctor, "version", lambda n: "0.9" if n == "jaxlib" else actual(n))
    code, findings = examined()
    assert code == 1 and "same version" in findings["jaxlib"]["advice"]


def test_damaged_weights(examined, tmp_path):
    (tmp_path / "vgg19.safetensors").write_bytes(b"not a network")
    code, findings = examined()
    assert code == 1 and "weights fetch vgg19" in findings["weights vgg19"]["advice"]


def test_a_full_disk(examined, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_SPACE", 2**70)
    code, findings = examined()
    assert code == 1 and "free some space" in findings["cache folder"]["advice"]
