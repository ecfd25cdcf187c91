"""Weights by name: listing, fetching, verifying and loading."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from jaxstyle.errors import JaxstyleError
from jaxstyle.files import reason
from jaxstyle.nn.network import Network
from jaxstyle.weights.conversion import convert
from jaxstyle.weights.download import Progress, download, not_fetchable
from jaxstyle.weights.manifest import Embedded, Source, read_manifest
from jaxstyle.weights.weight_file import read_network, save_network

CACHE_ENVIRONMENT = "JAXSTYLE_CACHE"
_PREFERRED = "vgg19"
_FALLBACK = "medium"
_STALE_SECONDS = 24 * 3600


class Row(NamedTuple):
    """A row of `jaxstyle weights list`."""

    name: str
    """Name of the weights."""
    network: str
    """`"vgg16"` or `"vgg19"`."""
    where: str
    """`"embedded"`, `"cached"`, `"not fetched"` or `"not fetchable"`."""
    size: int | None
    """Bytes on disk, or of the download; None if unknown."""
    license: str
    """License, if known."""
    note: str
    """Description."""


def names() -> tuple[str, ...]:
    """Return the names of weights for `load_network`, besides `"auto"`."""
    manifest = read_manifest()
    return (*manifest.embedded, *manifest.sources)


def cache_folder() -> Path:
    """Return the folder of fetched networks, `JAXSTYLE_CACHE` or the platform's cache folder."""
    chosen = os.environ.get(CACHE_ENVIRONMENT)
    if chosen:
        return Path(chosen)
    import platformdirs

    return Path(platformdirs.user_cache_dir("jaxstyle"))


def describe() -> tuple[Row, ...]:
    """Return a description of each name, including whether it is on this machine."""
    manifest = read_manifest()
    rows = []
    for entry in manifest.embedded.values():
        size = entry.file.stat().st_size if entry.file.is_file() else None
        note = entry.note if entry.trained else f"untrained; {entry.note}".removesuffix("; ")
        rows.append(Row(entry.name, "vgg19", "embedded", size, "", note))
    for source in manifest.sources.values():
        cached = _cached(source.name)
        here = cached.is_file()
        where = "cached" if here else "not fetched" if source.digest else "not fetchable"
        size = cached.stat().st_size if here else source.size
        rows.append(Row(source.name, source.network, where, size, source.license, source.note))
    return tuple(rows)


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """Download, check and convert weights, unless they are cached; return the network's file.

    Args:
      name: one of `names()`.
      progress: called with the bytes received and the size of the file, None if unknown.

    Returns:
      `cache_folder() / (name + ".safetensors")`, or the file of an embedded network.

    Raises:
      JaxstyleError: the name is unknown, the download failed, or the cache cannot be written.
        The file is not created then.
    """
    entry = _find(name)
    if isinstance(entry, Embedded):
        return path(name)
    target = _cached(name)
    if target.is_file():
        try:
            read_network(target)
            return target
        except JaxstyleError:
            pass  # The cached file is damaged.
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
            raw = Path(temporary) / name
            download(entry, raw, progress=progress)
            save_network(convert(raw, name=name), target)
    except OSError as error:
        raise JaxstyleError(
            f"cache {folder} cannot be written: {reason(error)}; "
            f"set {CACHE_ENVIRONMENT} to another folder"
        ) from error
    return target


def _sweep(folder: Path) -> None:
    """Remove temporary files of killed downloads."""
    for left in folder.glob(".fetch-*"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def path(name: str) -> Path:
    """Return the file of an embedded or fetched network.

    Raises:
      JaxstyleError: the name is unknown, or its network is not on this machine.
    """
    entry = _find(name)
    file = entry.file if isinstance(entry, Embedded) else _cached(name)
    if file.is_file():
        return file
    if isinstance(entry, Embedded):
        raise JaxstyleError(
            f"weights {name!r} should come with jaxstyle but {file} is missing; install it again"
        )
    if not entry.digest:
        raise not_fetchable(entry)
    raise JaxstyleError(
        f"weights {name!r} are not in the cache {cache_folder()}; "
        f"get them with `jaxstyle weights fetch {name}`"
    )


def verify(name: str | None = None) -> dict[str, str]:
    """Check the digest of a network on this machine, or of all of them.

    Returns:
      `{name: digest of the arrays}` of the checked networks.

    Raises:
      JaxstyleError: a network is damaged, or the given one is not on this machine.
    """
    if name is None:
        present = [row.name for row in describe() if row.where in ("embedded", "cached")]
    else:
        present = [name]
    return {each: _load(each).digest for each in present}


def load_network(name_or_path: str | os.PathLike = "auto") -> Network:
    """Load weights by name or from a converted file.

    Args:
      name_or_path: `"auto"` (`"vgg19"` if it is cached, else `"medium"`), one of `names()`, or a
        `.safetensors` file from `jaxstyle weights convert`.

    Returns:
      A `Network` with float32 params, whose digest has been checked.

    Raises:
      JaxstyleError: the name is unknown or not fetched, or the file is not valid.

    Example:
      >>> load_network("compact").layers[-1]
      'conv5_1'
    """
    text = os.fspath(name_or_path)
    if text == "auto":
        return _load(_automatic())
    if text in names():
        return _load(text)
    file = Path(text)
    if file.suffix == ".safetensors":
        return read_network(file)
    if file.is_file():
        raise JaxstyleError(
            f"weights {text} must be a .safetensors; make one with "
            f"`jaxstyle weights convert {text} -o FILE.safetensors`"
        )
    raise _unknown(text)


def auto_notice() -> str | None:
    """Return the notice that `"auto"` is the embedded network; None if it is not."""
    if _automatic() != _FALLBACK:
        return None
    entry = read_manifest().embedded.get(_FALLBACK)
    kind = "embedded" if entry is None or entry.trained else "embedded, untrained"
    return (
        f"using the {kind} network {_FALLBACK!r}; "
        f"for better images get {_PREFERRED} once with `jaxstyle weights fetch {_PREFERRED}`"
    )


def _automatic() -> str:
    return _PREFERRED if _cached(_PREFERRED).is_file() else _FALLBACK


def _cached(name: str) -> Path:
    return cache_folder() / f"{name}.safetensors"


def _load(name: str) -> Network:
    entry = _find(name)
    network = read_network(path(name))
    if isinstance(entry, Embedded) and network.digest != entry.digest:
        raise JaxstyleError(
            f"weights {name!r}: {entry.file} has digest {network.digest}, not {entry.digest} as "
            "the manifest says; install jaxstyle again"
        )
    return network


def _find(name: str) -> Source | Embedded:
    manifest = read_manifest()
    entry = manifest.embedded.get(name) or manifest.sources.get(name)
    if entry is None:
        raise _unknown(name)
    return entry


def _unknown(name: str) -> JaxstyleError:
    return JaxstyleError(
        f"weights {name!r} are not known; choose from auto, {', '.join(names())}, "
        "or name a .safetensors file"
    )
