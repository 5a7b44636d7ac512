"""Segments: consecutive steps of a reverse sweep that are computed on their own, anywhere.

The rows of an update are Ψ_i = memory · Ψ_{i+1} + Φ_i ⊙ pull_i. What a segment needs of all later steps is one such row for
each measurement (:mod:`explaind_tf.sweeps.joining`). Entries by effect step need the rows of each later step on its own.
What these hold fades: after so many updates that memory^updates is below rounding, it adds nothing. So such a segment begins
with the rows Φ of so many updates after its own steps. They take no pass over a batch and make no entries.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from explaind_tf.sweeps.task import Task


@dataclass(frozen=True)
class Segment:
    """The steps ``first … stop − 1``, whose uses of samples are entered; the sweep begins with step ``begin − 1``.

    Attributes
    ----------
    first, stop : int
        The segment's own steps.
    begin : int
        After the last step that its rows need, ``stop`` or more.
    """

    first: int
    stop: int
    begin: int

    @classmethod
    def whole(cls, task: Task) -> "Segment":
        """Return all steps of a task at once."""
        return cls(0, task.question.stop, task.question.stop)


def segments_of(task: Task, count: int) -> list[Segment]:
    """Return up to ``count`` segments of about equal length, which together have every use that has an effect.

    Parameters
    ----------
    task : Task
        What is to be computed.
    count : int
        Number of segments. If there are fewer updates, there are fewer segments.
    """
    question, updates = task.question, Updates(task)
    remembered = remembered_updates(task)
    low = 0 if remembered is None else updates.before(question.first, remembered)
    bounds = [updates.after(round(at)) for at in np.linspace(low, question.stop, count + 1)[1:-1]]
    bounds = sorted({low, *(at for at in bounds if low < at < question.stop), question.stop})
    joined = question.options.step_of == "use"
    return [
        Segment(first, stop, stop if joined else updates.beyond(stop, remembered))
        for first, stop in itertools.pairwise(bounds)
    ]


def remembered_updates(task: Task) -> int | None:
    """Return after how many updates nothing of a gradient is left in the momentum, None if some always is."""
    law = task.recorded.law
    if not law.forgets or law.memory >= 1:
        return None
    eps = float(np.finfo(task.derivatives.model.dtype.as_numpy_dtype).eps)
    return 0 if law.memory <= 0 else math.ceil(math.log(eps) / math.log(law.memory))


class Updates:
    """Which steps of a run update its weights. A batch that waits belongs to the update after it, with no cut between."""

    def __init__(self, task: Task) -> None:
        recorded, stop = task.recorded, task.question.stop
        store = recorded.run.step_store
        # To ask each record takes as long as to read it.
        self._is_update = (
            [True] * stop
            if recorded.updates_each_step
            else [store.recorded(number).updates for number in range(stop)]
        )

    def after(self, number: int) -> int:
        """Return the first place from ``number`` on with an update right before it."""
        while 0 < number < len(self._is_update) and not self._is_update[number - 1]:
            number += 1
        return number

    def between(self, first: int, stop: int) -> int:
        """Return the number of updates in the steps ``first … stop − 1``."""
        return sum(self._is_update[first:stop])

    def beyond(self, number: int, count: int | None) -> int:
        """Return the place after the next ``count`` updates from step ``number`` on; None for all that there are."""
        if count is None:
            return len(self._is_update)
        while number < len(self._is_update) and count:
            count -= self._is_update[number]
            number += 1
        return number

    def before(self, number: int, count: int) -> int:
        """Return the place before the last ``count`` updates that come before step ``number``, and what waited for them."""
        while number > 0 and count:
            number -= 1
            count -= self._is_update[number]
        while number > 0 and not self._is_update[number - 1]:
            number -= 1
        return number
