"""The writer of a run directory: graphs, steps, samples, and the manifest that commits them."""

import datetime
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from explaind_tf import constants
from explaind_tf.errors import RefusedError
from explaind_tf.recording.lock import DirectoryLock
from explaind_tf.recording.tap import TappedBatch
from explaind_tf.runs import RecordedRun, SampleStore
from explaind_tf.runs.digests import describe_tree
from explaind_tf.runs.examples import Buffers, as_buffer
from explaind_tf.runs.fingerprints import ContentTable
from explaind_tf.runs.records import RecordFile, RecordWriter, file_sha256
from explaind_tf.runs.samples import Sample, SampleId, encode_sample
from explaind_tf.runs.schema import (
    COMPLETE,
    RECORDING,
    SAMPLES,
    STEPS,
    Manifest,
    Shard,
    VariableSpec,
    new_run_id,
    read_manifest,
    sync_directory,
    write_manifest,
)
from explaind_tf.runs.step_records import StepRecord, encode_step
from explaind_tf.runs.structure import Structure


def refuse_used_directory(run_dir: Path, but_for_begun: bool = False) -> None:
    """Refuse a directory that holds anything.

    Parameters
    ----------
    run_dir : Path
        It need not exist.
    but_for_begun : bool
        Whether to let pass what a recording leaves that ended before its first step.

    Raises
    ------
    FileExistsError
        Nothing in the directory is touched.
    """
    if not run_dir.exists() or (run_dir.is_dir() and not any(run_dir.iterdir())):
        return
    if but_for_begun and run_dir.is_dir() and _is_merely_begun(run_dir):
        return
    what = "already holds a run" if (run_dir / constants.MANIFEST_FILE).exists() else "is not empty"
    raise FileExistsError(
        f"{run_dir} {what}. Nothing in it was changed. A PathLogger records into a new or empty directory: choose another "
        f"name, remove the directory if its content is no longer needed, or go on with a run: PathLogger(..., resume=True)."
    )


def _is_merely_begun(run_dir: Path) -> bool:
    """Return whether a recording ended here between its first file and its first manifest, which is before any step."""
    first = [name.format(0) for name in (constants.STEPS_SHARD, constants.SAMPLES_SHARD)]
    own = {constants.GRAPHS_DIR} | {
        name + constants.TEMPORARY_SUFFIX for name in (*first, constants.MANIFEST_FILE)
    }
    return all(path.name in own for path in run_dir.iterdir())


