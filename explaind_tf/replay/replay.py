"""`Replay`: turns recorded steps into path steps, each displacement split into causes by the optimizer's law."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.errors import RunFormatError, UnbalancedLedgerError
from explaind_tf.kernel.derivatives.derivatives import Precisions
from explaind_tf.kernel.path_integrals import PathStep
from explaind_tf.kernel.use_rows import Update
from explaind_tf.laws import Law, clip_ratio, law_from_config
from explaind_tf.levels import SAMPLE
from explaind_tf.replay.batch_check import BatchCheck
from explaind_tf.replay.batch_gradients import BatchGradients
from explaind_tf.replay.changes import changes_of
from explaind_tf.replay.flows import Flows, flows_at_start, total
from explaind_tf.replay.path_replay import Grouping, PathReplay, ReplayedStep, in_dtype
from explaind_tf.replay.used import RecordedUpdates
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.steps import Transition

# What the law does not explain of a displacement is rounding up to this share of the largest step so far. Beyond it,
# something else moved the weights. Rounding is orders of magnitude below, except where AdamW amplifies it: it divides
# gradients that nearly cancel by their own size.
_LARGEST_UNEXPLAINED = 1e-2
# Weights are rounded at every step, in float32 by some 1e-5 of the step. If that is more than this share of the tolerance,
# it is integrated on its own. Otherwise the quadrature would try to refine it away.
_NOTICEABLE = 1e-2
# Name of the single cause of a displacement that is not split yet.
_WHOLE = "all causes"


def _law_of(run: RecordedRun) -> Law:
    optimizer = run.manifest.optimizer
    try:
        law = law_from_config(optimizer.law, optimizer.constants)
    except LookupError:
        raise RunFormatError(
            f"{run.run_dir} was trained by the optimizer {optimizer.law!r}, which this version does not know. Open it with "
            f"the version that recorded it, or register the optimizer's law with explaind_tf.laws.register()."
        ) from None
    except (TypeError, ValueError) as error:
        raise RunFormatError(
            f"{run.run_dir}: the constants of the optimizer {optimizer.law!r} in the manifest are not those that this "
            f"version needs: {error}. Open it with the version that recorded it."
        ) from error
    if law.divides_by_second_moment != optimizer.second_moment:
        raise RunFormatError(
            f"{run.run_dir}: the manifest says optimizer.second_moment={optimizer.second_moment}, but the law "
            f"{optimizer.law!r} has {law.divides_by_second_moment}. Restore the manifest from a copy."
        )
    return law


class WholeStep(NamedTuple):
    """A step that is not split yet, and the size of the largest step up to it, against which its split is checked."""

    step: PathStep
    largest: float


class _Waiting:
    """The batches that wait for an update. Those of each update are checked together."""

    def __init__(self, check: BatchCheck) -> None:
        self._check, self._steps = check, list[ReplayedStep]()
        self._gradient: np.ndarray | float = 0.0

    def take(self, step: ReplayedStep, gradients: dict[str, np.ndarray]) -> None:
        """Take the gradients of a step's batch by source, and check the update if the step is one."""
        self._steps.append(step)
        self._gradient = self._gradient + sum(total(gradient) for gradient in gradients.values())
        if step.transition.updates:
            self._check.check(step, self._steps, np.asarray(self._gradient))
            self._steps, self._gradient = [], 0.0


