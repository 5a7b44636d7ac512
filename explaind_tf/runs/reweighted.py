"""A recorded training with other weights of samples, as steps that can be walked in any order."""

import math

import numpy as np

from explaind_tf.errors import RefusedError
from explaind_tf.progress import Progress
from explaind_tf.runs.format.step_records import Snapshot, StepRecord
from explaind_tf.runs.reader import RecordedRun
from explaind_tf.runs.retraining import Retrainer
from explaind_tf.runs.steps import Transition, transition_of


class ReweightedSteps:
    """The steps of a training with other weights of samples, trained again when they are asked for.

    It holds the states of every √N-th step, and those of the steps between two of them.

    Parameters
    ----------
    run : RecordedRun
        The run.
    retrainer : Retrainer
        Trains it again.
    factors : np.ndarray
        Factor of the weight of each row of the sample store, shape (rows,).
    progress : Progress
        Shows a bar of the first training.

    Raises
    ------
    RefusedError
        If a step with other weights is not known as a whole: if gradients are clipped by norm or accumulated, scaled by a
        loss scale, or weights are averaged.
    """

    def __init__(
        self, run: RecordedRun, retrainer: Retrainer, factors: np.ndarray, progress: Progress
    ) -> None:
        _refuse_unknown(run)
        retrainer.check(factors, progress)
        self._store, self._retrainer, self._factors = run.step_store, retrainer, factors
        self.layout, self.start = run.step_store.layout, run.step_store.start
        self._distance = math.isqrt(max(len(self) - 1, 0)) + 1
        self._keyframes = {0: self.start}
        with progress.task("Train with other weights", len(self)) as advance:
            for record in retrainer.walk(factors, 0, len(self), self.start):
                number = record.step + 1
                if number % self._distance == 0 or number == len(self):
                    self._keyframes[number] = record.known
                advance()
        self._gap: dict[int, StepRecord] = {}

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._store)

    def recorded(self, step: int) -> StepRecord:
        """Return the record of a step, without the state that it led to."""
        return self._store.recorded(step)

    def _trained(self, step: int) -> StepRecord:
        """Return the record of a step with the state that it leads to. Only the steps after one keyframe are held."""
        if step not in self._gap:
            first = step // self._distance * self._distance
            stop = min(first + self._distance, len(self))
            self._gap = {}  # frees its memory before the next gap needs memory
            walk = self._retrainer.walk(self._factors, first, stop, self._keyframes[first])
            self._gap = {record.step: record for record in walk}
        return self._gap[step]

    def _before(self, step: int) -> Snapshot:
        return self._keyframes[step] if step in self._keyframes else self._trained(step - 1).known

    def theta(self, step: int) -> np.ndarray:
        """Return θ before ``step``, shape (D,); ``step == len(self)`` gives the final weights."""
        return self._before(step).theta

    def state(self, step: int) -> list[np.ndarray]:
        """Return the non-trainable variables before ``step``."""
        return self._before(step).state

    def transition(self, step: int) -> Transition:
        """Return everything about ``step``."""
        record, before = self._trained(step), self._before(step)
        after = record.known
        return transition_of(record, before, (before.theta, before.state), (after.theta, after.state))


def _refuse_unknown(run: RecordedRun) -> None:
    settings = run.manifest.optimizer
    first = run.step_store.recorded(0)
    found = {
        "clips gradients by their norm": first.clip_factors is not None,
        "accumulates gradients": settings.accumulates > 1,
        "keeps a moving average of the weights": settings.ema_momentum is not None,
        "has a loss scale": run.step_store.layout.loss_scale_place is not None,
        "was given weights or state by something else": first.theta_before is not None
        or first.state_before is not None,
    }
    reasons = [reason for reason, is_so in found.items() if is_so]
    if reasons:
        raise RefusedError(
            f'at="halves" needs all that a step with other weights of samples uses, and this training {reasons[0]}. Ask '
            f'with at="recorded".'
        )
