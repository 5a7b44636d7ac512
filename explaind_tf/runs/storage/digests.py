"""Digests of the files that TensorFlow parses itself, which are checked before TensorFlow reads them.

A SavedModel has no checksums. A damaged one may end the process instead of raising an error.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from upath import UPath

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.storage.files import AnyPath
from explaind_tf.runs.storage.records import file_sha256


@dataclass(frozen=True)
class FileDigest:
    """A file in a directory: its path relative to the directory (with ``/``), its size and SHA-256."""

    file: str
    size: int
    sha256: str


def describe_tree(directory: Path) -> tuple[FileDigest, ...]:
    """Return the digest of each file under a directory, sorted by path."""
    paths = sorted(_files(directory))
    return tuple(
        FileDigest(path.relative_to(directory).as_posix(), path.stat().st_size, file_sha256(path))
        for path in paths
    )


def check_tree(directory: Path, expected: Sequence[FileDigest]) -> None:
    """Check that a directory holds the expected files, byte for byte, and no others.

    Only files found by listing the directory are opened, so no name in a manifest can lead out of it.

    Raises
    ------
    RunFormatError
        At the first file that is missing, foreign, changed or a symbolic link.
    """
    if directory.is_symlink() or not directory.is_dir():
        raise RunFormatError(
            f"{directory} is missing, or is a file or a symbolic link instead of a directory. Restore it from a copy."
        )
    try:
        found = {path.relative_to(directory).as_posix(): path for path in _files(directory)}
        for item in expected:
            if item.file not in found:
                raise RunFormatError(
                    f"{directory / item.file} is missing: the manifest names it. Restore it from a copy."
                )
            path = found.pop(item.file)
            _check_size(path, path.stat().st_size, item)
            _check_sha256(path, file_sha256(path), item)
    except OSError as error:
        raise RunFormatError(f"{error.filename or directory} cannot be read: {error.strerror}.") from error
    if found:
        raise _foreign(directory, min(found))


@contextmanager
def checked_tree(directory: AnyPath, expected: Sequence[FileDigest]) -> Iterator[Path]:
    """Yield a local directory with the expected files, checked as by :func:`check_tree`.

    It is the directory itself if that is local. Otherwise it is a copy that lasts as long as the context.

    Raises
    ------
    RunFormatError
        In the cases of :func:`check_tree`.
    """
    if isinstance(directory, Path):
        check_tree(directory, expected)
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="explaind_tf-") as copy:
        _fetch_tree(directory, Path(copy), expected)
        yield Path(copy)


def _fetch_tree(directory: UPath, copy: Path, expected: Sequence[FileDigest]) -> None:
    """Copy the expected files. Each file is checked before it is written."""
    root = directory.path.rstrip("/") + "/"
    try:
        sizes = {name: int(info["size"]) for name, info in directory.fs.find(root, detail=True).items()}
        found = {name.removeprefix(root): size for name, size in sizes.items()}
        for item in expected:
            path = directory / item.file
            if item.file not in found or ".." in PurePosixPath(item.file).parts:
                raise RunFormatError(f"{path} is missing: the manifest names it. Restore it from a copy.")
            _check_size(path, found.pop(item.file), item)
            data = directory.fs.cat_file(root + item.file)
            _check_sha256(path, hashlib.sha256(data).hexdigest(), item)
            (copy / item.file).parent.mkdir(parents=True, exist_ok=True)
            (copy / item.file).write_bytes(data)
    except OSError as error:
        raise RunFormatError(f"{directory} cannot be read: {error.strerror or error}.") from error
    if found:
        raise _foreign(directory, min(found))


def _foreign(directory: AnyPath, file: str) -> RunFormatError:
    return RunFormatError(
        f"{directory / file} does not belong to the run: the manifest does not name it, and TensorFlow might read it with "
        f"the graphs. Remove it, or restore {directory} from a copy."
    )


def _check_size(path: AnyPath, size: int, expected: FileDigest) -> None:
    if size != expected.size:
        raise RunFormatError(
            f"{path} has {size} bytes, but the manifest says {expected.size}: the file was cut or changed after recording. "
            f"Restore it from a copy."
        )


def _check_sha256(path: AnyPath, sha256: str, expected: FileDigest) -> None:
    if sha256 != expected.sha256:
        raise RunFormatError(
            f"{path} is not the file that was recorded: its SHA-256 differs from the manifest's. Restore it from a copy."
        )


def _files(directory: Path) -> Iterator[Path]:
    """Yield the files under a directory.

    Raises
    ------
    RunFormatError
        At anything that is neither a file nor a directory. A pipe would block its reader, and a link may lead anywhere.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            else:
                raise RunFormatError(
                    f"{entry.path} is a symbolic link or a special file. A run must hold its own files: put the file itself "
                    f"there."
                )


def require_inside(path: AnyPath, run_dir: AnyPath) -> None:
    """Refuse a path that a symbolic link leads out of the run directory. URLs have no symbolic links.

    Raises
    ------
    RunFormatError
        If the path leads out of the run directory.
    """
    if not (isinstance(path, Path) and isinstance(run_dir, Path)):
        return
    if path.is_symlink() and not path.resolve().is_relative_to(run_dir.resolve()):
        raise RunFormatError(
            f"{path} is a symbolic link to {path.resolve()}, outside of the run directory. A run must hold its own files: "
            f"put the file itself there."
        )
