"""Places for a writer's files: a local directory, or a URL, to which they are uploaded from a local directory.

Files at a URL can be neither appended to nor renamed. A shard is therefore written to a local directory first and
uploaded as a whole. A new manifest then names it. Both kinds of places have a lock, and commit by replacing the manifest.
"""

import os
import shutil
import tempfile
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from upath import UPath

from explaind_tf import constants
from explaind_tf.errors import OtherWriterError, RefusedError, RunFormatError
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format.manifest import (
    SAMPLES,
    STEPS,
    Manifest,
    Shard,
    decode_manifest,
    encode_manifest,
    write_manifest,
)
from explaind_tf.runs.storage.files import (
    AnyPath,
    refresh,
    remove_tree,
    require_whole_files,
    sync_file,
    sync_tree,
)
from explaind_tf.runs.storage.lease import Lease
from explaind_tf.runs.storage.lock import DirectoryLock, Lock
from explaind_tf.runs.storage.objects import (
    ConflictError,
    as_os_error,
    create_object,
    read_object,
    remove_object,
    replace_object,
    upload_file,
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
    _lock: Lock

    @abstractmethod
    def begin(self, but_for_begun: bool) -> None:
        """Take a new or empty directory, or one that holds only what a recording left before its first step."""

    def acquire(self) -> None:
        """Lock other writers out.

        Raises
        ------
        OtherWriterError
            If another writer is there.
        """
        self._lock.acquire()

    def release(self) -> None:
        """Let other writers in again."""
        self._lock.release()

    def require_unchanged(self, manifest: Manifest) -> None:
        """Check that the place is still locked, and holds a manifest that this writer read or wrote.

        Raises
        ------
        OtherWriterError
            If another writer came between.
        OSError
            If that cannot be read.
        """
        self._lock.require()
        data = self._read_manifest()
        try:
            found = None if data is None else decode_manifest(self.run_dir / constants.MANIFEST_FILE, data)
        except RunFormatError:
            found = None  # nor is it what this writer read or wrote
        if found != manifest:
            raise OtherWriterError(
                f"{self.run_dir} has changed since this PathLogger read or wrote it: another writer continued the run, or "
                f"its manifest was damaged. Its files were left as they are. To continue from there, use "
                f"PathLogger(run_dir, resume=True)."
            )

    @abstractmethod
    def _read_manifest(self) -> bytes | None:
        """Return the manifest as it is stored, or None if there is none."""

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
    def remove_uncommitted(self, files: Iterable[str]) -> None:
        """Remove shards of these names that another writer uploaded and did not commit."""

    @abstractmethod
    def take_over(self, run: RecordedRun) -> tuple[Shard, ...]:
        """Commit the open shards that another writer left, up to their last whole record, and return all shards."""


def place_at(run_dir: AnyPath) -> Place:
    """Return the place of a run directory.

    Raises
    ------
    RefusedError
        If nothing can be committed there.
    """
    return _LocalPlace(run_dir) if isinstance(run_dir, Path) else _RemotePlace(run_dir)


def refuse_used_directory(
    run_dir: AnyPath, but_for_begun: bool = False, *, but_for_lease: bool = False
) -> None:
    """Refuse a directory that is not empty.

    Parameters
    ----------
    run_dir : Path or UPath
        The directory. It need not exist.
    but_for_begun : bool
        Whether to accept the files of a recording that ended before its first step.
    but_for_lease : bool
        Whether to accept the lease of this writer.

    Raises
    ------
    FileExistsError
        If the directory is not empty. Nothing in it is changed.
    """
    refresh(run_dir)
    lease = {constants.WRITER_FILE} if but_for_lease else set()
    if not run_dir.exists() or (run_dir.is_dir() and {path.name for path in run_dir.iterdir()} <= lease):
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
    own = {constants.STEPS_SHARD.format(0), constants.SAMPLES_SHARD.format(0), constants.WRITER_FILE}
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
        self.acquire()
        refuse_used_directory(
            self.directory, but_for_begun
        )  # another writer may have used it since the last check
        for path in self.directory.iterdir():
            remove_tree(path)

    def _read_manifest(self) -> bytes | None:
        path = self.directory / constants.MANIFEST_FILE
        return path.read_bytes() if path.exists() else None

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

    def remove_uncommitted(self, files: Iterable[str]) -> None:
        pass  # they were removed when the run was taken over, under the lock

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
    """A directory at a URL, with a lease.

    Objects are made once and not overwritten, and the manifest is replaced only while it is the one that this writer knows.
    So no writer changes what another one committed, even if both believe that they hold the lease.

    Raises
    ------
    RefusedError
        If files there are not replaced as a whole, so a manifest could not commit anything.
    """

    names_open_shards = False

    def __init__(self, run_dir: UPath) -> None:
        require_whole_files(run_dir)
        self.run_dir = self._url = run_dir
        self._manifest_path = run_dir / constants.MANIFEST_FILE
        self._version: str | None = None  # of the manifest that this writer read or wrote
        self.directory = Path(tempfile.mkdtemp(prefix="explaind_tf-"))
        weakref.finalize(self, shutil.rmtree, self.directory, ignore_errors=True)
        self._lock = Lease(run_dir / constants.WRITER_FILE, str(run_dir))
        self._committed_at = time.monotonic()

    def begin(self, but_for_begun: bool) -> None:
        refuse_used_directory(self.run_dir, but_for_begun)
        self.acquire()
        # Another writer may have been there since.
        refuse_used_directory(self.run_dir, but_for_begun, but_for_lease=True)
        for path in self._url.iterdir() if self._url.exists() else ():
            if path.name != constants.WRITER_FILE:
                with as_os_error(path):
                    remove_tree(path)

    def release(self) -> None:
        try:
            self._lock.release()
        except OSError:
            # What ended the recording may also keep the lease from being removed. It is then free when it is stale.
            return

    def _read_manifest(self) -> bytes | None:
        seen = read_object(self._manifest_path)
        self._version = None if seen is None else seen.version
        return None if seen is None else seen.data

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
            try:
                upload_file(self._url / path.relative_to(self.directory).as_posix(), path)
            except ConflictError as error:
                raise self._other_writer(error) from error
            path.unlink()

    def commit_manifest(self, manifest: Manifest) -> None:
        data = encode_manifest(manifest)
        try:
            self._version = (
                create_object(self._manifest_path, data)
                if self._version is None
                else replace_object(self._manifest_path, data, self._version)
            )
        except ConflictError as error:
            raise self._other_writer(error) from error
        self._committed_at = time.monotonic()

    def _other_writer(self, error: ConflictError) -> OtherWriterError:
        return OtherWriterError(
            f"Another writer continued the run in {self._url}: {error.filename} is not this one's. Nothing of the other was "
            f"overwritten. To continue from there, use PathLogger(run_dir, resume=True)."
        )

    def remove_uncommitted(self, files: Iterable[str]) -> None:
        for file in files:
            remove_object(self._url / file)

    def take_over(self, run: RecordedRun) -> tuple[Shard, ...]:
        if any(shard.is_open for shard in run.manifest.shards):
            raise RefusedError(
                f"{run.run_dir} is the copy of a run that was being recorded to a local directory. It can be continued in a "
                f"local directory only: resume it where it was recorded, or in a local copy."
            )
        return run.manifest.shards
