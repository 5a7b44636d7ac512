"""The outcome of a step for the model alone, which any training has."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from explaind_tf.optimizers.ring_buffer import StepScalars
from explaind_tf.recording.observing.state_reader import StateReader
from explaind_tf.runs.format.step_records import Snapshot
from explaind_tf.runs.graphs.training_variables import TrainingVariables, flat_or_none, views_of


@dataclass(frozen=True)
class StepOutcome:
    """The model and its optimizer after a step.

    Attributes
    ----------
    snapshot : Snapshot
        All variables after the step.
    scalars : StepScalars or None
        Scalars that the update used; None if the step only accumulated its gradient.
    clip_factors : np.ndarray or None
        Clipping factor of each trainable variable of the model.
    theta_stepped : np.ndarray or None
        Weights after the update, shape (D,), if something else changed them within the step.
    is_skipped : bool
        Whether the optimizer left the batch out because a gradient was not finite.
    is_unchanged : bool
        Whether the step left everything as it was: another replica's batch is the one after which weights are updated.
    """

    snapshot: Snapshot
    scalars: StepScalars | None
    clip_factors: np.ndarray | None
    theta_stepped: np.ndarray | None
    is_skipped: bool = False
    is_unchanged: bool = False

    def by_replica(self, start: Snapshot, count: int) -> "list[StepOutcome]":
        """Return the outcome after the batch of each replica: the state before the step, and last this one."""
        before = StepOutcome(start, None, None, None, is_unchanged=True)
        return [before] * (count - 1) + [self]


class WeightObserver:
    """Reads the weights and the state of a model between steps.

    Parameters
    ----------
    variables : TrainingVariables
        The variables to read.

    Attributes
    ----------
    variables : TrainingVariables
        The variables that are read.
    """

    optimizer_variables: list[Any] = []  # noqa: RUF012 - none, and never changed
    may_skip = False

    def __init__(self, variables: TrainingVariables) -> None:
        self.variables = variables
        self._state = StateReader(variables.state)

    @classmethod
    def of(cls, model: keras.Model) -> "WeightObserver":
        """Return the observer of a model whose optimizer is not known."""
        groups = (
            [v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)
        )
        parameters, state = groups
        return cls(TrainingVariables(parameters, state, [], [], [], []))

    def snapshot(self) -> Snapshot:
        """Return copies of the current values of all variables. Of state that rests, it is the same array each time."""
        values = [
            value
            for name, group in self.variables.by_group().items()
            for value in (self._state.read() if name == "state" else views_of(group))
        ]
        return self.variables.pack(values, copies_state=False)

    def iteration(self) -> int:
        """Return the optimizer's raw counter; 0 if it is not known."""
        return 0

    def outcome(self, iteration: int) -> StepOutcome:
        """Return the outcome of the last step."""
        return StepOutcome(self.snapshot(), None, None, None)

    def skipped(self) -> StepOutcome:
        """Return the outcome of a step that the optimizer left out."""
        return StepOutcome(self.snapshot(), None, None, None, is_skipped=True)

    def loss_scale_in(self, snapshot: Snapshot) -> float:
        """Return the loss scale at a snapshot; 1 if the loss is not scaled."""
        return 1.0

    def changed_weights(self, known: np.ndarray) -> np.ndarray | None:
        """Return the current θ, shape (D,), or None if it equals ``known``."""
        return unless_equal(flat(views_of(self.variables.parameters)), known)

    def changed_state(self, known: list[np.ndarray]) -> list[np.ndarray] | None:
        """Return the current non-trainable variables, or None if they equal ``known``."""
        values = self._state.views()
        if all(a is b or np.array_equal(a, b) for a, b in zip(values, known, strict=True)):
            return None
        return self._state.read()

    def momentum(self) -> np.ndarray | None:
        """Return the current m, or None if the optimizer has none."""
        return flat_or_none(views_of(self.variables.momentum))


def unless_equal(vector: np.ndarray | None, other: np.ndarray) -> np.ndarray | None:
    """Return a vector, or None if it equals another one."""
    return None if vector is None or np.array_equal(vector, other) else vector


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    """Return arrays as one vector."""
    return np.concatenate([array.reshape(-1) for array in arrays])
