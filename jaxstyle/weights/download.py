"""Downloads of weight files, checked against their digests."""

import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from jaxstyle.errors import JaxstyleError
from jaxstyle.weights.manifest import Source, agrees, file_digest, is_test_manifest

Progress = Callable[[int, int | None], None]
"""Called with the bytes received so far and the size of the file, None if unknown."""
# For sources without a published size; the largest known source has 575 MB.
_MAX_BYTES = 700_000_000
_TIMEOUT_SECONDS = 30
# Attempts per address after interrupted connections.
_ATTEMPTS = 5


def download(source: Source, target: Path, *, progress: Progress | None = None) -> None:
    """Download a source to `target`, from the first of its addresses that works.

    The digest is checked before the function returns.

    Args:
      source: entry of the manifest.
      target: file to write.
      progress: called after each chunk.

    Raises:
      JaxstyleError: the download failed; the message has the reason for each address.
    """
    if not source.digest:
        raise not_fetchable(source)
    failures = []
    for url in source.urls:
        try:
            check_url(url)
            _download(url, source, target, progress)
            return
        except _Failure as failure:
            failures.append(f"{url}: {failure}")
            target.unlink(missing_ok=True)
    raise JaxstyleError(
        f"weights {source.name!r} could not be fetched ({'; '.join(failures)}); try again later "
        "or get the file elsewhere and use `jaxstyle weights convert`"
    )


def not_fetchable(source: Source) -> JaxstyleError:
    """Return the error for a source without a digest."""
    return JaxstyleError(
        f"weights {source.name!r} have no published digest, so they are not fetched; get "
        f"{source.urls[0]} yourself and use `jaxstyle weights convert`"
    )


def check_url(url: str) -> None:
    """Raise a `JaxstyleError` unless `url` is https, or a test's http on this machine."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise JaxstyleError(
            f"address {url!r} in the manifest is damaged ({error}); correct it there"
        ) from error
    if parts.scheme == "https":
        return
    if parts.scheme == "http" and is_test_manifest() and _is_loopback(parts.hostname or ""):
        return
    raise JaxstyleError(
        f"address {url} is refused: weights are fetched by https only; correct it in the manifest"
    )


class _Failure(Exception):
    """An address failed; the message is the reason."""


def _download(url: str, source: Source, target: Path, progress: Progress | None) -> None:
    """Download a file from one address and check its size and digest."""
    # Imported here, as they take a third of a second to import.
    import pooch
    import requests

    with open(target, "wb") as file:
        writer = _BoundedWriter(file, source.size, progress)

        def check(response: Any, *_: Any, **__: Any) -> None:
            try:
                check_url(response.url)
            except JaxstyleError as error:
                raise _Failure(str(error)) from error
            # A server without support for ranges sends the whole file again.
            if not response.is_redirect and response.status_code != 206:
                writer.restart()

        for attempt in range(_ATTEMPTS):
            offset = writer.received
            fetch = pooch.HTTPDownloader(
                chunk_size=1 << 16,
                timeout=_TIMEOUT_SECONDS,
                hooks={"response": check},
                # Uncompressed, as a range would refer to compressed bytes.
                headers={"Accept-Encoding": "identity"}
                | ({"Range": f"bytes={offset}-"} if offset else {}),
            )
            try:
                fetch(url=url, output_file=writer, pooch=None)
                break
            except requests.exceptions.HTTPError as error:
                status = getattr(error.response, "status_code", "an error")
                raise _Failure(f"the server answered {status}") from error
            except requests.exceptions.ContentDecodingError as error:
                raise _Failure(f"the connection broke after {writer.received} bytes") from error
            except requests.exceptions.RequestException as error:
                # Interrupted: keep the bytes and request the rest.
                if writer.received and attempt + 1 < _ATTEMPTS:
                    continue
                if writer.received or isinstance(error, requests.exceptions.ChunkedEncodingError):
                    cause = f"the connection broke after {writer.received} bytes"
                    raise _Failure(cause) from error
                raise _Failure(f"not reachable ({_reason(error)})") from error
    if source.size is not None and writer.received < source.size:
        raise _Failure(f"truncated: {writer.received} of {source.size} bytes")
    assert source.digest is not None
    actual = file_digest(target, source.digest)
    if not agrees(source.digest, actual):
        raise _Failure(f"wrong digest: expected {source.digest}, got {actual}")


class _BoundedWriter:
    """A file that raises when it exceeds the expected size."""

    def __init__(self, file: IO[bytes], size: int | None, progress: Progress | None) -> None:
        self.file, self.size, self.progress = file, size, progress
        self.received = 0

    def write(self, chunk: bytes) -> None:
        self.received += len(chunk)
        if self.received > (self.size or _MAX_BYTES):
            raise _Failure(f"larger than the {self.size or _MAX_BYTES} bytes expected")
        self.file.write(chunk)
        if self.progress:
            self.progress(self.received, self.size)

    def restart(self) -> None:
        """Discard the bytes received so far."""
        self.file.seek(0)
        self.file.truncate()
        self.received = 0

    def flush(self) -> None:
        """Do nothing, as flushing after every chunk would take time."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reason(error: Exception) -> str:
    """Return the innermost cause of an exception of requests, as text."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:120]}"
