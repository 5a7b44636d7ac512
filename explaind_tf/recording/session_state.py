"""The state of a session as it records, and what its first step is checked against."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import keras
import numpy as np

from explaind_tf.errors import RefusedError
from explaind_tf.levels import Level, allows, way_on
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.recording.exporting.pure_functions import PureFunctions
from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.recording.observing.watched_step import WatchedStep
from explaind_tf.recording.observing.weight_observer import StepOutcome
from explaind_tf.runs.format.manifest import Manifest
from explaind_tf.runs.format.step_records import END, STEP, Snapshot, StepRecord
from explaind_tf.runs.graphs.loaded import LossFunctions


class Changes(NamedTuple):
    """Weights (D,) and state as something other than the optimizer set them since a step; None if unchanged."""

    theta: np.ndarray | None = None
    state: list[np.ndarray] | None = None

    @property
    def are_any(self) -> bool:
        """Whether anything changed."""
        return self.theta is not None or self.state is not None

    @property
    def are_finite(self) -> bool:
        """Whether the weights that were set are finite."""
        return self.theta is None or bool(np.isfinite(self.theta).all())

    def finite(self) -> "Changes":
        """Return the changes, or none if they set weights that are not finite."""
        return self if self.are_finite else Changes()

    def applied_to(self, last: Snapshot) -> Snapshot:
        """Return a snapshot with the changes applied."""
        return replace(
            last,
            theta=last.theta if self.theta is None else self.theta,
            state=last.state if self.state is None else self.state,
        )


@dataclass(frozen=True)
class Training:
    """What is trained.

    Attributes
    ----------
    fitted : keras.Model
        The model whose ``fit`` is recorded.
    model : keras.Model
        The model whose predictions are accounted for: the same one, or a part of it.
    optimizer : PathOptimizer or None
        Its optimizer, if that notes its steps.
    watched : WatchedStep
        The training step.
    """

    fitted: keras.Model
    model: keras.Model
    optimizer: PathOptimizer | None
    watched: WatchedStep


@dataclass
class Standing:
    """The level of a recording.

    Attributes
    ----------
    level : {"sample", "cause", "path"}
        The level, as far as is known yet.
    required : {"sample", "cause", "path"}
        The least that the user accepts.
    reason : str
        Why the level is not higher.
    """

    level: Level
    required: Level
    reason: str = ""

    def lower_to(self, level: Level, error: RefusedError) -> None:
        """Lower the level, since more cannot be recorded.

        Raises
        ------
        RefusedError
            If more is required. The message says how to record with less.
        """
        if not allows(self.required, level):
            raise RefusedError(f"{error} {way_on(level)}") from error
        self.level, self.reason = level, str(error)


@dataclass
class Position:
    """The position of the recording within the training.

    Attributes
    ----------
    steps : int
        Number of recorded steps.
    iteration : int
        The optimizer's raw counter.
    last : Snapshot
        State after the last recorded step. Something else may have changed the weights since.
    is_keyframe : bool
        Whether the last record holds this whole state.
    changes : Changes
        What something other than the optimizer changed before the next step.
    """

    steps: int
    iteration: int
    last: Snapshot
    is_keyframe: bool = True
    changes: Changes = field(default_factory=Changes)

    def record_of(self, outcome: StepOutcome, batch: StepBatch | None, earlier_updates: int) -> StepRecord:
        """Return the record of the next step, without the rows of its samples."""
        return StepRecord(
            kind=STEP,
            step=self.steps,
            snapshot=outcome.snapshot,
            updates=outcome.scalars is not None,
            iteration=earlier_updates,
            learning_rate=0.0 if outcome.scalars is None else outcome.scalars.learning_rate,
            weights=[] if batch is None else batch.weights,
            clip_factors=outcome.clip_factors,
            theta_stepped=outcome.theta_stepped,
            theta_before=self.changes.theta,
            state_before=self.changes.state,
            is_skipped=outcome.is_skipped,
            is_unchanged=outcome.is_unchanged,
        )

    def end(self, sample_count: int) -> StepRecord | None:
        """Return the record of the end of training; None if the last record holds all of it."""
        if self.is_keyframe and not self.changes.are_any:
            return None
        return StepRecord(
            END,
            self.steps,
            self.changes.applied_to(self.last),
            sample_count=sample_count,
            theta_before=self.changes.theta,
            state_before=self.changes.state,
        )


@dataclass
class FirstStep:
    """What the first step is checked against.

    Attributes
    ----------
    start : Snapshot
        Model and optimizer before the step.
    losses : PureFunctions, LossFunctions or None
        The exported functions; for a resumed run, those of its recording. None until the form of the data is known.
    recorded_as : Manifest or None
        Manifest of the resumed run.
    is_checked : bool
        Whether the step was taken and passed the check.
    """

    start: Snapshot
    losses: PureFunctions | LossFunctions | None = None
    recorded_as: Manifest | None = None
    is_checked: bool = False