class RunWriter:
    """Appends to a run directory; what it has handed over survives the death of the process.

    Parameters
    ----------
    run_dir : Path
        New or empty directory.
    clear_begun : bool
        Whether to clear away what a recording left that ended before its first step.

    Attributes
    ----------
    sample_count : int
        Number of distinct samples written.
    """

    def __init__(self, run_dir: Path, clear_begun: bool = False) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(run_dir)
        refuse_used_directory(run_dir, but_for_begun=clear_begun)  # by another writer, since it was looked at
        for path in run_dir.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        self._set_up(run_dir)

    def _set_up(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.sample_count = 0
        self._rows = ContentTable(8)  # by fingerprint
        self._rows_with_ids: dict[tuple[int, SampleId], int] = {}  # where there are ids
        self._manifest: Manifest | None = None
        self._writers: dict[str, RecordWriter] = {}
        self._committed_bytes = 0

    @classmethod
    def reopen(cls, run: RecordedRun) -> "RunWriter":
        """Return a writer that goes on with a run, in shards of their own.

        Shards that were being written when the run was cut short are committed, up to their last whole record.

        Raises
        ------
        RefusedError
            If another program is writing to it, or has since it was opened.
        """
        writer = cls.__new__(cls)
        writer._lock = DirectoryLock(run.run_dir)
        writer._set_up(run.run_dir)
        try:
            writer._take_over(run)
        finally:
            writer._lock.release()  # until there is a step to write
        return writer

    def _take_over(self, run: RecordedRun) -> None:
        self._manifest = run.manifest
        self._refuse_changed()
        files = {STEPS: iter(run.step_store.records.files), SAMPLES: iter(run.samples.records.files)}
        found = [(shard, next(files[shard.kind])) for shard in run.manifest.shards]
        shards = [_committed(shard, file) if shard.is_open else shard for shard, file in found]
        self._committed_bytes = sum(shard.size or 0 for shard in shards)
        if any(shard.is_open for shard in run.manifest.shards):
            sync_directory(run.run_dir)
            self._manifest = run.manifest.with_shards(tuple(shards), RECORDING)
            write_manifest(run.run_dir, self._manifest)
        self._know(run.samples)

    def _refuse_changed(self) -> None:
        """Refuse to write over what another program did to the run before the lock was taken."""
        if read_manifest(self.run_dir) != self._manifest:
            raise RefusedError(
                f"{self.run_dir} has changed since this PathLogger read or wrote it: another one went on with the run. "
                f"Nothing in it was touched. Go on from where it is now: PathLogger(run_dir, resume=True)."
            )

    def _know(self, samples: SampleStore) -> None:
        """Take note of samples that were written before."""
        for row in range(len(samples)):  # one at a time: the store may be larger than memory
            sample = samples.read(row)
            if sample.id is None:
                content = as_buffer(np.array([sample.fingerprint], np.int64)).reshape(1, 8)
                self._rows.values_of(content, partial(_constant, row))
            else:
                self._rows_with_ids[sample.fingerprint, sample.id] = row
        self.sample_count = len(samples)

    @property
    def byte_count(self) -> int:
        """Bytes of steps and samples written."""
        return self._committed_bytes + sum(writer.size for writer in self._writers.values())

    def begin(
        self,
        *,
        variables: tuple[VariableSpec, ...],
        state: tuple[VariableSpec, ...],
        optimizer: dict[str, Any],
        optimizer_state: tuple[VariableSpec, ...],
        every: int,
        loss: dict[str, Any],
        inputs: Structure,
        targets: Structure,
        weights: Structure | None,
        outputs: Structure,
        environment: dict[str, Any],
    ) -> None:
        """Say what is recorded, and open the first shards. The graphs must have been written before."""
        self._manifest = Manifest(
            run_id=new_run_id(),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            status=RECORDING,
            variables=variables,
            state=state,
            optimizer=optimizer,
            optimizer_state=optimizer_state,
            every=every,
            loss=loss,
            inputs=inputs,
            targets=targets,
            weights=weights,
            outputs=outputs,
            environment=environment,
            graphs=describe_tree(self.run_dir / constants.GRAPHS_DIR),
            shards=(),
        )
        self.open_shards()

    def open_shards(self) -> None:
        """Start a shard of each kind and commit a manifest that says that recording is going on (again)."""
        assert self._manifest is not None, "begin() comes first"
        self._lock.acquire()
        if self._manifest.shards:
            try:
                self._refuse_changed()
            except BaseException:
                self._lock.release()
                raise
        shards = self._manifest.shards
        number = sum(shard.kind == STEPS for shard in shards)
        for kind, name in ((STEPS, constants.STEPS_SHARD), (SAMPLES, constants.SAMPLES_SHARD)):
            file = name.format(number)
            self._writers[kind] = RecordWriter(self.run_dir / (file + constants.TEMPORARY_SUFFIX))
            shards += (Shard(file, kind),)
        self._manifest = self._manifest.with_shards(shards, RECORDING)
        write_manifest(self.run_dir, self._manifest)

    def write_samples(self, batch: TappedBatch) -> np.ndarray:
        """Store the samples of a batch that are new, and return the rows of all, shape (batch,)."""
        assert self._manifest is not None, "begin() comes first"
        run_id = self._manifest.run_id
        records: list[Buffers] = []

        def new_row(i: int) -> int:
            sample_id = None if batch.ids is None else batch.ids[i]
            contents = [a[i] for a in batch.inputs], [a[i] for a in batch.targets]
            sample = Sample(int(batch.fingerprints[i]), sample_id, *contents)
            records.append(encode_sample(sample, self.sample_count, run_id))
            self.sample_count += 1
            return self.sample_count - 1

        rows = self._rows_of(batch, new_row)
        self._writers[SAMPLES].write_all(records)
        return rows

    def _rows_of(self, batch: TappedBatch, new_row: Callable[[int], int]) -> np.ndarray:
        if batch.ids is None:
            return self._rows.values_of(as_buffer(batch.fingerprints).reshape(-1, 8), new_row)
        rows = []
        for i, key in enumerate(zip(batch.fingerprints.tolist(), batch.ids, strict=True)):
            if key not in self._rows_with_ids:
                self._rows_with_ids[key] = new_row(i)
            rows.append(self._rows_with_ids[key])
        return np.array(rows, np.int64)

    def write_step(self, record: StepRecord) -> None:
        """Append a record; the samples that it names must have been written before."""
        assert self._manifest is not None, "begin() comes first"
        self._writers[STEPS].write(encode_step(record, self._manifest.run_id))

    @property
    def is_open(self) -> bool:
        """Whether shards are open to be written to."""
        return bool(self._writers)

    def finish(self, environment: dict[str, Any]) -> None:
        """Commit: force the shards to the disk, give them their names, replace the manifest.

        Parameters
        ----------
        environment : dict
            What to add to what is known of it.
        """
        assert self._manifest is not None, "begin() comes first"
        shards = []
        for shard in self._manifest.shards:
            if shard.is_open:
                writer = self._writers[shard.kind]
                writer.close()
                writer.path.rename(self.run_dir / shard.file)
                shard = Shard(shard.file, shard.kind, writer.count, writer.size, writer.sha256)
                self._committed_bytes += writer.size
            shards.append(shard)
        self._writers = {}
        sync_directory(self.run_dir)
        self._manifest = replace(
            self._manifest.with_shards(tuple(shards), COMPLETE),
            environment=self._manifest.environment | environment,
        )
        write_manifest(self.run_dir, self._manifest)
        self._lock.release()

    def close(self) -> None:
        """Close the files without committing: the run can be read up to its last whole step, and gone on with."""
        for writer in self._writers.values():
            writer.close()
        self._lock.release()


def _constant(value: int, _: int) -> int:
    return value


def _committed(shard: Shard, file: RecordFile) -> Shard:
    """Cut a file that was being written after its last whole record, and give it its name."""
    os.truncate(file.path, file.size)
    descriptor = os.open(file.path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    found = Shard(shard.file, shard.kind, len(file), file.size, file_sha256(file.path))
    file.path.rename(file.path.with_name(shard.file))
    return found