class Replay(PathReplay):
    """The recorded run in the form that the kernel needs.

    Parameters
    ----------
    run : RecordedRun
        The run.
    precisions : Precisions
        The derivatives of the run's model.
    tolerance : float
        Tolerance with which the path will be integrated.
    passed : set of int, optional
        The updates whose batches were checked before.
    is_strict : bool
        Whether a step that the law does not explain is an error.

    Attributes
    ----------
    gradients : BatchGradients
        The batches of the run, and their gradients.
    law : Law
        The displacement law of the run's optimizer.
    updates : RecordedUpdates
        What each update used.
    batch_check : BatchCheck
        Compares what each update used with its batches.
    """

    def __init__(
        self,
        run: RecordedRun,
        precisions: Precisions,
        tolerance: float = 1e-3,
        passed: set[int] | None = None,
        *,
        is_strict: bool = False,
    ) -> None:
        self._model = precisions.analysed.model
        super().__init__(run, self._model.dtype.as_numpy_dtype)
        self.run = run
        self.gradients = BatchGradients(run, precisions)
        self._tolerance, self._is_strict = tolerance, is_strict
        self._settings = run.manifest.optimizer
        self.law = _law_of(run)
        self.updates = RecordedUpdates(run, self.law)
        self.batch_check = BatchCheck(run, self.updates, self.gradients, set() if passed is None else passed)

    def update(self, step: ReplayedStep) -> Update:
        """Return the coefficients of a step that updates the weights."""
        if self._settings.clipvalue is None or self.run.level != SAMPLE:
            return self._coefficients(step.transition, None)
        return self._coefficients(step.transition, self._waiting_gradient(step))

    def _coefficients(self, transition: Transition, waiting: np.ndarray | None) -> Update:
        every, factors = self._settings.accumulates, self.updates.factors(transition, self._dtype)
        scale = np.asarray(1.0 / every)
        if transition.clip_factors is not None:
            scale = scale * np.repeat(transition.clip_factors, self.updates.sizes)
        elif self._settings.clipvalue is not None and waiting is not None:
            # Clipping by value depends on each element.
            scale = scale * clip_ratio(tf.constant(waiting / every), self._settings.clipvalue).numpy()
        return Update(_plain(factors.gain), _plain(factors.direct), factors.pull.numpy(), scale)

    def _waiting_gradient(self, step: ReplayedStep) -> np.ndarray:
        """Return the sum of the gradients that an update receives, over all causes, shape (D,)."""
        waiting = self.gradients.whole(step)
        number = step.number - 1
        while number >= 0 and not (earlier := self.step(number)).transition.updates:
            if not earlier.transition.is_skipped:
                waiting = waiting + self.gradients.whole(earlier)
            number -= 1
        accumulated = self.run.step_store.start.accumulated
        return waiting if number >= 0 or accumulated is None else waiting + accumulated

    def path_steps(
        self, first: int, stop: int, *, grouping: Grouping | None = None, check_batches: bool = False
    ) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1`` with their displacements split into causes.

        Momentum is linear in the gradients, so it splits as they do. The parts of the recorded momentum that come from
        regularisers and from before the run are computed; the rest comes from the samples. The samples' gradients are
        recomputed only if the optimizer keeps no momentum or clips elements, or if the samples are grouped.

        Parameters
        ----------
        first, stop : int
            Range of steps.
        grouping : Grouping, optional
            Split the part of the samples over groups. What the groups' gradients leave of the recorded momentum is the
            rounding.
        check_batches : bool
            Check that each update used the gradients of its batches. With groups this is always done.

        Raises
        ------
        UnbalancedLedgerError
            If a batch is not the one that trained; for a strict replay also if the law does not explain a step.
        """
        begin = 0 if self.needs_history(grouping) else first
        flows = self._flows_before(begin, grouping)
        uses_batches = check_batches or grouping is not None
        waiting = _Waiting(self.batch_check)
        largest = 0.0
        for number in range(begin, stop):
            step = self.step(number)
            if not step.transition.is_skipped:
                gradients = self.gradients.by_source(
                    step,
                    grouping,
                    with_samples=self._needs_samples or uses_batches,
                    with_rounding=not self.updates.has_momentum,
                )
                for name, gradient in gradients.items():
                    flows[name].receive(gradient)
                if uses_batches:
                    waiting.take(step, gradients)
            causes = self._causes(in_dtype(step.transition, self._dtype), flows)
            if number >= first:
                largest = max(largest, _size(step.transition))
                yield self._checked(step, causes, largest)

    def split(self, step: ReplayedStep, update: Update, largest: float) -> PathStep:
        """Return one step split into causes. The run's steps must be such that each can be split on its own.

        Parameters
        ----------
        step : ReplayedStep
            The step.
        update : Update
            Its coefficients.
        largest : float
            Size of the largest step up to this one.

        Raises
        ------
        UnbalancedLedgerError
            If the replay is strict and the law does not explain the step.
        """
        assert self.splits_each_alone
        flows = self._flows_before(step.number, None)
        return self._checked(
            step, self._moved(in_dtype(step.transition, self._dtype), update, flows), largest
        )

    def whole_steps(self, first: int, stop: int) -> Iterator[WholeStep]:
        """Yield the steps ``first … stop − 1``, each with its whole displacement as one cause."""
        largest = 0.0
        for number in range(first, stop):
            step = self.step(number)
            largest = max(largest, _size(step.transition))
            yield WholeStep(PathStep(number, step.path, {_WHOLE: step.path.displacement}), largest)

    @property
    def splits_each_alone(self) -> bool:
        """Whether steps can be split into causes in any order, and each of them is an update."""
        return self.updates_each_step and not self.needs_history()

    @property
    def updates_each_step(self) -> bool:
        """Whether no step accumulates its gradient for a later one, and none may be skipped."""
        may_skip = self.run.step_store.layout.loss_scale_place is not None
        return not may_skip and self._settings.accumulates == 1

    def needs_history(self, grouping: Grouping | None = None) -> bool:
        """Whether splitting a step into causes needs all steps before it.

        It does not if no batch has to be replayed and the samples are the only source of gradients: all momentum is theirs.
        """
        return self._needs_samples or grouping is not None or len(self._flows(grouping)) > 1

    @property
    def _needs_samples(self) -> bool:
        # Without momentum, the gradient is known only up to the rounding of the weights. Clipped elements need the whole
        # gradient, since the factors follow from it.
        has_losses = self.run.level == SAMPLE
        return has_losses and (not self.updates.has_momentum or self._settings.clipvalue is not None)

    def _flows(self, grouping: Grouping | None) -> Flows:
        start = in_dtype(self.run.step_store.start, self._dtype)
        return flows_at_start(start, has_regularizer=self.gradients.has_regularizer, grouping=grouping)

    def _flows_before(self, number: int, grouping: Grouping | None) -> Flows:
        """Return the flows before a step. After the first step, this needs a run whose momentum is all the samples'."""
        flows = self._flows(grouping)
        before = self.step(number).transition.momentum_start if number > 0 and self.law.looks_ahead else None
        if before is not None:
            flows[names.DATA].momentum = before.astype(float)
        return flows

    def _causes(self, transition: Transition, flows: Flows) -> dict[str, np.ndarray]:
        """Return the displacement by each cause in the optimizer, and advance the flows."""
        if not transition.updates:
            return {names.DATA: np.zeros_like(flows[names.DATA].momentum)}
        waiting = None
        if self._settings.clipvalue is not None:
            waiting = np.sum([total(flow.waiting) for flow in flows.values()], axis=0)
        return self._moved(transition, self._coefficients(transition, waiting), flows)

    def _moved(self, transition: Transition, update: Update, flows: Flows) -> dict[str, np.ndarray]:
        """Return the displacement by each cause in an update."""
        law, rate = self.law, transition.learning_rate
        mask = tf.constant(self.updates.decay_mask.astype(self._dtype, copy=False))
        causes = {names.WEIGHT_DECAY: law.decay(tf.constant(transition.theta_start), mask, rate).numpy()}
        # The record knows the momentum of all sources together. What the others leave of it belongs to this one.
        last = names.ROUNDING if names.ROUNDING in flows else names.DATA
        left = None if transition.momentum is None else transition.momentum.astype(float)
        for name, flow in flows.items():
            if name != last or (transition.momentum is None and self.run.level == SAMPLE):
                causes[name] = flow.displace(law, update)
                left = left if left is None else left - total(flow.momentum)
        if left is not None:
            causes[last] = flows[last].reach(left, law, update)
        elif last not in causes:  # neither momentum nor losses: the gradients moved what decay did not
            causes[last] = transition.theta_stepped - transition.theta_start - causes[names.WEIGHT_DECAY]
        return causes

    def _checked(self, step: ReplayedStep, causes: dict[str, np.ndarray], largest: float) -> PathStep:
        """Return a step with its optimizer's causes and all others, after checking that the law explains it."""
        transition = in_dtype(step.transition, self._dtype)
        stepped = transition.theta_stepped - transition.theta_start
        unexplained = (stepped - sum(total(cause) for cause in causes.values())).astype(
            self._dtype, copy=False
        )
        missed = float(np.linalg.norm(unexplained))
        causes = causes | changes_of(transition)
        if not missed <= _LARGEST_UNEXPLAINED * largest:  # NaN, too, explains nothing
            # A record may say that weights stood still where the law moves them.
            self._note_unexplained(step.number, missed / largest if largest else math.inf)
            causes[names.EXTERNAL] = causes[names.EXTERNAL] + unexplained
            missed = 0.0
        is_noticeable = missed > _NOTICEABLE * self._tolerance * float(np.linalg.norm(step.path.displacement))
        points = {
            name: self._pad(vector) for name, vector in causes.items() if name == names.DATA or vector.any()
        }
        drift = step.path.displacement.copy()
        drift[: self._model.theta_size] = 0
        if drift.any():
            points[names.STATE] = drift
        return PathStep(step.number, step.path, points, self._pad(unexplained) if is_noticeable else None)

    def _pad(self, theta: np.ndarray) -> np.ndarray:
        """Return displacements of weights (..., D) as displacements of the point (..., Z), in its precision."""
        theta = theta.astype(self._dtype, copy=False)
        return np.pad(
            theta, [(0, 0)] * (theta.ndim - 1) + [(0, self._model.point_size - self._model.theta_size)]
        )

    def _note_unexplained(self, number: int, share: float) -> None:
        """Note a step that the law does not explain. Its unexplained displacement is external."""
        if self._is_strict:
            raise UnbalancedLedgerError(
                f"Step {number} of {self.run.run_dir} moved the weights in a way that the optimizer's law does not explain. "
                f"It misses {share:.1%} of the largest step so far, and rounding explains {_LARGEST_UNEXPLAINED:.0%} at "
                f"most. Something else set weights within the step, such as a train_step of your own, or a callback that "
                f"sets weights in on_train_batch_begin; or the record was changed. "
                f"attribute() still answers: it enters the unexplained displacement of such steps under "
                f"{names.EXTERNAL!r}."
            )
        self.unexplained[number] = share


def _plain(factor: float | tf.Tensor) -> float | np.ndarray:
    return factor if isinstance(factor, float) else np.asarray(factor)


def _size(transition: Transition) -> float:
    return float(np.linalg.norm(transition.theta_stepped - transition.theta_start))
