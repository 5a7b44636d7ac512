"""`Assignment`: what a worker needs to know of a question, and the runs that it has open."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from explaind_tf.errors import WorkersError
from explaind_tf.kernel.functions import Block
from explaind_tf.measurements import Measurement
from explaind_tf.questions.options import Options
from explaind_tf.sweeps.task import Task

# Runs that a worker keeps open, with all that was compiled for them.
_MOST_OPEN = 4


class _Asked(Protocol):
    """A run, as far as an assignment knows it."""

    run_id: str

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
    everything : Block
        All inputs, flat, and the measurement's targets.
    measurement : Measurement
        What is measured.
    options : Options
        With all steps named, and the memory that one worker may take.
    """

    opener: "partial[_Asked]"
    run_id: str
    everything: Block
    measurement: Measurement
    options: Options

    def task(self, part: Part) -> Task:
        """Return the task of some of the inputs, in this process.

        Raises
        ------
        WorkersError
            If another run is found here.
        """
        everything = self.everything.take(part.inputs)
        measurement = replace(self.measurement, targets=tuple(everything.targets))
        return replace(self._run()._task_of(everything, measurement, self.options), cuts=part.cuts)

    def _run(self) -> _Asked:
        key = (repr(self.opener), self.run_id)
        if key not in _open:
            while len(_open) >= _MOST_OPEN:
                _open.pop(next(iter(_open)))
            run = self.opener()
            if run.run_id != self.run_id:
                raise WorkersError(
                    f"The worker found another run than the one that is asked: {run!r} has the id {run.run_id}; needed is "
                    f"{self.run_id}. Workers open a run under the path with which it was opened: give one that leads all of "
                    f"them to the same files."
                )
            _open[key] = run
        return _open[key]


# A run holds what was compiled for it, so all questions about it share that.
_open: dict[tuple[str, str], _Asked] = {}
