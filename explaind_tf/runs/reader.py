"""`RecordedRun`: a run directory, opened without the model's code or the training data."""

import re
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from explaind_tf import constants
from explaind_tf.errors import RunFormatError
from explaind_tf.levels import AXES, PATH, SAMPLE
from explaind_tf.runs.decoding import forget_without_samples
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.manifest import (
    COMPLETE,
    SAMPLES,
    SHARD_NAMES,
    STEPS,
    Manifest,
    Shard,
    read_manifest,
)
from explaind_tf.runs.format.step_records import Layout
from explaind_tf.runs.graphs.graph_files import TOKEN_LOSSES, GraphContents
from explaind_tf.runs.keyframes import KeyframeReplay
from explaind_tf.runs.samples import SampleStore
from explaind_tf.runs.steps import StepStore
from explaind_tf.runs.storage.digests import FileDigest, checked_tree, require_inside
from explaind_tf.runs.storage.files import AnyPath, as_path, size_of
from explaind_tf.runs.storage.records import RecordFile, file_sha256
from explaind_tf.runs.weight_path import WeightPath
from explaind_tf.terms import Source

if TYPE_CHECKING:  # a run is opened without TensorFlow, whose import takes seconds
    from explaind_tf.runs.graphs.loaded import ForwardGraph, Graphs
    from explaind_tf.runs.graphs.training_graph import TrainingGraph

_SHARD = re.compile(f"({STEPS}|{SAMPLES})-.*[.]tfrecord")


