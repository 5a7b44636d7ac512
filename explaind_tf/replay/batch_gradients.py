"""Gradients of recorded batches, recomputed from the samples and the recorded graphs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from explaind_tf import constants as names
from explaind_tf.errors import RunFormatError
from explaind_tf.kernel.derivatives.derivatives import Derivatives, Precisions
from explaind_tf.kernel.functions import Batch
from explaind_tf.laws.used_gradients import DRAWS, GAMMA, UNITS, Arithmetic, measured_rounding
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
        model, with_xla = self._as_trained.model, run.manifest.environment.get("jit_compile", False)
        self._arithmetic = Arithmetic.of(eps_of(run.weights_dtype), model.eps, with_xla=with_xla)
        self.has_regularizer = self._analysed.model.regularizer is not None

    def batch(self, step: ReplayedStep) -> Batch:
        """Return the training samples of a step."""
        return self._batch(step, self._analysed)

    def _batch(self, step: ReplayedStep, derivatives: Derivatives) -> Batch:
        transition = step.transition
        if not len(transition.rows) and not self._run.may_have_empty_batches:
            raise RunFormatError(
                f"{self._run.run_dir}: step {step.number} names no samples, and its gradient is asked for by sample. "
                f"Restore the run from a copy."
            )
        inputs, targets = self._run.samples.take_flat(transition.rows)
        samples = (inputs, targets, transition.weights)
        if (step.number, derivatives) not in self._scales:
            scales = derivatives.loss.scales(_start(step, derivatives), step.path.constants, *samples)
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
            found[names.DATA] = self._of_samples(step, self._as_trained)
        elif with_samples and grouping is not None:
            found[names.DATA] = self.of_groups(step, grouping)
            if with_rounding:
                whole = self._of_samples(step, self._as_trained)
                found[names.ROUNDING] = whole - found[names.DATA].sum(axis=0)
        if self.has_regularizer:
            found[names.REGULARIZER] = self.regularizer(step)
        return found

    def regularizer(self, step: ReplayedStep) -> np.ndarray:
        """Return the gradient of the regularisers in a step, shape (D,)."""
        return self._of_regularizer(step, self._as_trained, _start(step, self._as_trained))

    def lost_to_precision(self, steps: Sequence[ReplayedStep]) -> np.ndarray:
        """Return the gradients of samples that training used, less those in the precision of the analysis, shape (D,)."""
        lost = np.zeros(self._analysed.model.theta_size)
        for step in steps:
            used, twin = (self._of_samples(step, own) for own in (self._as_trained, self._analysed))
            lost += used.astype(np.float64) - twin
        return lost

    def rounding(self, steps: Sequence[ReplayedStep], *, as_trained: bool) -> np.ndarray:
        """Return how far rounding may change the sum of the gradients of some batches, shape (D,).

        Either that of training, or that of the analysis.
        """
        if as_trained:
            own, (eps, gamma) = self._as_trained, self._arithmetic
        else:
            own, (eps, gamma) = self._analysed, (self._analysed.model.eps, GAMMA)
        measured = np.sum([self._rounding(step, own, eps) for step in steps], axis=0)
        largest = sum(float(np.abs(self._of_samples(step, own)).max()) for step in steps)
        return gamma * measured + UNITS * float(np.finfo(own.model.dtype.as_numpy_dtype).eps) * largest

    def measured_rounding(self, step: ReplayedStep) -> np.ndarray:
        """Return how far rounding changes the gradient that training used in a step, shape (D,): one draw."""
        return self._rounding(step, self._as_trained, self._as_trained.model.eps, draws=1)

    def _rounding(self, step: ReplayedStep, own: Derivatives, eps: float, draws: int = DRAWS) -> np.ndarray:
        size = own.model.theta_size

        def gradient(of_weights: np.ndarray, of_samples: np.ndarray) -> np.ndarray:
            point = _start(step, own).copy()
            point[:size] = point[:size] * of_weights
            return self._of_samples(step, own, point, of_samples) + self._of_regularizer(step, own, point)

        return measured_rounding(gradient, len(step.transition.rows), size, step.number, eps, draws)

    def state(self, step: ReplayedStep) -> list[np.ndarray]:
        """Return the state that training on a step's batch leaves: an array for each variable that is not trained."""
        return self._state(step, 1.0, np.ones(len(step.transition.rows)))

    def rounding_of_state(self, step: ReplayedStep) -> list[np.ndarray]:
        """Return how far rounding may change the state that a step's batch leaves: an array for each variable."""
        eps, gamma = self._arithmetic
        ends = np.cumsum([spec.size for spec in self._run.manifest.state])[:-1]

        def flat(of_weights: np.ndarray, of_samples: np.ndarray) -> np.ndarray:
            return np.concatenate([array.ravel() for array in self._state(step, of_weights, of_samples)])

        size = self._as_trained.model.theta_size
        found = measured_rounding(flat, len(step.transition.rows), size, step.number, eps)
        return np.split(gamma * found, ends)

    def _state(
        self, step: ReplayedStep, of_weights: np.ndarray | float, of_samples: np.ndarray
    ) -> list[np.ndarray]:
        """Return the state that is left by a batch whose inputs, and weights before it, are multiplied with factors."""
        own = self._as_trained
        point, batch = _start(step, own).copy(), self._batch(step, own)
        point[: own.model.theta_size] *= of_weights
        inputs = [_times(array, of_samples) for array in batch.inputs]
        left = own.loss.state(point, step.path.constants, replace(batch, inputs=inputs))
        return [value.numpy() for value in left]

    def _of_samples(
        self,
        step: ReplayedStep,
        own: Derivatives,
        point: np.ndarray | None = None,
        shares: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the gradient of a share of each sample's loss, shape (D,)."""
        if not len(step.transition.rows):
            return np.zeros(own.model.theta_size, own.model.dtype.as_numpy_dtype)
        # A loss scale keeps small numbers from becoming zero in float16. It is a power of 2, so float32 does not round it.
        scale = step.transition.loss_scale if own is self._as_trained else 1.0
        point = _start(step, own) if point is None else point
        shares = np.ones(len(step.transition.rows)) if shares is None else shares
        scaled = own.loss.gradient(point, step.path.constants, self._batch(step, own), scale * shares)
        return scaled.numpy() / point.dtype.type(scale)

    def _of_regularizer(self, step: ReplayedStep, own: Derivatives, point: np.ndarray) -> np.ndarray:
        if not self.has_regularizer:
            return np.zeros(own.model.theta_size, point.dtype)
        inputs = self._batch(step, own).inputs
        return own.loss.regularizer_gradient(point, step.path.constants, inputs).numpy()

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


def _start(step: ReplayedStep, own: Derivatives) -> np.ndarray:
    """Return the point of a step in the precision of a model."""
    return step.path.start.astype(own.model.dtype.as_numpy_dtype, copy=False)


def _times(array: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return an array (batch, ...) with each sample multiplied with its factor; integers as they are."""
    if array.dtype.kind != "f":
        return array
    return (array * factors.reshape(-1, *[1] * (array.ndim - 1))).astype(array.dtype)
