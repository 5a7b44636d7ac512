"""Replay: recorded steps become path steps, each displacement split into its causes by the law."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.attribution.model import constants_of, flat_point
from explaind_tf.errors import RunFormatError, UnbalancedLedgerError
from explaind_tf.kernel.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch, Segment
from explaind_tf.kernel.sweeps import PathStep
from explaind_tf.optimizers.laws import Law, clip_ratio, law_from_config
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.steps import Transition

# A step whose displacement the law misses by more than this share of the largest step so far was not taken
# from what is recorded. Rounding is orders of magnitude below.
_LARGEST_UNEXPLAINED = 1e-2
# Weights are rounded at every step, in float32 by some 1e-5 of the step. Where that is more than this share of
# the tolerance it is integrated on its own, so that the quadrature does not try to refine it away.
_NOTICEABLE = 1e-2


@dataclass(frozen=True)
class _Rules:
    """How the optimizer of a run makes updates of gradients."""

    law: Law
    accumulates: int
    clipvalue: float | None


def _rules_of(run: RecordedRun) -> _Rules:
    config = run.manifest.optimizer
    name = config.get("law")
    try:
        law = law_from_config(str(name), config["constants"])
    except LookupError:
        raise RunFormatError(
            f"{run.run_dir} was trained by the optimizer {name!r}, which this version does not know."
        ) from None
    except (AttributeError, TypeError, ValueError) as error:
        raise RunFormatError(f"{run.run_dir}: the manifest's optimizer is damaged: {error}.") from error
    accumulates, clipvalue = config.get("accumulates"), config.get("clipvalue")
    is_valid = isinstance(accumulates, int) and accumulates > 0
    if not is_valid or not (clipvalue is None or isinstance(clipvalue, (int, float))):
        raise RunFormatError(f"{run.run_dir}: the manifest's optimizer is damaged: {config!r}.")
    return _Rules(law, int(accumulates or 1), clipvalue)


@dataclass(frozen=True)
class Update:
    """The coefficients of one update of the weights; vectors are of shape (D,).

    Attributes
    ----------
    gain, direct : float
        What a unit of gradient adds to the momentum, and moves a weight by besides.
    pull : np.ndarray
        What a unit of momentum moves a weight by, shape (D,) or ().
    scale : np.ndarray
        κ over the number of accumulated batches, shape (D,) or (): makes gradients of batches that of the update.
    """

    gain: float
    direct: float
    pull: np.ndarray
    scale: np.ndarray


@dataclass
class _Flow:
    """One cause of gradients on its way to the weights: what waits for an update, and its momentum."""

    waiting: np.ndarray
    momentum: np.ndarray

    def receive(self, gradient: np.ndarray) -> None:
        """Add the gradient of a batch."""
        self.waiting = self.waiting + gradient

    def displace(self, law: Law, update: Update, learning_rate: float) -> np.ndarray:
        """Take part in an update and return the displacement, shape (D,)."""
        dtype = self.momentum.dtype
        gradient = self.waiting * update.scale.astype(dtype)
        self.momentum = law.momentum(tf.constant(self.momentum), tf.constant(gradient), learning_rate).numpy()
        self.waiting = np.zeros_like(self.waiting)
        displacement = self.momentum * update.pull.astype(dtype)
        return displacement + gradient * dtype.type(update.direct) if update.direct else displacement


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
        self._rules = _rules_of(run)
        self.law = self._rules.law
        self._derivatives = derivatives
        self._scales: dict[int, np.ndarray] = {}  # a few numbers a step
        self._has_regularizer = derivatives.model.regularizer is not None
        self._sizes = [spec.size for spec in run.manifest.variables]
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

    def update(self, transition: Transition) -> Update:
        """Return the coefficients of a step that updates the weights."""
        waiting = None if self._rules.clipvalue is None else self._waiting_gradient(transition)
        return self._coefficients(transition, waiting)

    def _coefficients(self, transition: Transition, waiting: np.ndarray | None) -> Update:
        second_moment = transition.second_moment
        factors = self.law.factors(
            None if second_moment is None else tf.constant(second_moment),
            transition.learning_rate,
            transition.iteration,
        )
        scale = np.asarray(1.0 / self._rules.accumulates)
        if transition.clip_factors is not None:
            scale = scale * np.repeat(transition.clip_factors, self._sizes)
        elif self._rules.clipvalue is not None:
            assert waiting is not None
            scale = (
                scale
                * clip_ratio(tf.constant(waiting / self._rules.accumulates), self._rules.clipvalue).numpy()
            )
        return Update(factors.gain, factors.direct, factors.pull.numpy(), scale)

    def _waiting_gradient(self, transition: Transition) -> np.ndarray:
        """Return the sum of the gradients that an update receives, all causes together, shape (D,)."""
        total = self._gradient(transition)
        step = transition.step - 1
        while step >= 0 and not (earlier := self.transition(step)).updates:
            total = total + self._gradient(earlier)
            step -= 1
        accumulated = self.run.step_store.start.accumulated
        return total if step >= 0 or accumulated is None else total + accumulated

    def _gradient(self, transition: Transition) -> np.ndarray:
        data, penalty = self._gradients(transition)
        return data + penalty

    def _gradients(self, transition: Transition) -> tuple[np.ndarray, np.ndarray]:
        """Return the gradients of the batch's losses and of the regularisers, each of shape (D,)."""
        segment, batch = self.segment(transition), self.batch(transition)
        data = self._derivatives.loss_gradient(segment.start, segment.constants, batch)
        if not self._has_regularizer:
            return data.numpy(), np.zeros_like(transition.theta_start)
        penalty = self._derivatives.regularizer_gradient(segment.start, segment.constants, batch.inputs)
        return data.numpy(), penalty.numpy()

    def path_steps(self, first: int, stop: int) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1`` with their displacements split into causes.

        The momentum is replayed from the start of the run, one batch gradient a step. Samples, regulariser
        and the momentum from before the run are carried apart, so that each displaces by its own.

        Raises
        ------
        UnbalancedLedgerError
            If the law does not explain a step.
        """
        start = self.run.step_store.start
        zeros = np.zeros_like(start.theta)
        data, penalty = _Flow(zeros, zeros), _Flow(zeros, zeros)
        carried = _Flow(
            zeros if start.accumulated is None else start.accumulated,
            zeros if start.momentum is None else start.momentum,
        )
        flows = {names.DATA: data, names.REGULARIZER: penalty, names.CARRYOVER: carried}
        largest = 0.0
        for step in range(stop):
            transition = self.transition(step)
            for flow, gradient in zip((data, penalty), self._gradients(transition), strict=True):
                flow.receive(gradient)
            causes = self._causes(transition, flows)
            if step < first:
                continue
            stepped = transition.theta_stepped - transition.theta_start
            unexplained = stepped - sum(causes.values())
            missed = float(np.linalg.norm(unexplained))
            largest = max(largest, float(np.linalg.norm(stepped)))
            self._check_law(step, missed, largest)
            causes[names.EXTERNAL] = transition.theta_end - transition.theta_stepped
            yield self._path_step(transition, causes, unexplained)

    def _causes(self, transition: Transition, flows: dict[str, _Flow]) -> dict[str, np.ndarray]:
        """Return the displacement by each cause of the optimizer's, and let the flows go on."""
        if not transition.updates:
            return {names.DATA: np.zeros_like(transition.theta_start)}
        waiting = np.sum([flow.waiting for flow in flows.values()], axis=0)
        update = self._coefficients(transition, waiting)
        decay = self.law.decay(
            tf.constant(transition.theta_start), tf.constant(self._decay_mask), transition.learning_rate
        )
        displaced = {
            name: flow.displace(self.law, update, transition.learning_rate) for name, flow in flows.items()
        }
        return {names.WEIGHT_DECAY: decay.numpy(), **displaced}

    def _path_step(
        self, transition: Transition, causes: dict[str, np.ndarray], unexplained: np.ndarray
    ) -> PathStep:
        segment = self.segment(transition)
        size = float(np.linalg.norm(segment.displacement))
        is_noticeable = float(np.linalg.norm(unexplained)) > _NOTICEABLE * self._tolerance * size
        points = {
            name: self._pad(vector) for name, vector in causes.items() if name == names.DATA or vector.any()
        }
        drift = segment.displacement.copy()
        drift[: self._derivatives.model.theta_size] = 0
        if drift.any():
            points[names.STATE] = drift
        return PathStep(transition.step, segment, points, self._pad(unexplained) if is_noticeable else None)

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
