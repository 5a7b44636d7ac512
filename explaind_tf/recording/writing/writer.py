"""The writer of a run directory: graphs, steps, samples, and the manifest that commits them."""

from dataclasses import replace
from typing import Any

import numpy as np

from explaind_tf import constants
from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.recording.writing.places import Place, place_at
from explaind_tf.recording.writing.sample_rows import SampleRows
from explaind_tf.runs import RecordedRun, SampleStore
from explaind_tf.runs.format.description import RunDescription
from explaind_tf.runs.format.manifest import (
    COMPLETE,
    RECORDING,
    SAMPLES,
    SHARD_NAMES,
    STEPS,
    Manifest,
    Shard,
    new_run_id,
)
from explaind_tf.runs.format.step_records import START, STEP, Snapshot, StepRecord, encode_step
from explaind_tf.runs.samples import encode_sample
from explaind_tf.runs.storage.digests import describe_tree
from explaind_tf.runs.storage.files import AnyPath
from explaind_tf.runs.storage.records import RecordWriter


class RunWriter:
    """Appends to a run directory.

    In a local directory, all written records survive the end of the process. At a URL, only uploaded shards do, and shards
    are uploaded from time to time.

    Parameters
    ----------
    place : Place
        The place of the files. This object is its only writer from now on.
    manifest : Manifest, optional
        Manifest of a run that is continued.

    Attributes
    ----------
    run_dir : Path or UPath
        The run directory.
    graphs_dir : Path
        Directory in which the graphs must be saved before :meth:`begin`.
    step_count, pending_steps : int
        Number of steps written, and of those that wait for upload and are lost if the process ends.
    """

    def __init__(self, place: Place, manifest: Manifest | None = None) -> None:
        self._place = place
        self.run_dir = place.run_dir
        self.graphs_dir = place.directory / constants.GRAPHS_DIR
        self.step_count = self.pending_steps = 0
        self._rows = SampleRows()
        self._manifest = manifest
        self._writers: dict[str, RecordWriter] = {}
        self._committed_bytes = 0
        self._is_committing = False  # stays True if a commit fails

    @classmethod
    def create(cls, run_dir: AnyPath, clear_begun: bool = False) -> "RunWriter":
        """Return a writer of a new run.

        Parameters
        ----------
        run_dir : Path or UPath
            New or empty directory.
        clear_begun : bool
            Whether to remove the files of a recording that ended before its first step.

        Raises
        ------
        FileExistsError
            If the directory holds anything else.
        OtherWriterError
            If another program is writing to it.
        RefusedError
            If nothing can be committed there.
        """
        place = place_at(run_dir)
        try:
            place.begin(clear_begun)
        except BaseException:
            place.release()
            raise
        return cls(place)

    @classmethod
    def reopen(cls, run: RecordedRun) -> "RunWriter":
        """Return a writer that continues a run, in new shards.

        Shards that were being written when the run was cut short are committed, up to their last whole record.

        Raises
        ------
        OtherWriterError
            If another program is writing to the run, or has changed it since it was opened.
        """
        place = place_at(run.run_dir)
        place.acquire()
        try:
            writer = cls(place, run.manifest)
            writer._take_over(run)
        finally:
            place.release()  # until there is a step to write
        return writer

    def _take_over(self, run: RecordedRun) -> None:
        self._refuse_changed()
        shards = self._place.take_over(run)
        self._committed_bytes = sum(shard.size or 0 for shard in shards)
        if shards != run.manifest.shards:
            self._manifest = run.manifest.with_shards(shards, RECORDING)
            self._place.commit_manifest(self._manifest)
        self._know(run.samples)
        self.step_count = len(run.step_store)
        self._start = run.step_store.start.state

    def _refuse_changed(self) -> None:
        """Refuse to go on if another program wrote to the run since this one read or wrote it."""
        assert self._manifest is not None, "begin() comes first"
        self._place.require_unchanged(self._manifest)

    def _know(self, samples: SampleStore) -> None:
        """Add the samples that were written before."""
        # One at a time: the store may be larger than memory.
        read = (samples.read(row) for row in range(len(samples)))
        self._rows.know((sample.fingerprint, sample.id) for sample in read)

    @property
    def sample_count(self) -> int:
        """Number of distinct samples written."""
        return len(self._rows)

    @property
    def byte_count(self) -> int:
        """Bytes of the steps and samples written."""
        return self._committed_bytes + self._open_bytes

    @property
    def _open_bytes(self) -> int:
        return sum(writer.size for writer in self._writers.values())

    def begin(
        self, description: RunDescription, *, every: int, environment: dict[str, Any], start: Snapshot
    ) -> None:
        """Write the run's description and the state before training. The graphs must have been saved before."""
        graphs = describe_tree(self.graphs_dir)
        self._place.commit_graphs()
        self._manifest = Manifest.begin(description, every=every, environment=environment, graphs=graphs)
        self._start_shards()
        # Written before the manifest: a directory with a manifest must be a run.
        self._writers[STEPS].write(encode_step(StepRecord(START, -1, start), self._manifest.run_id))
        self._start = start.state
        self._writers[STEPS].sync()
        if self._place.names_open_shards:
            self._name_open_shards()
        else:
            self._commit(RECORDING)
            self._start_shards()

    def open_shards(self) -> None:
        """Start shards for a further fit, and commit a manifest that says that recording continues."""
        assert self._manifest is not None, "begin() comes first"
        self._place.acquire()
        try:
            self._refuse_changed()
        except BaseException:
            self._place.release()
            raise
        # No two writers write this manifest: one that read the same run as this one can commit nothing from here on.
        continued = self._manifest.without_divergence()
        self._manifest = replace(continued, environment=continued.environment | {"writer": new_run_id()})
        self._start_shards()
        self._name_open_shards()
        # Only now, since nobody else can commit them any more.
        self._place.remove_uncommitted(_next_file(kind, self._manifest.shards) for kind in SHARD_NAMES)

    def _start_shards(self) -> None:
        assert self._manifest is not None, "begin() comes first"
        self._writers = {}
        for kind in SHARD_NAMES:
            path = self._place.path_of(_next_file(kind, self._manifest.shards))
            path.unlink(missing_ok=True)  # left by a program that ended before its manifest named the file
            self._writers[kind] = RecordWriter(path)

    def _name_open_shards(self) -> None:
        """Commit a manifest with the shards that are being written, if the place can name them."""
        assert self._manifest is not None, "begin() comes first"
        shards = self._manifest.shards
        if self._place.names_open_shards:
            shards += tuple(Shard(_next_file(kind, shards), kind) for kind in self._writers)
        self._manifest = self._manifest.with_shards(shards, RECORDING)
        self._place.commit_manifest(self._manifest)

    def rewind(self, record: StepRecord) -> None:
        """Go back to an earlier step. The steps from there on stay in the files, but are no longer part of the run."""
        assert self._manifest is not None, "begin() comes first"
        self._writers[STEPS].write(encode_step(record, self._manifest.run_id))
        self.step_count = record.step

    def write_samples(self, batch: StepBatch) -> np.ndarray:
        """Store the new samples of a batch, and return the rows of all its samples, shape (batch,)."""
        assert self._manifest is not None, "begin() comes first"
        first, run_id = self.sample_count, self._manifest.run_id
        rows, new = self._rows.of_batch(batch)
        if new.size:
            samples = (batch.sample(i) for i in new.tolist())
            records = [encode_sample(sample, first + k, run_id) for k, sample in enumerate(samples)]
            self._writers[SAMPLES].write_all(records)
        return rows

    def write_step(self, record: StepRecord) -> None:
        """Append a record. The samples that it names must have been written before."""
        assert self._manifest is not None, "begin() comes first"
        self._writers[STEPS].write(encode_step(record, self._manifest.run_id, self._start))
        if record.kind == STEP:
            self.step_count += 1
            self.pending_steps += not self._place.names_open_shards
        if self._place.is_due(self._open_bytes):
            self._commit(RECORDING)
            self._start_shards()

    @property
    def is_open(self) -> bool:
        """Whether shards are open for writing."""
        return bool(self._writers)

    def finish(self, environment: dict[str, Any]) -> None:
        """Commit what was written, and the run as complete.

        Parameters
        ----------
        environment : dict
            Entries to add to the manifest's ``environment``.
        """
        self._commit(COMPLETE, environment)
        self._place.release()

    def flush(self) -> None:
        """Upload the steps that wait for upload, unless an earlier commit failed."""
        if self.pending_steps and not self._is_committing:
            self._commit(RECORDING)

    def _commit(self, status: str, environment: dict[str, Any] | None = None) -> None:
        """Make the shards permanent, under their final names, and replace the manifest."""
        assert self._manifest is not None, "begin() comes first"
        self._is_committing = True
        earlier = tuple(shard for shard in self._manifest.shards if not shard.is_open)
        closed = [shard for kind in self._writers if (shard := self._closed(kind, earlier)) is not None]
        if not self._place.names_open_shards and self._manifest.shards:
            self._refuse_changed()
        self._place.commit_shards(shard.file for shard in closed)
        self._committed_bytes += self._open_bytes
        self._writers = {}
        manifest = self._manifest.with_shards((*earlier, *closed), status)
        self._manifest = replace(manifest, environment=manifest.environment | (environment or {}))
        self._place.commit_manifest(self._manifest)
        self.pending_steps = 0
        self._is_committing = False

    def _closed(self, kind: str, earlier: tuple[Shard, ...]) -> Shard | None:
        """Close a shard and return its description. An empty shard that no manifest needs is removed, and gives None."""
        writer = self._writers[kind]
        writer.close()
        is_known = self._place.names_open_shards or all(shard.kind != kind for shard in earlier)
        if writer.count == 0 and not is_known:
            writer.path.unlink()
            return None
        return Shard(_next_file(kind, earlier), kind, writer.count, writer.size, writer.sha256)

    def close(self) -> None:
        """Close the files without committing. The run can be read and continued up to its last whole step."""
        for writer in self._writers.values():
            writer.close()
        self._place.release()


def _next_file(kind: str, shards: tuple[Shard, ...]) -> str:
    return SHARD_NAMES[kind].format(sum(shard.kind == kind for shard in shards))
