"""`jaxstyle doctor`: problems of this machine and what to do about them."""

import dataclasses
import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

from jaxstyle.errors import JaxstyleError

ATTENTION = 1
# Package, version, affected backend, problem.
KNOWN_BAD = (("jax", "0.10.2", "cpu", "compiles wrong programs (jax issue 39103)"),)
LEAST_SPACE = 2**30


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    state: str
    advice: str = ""
    """What to do; empty if there is no problem."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def doctor(as_json: bool) -> int:
    """Check versions, devices, caches and weights.

    Each problem is printed with its remedy, and the exit code is then 1.
    """
    from jaxstyle.provenance.report import to_json

    findings = list(examine())
    if as_json:
        click.echo(to_json([dataclasses.asdict(finding) for finding in findings]), nl=False)
    else:
        for finding in findings:
            mark = "!" if finding.advice else " "
            click.echo(f"{mark} {finding.what:18} {finding.state}")
            if finding.advice:
                click.echo(f"{'':20} -> {finding.advice}")
    return ATTENTION if any(finding.advice for finding in findings) else 0


def examine() -> Iterator[Finding]:
    """Run all checks and yield their findings in order."""
    yield from versions()
    yield from devices()
    yield from caches()
    yield from weights()


def versions() -> Iterator[Finding]:
    """Check the versions of Python and of the packages that affect results and speed."""
    import jax

    from jaxstyle.cli.devices import backend_problem

    yield Finding("python", f"{platform.python_version()} on {platform.platform()}")
    installed_versions = {
        name: version(name) for name in ("jaxstyle", "jax", "jaxlib", "flax", "optax")
    }
    backend = None if backend_problem() else jax.default_backend()
    for name, installed in installed_versions.items():
        advice = ""
        for bad_name, bad_version, affected, why in KNOWN_BAD:
            if (name, installed, backend) == (bad_name, bad_version, affected):
                advice = f"{installed} {why} on {backend}; install another version of {name}"
        if name == "jaxlib" and installed != installed_versions["jax"]:
            advice = f"jax is {installed_versions['jax']}; install the same version of both"
        yield Finding(name, installed, advice)


def devices() -> Iterator[Finding]:
    """Check the devices and their memory."""
    import jax

    from jaxstyle.cli.devices import backend_problem

    if problem := backend_problem():
        advice = "see JAX's installation guide, or set JAX_PLATFORMS=cpu"
        yield Finding("device", problem, advice)
        return
    present = jax.devices()
    for device in present:
        memory = (device.memory_stats() or {}).get("bytes_limit")
        size = f", {_size(memory)}" if memory else ""
        yield Finding(f"device {device.id}", f"{device.platform}: {device.device_kind}{size}")
    if present[0].platform == "cpu":
        yield Finding("processors", str(os.cpu_count()))
        available = _available_memory()
        if available is not None:
            low = "close other programs or choose a smaller --size" if available < 2**30 else ""
            yield Finding("free memory", _size(available), low)
        if Path("/dev/nvidiactl").exists():
            yield Finding(
                "GPU",
                "there is an NVIDIA GPU that JAX does not use",
                "install jax[cuda13] or jax[cuda12]",
            )


def caches() -> Iterator[Finding]:
    """Check the folders of downloaded weights and compiled programs."""
    from jaxstyle.weights import cache_folder

    folder = cache_folder()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    advice = ""
    if not existing.is_dir():
        advice = f"{existing} is a file; set JAXSTYLE_CACHE to a folder"
    elif not os.access(existing, os.W_OK):
        advice = "it cannot be written; set JAXSTYLE_CACHE to a folder of yours"
    elif (free := shutil.disk_usage(existing).free) < LEAST_SPACE:
        advice = f"{_size(free)} are left on its disk; free some space"
    yield Finding("cache folder", str(folder), advice)
    programs = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or folder / "programs")
    files = [p for p in programs.rglob("*") if p.is_file()] if programs.is_dir() else []
    size = sum(p.stat().st_size for p in files)
    yield Finding("compiled programs", f"{len(files)} files, {_size(size)}, in {programs}")


def weights() -> Iterator[Finding]:
    """Check the digest of each network on this machine."""
    from jaxstyle.cli.devices import backend_problem

    if backend_problem():
        # Networks are loaded onto a device.
        return
    from jaxstyle.weights import describe, verify

    for row in describe():
        if row.where not in ("embedded", "cached"):
            continue
        try:
            digest = verify(row.name)[row.name]
        except JaxstyleError as error:
            cure = (
                "install jaxstyle again"
                if row.where == "embedded"
                else (f"run `jaxstyle weights fetch {row.name}` again")
            )
            yield Finding(f"weights {row.name}", str(error), cure)
        else:
            yield Finding(f"weights {row.name}", f"{row.where}, {digest[:12]}")


def _available_memory() -> int | None:
    """Return the bytes of available memory, or None if the system does not report them."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in fields else None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
