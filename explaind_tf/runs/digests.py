"""Digests of the files that TensorFlow parses itself: they are checked before it sees them.

A SavedModel has no checksums, and a damaged one may end the process instead of raising an error.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.records import file_sha256


@dataclass(frozen=True)
class FileDigest:
    """A file of a directory: its path relative to it (with ``/``), its size and SHA-256."""

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

    Only files that were found by walking the directory are opened: no name in a manifest leads out of it.

    Raises
    ------
    RunFormatError
        At the first file that is missing, foreign, changed or a symbolic link.
    """
    if directory.is_symlink() or not directory.is_dir():
        raise RunFormatError(f"{directory} is missing or no directory of its own: restore it from a copy.")
    try:
        found = {path.relative_to(directory).as_posix(): path for path in _files(directory)}
        for item in expected:
            if item.file not in found:
                raise RunFormatError(
                    f"{directory / item.file} is missing: the manifest names it. Restore it from a copy."
                )
            _check_file(found.pop(item.file), item)
    except OSError as error:
        raise RunFormatError(f"{error.filename or directory} cannot be read: {error.strerror}.") from error
    if found:
        raise RunFormatError(
            f"{min(found.values())} does not belong to the run: the manifest does not name it. TensorFlow would read it "
            f"with the graphs; remove it, or restore {directory} from a copy."
        )


def _check_file(path: Path, expected: FileDigest) -> None:
    size = path.stat().st_size
    if size != expected.size:
        raise RunFormatError(
            f"{path} has {size} bytes, the manifest says {expected.size}: the file was cut or changed after recording. "
            f"Restore it from a copy."
        )
    if file_sha256(path) != expected.sha256:
        raise RunFormatError(
            f"{path} is not the file that was recorded: its SHA-256 differs from the manifest's. Restore it from a copy."
        )


def _files(directory: Path) -> Iterator[Path]:
    """Yield the files under a directory.

    Raises
    ------
    RunFormatError
        At anything that is neither a file nor a directory; a pipe would block its reader, a link may lead anywhere.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            elif entry.is_file(follow_symlinks=False):
                yield Path(entry.path)
            else:
                raise RunFormatError(
                    f"{entry.path} is a symbolic link or a special file. A run holds its own files: put the file there."
                )


def require_inside(path: Path, run_dir: Path) -> None:
    """Refuse a path that symbolic links lead out of the run directory.

    Raises
    ------
    RunFormatError
        If so.
    """
    if path.is_symlink() and not path.resolve().is_relative_to(run_dir.resolve()):
        raise RunFormatError(
            f"{path} is a symbolic link to {path.resolve()}, out of the run directory. A run holds its own files: put "
            f"the file itself there."
        )
