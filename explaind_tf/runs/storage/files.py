"""Where a run is: a local directory, or one at a URL that fsspec knows. What differs between the two is here.

Paths of both kinds have the methods of ``pathlib.Path``: a ``Path``, or a ``UPath`` (universal-pathlib). A ``file://`` URL
is a local directory and nothing else.
"""

import os
import shutil
import weakref
from pathlib import Path
from typing import Protocol

from upath import UPath

from explaind_tf.errors import RefusedError, RunFormatError

AnyPath = Path | UPath

_LOCAL = ("", "file", "local")
# fsspec's names of stores in which an object is replaced as a whole: readers see the old one or the new one.
_OBJECT_STORES = ("memory", "gs", "gcs", "s3", "s3a", "az", "abfs", "abfss", "adl")
# Read in one request where less is asked for: the next record's header is often near.
_BLOCK_BYTES = 2**16


def as_path(path: str | AnyPath) -> AnyPath:
    """Return a local path, or one at a URL (``memory://runs/a``, ``gs://bucket/a``).

    Raises
    ------
    RefusedError
        If the URL's file system is not known, or its package is not installed.
    ValueError
        If the path is a URL that went through ``pathlib``, which takes a slash from it.
    """
    if isinstance(path, Path):
        first = path.parts[0] if path.parts else ""
        if len(first) > 2 and first.endswith(":"):
            raise ValueError(f"{path} looks like a URL that was made a pathlib.Path. Give URLs as text.")
        return path
    if isinstance(path, str) and "://" not in path:
        return Path(path)
    try:
        found = UPath(path)
        if found.protocol in _LOCAL:
            return Path(found.path)
        refresh(found)
    except (ImportError, ValueError) as error:
        raise RefusedError(f"{path} cannot be reached: {error}.") from error
    return found


def require_whole_files(path: AnyPath) -> None:
    """Refuse a place in which a file that is replaced may be found in part, so that nothing could be committed by it.

    Raises
    ------
    RefusedError
        If that is not known to be otherwise, as it is of local directories and object stores.
    """
    if not isinstance(path, Path) and path.protocol not in _OBJECT_STORES:
        raise RefusedError(
            f"{path} cannot be written to: what is written is committed by replacing a file as a whole, which is known of "
            f"local directories and of {', '.join(_OBJECT_STORES)}. Write to a local directory, and copy it there: it "
            f"can be read from there."
        )


def remove_tree(path: AnyPath) -> None:
    """Remove a directory or a file."""
    if not isinstance(path, Path):
        path.fs.rm(path.path, recursive=True)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def refresh(path: AnyPath) -> None:
    """Forget what was listed some time ago: other programs may have written there since."""
    if not isinstance(path, Path):
        path.fs.invalidate_cache()


def total_bytes(directory: AnyPath) -> int:
    """Return the bytes of all files under a directory."""
    if isinstance(directory, Path):
        return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return int(directory.fs.du(directory.path))


def free_bytes(path: AnyPath) -> int | None:
    """Return the free bytes of the disk that a path, which need not exist, is on; None where that is not known."""
    if not isinstance(path, Path):
        return None
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def sync_file(path: Path) -> None:
    """Force a file or a directory's entries to the disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Force a directory, and all in it, to the disk."""
    for path in (*directory.rglob("*"), directory):
        sync_file(path)


class OpenFile(Protocol):
    """A file that threads may read from at once."""

    size: int

    def read(self, offset: int, count: int) -> bytes:
        """Return so many bytes, or fewer where the file ends."""

    def close(self) -> None:
        """Close the file; reading from it is an error from then on."""


def open_file(path: AnyPath) -> OpenFile:
    """Open a file to be read from.

    Raises
    ------
    RunFormatError
        If it cannot be.
    """
    try:
        return _LocalFile(path) if isinstance(path, Path) else _RemoteFile(path)
    except OSError as error:
        raise RunFormatError(f"{path} cannot be read: {error.strerror or error}.") from error


class _LocalFile:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        # Runs are opened without a `with`, like datasets in xarray: the file is closed when nobody holds it.
        self._close = weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, offset)
        while 0 < len(data) < count:  # the kernel hands out at most 2 GiB at a time
            more = os.pread(self._descriptor, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        self._close()


class _RemoteFile:
    """Reads ranges, each in a request of its own: there is no position that threads would share."""

    def __init__(self, path: UPath) -> None:
        self._path = path
        self.size = int(path.fs.info(path.path)["size"])
        self._block = (0, b"")  # replaced as a whole, never changed

    def read(self, offset: int, count: int) -> bytes:
        stop = min(offset + count, self.size)
        if stop <= offset:
            return b""
        if count >= _BLOCK_BYTES:
            return self._fetch(offset, stop)
        start, data = self._block
        if not start <= offset <= stop <= start + len(data):
            start, data = self._block = (offset, self._fetch(offset, min(offset + _BLOCK_BYTES, self.size)))
        return data[offset - start : stop - start]

    def _fetch(self, start: int, stop: int) -> bytes:
        try:
            return self._path.fs.cat_file(self._path.path, start=start, end=stop)
        except OSError as error:
            raise RunFormatError(f"{self._path} cannot be read: {error.strerror or error}.") from error

    def close(self) -> None:
        pass
