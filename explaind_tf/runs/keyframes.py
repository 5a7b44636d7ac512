"""Keyframes: steps between two of them are recomputed by training them again.

A run recorded with ``every=K`` holds the whole state at every K-th step. Of the other steps it holds the batch, a few
numbers and a digest of the weights. On the machine that trained, training again gives the same bits, and the digests
prove it. On another machine the weights may drift. The next keyframe then shows how far.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.format.step_records import Snapshot, StepRecord

if TYPE_CHECKING:  # runs are read without TensorFlow
    from explaind_tf.runs.graphs.training_graph import TrainingGraph

# Largest drift that is accepted, as a share of the distance between two keyframes. A ledger adds it to the residual.
LARGEST_DRIFT = 1e-2

ReadRecord = Callable[[int], StepRecord]


@dataclass(frozen=True)
class _Gap:
    """The records after a keyframe, up to the next keyframe or the end of the run."""

    start: int
    records: list[StepRecord]

    def __contains__(self, position: int) -> bool:
        return self.start < position <= self.start + len(self.records)


class KeyframeReplay:
    """Fills in the records between keyframes. It holds one gap at a time.

    Parameters
    ----------
    load : callable
        Loads the training step, when it is first needed.
    take : callable
        Returns the inputs and targets of sample rows, as flat lists of arrays (batch, ...).
    where : str
        Names the run in messages.

    Attributes
    ----------
    drift : float
        The largest drift of weights or state found so far, as a share of the distance from one keyframe to the next.
    """

    def __init__(
        self,
        load: Callable[[], "TrainingGraph"],
        take: Callable[[np.ndarray], tuple[list[np.ndarray], list[np.ndarray]]],
        where: str,
    ) -> None:
        self._load, self._take, self._where = load, take, where
        self._graph: TrainingGraph | None = None
        self._gap = _Gap(0, [])
        self.drift = 0.0

    @property
    def graph(self) -> "TrainingGraph":
        """The training step, loaded. Whoever uses it sets its variables first."""
        if self._graph is None:
            self._graph = self._load()
        return self._graph

    def fill(self, position: int, count: int, read: ReadRecord) -> StepRecord:
        """Return the record at a position, with the snapshot that training again leads to.

        Parameters
        ----------
        position : int
            Position of a record without a snapshot.
        count : int
            Number of positions.
        read : callable
            Returns the record at a position as it is on the disk.

        Raises
        ------
        RunFormatError
            If training again differs from the recording by more than rounding explains.
        """
        if position not in self._gap:
            self._gap = _Gap(0, [])  # frees its memory before the next gap needs memory
            self._gap = self._replay(position, count, read)
        return self._gap.records[position - self._gap.start - 1]

    def _replay(self, position: int, count: int, read: ReadRecord) -> _Gap:
        start = position
        while read(start).snapshot is None:  # the first record has one
            start -= 1
        keyframe = read(start).known
        self.graph.variables.restore(keyframe)
        records: list[StepRecord] = []
        drifted: int | None = None
        for at in range(start + 1, count):
            record = read(at)
            if record.snapshot is not None:
                break
            if record.is_unchanged:
                raise RunFormatError(
                    f"Step {record.step} of {self._where} says that it changed nothing, and lies between keyframes, where "
                    f"every step is trained again. No PathLogger writes this: restore the run from a copy."
                )
            filled = self._train(record)
            if drifted is None and filled.known.digest() != record.digest:
                drifted = record.step
            records.append(filled)
        if drifted is not None:
            closing = read(start + 1 + len(records)) if start + 1 + len(records) < count else None
            self._measure_drift(drifted, keyframe, closing)
        return _Gap(start, records)

    def _train(self, record: StepRecord) -> StepRecord:
        inputs, targets = self._take(record.rows)
        snapshot, stepped = self.graph.step(record, [*inputs, *targets, *record.weights])
        return replace(record, snapshot=snapshot, theta_stepped=stepped)

    def _measure_drift(self, step: int, keyframe: Snapshot, closing: StepRecord | None) -> None:
        """Compare where the steps of the gap led with the keyframe that closes the gap.

        Raises
        ------
        RunFormatError
            If no keyframe closes the gap, or the two are too far apart.
        """
        found = (
            f"Training the steps after a keyframe of {self._where} again gave other weights than the recorded ones, from "
            f"step {step} on"
        )
        cure = (
            "Training again is bit-exact on the machine of the recording, with the same versions and number of threads. "
            "Read the run there, or record with PathLogger(every=1), which trains nothing again."
        )
        ends_in_train = closing is not None and closing.rows.size > 0
        is_changed = closing is not None and (
            closing.theta_before is not None or closing.state_before is not None
        )
        if closing is None or (is_changed and not ends_in_train):
            raise RunFormatError(f"{found}, and no keyframe follows that would show by how much. {cure}")
        reached = self._train(closing).known if ends_in_train else self.graph.variables.snapshot()
        drift = drift_of(reached, closing.known, keyframe)
        if not drift <= LARGEST_DRIFT:
            raise RunFormatError(
                f"{found}. At the next keyframe they are off by {drift:.2g} of the distance between the two keyframes, more "
                f"than the {LARGEST_DRIFT:g} that rounding explains. {cure}"
            )
        if self.drift == 0:
            warnings.warn(
                f"{found}. At the next keyframe they are off by {drift:.2g} of the distance between the two keyframes. "
                f"Rounding explains this much, and ledgers add it to the residual. {cure}",
                stacklevel=2,
            )
        self.drift = max(self.drift, drift)


def drift_of(reached: Snapshot, recorded: Snapshot, start: Snapshot) -> float:
    """Return how far off weights and state are, at most, as a share of the distance that they moved."""
    arrays = ([s.theta, *s.state] for s in (reached, recorded, start))
    return max(_share(*three) for three in zip(*arrays, strict=True))


def _share(reached: np.ndarray, recorded: np.ndarray, start: np.ndarray) -> float:
    """Return how far off an array is, as a share of the distance that it moved.

    The share is infinite if an array that is not floating-point differs: rounding cannot explain that.
    """
    if np.array_equal(reached, recorded):
        return 0.0
    if not np.issubdtype(recorded.dtype, np.floating):
        return float("inf")  # a seed or a counter
    way = float(np.linalg.norm(recorded - start))
    return float(np.linalg.norm(reached - recorded)) / max(way, 1e-300)
