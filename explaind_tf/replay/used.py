"""What each update of a recorded run used and added to the momentum, from the record alone."""

from dataclasses import replace

import numpy as np

from explaind_tf.laws import Law, Moments, StepFactors, UsedGradient
from explaind_tf.laws.used_gradients import Preparation
from explaind_tf.replay.path_replay import ReplayedStep
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.steps import Transition


class RecordedUpdates:
    """The updates of a run, as the optimizer's recorded variables show them.

    Parameters
    ----------
    run : RecordedRun
        The run.
    law : Law
        The law of its optimizer.

    Attributes
    ----------
    sizes : list of int
        Number of weights of each trainable variable.
    decay_mask : np.ndarray
        One where a weight is decayed and zero elsewhere, shape (D,).
    """

    def __init__(self, run: RecordedRun, law: Law) -> None:
        self._run, self._law = run, law
        specs = run.manifest.variables
        self.sizes = [spec.size for spec in specs]
        self.decay_mask = np.repeat([float(spec.decay) for spec in specs], self.sizes).astype(
            run.step_store.layout.dtype
        )

    @property
    def has_momentum(self) -> bool:
        """Whether the optimizer keeps a momentum. If not, only the weights show what an update used."""
        return self._run.step_store.start.momentum is not None

    def momentum_added(self, step: ReplayedStep, memory: float) -> np.ndarray:
        """Return m_s − memory · m_{s−1}, shape (D,), float64. The optimizer must keep a momentum."""
        before, after = step.transition.momentum_start, step.transition.momentum
        assert before is not None and after is not None
        return after.astype(np.float64) - memory * before.astype(np.float64)

    def gradient(self, step: ReplayedStep) -> UsedGradient | None:
        """Return the gradient that an update used, or None if it left no trace."""
        transition = step.transition
        return self._law.used_gradient(
            *self._moments(transition), self.decay_mask, transition.learning_rate, transition.iteration
        )

    def factors(self, transition: Transition, dtype: np.dtype) -> StepFactors:
        """Return the coefficients of an update, from a second moment in the precision of the analysis."""
        before, after = self._moments(transition)
        if after.second_moment is not None:
            after = replace(after, second_moment=after.second_moment.astype(dtype, copy=False))
        return self._law.factors(before, after, transition.learning_rate, transition.iteration)

    def _moments(self, transition: Transition) -> tuple[Moments, Moments]:
        """Return weights and moments on either side of an update."""
        read = self._law.further
        before, after = transition.optimizer_start, transition.optimizer
        return (
            Moments(transition.theta_start, transition.momentum_start, None, read(before, self.sizes)),
            Moments(
                transition.theta_stepped,
                transition.momentum,
                transition.second_moment,
                read(after, self.sizes),
            ),
        )

    def divisor(self, step: ReplayedStep) -> np.ndarray | None:
        """Return what an update divided its gradient by, shape (D,), or None if the law divides by no gradients."""
        divisor = self._law.divisor(*self._moments(step.transition), step.transition.iteration)
        return None if divisor is None else divisor.numpy()

    def preparation(self, transition: Transition) -> Preparation:
        """Return how an update prepared the gradients of its batches."""
        settings, factors = self._run.manifest.optimizer, transition.clip_factors
        return Preparation(
            accumulates=settings.accumulates,
            clip_factors=None if factors is None else np.repeat(factors, self.sizes),
            clipvalue=settings.clipvalue,
        )
