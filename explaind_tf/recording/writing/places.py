"""Places for a writer's files: a local directory, or a URL, to which they are uploaded from a local directory.

Files at a URL can be neither appended to nor renamed. A shard is therefore written to a local directory first and
uploaded as a whole. A new manifest then names it. Both kinds of places commit by replacing the manifest.
"""

import errno
import os
import shutil
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from upath import UPath

from explaind_tf import constants
from explaind_tf.errors import RefusedError
from explaind_tf.recording.writing.lock import DirectoryLock
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format.manifest import SAMPLES, STEPS, Manifest, Shard, encode_manifest, write_manifest
from explaind_tf.runs.storage.files import (
    AnyPath,
    refresh,
    remove_tree,
    require_whole_files,
    sync_file,
    sync_tree,
)
from explaind_tf.runs.storage.records import RecordFile, file_sha256

# Limits of what may wait for upload, since it is lost if the process ends.
UPLOAD_BYTES = 256 * 2**20
UPLOAD_SECONDS = 60.0


class Place(ABC):
    """The place of one run's files.

    Attributes
    ----------
    run_dir : Path or UPath
        The run directory.
    directory : Path
        Local directory in which graphs and shards are written first.
    names_open_shards : bool
        Whether a shard can be read, and is named by the manifest, while it is being written.
    """

    names_open_shards: ClassVar[bool]
    run_dir: AnyPath
    directory: Path

    @abstractmethod
    def begin(self, but_for_begun: bool) -> None:
        """Take a new or empty directory, or one that holds only what a recording left before its first step."""

    @abstractmethod
    def acquire(self) -> None:
        """Lock other writers out, if the place can be locked."""

    @abstractmethod
    def release(self) -> None:
        """Let other writers in again."""

    @abstractmethod
    def path_of(self, file: str) -> Path:
        """Return the path to which a shard is written until it is committed."""

    @abstractmethod
    def is_due(self, byte_count: int) -> bool:
        """Return whether open shards with this many bytes should be committed now, while training continues."""

    @abstractmethod
    def commit_graphs(self) -> None:
        """Make the graphs permanent."""

    @abstractmethod
    def commit_shards(self, files: Iterable[str]) -> None:
        """Make closed shards permanent, under the names that the manifest will give."""

    @abstractmethod
    def commit_manifest(self, manifest: Manifest) -> None:
        """Replace the manifest."""

    @abstractmethod
    def take_over(self, run: RecordedRun) -> tuple[Shard, ...]:
        """Commit the open shards that another writer left, up to their last whole record, and return all shards.

        Files that it uploaded without committing them are removed.
        """


def place_at(run_dir: AnyPath) -> Place:
    """Return the place of a run directory.

    Raises
    ------
    RefusedError
        If nothing can be committed there.
    """
    return _LocalPlace(run_dir) if isinstance(run_dir, Path) else _RemotePlace(run_dir)


def refuse_used_directory(run_dir: AnyPath, but_for_begun: bool = False) -> None:
    """Refuse a directory that is not empty.

    Parameters
    ----------
    run_dir : Path or UPath
        The directory. It need not exist.
    but_for_begun : bool
        Whether to accept the files of a recording that ended before its first step.

    Raises
    ------
    FileExistsError
        If the directory is not empty. Nothing in it is changed.
    """
    refresh(run_dir)
    if not run_dir.exists() or (run_dir.is_dir() and not any(run_dir.iterdir())):
        return
    if but_for_begun and run_dir.is_dir() and _is_merely_begun(run_dir):
        return
    what = "already holds a run" if (run_dir / constants.MANIFEST_FILE).exists() else "is not empty"
    raise FileExistsError(
        f"{run_dir} {what}. Nothing in it was changed. A PathLogger records into a new or empty directory. Choose another "
        f"name, remove the directory if its content is no longer needed, or continue a run that it holds with "
        f"PathLogger(..., resume=True)."
    )


def _is_merely_begun(run_dir: AnyPath) -> bool:
    """Return whether a recording ended here after its first file and before its first manifest, so before any step."""
    own = {name.format(0) for name in (constants.STEPS_SHARD, constants.SAMPLES_SHARD)}
    if isinstance(run_dir, Path):
        own = {name + constants.TEMPORARY_SUFFIX for name in (*own, constants.MANIFEST_FILE)}
    return all(path.name in own | {constants.GRAPHS_DIR} for path in run_dir.iterdir())


