"""`PathReplay`: a path of weights in the form that the kernel needs, step by step."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from explaind_tf.kernel.functions import StepPath
from explaind_tf.kernel.path_integrals import PathStep
from explaind_tf.replay.binding import constants_of, flat_point
from explaind_tf.runs import WeightPath
from explaind_tf.runs.steps import Transition


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


class PathReplay(ABC):
    """A path of weights in the form that the kernel needs.

    Parameters
    ----------
    run : WeightPath
        The path.
    """

    def __init__(self, run: WeightPath) -> None:
        self._path = run
        self._last: ReplayedStep | None = None

    def step(self, number: int) -> ReplayedStep:
        """Return a step. The last one is cached, since callers often ask for it again."""
        if self._last is None or self._last.number != number:
            transition = self._path.step_store.transition(number)
            start = flat_point(self._path, transition.theta_start, transition.state_start)
            end = flat_point(self._path, transition.theta_end, transition.state_end)
            constants = constants_of(self._path, transition.state_start)
            self._last = ReplayedStep(transition, StepPath(start, end, end - start, constants))
        return self._last

    def end(self, number: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the point and the constants before step ``number``."""
        state = self._path.step_store.state(number)
        point = flat_point(self._path, self._path.step_store.theta(number), state)
        return point, constants_of(self._path, state)

    @abstractmethod
    def path_steps(self, first: int, stop: int, *, grouping: Grouping | None = None) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1`` with their displacements split into causes."""

    @abstractmethod
    def needs_history(self, grouping: Grouping | None = None) -> bool:
        """Whether splitting a step into causes needs all steps before it."""
