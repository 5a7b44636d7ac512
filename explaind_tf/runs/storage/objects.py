"""Objects at URLs: each is made by one writer only, and replaced only while it is still what this writer knows.

Requests that fail are repeated by the file systems themselves: s3fs asks for an object up to 25 times. It may wait without
end for the answer to an upload, though, so here every request has a limit of time.
"""

import errno
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from upath import UPath

from explaind_tf.runs.storage.records import file_sha256

# A request may take so long, and longer if it carries many bytes.
REQUEST_SECONDS = 120.0
_LEAST_BYTES_A_SECOND = 2**18

# File systems whose store compares and replaces in one request (`If-Match`).
_COMPARING = ("s3", "s3a")
# Otherwise s3fs asks for the size first, to fetch the parts of a large object side by side.
_AT_ONCE = {protocol: {"max_concurrency": 1} for protocol in _COMPARING}


class Seen(NamedTuple):
    """An object as it was read: its bytes, and what tells them from later ones."""

    data: bytes
    version: str


class ConflictError(OSError):
    """Raised if another program made or replaced an object first. The object is then left as it is."""


def read_object(path: UPath) -> Seen | None:
    """Return an object, or None if there is none.

    Raises
    ------
    OSError
        If the store does not answer.
    """
    try:
        # Version first: if the object is replaced between the two requests, the version is old, and is not replaced.
        version = _etag(path)
        data: bytes = _request(path, "cat_file", path.path, **_AT_ONCE.get(path.protocol, {}))
    except FileNotFoundError:
        return None
    return Seen(data, version or hashlib.sha256(data).hexdigest())


def create_object(path: UPath, data: bytes) -> str:
    """Make an object where there is none, and return its version.

    Raises
    ------
    ConflictError
        If there is an object with other bytes.
    OSError
        If the store does not answer.
    """
    return _written(path, data, lambda error: isinstance(error, FileExistsError), mode="create")


def replace_object(path: UPath, data: bytes, version: str) -> str:
    """Replace an object if it still has a version, and return its new version.

    In stores other than S3 another program may replace the object between the comparison and the replacement.

    Raises
    ------
    ConflictError
        If it has another version, or is gone.
    OSError
        If the store does not answer.
    """
    seen = read_object(path)
    if seen is None or seen.version != version:
        raise _conflict(path)
    condition = {"IfMatch": version} if path.protocol in _COMPARING else {}
    return _written(
        path, data, lambda error: isinstance(error, FileNotFoundError) or _is_refused(error), **condition
    )


def _written(path: UPath, data: bytes, is_conflict: Callable[[OSError], bool], **condition: Any) -> str:
    """Write an object if a condition holds, and return its version."""
    try:
        answer = _request(path, "pipe_file", path.path, data, size=len(data), **condition)
    except OSError as error:
        if not is_conflict(error):
            raise
        return _already_there(path, data, error)
    return _version(path, data, answer)


def upload_file(path: UPath, source: Path) -> None:
    """Make an object of a local file where there is none.

    Raises
    ------
    ConflictError
        If there is an object with other bytes.
    OSError
        If the store does not answer.
    """
    size = source.stat().st_size
    try:
        _request(path, "put_file", str(source), path.path, mode="create", size=size)
    except FileExistsError as error:
        # The answer to an earlier request may be lost, and the request was repeated.
        found = int(_request(path, "info", path.path)["size"])
        if found != size or file_sha256(path) != file_sha256(source):
            raise _conflict(path) from error


def remove_object(path: UPath) -> None:
    """Remove an object. It need not exist."""
    try:
        _request(path, "rm_file", path.path)
    except FileNotFoundError:
        return


def _already_there(path: UPath, data: bytes, error: OSError) -> str:
    """Return the version of an object that holds these bytes already: the answer to the request that wrote it was lost."""
    seen = read_object(path)
    if seen is None or seen.data != data:
        raise _conflict(path) from error
    return seen.version


def _conflict(path: UPath) -> ConflictError:
    return ConflictError(errno.EEXIST, "another program made or replaced it first", str(path))


def _version(path: UPath, data: bytes, answer: Any) -> str:
    if path.protocol not in _COMPARING:
        return hashlib.sha256(data).hexdigest()
    # Only uploads in one piece have an answer with the version.
    return str(answer["ETag"]) if answer else _etag(path)


def _etag(path: UPath) -> str:
    if path.protocol not in _COMPARING:
        return ""
    path.fs.invalidate_cache()
    return str(_request(path, "info", path.path)["ETag"])


def _is_refused(error: OSError) -> bool:
    """Return whether S3 refused a request since `If-Match` does not hold. Its answer is the error's cause."""
    answer = getattr(error.__cause__, "response", {})
    return answer.get("Error", {}).get("Code") in ("PreconditionFailed", "412")


def _request(path: UPath, method: str, *arguments: Any, size: int = 0, **options: Any) -> Any:
    fs, limit = path.fs, REQUEST_SECONDS + size / _LEAST_BYTES_A_SECOND
    with as_os_error(path):
        if not fs.async_impl:
            return getattr(fs, method)(*arguments, **options)
        try:
            return sync(fs.loop, getattr(fs, f"_{method}"), *arguments, timeout=limit, **options)
        except FSTimeoutError as error:
            raise TimeoutError(
                errno.ETIMEDOUT, f"the store did not answer within {limit:.0f} seconds", str(path)
            ) from error


@contextmanager
def as_os_error(target: UPath) -> Iterator[None]:
    """Turn the file system's own errors into ``OSError``, which callers handle."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", str(target)) from error
