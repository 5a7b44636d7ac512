"""Gradients of recorded batches, recomputed from the samples and the recorded graphs."""

import numpy as np

from explaind_tf import constants as names
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch
from explaind_tf.laws.used_gradients import measured_rounding
from explaind_tf.replay.path_replay import Grouping, ReplayedStep
from explaind_tf.runs import RecordedRun


class BatchGradients:
    """The batches of a run, and the gradients of their losses.

    Parameters
    ----------
    run : RecordedRun
        The run.
    derivatives : Derivatives
        Of the run's model.
    """

    def __init__(self, run: RecordedRun, derivatives: Derivatives) -> None:
        self._run, self._derivatives = run, derivatives
        self._scales: dict[int, np.ndarray] = {}  # a few numbers a step
        self.has_regularizer = derivatives.model.regularizer is not None

    def batch(self, step: ReplayedStep) -> Batch:
        """Return the training samples of a step."""
        transition = step.transition
        inputs, targets = self._run.samples.take_flat(transition.rows)
        samples = (inputs, targets, transition.weights)
        if step.number not in self._scales:
            scales = self._derivatives.loss.scales(step.path.start, step.path.constants, *samples)
            self._scales[step.number] = scales.numpy()
        return Batch(*samples, self._scales[step.number])

    def by_source(
        self,
        step: ReplayedStep,
        grouping: Grouping | None,
        *,
        with_samples: bool,
        with_rounding: bool = False,
    ) -> dict[str, np.ndarray]:
        """Return the gradients of the batch's losses (if asked for) and of the regularisers (if any), each of shape (D,).

        With groups, the gradients of the losses have the shape (G, D). What they leave of the gradient of the batch is
        computed if it is asked for.
        """
        found = {}
        if with_samples and grouping is None:
            found[names.DATA] = self.of_shares(step, None)
        elif with_samples and grouping is not None:
            found[names.DATA] = self.of_groups(step, grouping)
            if with_rounding:
                found[names.ROUNDING] = self.of_shares(step, None) - found[names.DATA].sum(axis=0)
        if self.has_regularizer:
            found[names.REGULARIZER] = self.regularizer(step)
        return found

    def of_shares(self, step: ReplayedStep, shares: np.ndarray | None) -> np.ndarray:
        """Return the gradient of a share of each sample's loss in the batch of a step, by default of all, shape (D,)."""
        at = (step.path.start, step.path.constants)
        return self._derivatives.loss.gradient(*at, self.batch(step), shares).numpy()

    def regularizer(self, step: ReplayedStep) -> np.ndarray:
        """Return the gradient of the regularisers in a step, shape (D,)."""
        if not self.has_regularizer:
            return np.zeros(self._derivatives.model.theta_size, step.path.start.dtype)
        at = (step.path.start, step.path.constants)
        return self._derivatives.loss.regularizer_gradient(*at, self.batch(step).inputs).numpy()

    def rounding(self, step: ReplayedStep) -> np.ndarray:
        """Return how far rounding may change the gradient of the batch of a step, shape (D,)."""
        batch, size = self.batch(step), self._derivatives.model.theta_size
        start, constants = step.path.start, step.path.constants

        def gradient(of_weights: np.ndarray, of_samples: np.ndarray) -> np.ndarray:
            point = start.copy()
            point[:size] = point[:size] * of_weights
            found: np.ndarray = self._derivatives.loss.gradient(point, constants, batch, of_samples).numpy()
            if self.has_regularizer:
                found = (
                    found
                    + self._derivatives.loss.regularizer_gradient(point, constants, batch.inputs).numpy()
                )
            return found

        return measured_rounding(gradient, len(batch), size, step.number, float(np.finfo(start.dtype).eps))

    def whole(self, step: ReplayedStep) -> np.ndarray:
        """Return the sum of the gradients of all sources, shape (D,)."""
        return np.sum(list(self.by_source(step, None, with_samples=True).values()), axis=0)

    def of_groups(self, step: ReplayedStep, grouping: Grouping) -> np.ndarray:
        """Return the gradients of the groups' losses in the batch of a step, shape (G, D)."""
        batch, at = self.batch(step), (step.path.start, step.path.constants)
        of_sample = grouping.of_row[step.transition.rows]
        gradients = np.zeros((grouping.count, self._derivatives.model.theta_size), step.path.start.dtype)
        for group in np.unique(of_sample):
            is_member = of_sample == group
            # Samples that depend on their batch must be differentiated within it; others need only their own group.
            part = batch if grouping.coupled else batch.take(np.flatnonzero(is_member))
            shares = is_member if grouping.coupled else None
            gradients[group] = self._derivatives.loss.gradient(*at, part, shares).numpy()
        return gradients
