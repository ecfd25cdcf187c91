"""Files are written whole or not at all, and what cannot be written is refused beforehand."""

import hashlib
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxstyle import files
from jaxstyle.errors import JaxstyleError


def _one_line(caught: pytest.ExceptionInfo[JaxstyleError], *words: str) -> None:
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 5000])
def test_write_gives_the_bytes_and_leaves_nothing_else(tmp_path: Path, data: bytes) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")
    files.write_atomically(target, data)
    assert target.read_bytes() == data
    assert os.listdir(tmp_path) == ["out.bin"]


def test_a_new_file_gets_the_umask_and_an_old_one_keeps_its_permissions(
    tmp_path: Path, umask: int
) -> None:
    target = tmp_path / "out.bin"
    files.write_atomically(target, b"1")
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask
    target.chmod(0o604)
    files.write_atomically(target, b"2")
    assert stat.S_IMODE(target.stat().st_mode) == 0o604


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.bin"
    real.write_bytes(b"old")
    link = tmp_path / "link.bin"
    link.symlink_to(real)
    files.write_atomically(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_the_longest_name_the_file_system_allows(tmp_path: Path) -> None:
    target = tmp_path / ("n" * 251 + ".png")
    files.check_writable(target, argument="-o")
    files.write_atomically(target, b"1")
    assert target.read_bytes() == b"1"


@pytest.mark.parametrize("broken", ["replace", "fsync"])
@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (OSError(28, "No space left on device"), JaxstyleError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (RuntimeError("bug"), RuntimeError),
    ],
)
def test_a_failure_half_way_leaves_the_old_file_and_no_other(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    failure: BaseException,
    expected: type[BaseException],
) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(files.os, broken, fail)
    with pytest.raises(expected) as caught:
        files.write_atomically(target, b"new", argument="--report")
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.bin"]
    if expected is JaxstyleError:
        assert "--report" in str(caught.value) and "No space left" in str(caught.value)


def test_what_a_killed_write_to_the_same_file_left_goes(tmp_path: Path) -> None:
    left = []
    for name, minutes in (("out.png", 2), ("out.png", 0), ("other.png", 2)):
        path, descriptor = files._open_temporary(tmp_path / name)
        os.write(descriptor, b"half an image")
        os.close(descriptor)
        os.utime(path, (path.stat().st_mtime - 60 * minutes,) * 2)
        left.append(path)
    files.check_writable(tmp_path / "out.png", argument="-o")
    # A young one may be another process's, and others' are theirs.
    assert [path.exists() for path in left] == [False, True, True]
    os.utime(left[1], (0, 0))
    files.write_atomically(tmp_path / "out.png", b"1")
    assert sorted(os.listdir(tmp_path)) == sorted([left[2].name, "out.png"])


def test_a_writable_place_is_left_as_it_was(tmp_path: Path) -> None:
    old = tmp_path / "old.png"
    old.write_bytes(b"old")
    files.check_writable(tmp_path / "new.png", argument="-o")
    files.check_writable(old, argument="-o")
    assert os.listdir(tmp_path) == ["old.png"]
    assert old.read_bytes() == b"old"


def test_a_bare_name_is_written_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files.check_writable("out.png", argument="-o")
    files.write_atomically("out.png", b"1")
    assert (tmp_path / "out.png").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/out.png", ("does not exist", "create it or choose another -o")),
        ("file/out.png", ("not a folder",)),
        ("folder", ("is a folder",)),
        ("pipe", ("device or a pipe",)),
        ("n" * 300 + ".png", ("-o",)),
        ("nul\0l.png", ("-o", "\\x00")),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    for call in (
        lambda path: files.check_writable(path, argument="-o"),
        lambda path: files.write_atomically(path, b"1", argument="-o"),
    ):
        with pytest.raises(JaxstyleError) as caught:
            call(str(tmp_path / name))
        _one_line(caught, "-o")
    with pytest.raises(JaxstyleError) as caught:
        files.check_writable(str(tmp_path / name), argument="-o")
    _one_line(caught, *words)
    assert sorted(os.listdir(tmp_path)) == before


def test_an_empty_path_and_a_device_are_refused() -> None:
    with pytest.raises(JaxstyleError, match="empty"):
        files.check_writable("", argument="-o")
    with pytest.raises(JaxstyleError, match="device"):
        files.write_atomically(os.devnull, b"1")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_read_only_folder_is_found_by_trying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so the refusal of the system is played.
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(JaxstyleError) as caught:
        files.check_writable(tmp_path / "out.png", argument="-o")
    _one_line(caught, "not writable", "Permission denied", "another -o")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_permissions_of_the_system_are_respected(tmp_path: Path) -> None:
    target = tmp_path / "old.png"
    target.write_bytes(b"old")
    target.chmod(0o444)
    with pytest.raises(JaxstyleError, match="read-only"):
        files.check_writable(target, argument="-o")
    tmp_path.chmod(0o555)
    with pytest.raises(JaxstyleError, match="not writable"):
        files.check_writable(tmp_path / "new.png", argument="-o")
    tmp_path.chmod(0o755)


@settings(max_examples=20, deadline=None)
@given(data=st.binary(max_size=3000))
def test_sha256_is_that_of_the_bytes(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("sha") / "f"
    path.write_bytes(data)
    assert files.sha256_of(path) == hashlib.sha256(data).hexdigest()


def test_sha256_of_nothing_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(JaxstyleError, match="cannot be read"):
            files.sha256_of(path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("out.png", "out-step0100.png"),
        ("a.b/out.v2.jpeg", "a.b/out.v2-step0100.jpeg"),
        ("plain", "plain-step0100"),
    ],
)
def test_numbered_goes_before_the_ending(path: str, expected: str) -> None:
    assert files.numbered(path, "-step0100") == Path(expected)
