"""`Assignment`: what a worker needs to know of a question, and the runs that it has open."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from explaind_tf.errors import WorkersError
from explaind_tf.kernel.functions import Block
from explaind_tf.measurements import Measurement
from explaind_tf.questions.options import Options
from explaind_tf.runs.retraining import Retrainer
from explaind_tf.runs.samples import SampleStore
from explaind_tf.sweeps.task import Task

# Runs that a worker keeps open, with all that was compiled for them.
_MOST_OPEN = 4


class _Asked(Protocol):
    """A run, as far as an assignment knows it."""

    run_id: str

    @property
    def steps(self) -> np.ndarray:
        """The numbers of the steps."""
        ...

    @property
    def samples(self) -> SampleStore:
        """The training samples."""
        ...

    @property
    def _retrainer(self) -> Retrainer:
        """What trains the run again."""
        ...

    def _task_of(self, everything: Block, measurement: Measurement, options: Options) -> Task:
        """Return the task of a question."""
        ...


@dataclass(frozen=True)
class Part:
    """Some of the inputs of a question.

    Attributes
    ----------
    inputs : slice
        Which ones.
    cuts : tuple of int
        Among them, those at which a block begins, besides where memory cuts them.
    """

    inputs: slice
    cuts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Assignment:
    """A question, in a form that can be sent to another process.

    Attributes
    ----------
    opener : partial
        Opens the run.
    run_id : str
        Of the run.
    steps, samples : int
        Number of steps that the question needs, and of the run's samples.
    everything : Block
        All inputs, flat, and the measurement's targets.
    measurement : Measurement
        What is measured.
    options : Options
        With all steps named, and the memory that one worker may take.
    """

    opener: "partial[_Asked]"
    run_id: str
    steps: int
    samples: int
    everything: Block
    measurement: Measurement
    options: Options

    def task(self, part: Part) -> Task:
        """Return the task of some of the inputs, in this process.

        Raises
        ------
        WorkersError
            If another run is found here, or one that has grown.
        """
        everything = self.everything.take(part.inputs)
        return replace(self.run()._task_of(everything, self.measured(part), self.options), cuts=part.cuts)

    def measured(self, part: Part) -> Measurement:
        """Return the measurement of some of the inputs."""
        return replace(self.measurement, targets=tuple(self.everything.take(part.inputs).targets))

    def run(self) -> _Asked:
        """Return the run, opened in this process.

        Raises
        ------
        WorkersError
            If another run is found here, or one that has grown.
        """
        key = (repr(self.opener), self.run_id)
        if key not in _open or not self._is_as_asked(_open[key]):  # it may have grown since it was opened
            while len(_open) >= _MOST_OPEN:
                _open.pop(next(iter(_open)))
            run = self.opener()
            if run.run_id != self.run_id:
                raise WorkersError(
                    f"The worker found another run than the one that is asked: {run!r} has the id {run.run_id}; needed is "
                    f"{self.run_id}. Workers open a run under the path with which it was opened: give one that leads all of "
                    f"them to the same files."
                )
            if not self._is_as_asked(run):
                raise WorkersError(
                    f"The worker found {len(run.steps)} steps and {len(run.samples)} samples in {run!r}; you asked about "
                    f"{self.steps} steps of a run with {self.samples} samples. It is being recorded, or its files were "
                    f"changed: open it again, and ask again."
                )
            _open[key] = run
        return _open[key]

    def _is_as_asked(self, run: _Asked) -> bool:
        return len(run.steps) >= self.steps and len(run.samples) == self.samples


# A run holds what was compiled for it, so all questions about it share that.
_open: dict[tuple[str, str], _Asked] = {}
