"""`RecordedRun`: a run directory, opened without the model's code or the training data."""

import warnings
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

from explaind_tf import constants
from explaind_tf.errors import RunFormatError
from explaind_tf.runs import structure as struct
from explaind_tf.runs.digests import FileDigest, check_tree, require_inside
from explaind_tf.runs.graphs import Graphs
from explaind_tf.runs.keyframes import SegmentReplay
from explaind_tf.runs.path import WeightPath
from explaind_tf.runs.records import RecordFile, file_sha256
from explaind_tf.runs.samples import SampleStore
from explaind_tf.runs.schema import COMPLETE, SAMPLES, STEPS, Manifest, Shard, read_manifest
from explaind_tf.runs.step_records import Layout
from explaind_tf.runs.steps import StepStore
from explaind_tf.runs.training import TrainingGraph


class RecordedRun(WeightPath):
    """What was recorded, and nothing derived from it. Users open a run with :func:`explaind_tf.open_run`.

    Raises
    ------
    RunFormatError
        As :func:`explaind_tf.open_run` says.
    """

    step_store: StepStore

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = Path(run_dir)
        self.manifest: Manifest = read_manifest(self.run_dir)
        weights = () if self.manifest.weights is None else tuple(struct.leaves(self.manifest.weights))
        layout = Layout(
            self.manifest.variables,
            self.manifest.state,
            weights,
            self.manifest.optimizer_state,
            has_second_moment=self.manifest.optimizer["second_moment"],
            run_id=self.run_id,
        )
        if not self.manifest.variables:
            raise RunFormatError(
                f"{self.run_dir} has no trainable variables: there is nothing to account for."
            )
        self._samples = SampleStore(
            self._open_shards(SAMPLES), self.manifest.inputs, self.manifest.targets, self.run_id
        )
        # Not a method of the run: it would be held by what it holds, and closed by the garbage collector only.
        load = partial(_load_training, self.run_dir / constants.GRAPHS_DIR, self.manifest.graphs)
        replay = SegmentReplay(load, self._samples.take_flat, str(self.run_dir))
        self.step_store = StepStore(self._open_shards(STEPS), layout, replay)
        self._refuse_foreign_shards()
        if not self.is_complete:
            self._warn_cut_short()

    def _open_shards(self, kind: str) -> list[RecordFile]:
        shards = self.manifest.shards_of(kind)
        if not shards:
            raise RunFormatError(f"{self.run_dir}: the manifest names no {kind} file.")
        return [RecordFile(self._shard_path(shard), shard.count) for shard in shards]

    def _refuse_foreign_shards(self) -> None:
        """Refuse records that the manifest does not name.

        Temporary files may be left by a program that ended before it could name them; they hold nothing yet.
        """
        named = {shard.file for shard in self.manifest.shards}
        for kind in (STEPS, SAMPLES):
            for path in sorted(self.run_dir.glob(f"{kind}-*.tfrecord")):
                if path.name not in named:
                    raise RunFormatError(
                        f"{path} does not belong to the run: the manifest does not name it. Remove it, or restore the "
                        f"manifest that names it."
                    )

    def _shard_path(self, shard: Shard) -> Path:
        path = self.run_dir / shard.file
        if shard.is_open:
            temporary = path.with_name(path.name + constants.TEMPORARY_SUFFIX)
            if temporary.exists() and path.exists():
                raise RunFormatError(
                    f"{path} and {temporary.name} are both there, and only one can be the one that was recorded. Remove the "
                    f"one that was put there."
                )
            path = temporary if temporary.exists() else path
        if not path.is_file():
            raise RunFormatError(f"{path} is missing: the manifest names it. Restore it from a copy.")
        require_inside(path, self.run_dir)
        if shard.size is not None and path.stat().st_size != shard.size:
            raise RunFormatError(
                f"{path} has {path.stat().st_size} bytes, the manifest says {shard.size}: the file was cut or "
                f"changed after recording. Restore it from a copy."
            )
        return path

    def _warn_cut_short(self) -> None:
        dropped = self.step_store.records.dropped_bytes
        tail = f" The {dropped} bytes of an unfinished step were left out." if dropped else ""
        warnings.warn(
            f"{self.run_dir} was cut short: training ended before the logger could finish (interrupted or "
            f"killed), or is still going on. It is opened up to its last whole step: {len(self.step_store)} "
            f"steps.{tail}",
            stacklevel=5,
        )

    @property
    def is_complete(self) -> bool:
        """Whether training ended and every file was committed."""
        return self.manifest.status == COMPLETE

    @property
    def samples(self) -> SampleStore:
        """The training samples: their number, ids, and ``take(rows)``."""
        return self._samples

    @cached_property
    def graphs(self) -> Graphs:
        """The model as pure functions, loaded on first use, after their files were checked."""
        self._check_graphs()
        return Graphs(self.run_dir / constants.GRAPHS_DIR)

    def _check_graphs(self) -> None:
        check_tree(self.run_dir / constants.GRAPHS_DIR, self.manifest.graphs)

    def verify_files(self) -> None:
        """Check every byte recorded: SHA-256 of all files, checksums, order, samples' fingerprints.

        Raises
        ------
        RunFormatError
            At the first thing that is wrong, naming file, record and step.
        """
        self._check_graphs()
        for shard in self.manifest.shards:
            path = self._shard_path(shard)
            if shard.sha256 is not None and file_sha256(path) != shard.sha256:
                raise RunFormatError(
                    f"{path} is not the file that was recorded: its SHA-256 differs from the manifest's."
                )
        for row in range(len(self.samples)):
            self.samples.read(row)
        for step in self.steps:
            rows = self.step_store.rows(int(step))
            if len(rows) == 0 or rows.min() < 0 or rows.max() >= len(self.samples):
                raise RunFormatError(
                    f"{self.run_dir}: step {step} names samples that the run does not have "
                    f"({len(self.samples)} rows)."
                )

    def __repr__(self) -> str:
        state = "complete" if self.is_complete else "cut short"
        weights = self.step_store.layout.size
        return (
            f"<{type(self).__name__} {str(self.run_dir)!r}: {len(self.step_store)} steps, {len(self.samples)} "
            f"samples, {weights:,} weights in {len(self.layers)} layers, {state}>"
        )


def _load_training(graphs: Path, expected: Sequence[FileDigest]) -> TrainingGraph:
    check_tree(graphs, expected)
    return TrainingGraph(graphs / constants.TRAINING_DIR)
