"""Atomic writes of files, checks of paths before long work, and digests."""

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
    """Write a file atomically: a reader sees the old content or the new, never a part of it.

    The data is written to a temporary file in the same folder and flushed to disk, which then
    replaces `path` by `os.replace`. Temporary files that killed processes left for the same path
    are removed once they are a minute old. If `path` is a symbolic link, the file it points to is
    replaced. A new file gets the permissions of the umask; a replaced file keeps its own.

    Args:
      path: file to write; its folder must exist.
      data: the whole content.
      argument: name of the path in error messages, such as `--report`.

    Raises:
      JaxstyleError: the folder is missing or not writable, `path` is not a regular file, or the
        disk is full. After this or any other exception (Ctrl-C), the temporary file is removed and
        an existing file is unchanged.
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
    """Raise an error, before long work, if `write_atomically` could not write to a path.

    A temporary file is created in the folder and removed: no other test is also right for root,
    read-only mounts and access control lists.

    Args:
      path: file to write later.
      argument: name of the path in error messages, such as `-o`.

    Raises:
      JaxstyleError: the parent is missing, not a folder or not writable, or `path` is a folder, a
        device, a pipe or a read-only file.
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
    """Return whether a path is `-`, a file descriptor of this process, a pipe or a device.

    Such a path is written to by `write_stream`, not replaced.
    """
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def write_stream(path: StrPath, data: bytes, *, argument: str) -> None:
    """Write data to a path for which `is_stream` is true; `-` is standard output.

    Raises:
      JaxstyleError: the stream cannot be written.
    """
    descriptor = _descriptor(path)
    try:
        if descriptor == 1:
            # By `sys.stdout`, which may be redirected, and after the text it has buffered.
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
    """Raise an error unless a path is a regular file that can be opened.

    Args:
      path: file to read later.
      named: name of the file in error messages, such as `content 'a.png'`.
      kind: expected kind of file, such as `image file`.

    Raises:
      JaxstyleError: the file is missing or cannot be opened, or the path is a folder, a device or a
        pipe.
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
    # Opening a pipe could block forever, and decoders need to seek.
    actual = "a folder" if stat.S_ISDIR(mode) else "a device or a pipe"
    raise JaxstyleError(f"{named} is {actual}; name a {kind}")


def sha256_of(path: StrPath) -> str:
    """Compute the SHA-256 of a file, as 64 lower-case hexadecimal digits.

    The file is read in blocks and may be larger than memory.

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
    """Insert `suffix` before the extension: `out.png` and `-step0100` give `out-step0100.png`."""
    path = Path(path)
    return path.with_name(f"{path.stem}{suffix}{path.suffix}")


def shown(path: StrPath) -> str:
    """Return a path for messages: quoted, on one line."""
    return repr(os.fspath(path))


def reason(error: Exception) -> str:
    """Return the reason of an error on one line, without the path that `str(error)` includes."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())


def _target(path: StrPath, argument: str) -> Path:
    """Return a path with symbolic links resolved; raise if it is not a file but exists."""
    named = f"{argument} {shown(path)}"
    if os.fspath(path) == "":
        raise JaxstyleError(f"{argument} is empty; name a file")
    try:
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except (OSError, ValueError) as error:
        # ValueError: a null byte, which is possible in a grid file.
        raise JaxstyleError(
            f"{named} is not a usable path: {reason(error)}; choose another {argument}"
        ) from error
    if stat.S_ISDIR(mode):
        raise JaxstyleError(
            f"{named} is a folder; name a file in it, such as {shown(Path(path) / 'out.png')}"
        )
    if not stat.S_ISREG(mode):
        # As root, replacing /dev/null would remove the device for all processes.
        raise JaxstyleError(
            f"{named} is a device or a pipe, not a regular file; choose another {argument}"
        )
    return target


def _open_temporary(target: Path) -> tuple[Path, int]:
    """Create a unique, empty, hidden file; the caller closes and removes it."""
    # Not by `mkstemp`, whose permissions are 0600 whatever the umask. The name has a digest of the
    # target's name, which may itself be as long as the file system allows.
    family = f".jaxstyle-{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]}-"
    for left in target.parent.glob(f"{family}*.tmp"):
        with contextlib.suppress(OSError):
            # A newer one may be in use by another process.
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()
    temporary = target.parent / f"{family}{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    return temporary, os.open(temporary, flags, 0o666)
