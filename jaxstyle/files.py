"""Atomic writing of files, checks before long work, and digests."""

import contextlib
import hashlib
import os
import re
import secrets
import stat
import sys
import time
from pathlib import Path

from jaxstyle.errors import JaxstyleError

StrPath = str | os.PathLike[str]
_STALE_SECONDS = 60


def write_atomically(path: StrPath, data: bytes, *, argument: str = "output") -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, reach the disk, and take
    the name in one `os.replace`. What a killed process left of an earlier write to the same
    name goes when it is a minute old. A symbolic link stays one: the file it points to
    is replaced. A new file gets the umask's permissions; a replaced one keeps its own.

    Args:
      path: the file to write; its folder must exist.
      data: the whole content.
      argument: how the message names the file, as in `--report`.

    Raises:
      JaxstyleError: the folder is missing or not writable, `path` is not a regular
        file, or the disk is full. The temporary file is gone and an existing file
        is untouched then, and after any other exception (Ctrl-C) too.
    """
    target = _target(path, argument)
    try:
        temporary, descriptor = _open_temporary(target)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            if target.exists():
                os.chmod(temporary, stat.S_IMODE(target.stat().st_mode) & 0o777)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise JaxstyleError(
            f"{argument} {shown(path)} cannot be written: {reason(error)}; "
            f"what was there is untouched, make room or choose another {argument}"
        ) from error


def check_writable(path: StrPath, *, argument: str) -> None:
    """Raise, before any long work, what `write_atomically` would raise after it.

    Creates and removes a temporary file in the folder: the only test that also
    holds for root, for read-only mounts and for access lists.

    Args:
      path: the file that is to be written.
      argument: the flag it came from, as in `-o`; the message names it.

    Raises:
      JaxstyleError: the parent is missing, not a folder or not writable; `path` is
        a folder, a device or a file that is read-only.
    """
    target = _target(path, argument)
    named, folder = f"{argument} {shown(path)}", shown(Path(path).parent)
    way_out = f"choose another {argument}"
    if not target.parent.exists():
        raise JaxstyleError(
            f"{named}: the output folder {folder} does not exist; create it or {way_out}"
        )
    if not target.parent.is_dir():
        raise JaxstyleError(f"{named}: {folder} is a file, not a folder; {way_out}")
    if target.exists() and not os.access(target, os.W_OK):
        raise JaxstyleError(f"{named} is read-only; make it writable, remove it or {way_out}")
    try:
        temporary, descriptor = _open_temporary(target)
        os.close(descriptor)
        temporary.unlink()
    except OSError as error:
        raise JaxstyleError(
            f"{named}: the folder {folder} is not writable ({reason(error)}); {way_out}"
        ) from error


def is_stream(path: StrPath) -> bool:
    """Return whether a path is `-`, a stream of this process, a pipe or a device.

    Such a path is written into, not replaced (`write_stream`).
    """
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def write_stream(path: StrPath, data: bytes, *, argument: str) -> None:
    """Write `data` to a stream, a pipe or a device (`is_stream`); `-` is standard output.

    Raises:
      JaxstyleError: it cannot be written.
    """
    descriptor = _descriptor(path)
    try:
        if descriptor == 1:
            # After what has been printed, and wherever that goes.
            sys.stdout.write(data.decode())
            sys.stdout.flush()
        else:
            where = os.dup(descriptor) if descriptor is not None else os.open(path, os.O_WRONLY)
            with os.fdopen(where, "wb") as stream:
                stream.write(data)
    except OSError as error:
        raise JaxstyleError(
            f"{argument} {shown(path)} cannot be written: {reason(error)}; "
            f"choose another {argument}"
        ) from error


def _descriptor(path: StrPath) -> int | None:
    """Return the file descriptor that a path such as `/dev/fd/3` names, or None."""
    name = os.fspath(path)
    named = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
    match = re.fullmatch(r"/(?:dev/fd|proc/self/fd)/(\d{1,6})", name)
    return int(match[1]) if match else named.get(name)


def check_readable(path: StrPath, named: str, *, kind: str = "file") -> None:
    """Raise unless `path` is a regular file that can be opened.

    Tells a missing file, a folder and a pipe apart, which readers call all the same.

    Args:
      path: the file that is to be read.
      named: how messages name it, as in `content 'a.png'`.
      kind: what is wanted, as in `image file`.

    Raises:
      JaxstyleError: says which it is.
    """
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            with open(path, "rb"):
                return
    except FileNotFoundError:
        raise JaxstyleError(f"{named} does not exist; check the path") from None
    except (OSError, ValueError) as error:
        raise JaxstyleError(
            f"{named} cannot be read: {reason(error)}; check the path and its permissions"
        ) from error
    # Opening a pipe would wait for ever, and decoders need to seek.
    actual = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
    raise JaxstyleError(f"{named} is {actual}; name a {kind}")


def sha256_of(path: StrPath) -> str:
    """Compute the SHA-256 of a file, as 64 lower-case hexadecimal digits.

    Reads in pieces, so a file larger than memory is fine.

    Raises:
      JaxstyleError: the file is missing or cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise JaxstyleError(
            f"file {shown(path)} cannot be read: {reason(error)}; check the path"
        ) from error


def numbered(path: StrPath, suffix: str) -> Path:
    """Put `suffix` before the ending: `out.png` and `-step0100` give `out-step0100.png`."""
    path = Path(path)
    return path.with_name(f"{path.stem}{suffix}{path.suffix}")


def shown(path: StrPath) -> str:
    """Return a path as messages print it: quoted, on one line."""
    return repr(os.fspath(path))


def reason(error: Exception) -> str:
    """Return the reason of an error, without the path that `str(error)` repeats."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())


def _target(path: StrPath, argument: str) -> Path:
    """Return the file that a link leads to; raise for what `os.replace` must not replace."""
    named = f"{argument} {shown(path)}"
    if os.fspath(path) == "":
        raise JaxstyleError(f"{argument} is empty; name a file")
    try:
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except (OSError, ValueError) as error:
        # ValueError: a null byte, which a grid file can hold though a command line cannot.
        raise JaxstyleError(
            f"{named} is not a usable path: {reason(error)}; choose another {argument}"
        ) from error
    if stat.S_ISDIR(mode):
        raise JaxstyleError(
            f"{named} is a folder; name a file in it, such as {shown(Path(path) / 'out.png')}"
        )
    if not stat.S_ISREG(mode):
        # Replacing /dev/null as root would take the device away from everybody.
        raise JaxstyleError(
            f"{named} is a device or a pipe, not a regular file; choose another {argument}"
        )
    return target


def _open_temporary(target: Path) -> tuple[Path, int]:
    """Create an empty hidden file that no other process has; the caller closes and removes it."""
    # Not `mkstemp`: it gives 0600 whatever the umask says. The name is short and
    # unlike the target's, which may already be as long as the file system allows.
    family = f".jaxstyle-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"
    for left in target.parent.glob(f"{family}*.tmp"):
        with contextlib.suppress(OSError):
            # A younger one may be another process's, which would fail without it.
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()
    temporary = target.parent / f"{family}{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return temporary, os.open(temporary, flags, 0o666)
