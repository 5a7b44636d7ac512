"""What changes in a session as it records, and what its first step is held against."""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from explaind_tf.recording.exporting.pure_functions import PureFunctions
from explaind_tf.runs.format.manifest import Manifest
from explaind_tf.runs.format.step_records import Snapshot
from explaind_tf.runs.graphs.loaded import LossFunctions


class Changes(NamedTuple):
    """What others made of weights (D,) and state since a step, None where they changed nothing."""

    theta: np.ndarray | None = None
    state: list[np.ndarray] | None = None

    @property
    def are_any(self) -> bool:
        """Whether anything was changed."""
        return self.theta is not None or self.state is not None

    def applied_to(self, last: Snapshot) -> Snapshot:
        """Return a snapshot with the changes."""
        return replace(
            last,
            theta=last.theta if self.theta is None else self.theta,
            state=last.state if self.state is None else self.state,
        )


@dataclass
class Position:
    """Where in the training the recording is.

    Attributes
    ----------
    steps : int
        Steps recorded.
    iteration : int
        The optimizer's raw counter.
    last : Snapshot
        What the last recorded step led to; others may have changed the weights since.
    is_keyframe : bool
        Whether the last record holds all of it.
    changes : Changes
        What others changed before the step that comes.
    """

    steps: int
    iteration: int
    last: Snapshot
    is_keyframe: bool = True
    changes: Changes = field(default_factory=Changes)


@dataclass
class FirstStep:
    """What the first step is held against, until it was.

    Attributes
    ----------
    start : Snapshot
        Model and optimizer before it.
    losses : PureFunctions or LossFunctions
        The model as it is written, or was, where a run is gone on with.
    recorded_as : Manifest or None
        Of the run that is gone on with.
    is_checked : bool
        Whether it was taken and stood the test.
    """

    start: Snapshot
    losses: PureFunctions | LossFunctions
    recorded_as: Manifest | None = None
    is_checked: bool = False