class RecordedRun(WeightPath):
    """The recorded data of a run, and nothing derived from it. Users open a run with :func:`explaind_tf.open_run`.

    Raises
    ------
    RunFormatError
        In the cases that :func:`explaind_tf.open_run` lists.

    Attributes
    ----------
    run_dir : Path or UPath
        The run directory.
    leftovers : list of str
        Files of records that were uploaded but never committed. They are ignored.
    """

    step_store: StepStore

    def __init__(self, run_dir: str | AnyPath, *, trust_graph: bool = False) -> None:
        self.run_dir = as_path(run_dir)
        self._trust_graph = trust_graph
        self.manifest: Manifest = read_manifest(self.run_dir)
        weights = () if self.manifest.weights is None else tuple(struct.leaves(self.manifest.weights))
        layout = Layout(
            self.manifest.variables,
            self.manifest.state,
            weights,
            self.manifest.optimizer_state,
            has_second_moment=self.manifest.optimizer.second_moment,
            run_id=self.run_id,
        )
        if not self.manifest.variables:
            raise RunFormatError(
                f"{self.run_dir} has no trainable variables, so there is nothing to account for. "
                f"Record a model with trainable variables."
            )
        # Steps first: if the run is still being recorded, the samples of each step found here are then found, too.
        steps, samples = self._open_shards(STEPS), self._open_shards(SAMPLES)
        self._samples = SampleStore(samples, self.manifest.inputs, self.manifest.targets, self.run_id)
        # Missing samples that were committed are damage, see below.
        lost = forget_without_samples(steps, layout, len(self._samples)) if samples[-1].is_open else 0
        # Not a method of the run: a reference cycle would leave closing the run to the garbage collector.
        load = partial(_load_training, self.run_dir / constants.GRAPHS_DIR, self.manifest.graphs, trust_graph)
        replay = KeyframeReplay(load, self._samples.take_flat, str(self.run_dir))
        self.step_store = StepStore(steps, layout, replay)
        if len(self._samples) < self.step_store.sample_count:
            raise RunFormatError(
                f"{samples[-1].path} lacks samples that a step names: the files hold {len(self._samples)}, and there were "
                f"{self.step_store.sample_count} when the last step was written. Restore it from a copy."
            )
        self.leftovers = self._unnamed_shards()
        if not self.is_complete:
            self._warn_cut_short(lost)
        if self.manifest.divergence is not None:
            warnings.warn(
                f"{self.run_dir} ends before its training did: {self.manifest.divergence}. The run holds the steps before.",
                stacklevel=4,
            )

    def _open_shards(self, kind: str) -> list[RecordFile]:
        shards = self.manifest.shards_of(kind)
        if not shards:
            raise RunFormatError(
                f"{self.run_dir}: the manifest names no {kind} file. Restore it from a copy."
            )
        return [RecordFile(self._shard_path(shard), shard.count) for shard in shards]

    def _unnamed_shards(self) -> list[str]:
        """Return the shards that were uploaded and not committed.

        A program that ended early may also leave temporary files that the manifest does not name. They hold nothing yet.

        Raises
        ------
        RunFormatError
            If there are other shards that the manifest does not name.
        """
        named = {shard.file for shard in self.manifest.shards}
        is_uploaded = not self.is_complete and not any(shard.is_open for shard in self.manifest.shards)
        next_ones = {name.format(len(self.manifest.shards_of(kind))) for kind, name in SHARD_NAMES.items()}
        found = sorted(path.name for path in self.run_dir.iterdir())
        unnamed = [name for name in found if _SHARD.fullmatch(name) and name not in named]
        for name in unnamed:
            if not is_uploaded or name not in next_ones:
                raise RunFormatError(
                    f"{self.run_dir / name} does not belong to the run: the manifest does not name it. Remove it, or "
                    f"restore the manifest that names it."
                )
        return unnamed

    def _shard_path(self, shard: Shard) -> AnyPath:
        path = self.run_dir / shard.file
        if shard.is_open:
            temporary = path.with_name(path.name + constants.TEMPORARY_SUFFIX)
            if temporary.exists() and path.exists():
                raise RunFormatError(
                    f"{path} and {temporary.name} both exist, but only one of them was recorded. Remove the one that does "
                    f"not belong to the run."
                )
            path = temporary if temporary.exists() else path
        try:
            size = size_of(path)
        except OSError as error:
            raise RunFormatError(f"{path} cannot be read: {error.strerror or error}.") from error
        if size is None:
            raise RunFormatError(f"{path} is missing: the manifest names it. Restore it from a copy.")
        require_inside(path, self.run_dir)
        if shard.size is not None and size != shard.size:
            raise RunFormatError(
                f"{path} has {size} bytes, but the manifest says {shard.size}: the file was cut or "
                f"changed after recording. Restore it from a copy."
            )
        return path

    def _warn_cut_short(self, lost: int) -> None:
        dropped = self.step_store.records.dropped_bytes
        tail = f" The {dropped} bytes of an unfinished step were left out." if dropped else ""
        if lost:
            tail += (
                f" {lost} steps after it were left out: their samples never reached the disk (a power cut)."
            )
        if self.leftovers:
            tail += f" {' and '.join(self.leftovers)} were left out: they were uploaded and not committed."
        warnings.warn(
            f"{self.run_dir} was cut short: training ended before the logger could finish (interrupted or "
            f"killed), or is still running. It is opened up to its last whole step: {len(self.step_store)} "
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
    def graphs(self) -> "Graphs | ForwardGraph":
        """The model as pure functions. They are loaded on first use, after a check of their files."""
        from explaind_tf.runs.graphs.agreement import require_agreement
        from explaind_tf.runs.graphs.loaded import ForwardGraph, Graphs

        with self._checked_graphs() as directory:
            trust = self._trust_graph
            graphs = (
                Graphs(directory, trust=trust)
                if self.level == SAMPLE
                else ForwardGraph.load(directory, trust=trust)
            )
        try:
            require_agreement(graphs.signatures, self.manifest)
        except RunFormatError as error:
            raise RunFormatError(f"{self.run_dir / constants.GRAPHS_DIR}: {error}") from error
        return graphs

    @cached_property
    def _graph_contents(self) -> GraphContents:
        with self._checked_graphs() as directory:
            return GraphContents.of(directory)

    @property
    def unlisted_operations(self) -> list[str]:
        """What its graphs hold beside the operations that a graph may hold. They are not loaded to find out."""
        return list(self._graph_contents.unlisted)

    @property
    def has_token_losses(self) -> bool:
        """Whether its losses have values for the positions of a sample, so that there is an axis ``"token"``."""
        return TOKEN_LOSSES in self._graph_contents.names

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that its ledgers can have."""
        return AXES[self.level]

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of its ledgers. Only losses tell the gradients of samples and regularisers apart."""
        unknown = () if self.level == SAMPLE else (constants.REGULARIZER, constants.ROUNDING)
        return tuple(term for term in super().terms if term not in unknown)

    @property
    def source(self) -> Source:
        """What is known of its steps; it determines the terms of its ledgers."""
        return "checkpoints" if self.level == PATH else "recorded"

    def _checked_graphs(self) -> AbstractContextManager[Path]:
        return checked_tree(self.run_dir / constants.GRAPHS_DIR, self.manifest.graphs)

    def verify_files(self) -> None:
        """Check every recorded byte: SHA-256 of all files, checksums, order, samples' fingerprints.

        Raises
        ------
        RunFormatError
            At the first error. The message names file, record and step.
        """
        with self._checked_graphs():
            pass
        for shard in self.manifest.shards:
            path = self._shard_path(shard)
            if shard.sha256 is not None and file_sha256(path) != shard.sha256:
                raise RunFormatError(
                    f"{path} is not the file that was recorded: its SHA-256 differs from the manifest's. "
                    f"Restore it from a copy."
                )
        if self.is_complete and len(self.samples) > self.step_store.sample_count:
            raise RunFormatError(
                f"{self.run_dir} holds {len(self.samples)} samples, and there were {self.step_store.sample_count} when its "
                f"last step was written: samples were added later. Restore it from a copy."
            )
        for row in range(len(self.samples)):
            self.samples.read(row)
        for step in self.steps:
            self._check_keyframe(int(step))
            rows = self.step_store.rows(int(step))
            if len(rows) == 0 and (self.level != SAMPLE or self.may_have_empty_batches):
                continue
            if len(rows) == 0 or rows.min() < 0 or rows.max() >= len(self.samples):
                raise RunFormatError(
                    f"{self.run_dir}: step {step} names no samples, or samples that the run does not have "
                    f"({len(self.samples)} rows). Restore the run from a copy."
                )

    @property
    def may_have_empty_batches(self) -> bool:
        """Whether a step may have no samples: the step of a replica that got none of a short batch."""
        return self.manifest.optimizer.accumulates > 1

    def _check_keyframe(self, step: int) -> None:
        """Check that a step is recorded with its weights if it ends at a keyframe, and only then."""
        every = self.manifest.every
        # A step without its weights has a digest of them, also once it was trained again.
        is_keyframe = self.step_store.recorded(step).digest is None
        if is_keyframe != ((step + 1) % every == 0):
            raise RunFormatError(
                f"{self.run_dir}: step {step} {'has' if is_keyframe else 'lacks'} its weights, but the manifest says that "
                f"every={every} steps are recorded with theirs. Restore the run from a copy."
            )

    def __repr__(self) -> str:
        state = "complete" if self.is_complete else "cut short"
        weights = self.step_store.layout.size
        level = "" if self.level == SAMPLE else f", level {self.level}"
        return (
            f"<{type(self).__name__} {str(self.run_dir)!r}: {len(self.step_store)} steps, {len(self.samples)} "
            f"samples, {weights:,} weights in {len(self.layers)} layers, {state}{level}>"
        )


def _load_training(graphs: AnyPath, expected: Sequence[FileDigest], trust: bool) -> "TrainingGraph":
    from explaind_tf.runs.graphs.training_graph import TrainingGraph

    with checked_tree(graphs, expected) as directory:
        return TrainingGraph(directory / constants.TRAINING_DIR, trust=trust)
