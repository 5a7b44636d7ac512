"""Local directories and directories at URLs that fsspec knows, and what differs between the two.

Both kinds of path have the methods of ``pathlib.Path``: a local one is a ``Path``, one at a URL a ``UPath``
(universal-pathlib). A ``file://`` URL is a local directory.
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
# fsspec's names of stores that replace an object as a whole: readers see the old object or the new one.
_OBJECT_STORES = ("memory", "gs", "gcs", "s3", "s3a", "az", "abfs", "abfss", "adl")
# Smaller reads fetch this much in one request, since the next record's header is often close.
_BLOCK_BYTES = 2**16


def as_path(path: str | AnyPath) -> AnyPath:
    """Return a local path, or one at a URL (``memory://runs/a``, ``gs://bucket/a``).

    Raises
    ------
    RefusedError
        If the URL's file system is not known, or its package is not installed.
    ValueError
        If the path is a URL that went through ``pathlib``, which removes a slash.
    """
    if isinstance(path, Path):
        first = path.parts[0] if path.parts else ""
        if len(first) > 2 and first.endswith(":"):
            raise ValueError(
                f"{path} looks like a URL that was turned into a pathlib.Path. Give a URL as a string or a UPath."
            )
        return path
    if isinstance(path, str) and "://" not in path:
        return Path(path)
    try:
        found = UPath(path)
        if found.protocol in _LOCAL:
            return Path(found.path)
        refresh(found)
    except (ImportError, ValueError) as error:
        raise RefusedError(
            f"{path} cannot be reached: {error}. Check the URL, and install the fsspec package of its file system."
        ) from error
    return found


def require_whole_files(path: AnyPath) -> None:
    """Refuse a place where a reader may see a part of a file that is being replaced. Nothing could be committed there.

    Raises
    ------
    RefusedError
        If the path is neither local nor in an object store that is known to replace files as a whole.
    """
    if not isinstance(path, Path) and path.protocol not in _OBJECT_STORES:
        raise RefusedError(
            f"{path} cannot be written to. Writing is committed by replacing a file as a whole, which is known to work only "
            f"in local directories and in {', '.join(_OBJECT_STORES)}. Write to a local directory, and copy it to this URL: "
            f"reading from the URL works."
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
    """Forget cached listings: other programs may have written there since."""
    if not isinstance(path, Path):
        path.fs.invalidate_cache()


def is_file(path: AnyPath) -> bool:
    """Return whether there is a file. ``path.is_file()`` would say no if a store fails.

    Raises
    ------
    OSError
        If the store does not answer.
    """
    return size_of(path) is not None


def size_of(path: AnyPath) -> int | None:
    """Return the number of bytes of a file, or None if there is none. A store is asked once.

    Raises
    ------
    OSError
        If the store does not answer.
    """
    if isinstance(path, Path):
        return path.stat().st_size if path.is_file() else None
    try:
        found = path.fs.info(path.path)
    except FileNotFoundError:
        return None
    return int(found["size"]) if found["type"] == "file" else None


def total_bytes(directory: AnyPath) -> int:
    """Return the bytes of all files under a directory."""
    if isinstance(directory, Path):
        return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return int(directory.fs.du(directory.path))


def free_bytes(path: AnyPath) -> int | None:
    """Return the free bytes of a path's disk, None if they are not known. The path need not exist."""
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
    """A file that several threads may read from at the same time."""

    size: int

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes, or fewer if the file ends before."""

    def close(self) -> None:
        """Close the file. Reading from it is an error from then on."""


def open_file(path: AnyPath) -> OpenFile:
    """Open a file for reading.

    Raises
    ------
    RunFormatError
        If the file cannot be opened.
    """
    try:
        return _LocalFile(path) if isinstance(path, Path) else _RemoteFile(path)
    except OSError as error:
        raise RunFormatError(f"{path} cannot be read: {error.strerror or error}.") from error


class _LocalFile:
    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY)
        # Runs are opened without a `with`, like datasets in xarray: the file is closed when nothing refers to it.
        self._close = weakref.finalize(self, os.close, self._descriptor)
        self.size = os.fstat(self._descriptor).st_size

    def read(self, offset: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, offset)
        while 0 < len(data) < count:  # the kernel returns at most 2 GiB per call
            more = os.pread(self._descriptor, count - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def close(self) -> None:
        self._close()


class _RemoteFile:
    """Reads ranges, each in a request of its own. Threads share no file position."""

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
