"""Replay: recorded steps become path steps, each displacement split into its causes by the law."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.attribution.model import constants_of, flat_point
from explaind_tf.errors import RunFormatError, UnbalancedLedgerError
from explaind_tf.kernel.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch, Segment
from explaind_tf.kernel.sweeps import PathStep
from explaind_tf.optimizers import AdamWLaw
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.steps import Transition

# A step whose displacement the law misses by more than this share of the largest step so far was not taken
# from what is recorded. Rounding is orders of magnitude below.
_LARGEST_UNEXPLAINED = 1e-2
# Weights are rounded at every step, in float32 by some 1e-5 of the step. Where that is more than this share of
# the tolerance it is integrated on its own, so that the quadrature does not try to refine it away.
_NOTICEABLE = 1e-2


def law_of(run: RecordedRun) -> AdamWLaw:
    """Return the displacement law of the run's optimizer.

    Raises
    ------
    RunFormatError
        If this version does not know it.
    """
    config = dict(run.manifest.optimizer)
    name = config.pop("law", None)
    if name != AdamWLaw.name:
        raise RunFormatError(
            f"{run.run_dir} was trained by the optimizer {name!r}, which this version does not know."
        )
    try:
        return AdamWLaw(**{key: float(value) for key, value in config.items()})
    except (TypeError, ValueError) as error:
        raise RunFormatError(f"{run.run_dir}: the manifest's optimizer is damaged: {error}.") from error


class Replay:
    """The recorded run as the kernel sees it.

    Parameters
    ----------
    run : RecordedRun
        The run.
    derivatives : Derivatives
        Of the run's model.
    tolerance : float
        With which the path will be integrated.
    """

    def __init__(self, run: RecordedRun, derivatives: Derivatives, tolerance: float = 1e-3) -> None:
        self.run = run
        self._tolerance = tolerance
        self.law = law_of(run)
        self._derivatives = derivatives
        self._scales: dict[int, np.ndarray] = {}  # a few numbers a step
        self._has_regularizer = derivatives.model.regularizer is not None
        self._decay_mask = np.concatenate(
            [np.full(spec.size, float(spec.decay)) for spec in run.manifest.variables]
        ).astype(run.step_store.layout.dtype)

    def transition(self, step: int) -> Transition:
        """Return the record of a step."""
        return self.run.step_store.transition(step)

    def end(self, step: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return point and constants before ``step``."""
        state = self.run.step_store.state(step)
        return flat_point(self.run, self.run.step_store.theta(step), state), constants_of(self.run, state)

    def segment(self, transition: Transition) -> Segment:
        """Return the path of a step."""
        start = flat_point(self.run, transition.theta_start, transition.state_start)
        end = flat_point(self.run, transition.theta_end, transition.state_end)
        return Segment(start, end, end - start, constants_of(self.run, transition.state_start))

    def batch(self, transition: Transition) -> Batch:
        """Return the training samples of a step."""
        inputs, targets = self.run.samples.take_flat(transition.rows)
        samples = (inputs, targets, transition.weights)
        if transition.step not in self._scales:
            segment = self.segment(transition)
            scales = self._derivatives.loss_scales(segment.start, segment.constants, *samples)
            self._scales[transition.step] = scales.numpy()
        return Batch(*samples, self._scales[transition.step])

    def preconditioner(self, transition: Transition) -> np.ndarray:
        """Return the diagonal of P_s, shape (D,)."""
        values = self.law.preconditioner(
            tf.constant(transition.second_moment),
            transition.learning_rate,
            transition.iteration,
        )
        return values.numpy()

    def path_steps(self, first: int, stop: int) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1`` with their displacements split into causes.

        The momentum is replayed from the start of the run, one batch gradient a step. Samples, regulariser
        and the momentum from before the run are carried apart, so that each displaces by −P_s times its own.

        Raises
        ------
        UnbalancedLedgerError
            If the law does not explain a step.
        """
        start = self.run.step_store.start
        assert start.momentum is not None  # checked by the store
        law = self.law
        data = np.zeros_like(start.momentum)
        penalty = np.zeros_like(start.momentum)
        carried = start.momentum
        largest = 0.0
        for step in range(stop):
            transition = self.transition(step)
            segment = self.segment(transition)
            batch = self.batch(transition)
            gradient = self._derivatives.loss_gradient(segment.start, segment.constants, batch)
            data = law.momentum(data, gradient).numpy()
            if self._has_regularizer:
                gradient = self._derivatives.regularizer_gradient(
                    segment.start, segment.constants, batch.inputs
                )
                penalty = law.momentum(penalty, gradient).numpy()
            carried = carried * data.dtype.type(law.memory)
            if step < first:
                continue
            preconditioner = self.preconditioner(transition)
            decay = law.decay(
                tf.constant(transition.theta_start),
                tf.constant(self._decay_mask),
                transition.learning_rate,
            ).numpy()
            stepped = transition.theta_stepped - transition.theta_start
            unexplained = stepped - decay + preconditioner * (data + penalty + carried)
            missed = float(np.linalg.norm(unexplained))
            largest = max(largest, float(np.linalg.norm(stepped)))
            self._check_law(step, missed, largest)
            is_noticeable = missed > _NOTICEABLE * self._tolerance * float(
                np.linalg.norm(segment.displacement)
            )
            causes = {
                names.DATA: -preconditioner * data,
                names.WEIGHT_DECAY: decay,
                names.REGULARIZER: -preconditioner * penalty,
                names.CARRYOVER: -preconditioner * carried,
                names.EXTERNAL: transition.theta_end - transition.theta_stepped,
            }
            theta_size = self._derivatives.model.theta_size
            points = {
                name: self._pad(vector)
                for name, vector in causes.items()
                if name == names.DATA or vector.any()
            }
            drift = segment.displacement.copy()
            drift[:theta_size] = 0
            if drift.any():
                points[names.STATE] = drift
            yield PathStep(step, segment, points, self._pad(unexplained) if is_noticeable else None)

    def _pad(self, theta: np.ndarray) -> np.ndarray:
        model = self._derivatives.model
        return np.concatenate([theta, np.zeros(model.point_size - model.theta_size, theta.dtype)])

    def _check_law(self, step: int, unexplained: float, largest: float) -> None:
        if unexplained > _LARGEST_UNEXPLAINED * largest:
            raise UnbalancedLedgerError(
                f"Step {step} of {self.run.run_dir} moved the weights in a way that the record does not explain: replaying "
                f"its batch misses {unexplained / largest:.1%} of the displacement. The batch that trained was not the "
                f"recorded one, or something changed gradients or weights within the step (a callback that sets weights "
                f"in on_train_batch_begin, a train_step of your own). No ledger would balance from this step on."
            )