class _LocalPlace(Place):
    """A local directory, with a lock.

    Data handed to the operating system survive the end of the process. Committed data also survive a power cut.
    """

    names_open_shards = True

    def __init__(self, run_dir: Path) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self.run_dir = self.directory = run_dir
        self._lock = DirectoryLock(run_dir)

    def begin(self, but_for_begun: bool) -> None:
        refuse_used_directory(
            self.directory, but_for_begun
        )  # another writer may have used it since the last check
        for path in self.directory.iterdir():
            remove_tree(path)

    def acquire(self) -> None:
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def path_of(self, file: str) -> Path:
        return self.directory / (file + constants.TEMPORARY_SUFFIX)

    def is_due(self, byte_count: int) -> bool:
        return False

    def commit_graphs(self) -> None:
        sync_tree(self.directory / constants.GRAPHS_DIR)

    def commit_shards(self, files: Iterable[str]) -> None:
        for file in files:
            self.path_of(file).rename(self.directory / file)

    def commit_manifest(self, manifest: Manifest) -> None:
        sync_file(self.directory)  # the directory's entries of the files that the manifest names
        write_manifest(self.directory, manifest)

    def take_over(self, run: RecordedRun) -> tuple[Shard, ...]:
        files = {STEPS: iter(run.step_store.records.files), SAMPLES: iter(run.samples.records.files)}
        found = [(shard, next(files[shard.kind])) for shard in run.manifest.shards]
        for name in run.leftovers:  # if the run was recorded at a URL and copied here
            remove_tree(self.directory / name)
        return tuple(self._committed(shard, file) if shard.is_open else shard for shard, file in found)

    def _committed(self, shard: Shard, file: RecordFile) -> Shard:
        """Cut a file that was being written after its last whole record, and give it its final name."""
        path = self.directory / file.path.name
        os.truncate(path, file.size)
        sync_file(path)
        found = Shard(shard.file, shard.kind, len(file), file.size, file_sha256(path))
        path.rename(self.directory / shard.file)
        return found


class _RemotePlace(Place):
    """A directory at a URL. It has no lock: another writer is noticed by its manifest, before the next one is written.

    Raises
    ------
    RefusedError
        If files there are not replaced as a whole, so a manifest could not commit anything.
    """

    names_open_shards = False

    def __init__(self, run_dir: UPath) -> None:
        require_whole_files(run_dir)
        self.run_dir = self._url = run_dir
        self.directory = Path(tempfile.mkdtemp(prefix="explaind_tf-"))
        weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
        self._committed_at = time.monotonic()

    def begin(self, but_for_begun: bool) -> None:
        refuse_used_directory(self.run_dir, but_for_begun)
        for path in self._url.iterdir() if self._url.exists() else ():
            self._remove(path)

    def _remove(self, path: UPath) -> None:
        with _as_os_error(path):
            remove_tree(path)

    def acquire(self) -> None:
        pass

    def release(self) -> None:
        pass

    def path_of(self, file: str) -> Path:
        return self.directory / file

    def is_due(self, byte_count: int) -> bool:
        return byte_count >= UPLOAD_BYTES or time.monotonic() - self._committed_at >= UPLOAD_SECONDS

    def commit_graphs(self) -> None:
        graphs = self.directory / constants.GRAPHS_DIR
        self._upload(path for path in sorted(graphs.rglob("*")) if path.is_file())

    def commit_shards(self, files: Iterable[str]) -> None:
        self._upload(self.directory / file for file in files)

    def _upload(self, paths: Iterable[Path]) -> None:
        for path in paths:
            target = self._url / path.relative_to(self.directory).as_posix()
            with _as_os_error(target):
                target.fs.put_file(str(path), target.path)
            path.unlink()

    def commit_manifest(self, manifest: Manifest) -> None:
        target = self._url / constants.MANIFEST_FILE
        with _as_os_error(target):
            target.fs.pipe_file(target.path, encode_manifest(manifest))
        self._committed_at = time.monotonic()

    def take_over(self, run: RecordedRun) -> tuple[Shard, ...]:
        if any(shard.is_open for shard in run.manifest.shards):
            raise RefusedError(
                f"{run.run_dir} is the copy of a run that was being recorded to a local directory. It can be continued in a "
                f"local directory only: resume it where it was recorded, or in a local copy."
            )
        for name in run.leftovers:
            self._remove(self._url / name)
        return run.manifest.shards


@contextmanager
def _as_os_error(target: UPath) -> Iterator[None]:
    """Turn the file system's own errors into ``OSError``, which callers handle."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}", str(target)) from error
