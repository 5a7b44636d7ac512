"""`PathReplay`: a path of weights in the form that the kernel needs, step by step."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from explaind_tf.kernel.functions import StepPath
from explaind_tf.kernel.path_integrals import PathStep
from explaind_tf.replay.binding import constants_of, flat_point
from explaind_tf.runs import WeightPath
from explaind_tf.runs.format.step_records import Snapshot
from explaind_tf.runs.steps import Transition

Recorded = TypeVar("Recorded", Snapshot, Transition)
# Their fields that are vectors of all weights.
_VECTORS = (
    "theta",
    "theta_start",
    "theta_stepped",
    "theta_end",
    "momentum",
    "momentum_start",
    "second_moment",
    "second_moment_start",
    "accumulated",
)


@dataclass(frozen=True)
class ReplayedStep:
    """One step: its record, and the path of its weights.

    Attributes
    ----------
    transition : Transition
        The record.
    path : StepPath
        The straight path of the point z from the start of the step to its end.
    """

    transition: Transition
    path: StepPath

    @property
    def number(self) -> int:
        """Step number."""
        return self.transition.step


@dataclass(frozen=True)
class Grouping:
    """How the samples of a run are grouped, and whether their losses depend on their batch.

    Attributes
    ----------
    of_row : np.ndarray of int
        Group of each row of the sample store.
    count : int
        Number of groups G.
    coupled : bool
        Whether a sample's loss depends on the rest of its batch.
    """

    of_row: np.ndarray
    count: int
    coupled: bool


def in_dtype(recorded: Recorded, dtype: Any) -> Recorded:
    """Return what was recorded with its weights and moments in another precision."""
    vectors = {name: getattr(recorded, name) for name in _VECTORS if hasattr(recorded, name)}
    changed = {
        name: vector.astype(dtype)
        for name, vector in vectors.items()
        if vector is not None and vector.dtype != dtype
    }
    return replace(recorded, **changed) if changed else recorded


class PathReplay(ABC):
    """A path of weights in the form that the kernel needs.

    Parameters
    ----------
    run : WeightPath
        The path.
    dtype : np.dtype, optional
        Precision of the points; by default that of the weights.

    Attributes
    ----------
    unexplained : dict of int to float
        The replayed steps that the optimizer's law does not explain, and the share of the largest step that it misses.
    """

    def __init__(self, run: WeightPath, dtype: Any = None) -> None:
        self._path, self._dtype = run, dtype
        self._last: ReplayedStep | None = None
        self.unexplained: dict[int, float] = {}

    def step(self, number: int) -> ReplayedStep:
        """Return a step. The last one is cached, since callers often ask for it again."""
        if self._last is None or self._last.number != number:
            transition = self._path.step_store.transition(number)
            start = flat_point(self._path, transition.theta_start, transition.state_start, self._dtype)
            end = flat_point(self._path, transition.theta_end, transition.state_end, self._dtype)
            constants = constants_of(self._path, transition.state_start)
            self._last = ReplayedStep(transition, StepPath(start, end, end - start, constants))
        return self._last

    def end(self, number: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the point and the constants before step ``number``."""
        state = self._path.step_store.state(number)
        point = flat_point(self._path, self._path.step_store.theta(number), state, self._dtype)
        return point, constants_of(self._path, state)

    @abstractmethod
    def path_steps(self, first: int, stop: int, *, grouping: Grouping | None = None) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1`` with their displacements split into causes."""

    @abstractmethod
    def needs_history(self, grouping: Grouping | None = None) -> bool:
        """Whether splitting a step into causes needs all steps before it."""
