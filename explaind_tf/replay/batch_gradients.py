"""Gradients of recorded batches, recomputed from the samples and the recorded graphs."""

import numpy as np

from explaind_tf import constants as names
from explaind_tf.kernel.derivatives.derivatives import Derivatives, Precisions
from explaind_tf.kernel.functions import Batch
from explaind_tf.laws.used_gradients import measured_rounding
from explaind_tf.replay.path_replay import Grouping, ReplayedStep
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.graphs.precision import eps_of


class BatchGradients:
    """The batches of a run, and the gradients of their losses.

    Gradients of whole batches are those that training used: in its precision, with its loss scale. Gradients of groups
    are in the precision of the analysis, and so are batches.

    Parameters
    ----------
    run : RecordedRun
        The run.
    precisions : Precisions
        The derivatives of the run's model.
    """

    def __init__(self, run: RecordedRun, precisions: Precisions) -> None:
        self._run, self._analysed, self._as_trained = run, *precisions
        self._scales: dict[tuple[int, Derivatives], np.ndarray] = {}  # a few numbers a step
        # Only XLA computes in another order than the recorded graphs. Elsewhere even low precision is repeated bit by bit,
        # so only the rounding of the weights remains.
        with_xla = run.manifest.environment.get("jit_compile", False)
        self._eps = self._as_trained.model.eps if with_xla else eps_of(run.weights_dtype)
        self.has_regularizer = self._analysed.model.regularizer is not None

    def batch(self, step: ReplayedStep) -> Batch:
        """Return the training samples of a step."""
        return self._batch(step, self._analysed)

    def _batch(self, step: ReplayedStep, derivatives: Derivatives) -> Batch:
        transition = step.transition
        inputs, targets = self._run.samples.take_flat(transition.rows)
        samples = (inputs, targets, transition.weights)
        if (step.number, derivatives) not in self._scales:
            point = step.path.start.astype(derivatives.model.dtype.as_numpy_dtype, copy=False)
            scales = derivatives.loss.scales(point, step.path.constants, *samples)
            self._scales[step.number, derivatives] = scales.numpy()
        return Batch(*samples, self._scales[step.number, derivatives])

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
            found[names.DATA] = self._of_samples(step, self._start(step), np.ones(len(step.transition.rows)))
        elif with_samples and grouping is not None:
            found[names.DATA] = self.of_groups(step, grouping)
            if with_rounding:
                whole = self._of_samples(step, self._start(step), np.ones(len(step.transition.rows)))
                found[names.ROUNDING] = whole - found[names.DATA].sum(axis=0)
        if self.has_regularizer:
            found[names.REGULARIZER] = self.regularizer(step)
        return found

    def regularizer(self, step: ReplayedStep) -> np.ndarray:
        """Return the gradient of the regularisers in a step, shape (D,)."""
        return self._of_regularizer(step, self._start(step))

    def rounding(self, step: ReplayedStep) -> np.ndarray:
        """Return how far rounding may change the gradient of the batch of a step, shape (D,)."""
        size = self._as_trained.model.theta_size

        def gradient(of_weights: np.ndarray, of_samples: np.ndarray) -> np.ndarray:
            point = self._start(step).copy()
            point[:size] = point[:size] * of_weights
            return self._of_samples(step, point, of_samples) + self._of_regularizer(step, point)

        return measured_rounding(gradient, len(step.transition.rows), size, step.number, self._eps)

    def _start(self, step: ReplayedStep) -> np.ndarray:
        """Return the point of a step in the precision of training."""
        return step.path.start.astype(self._as_trained.model.dtype.as_numpy_dtype, copy=False)

    def _of_samples(self, step: ReplayedStep, point: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Return the gradient of a share of each sample's loss, as training computes it, shape (D,)."""
        # A loss scale keeps small numbers from becoming zero in float16. It is a power of 2, so float32 does not round it.
        batch, scale = self._batch(step, self._as_trained), step.transition.loss_scale
        scaled = self._as_trained.loss.gradient(point, step.path.constants, batch, scale * shares)
        return scaled.numpy() / point.dtype.type(scale)

    def _of_regularizer(self, step: ReplayedStep, point: np.ndarray) -> np.ndarray:
        if not self.has_regularizer:
            return np.zeros(self._as_trained.model.theta_size, point.dtype)
        inputs = self._batch(step, self._as_trained).inputs
        return self._as_trained.loss.regularizer_gradient(point, step.path.constants, inputs).numpy()

    def whole(self, step: ReplayedStep) -> np.ndarray:
        """Return the sum of the gradients of all sources, shape (D,)."""
        return np.sum(list(self.by_source(step, None, with_samples=True).values()), axis=0)

    def of_groups(self, step: ReplayedStep, grouping: Grouping) -> np.ndarray:
        """Return the gradients of the groups' losses in the batch of a step, shape (G, D)."""
        batch, at = self.batch(step), (step.path.start, step.path.constants)
        of_sample = grouping.of_row[step.transition.rows]
        gradients = np.zeros((grouping.count, self._analysed.model.theta_size), step.path.start.dtype)
        for group in np.unique(of_sample):
            is_member = of_sample == group
            # Samples that depend on their batch must be differentiated within it; others need only their own group.
            part = batch if grouping.coupled else batch.take(np.flatnonzero(is_member))
            shares = is_member if grouping.coupled else None
            gradients[group] = self._analysed.loss.gradient(*at, part, shares).numpy()
        return gradients
