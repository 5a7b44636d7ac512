"""The state of a session as it records, and what its first step is checked against."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import keras
import numpy as np

from explaind_tf.errors import RefusedError
from explaind_tf.levels import Level, allows, way_on
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.recording.exporting.pure_functions import PureFunctions
from explaind_tf.recording.observing.watched_step import WatchedStep
from explaind_tf.runs.format.manifest import Manifest
from explaind_tf.runs.format.step_records import Snapshot
from explaind_tf.runs.graphs.loaded import LossFunctions


class Changes(NamedTuple):
    """Weights (D,) and state as something other than the optimizer set them since a step; None if unchanged."""

    theta: np.ndarray | None = None
    state: list[np.ndarray] | None = None

    @property
    def are_any(self) -> bool:
        """Whether anything changed."""
        return self.theta is not None or self.state is not None

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
