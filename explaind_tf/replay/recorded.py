"""Replay: recorded steps become path steps, each displacement split into its causes by the law."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.errors import RunFormatError, UnbalancedLedgerError
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch, Segment
from explaind_tf.kernel.sweeps import PathStep
from explaind_tf.laws import Law, clip_ratio, law_from_config
from explaind_tf.replay.binding import constants_of, flat_point
from explaind_tf.runs import RecordedRun, WeightPath
from explaind_tf.runs.steps import Transition

# A step whose displacement the law misses by more than this share of the largest step so far was not taken
# from what is recorded. Rounding is orders of magnitude below.
_LARGEST_UNEXPLAINED = 1e-2
# Weights are rounded at every step, in float32 by some 1e-5 of the step. Where that is more than this share of
# the tolerance it is integrated on its own, so that the quadrature does not try to refine it away.
_NOTICEABLE = 1e-2
# The cause of all of a displacement, before it is split.
_WHOLE = "all causes"


@dataclass(frozen=True)
class _Rules:
    """How the optimizer of a run makes updates of gradients."""

    law: Law
    accumulates: int
    clipvalue: float | None


def _rules_of(run: RecordedRun) -> _Rules:
    optimizer = run.manifest.optimizer
    try:
        law = law_from_config(optimizer.law, optimizer.constants)
    except LookupError:
        raise RunFormatError(
            f"{run.run_dir} was trained by the optimizer {optimizer.law!r}, which this version does not know."
        ) from None
    except (TypeError, ValueError) as error:
        raise RunFormatError(f"{run.run_dir}: the manifest's optimizer is damaged: {error}.") from error
    return _Rules(law, optimizer.accumulates, optimizer.clipvalue)


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


@dataclass(frozen=True)
class Grouping:
    """How the samples of a run are put together, and whether they depend on their batch.

    Attributes
    ----------
    of_row : np.ndarray of int
        The group of each row of the sample store.
    count : int
        Number of groups G.
    coupled : bool
        Whether a sample's loss depends on the rest of its batch.
    """

    of_row: np.ndarray
    count: int
    coupled: bool


@dataclass
class _Flow:
    """One cause of gradients on its way to the weights: what waits for an update, and its momentum.

    Both of shape (D,), or (G, D) for a cause that is split over groups.
    """

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

    def reach(self, momentum: np.ndarray, law: Law, update: Update) -> np.ndarray:
        """Take part in an update that leaves a known momentum, and return the displacement, shape (D,)."""
        dtype = momentum.dtype
        displacement = momentum * update.pull.astype(dtype)
        if update.direct:  # of the gradient, which is what the momentum gained but for its factor
            gained = momentum - self.momentum * dtype.type(law.memory)
            displacement = displacement + gained * dtype.type(update.direct / update.gain)
        self.momentum = momentum
        return displacement


def _total(vectors: np.ndarray) -> np.ndarray:
    """Return a cause as one vector (D,), whether it is split over groups or not."""
    return vectors.sum(axis=0) if vectors.ndim == 2 else vectors


class PathReplay(ABC):
    """A path of weights as the kernel sees it.

    Parameters
    ----------
    run : WeightPath
        The path.
    """

    def __init__(self, run: WeightPath) -> None:
        self._path = run
        self._last: tuple[int, Segment] | None = None

    def transition(self, step: int) -> Transition:
        """Return the record of a step."""
        return self._path.step_store.transition(step)

    def end(self, step: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return point and constants before ``step``."""
        state = self._path.step_store.state(step)
        return flat_point(self._path, self._path.step_store.theta(step), state), constants_of(
            self._path, state
        )

    def segment(self, transition: Transition) -> Segment:
        """Return the path of a step; the last one is kept, for a step asks for it several times."""
        if self._last is not None and self._last[0] == transition.step:
            return self._last[1]
        start = flat_point(self._path, transition.theta_start, transition.state_start)
        end = flat_point(self._path, transition.theta_end, transition.state_end)
        segment = Segment(start, end, end - start, constants_of(self._path, transition.state_start))
        self._last = (transition.step, segment)
        return segment

    @abstractmethod
    def path_steps(self, first: int, stop: int, *, grouping: Grouping | None = None) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1`` with their displacements split into causes."""

    @abstractmethod
    def needs_history(self, grouping: Grouping | None = None) -> bool:
        """Whether a step can only be split into causes by way of all steps before it."""


class Replay(PathReplay):
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
        super().__init__(run)
        self.run = run
        self._tolerance = tolerance
        self._rules = _rules_of(run)
        self.law = self._rules.law
        self._derivatives = derivatives
        self._scales: dict[int, np.ndarray] = {}  # a few numbers a step
        self._largest: dict[int, float] = {}  # the largest step up to each one
        self._update: tuple[int, Update] | None = None
        self._has_regularizer = derivatives.model.regularizer is not None
        self._sizes = [spec.size for spec in run.manifest.variables]
        self._decay_mask = np.concatenate(
            [np.full(spec.size, float(spec.decay)) for spec in run.manifest.variables]
        ).astype(run.step_store.layout.dtype)

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
        if self._rules.clipvalue is not None:
            return self._coefficients(transition, self._waiting_gradient(transition))
        if self._update is None or self._update[0] != transition.step:  # asked for twice in a row
            self._update = transition.step, self._coefficients(transition, None)
        return self._update[1]

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
        return np.sum(list(self._gradients(transition, None, with_samples=True).values()), axis=0)

    def _gradients(
        self, transition: Transition, grouping: Grouping | None, *, with_samples: bool
    ) -> dict[str, np.ndarray]:
        """Return the gradients of the batch's losses (if asked for) and of the regularisers (if any), each (D,).

        With groups, those of the losses are (G, D).
        """
        if not with_samples and not self._has_regularizer:
            return {}
        segment, batch = self.segment(transition), self.batch(transition)
        at = (segment.start, segment.constants)
        found = {}
        if with_samples and grouping is None:
            found[names.DATA] = self._derivatives.loss_gradient(*at, batch).numpy()
        elif with_samples and grouping is not None:
            found[names.DATA] = self.group_gradients(transition, grouping)
        if self._has_regularizer:
            found[names.REGULARIZER] = self._derivatives.regularizer_gradient(*at, batch.inputs).numpy()
        return found

    def group_gradients(self, transition: Transition, grouping: Grouping) -> np.ndarray:
        """Return the gradients of the groups' losses in the batch of a step, shape (G, D)."""
        segment, batch = self.segment(transition), self.batch(transition)
        of_sample = grouping.of_row[transition.rows]
        gradients = np.zeros((grouping.count, self._derivatives.model.theta_size), segment.start.dtype)
        for group in np.unique(of_sample):
            is_member = of_sample == group
            # Samples that depend on their batch are differentiated within it, the others among themselves.
            part = batch if grouping.coupled else batch.take(np.flatnonzero(is_member))
            shares = is_member if grouping.coupled else None
            at = (segment.start, segment.constants)
            gradients[group] = self._derivatives.loss_gradient(*at, part, shares).numpy()
        return gradients

    def path_steps(
        self, first: int, stop: int, *, from_batches: bool = False, grouping: Grouping | None = None
    ) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1`` with their displacements split into causes.

        Momentum is linear in the gradients, so it splits as they do. Of the momentum that was recorded, what comes from
        regularisers and from before the run is carried along apart; the rest is the samples'. No batch is touched for
        it, unless the optimizer keeps no momentum or clips elements.

        Parameters
        ----------
        first, stop : int
            Range of steps.
        from_batches : bool
            Replay the gradient of every batch from the start of the run, instead of taking the momentum as recorded. It
            proves that the recorded batches were those that trained.
        grouping : Grouping, optional
            Split what comes from the samples over groups, which takes the gradients of batches, too.

        Raises
        ------
        UnbalancedLedgerError
            If the law does not explain a step.
        """
        replays = from_batches or self._needs_batches or grouping is not None
        flows = self._flows(grouping)
        begin = 0 if from_batches or self.needs_history(grouping) else first
        if begin > 0 and self.law.looks_ahead:
            flows[names.DATA].momentum = self._momentum_before(begin)
        largest = self._largest.get(begin, 0.0)
        for step in range(begin, stop):
            transition = self.transition(step)
            for name, gradient in self._gradients(transition, grouping, with_samples=replays).items():
                flows[name].receive(gradient)
            causes = self._causes(transition, flows, replays)
            if step < first:
                continue
            stepped = transition.theta_stepped - transition.theta_start
            unexplained = stepped - sum(_total(cause) for cause in causes.values())
            missed = float(np.linalg.norm(unexplained))
            largest = max(largest, float(np.linalg.norm(stepped)))
            self._check_law(step, missed, largest)
            causes[names.EXTERNAL] = transition.theta_end - transition.theta_stepped
            yield self._path_step(transition, causes, unexplained)

    def whole_steps(self, first: int, stop: int) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1`` with all of their displacement as one cause."""
        largest = 0.0
        for step in range(first, stop):
            transition = self.transition(step)
            largest = max(largest, float(np.linalg.norm(transition.theta_stepped - transition.theta_start)))
            self._largest[step] = largest
            segment = self.segment(transition)
            yield PathStep(step, segment, {_WHOLE: segment.displacement})

    @property
    def splits_each_alone(self) -> bool:
        """Whether each step can be split into causes in any order, and each is an update."""
        return not self.needs_history() and self._rules.accumulates == 1

    def needs_history(self, grouping: Grouping | None = None) -> bool:
        """Whether a step can only be split into causes by way of all steps before it.

        Without other sources all momentum is the samples', whatever went before.
        """
        return self._needs_batches or grouping is not None or len(self._flows(grouping)) > 1

    @property
    def _needs_batches(self) -> bool:
        # Without momentum the gradient is known only up to the rounding of the weights; clipped elements do not tell
        # which part of them was a regulariser's.
        return self.run.step_store.start.momentum is None or self._rules.clipvalue is not None

    def _flows(self, grouping: Grouping | None) -> dict[str, _Flow]:
        """Return the sources of gradients as they were before the run. The samples are always one."""
        start = self.run.step_store.start
        zeros = np.zeros_like(start.theta)
        own = zeros if grouping is None else np.zeros((grouping.count, len(zeros)), zeros.dtype)
        flows = {names.DATA: _Flow(own, own)}
        if self._has_regularizer:
            flows[names.REGULARIZER] = _Flow(zeros, zeros)
        carried = [zeros if part is None else part for part in (start.accumulated, start.momentum)]
        if any(part.any() for part in carried):
            flows[names.CARRYOVER] = _Flow(*carried)
        return flows

    def _momentum_before(self, step: int) -> np.ndarray:
        """Return m before a step that is not the first, shape (D,)."""
        for earlier in range(step - 1, -1, -1):
            transition = self.transition(earlier)
            if transition.momentum is not None:
                return transition.momentum
        return np.zeros_like(self.run.step_store.start.theta)

    def _causes(
        self, transition: Transition, flows: dict[str, _Flow], replays: bool
    ) -> dict[str, np.ndarray]:
        """Return the displacement by each cause of the optimizer's, and let the flows go on."""
        if not transition.updates:
            return {names.DATA: np.zeros_like(flows[names.DATA].momentum)}
        law, rate = self.law, transition.learning_rate
        if self._rules.clipvalue is None:
            update = self.update(transition)
        else:
            waiting = np.sum([_total(flow.waiting) for flow in flows.values()], axis=0)
            update = self._coefficients(transition, waiting)
        decay = law.decay(tf.constant(transition.theta_start), tf.constant(self._decay_mask), rate)
        causes = {names.WEIGHT_DECAY: decay.numpy()}
        for name, flow in flows.items():
            if replays or name != names.DATA:
                causes[name] = flow.displace(law, update, rate)
        if not replays:
            assert transition.momentum is not None  # what _needs_batches says
            others = [flow.momentum for name, flow in flows.items() if name != names.DATA]
            own = transition.momentum - np.sum(others, axis=0) if others else transition.momentum
            causes[names.DATA] = flows[names.DATA].reach(own, law, update)
        return causes

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
        return np.pad(theta, [(0, 0)] * (theta.ndim - 1) + [(0, model.point_size - model.theta_size)])

    def _check_law(self, step: int, unexplained: float, largest: float) -> None:
        if unexplained > _LARGEST_UNEXPLAINED * largest:
            raise UnbalancedLedgerError(
                f"Step {step} of {self.run.run_dir} moved the weights in a way that the record does not explain: replaying "
                f"its batch misses {unexplained / largest:.1%} of the displacement. The batch that trained was not the "
                f"recorded one, or something changed gradients or weights within the step (a callback that sets weights "
                f"in on_train_batch_begin, a train_step of your own). No ledger would balance from this step on."
            )
