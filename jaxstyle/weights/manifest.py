"""The manifest of known weights, `manifest.toml`: addresses, sizes, digests and licenses."""

import hashlib
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxstyle.errors import JaxstyleError

ENVIRONMENT = "JAXSTYLE_MANIFEST"
"""Environment variable with another manifest, for tests; it may have addresses on this machine."""
DIGEST_KINDS = {"md5": 32, "sha256": 64, "sha256-prefix": None}


@dataclass(frozen=True)
class Source:
    """A published file of weights."""

    name: str
    kind: str
    """Format: `"keras"`, `"torchvision"`, `"caffe-pth"`, `"gatys"` or `"matconvnet"`."""
    network: str
    """`"vgg16"` or `"vgg19"`."""
    convention: str
    """`"caffe"`, `"torchvision"` or `"matconvnet"`."""
    urls: tuple[str, ...]
    """Addresses of the file, tried in order."""
    size: int | None
    """Bytes of the file, if known."""
    digest: str | None
    """`"sha256:…"`, `"md5:…"` or `"sha256-prefix:…"`; without one the file is not fetched."""
    license: str
    """License of the weights."""
    note: str
    """Description for `jaxstyle weights list`."""


@dataclass(frozen=True)
class Embedded:
    """A network in the package."""

    name: str
    """Name of the network."""
    file: Path
    """File of the network, beside the manifest."""
    digest: str
    """SHA-256 of its arrays, from `jaxstyle.weights.digest`."""
    trained: bool
    """Whether it is trained; if not, it is a placeholder with random weights."""
    note: str
    """Description for `jaxstyle weights list`."""


@dataclass(frozen=True)
class Manifest:
    """The weights that can be named instead of a file."""

    sources: dict[str, Source]
    """Published files by name."""
    embedded: dict[str, Embedded]
    """Networks in the package by name."""


def read_manifest() -> Manifest:
    """Read the manifest of the package, or that in `JAXSTYLE_MANIFEST`.

    Raises:
      JaxstyleError: the manifest cannot be read, or an entry lacks a field.
    """
    path = _path()
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return Manifest(
            {name: _source(name, entry) for name, entry in table.get("sources", {}).items()},
            {
                name: Embedded(
                    name=name,
                    file=path.parent / entry["file"],
                    digest=entry["digest"].removeprefix("sha256:"),
                    trained=entry["trained"],
                    note=entry.get("note", ""),
                )
                for name, entry in table.get("embedded", {}).items()
            },
        )
    except KeyError as error:
        raise JaxstyleError(
            f"manifest {path}: an entry has no {error}; correct it there"
        ) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise JaxstyleError(f"manifest {path} cannot be read: {error}; correct it there") from error


def is_test_manifest() -> bool:
    """Return whether `JAXSTYLE_MANIFEST` is set."""
    return bool(os.environ.get(ENVIRONMENT))


def file_digest(path: Path, like: str) -> str:
    """Compute the digest of a file, by the algorithm of `like`, as `"md5:…"` or `"sha256:…"`."""
    algorithm = "md5" if like.startswith("md5:") else "sha256"
    with open(path, "rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def agrees(pinned: str, actual: str) -> bool:
    """Return whether a digest in the manifest is that of a file."""
    if pinned.startswith("sha256-prefix:"):
        return actual.startswith(pinned.replace("-prefix", ""))
    return actual == pinned


def identify(path: Path) -> Source | None:
    """Return the source of a file, by its size and digest; None if it is not in the manifest."""
    size = path.stat().st_size
    digests: dict[bool, str] = {}  # Cached, as files have half a gigabyte.
    for source in read_manifest().sources.values():
        if source.digest and source.size in (None, size):
            is_md5 = source.digest.startswith("md5:")
            if is_md5 not in digests:
                digests[is_md5] = file_digest(path, source.digest)
            if agrees(source.digest, digests[is_md5]):
                return source
    return None


def _path() -> Path:
    if is_test_manifest():
        return Path(os.environ[ENVIRONMENT])
    package = Path(__file__).resolve().parents[1]
    installed = package / "data"
    return (installed if installed.is_dir() else package.parent / "weights") / "manifest.toml"


def _source(name: str, entry: dict[str, Any]) -> Source:
    digest = entry.get("digest")
    if digest is not None:
        kind, _, value = digest.partition(":")
        length = DIGEST_KINDS.get(kind, -1)
        if length not in (None, len(value)) or not value or set(value) - set("0123456789abcdef"):
            raise ValueError(f"{name} has digest {digest!r}, not md5:…, sha256:… in lower case")
    return Source(
        name=name,
        kind=entry["kind"],
        network=entry["network"],
        convention=entry["convention"],
        urls=tuple(entry["urls"]),
        size=entry.get("size"),
        digest=digest,
        license=entry["licence"],
        note=entry.get("note", ""),
    )
