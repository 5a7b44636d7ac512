"""What a step made of the model and its optimizer, read between steps or from the optimizer's ring buffers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.optimizers import PathOptimizer
from explaind_tf.optimizers.laws import Law, clip_ratio
from explaind_tf.optimizers.recorder import StepScalars
from explaind_tf.runs.steps import StepRecord


@dataclass(frozen=True)
class StepOutcome:
    """The model and its optimizer after a step; vectors are flat, of shape (D,).

    Attributes
    ----------
    theta, state
        Weights and non-trainable variables as the step left them.
    scalars : StepScalars or None
        What the update used; None if the step only accumulated its gradient.
    clip_factors : np.ndarray or None
        For each trainable variable of the model.
    theta_stepped : np.ndarray or None
        Weights after the update, where something else changed them within the step.
    momentum, second_moment, accumulated : np.ndarray or None
        Of the optimizer, None where it has none (the second moment: where it did not update).
    """

    theta: np.ndarray
    state: list[np.ndarray]
    scalars: StepScalars | None
    clip_factors: np.ndarray | None
    theta_stepped: np.ndarray | None
    momentum: np.ndarray | None
    second_moment: np.ndarray | None
    accumulated: np.ndarray | None


class StepObserver:
    """Reads a model in training.

    Most steps can be read from outside, when they are done. Where one execution takes several steps, or something
    besides the update changes weights within a step, the optimizer is asked to take notes. It does so in training steps that
    are traced after this.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    optimizer : PathOptimizer
        The model's optimizer, built.
    """

    def __init__(self, model: keras.Model, optimizer: PathOptimizer) -> None:
        self._model, self._optimizer = model, optimizer
        momentum, second_moment = optimizer.moments(model.trainable_variables)
        self._groups: list[list[Any]] = [
            model.trainable_variables,
            model.non_trainable_variables,
            momentum,
            second_moment,
            optimizer.accumulators(model.trainable_variables),
        ]
        self._indices = [optimizer._get_variable_index(v) for v in model.trainable_variables]
        if _must_watch(model, optimizer):
            optimizer.watch([v for group in self._groups for v in group], slots=model.steps_per_execution)
        else:
            optimizer.unwatch()

    def iteration(self) -> int:
        """Return the optimizer's raw counter."""
        return int(self._optimizer._iterations.numpy())

    def weights(self) -> np.ndarray:
        """Return θ as it is now."""
        return _flat(_values(self._groups[0]))

    def state(self) -> list[np.ndarray]:
        """Return the non-trainable variables as they are now."""
        return _values(self._groups[1])

    def momentum(self) -> np.ndarray | None:
        """Return m as it is now, None where the optimizer has none."""
        return _flat_or_none(_values(self._groups[2]))

    def accumulated(self) -> np.ndarray | None:
        """Return the gradients that wait for an update, None where there are none."""
        waiting = _flat_or_none(_values(self._groups[4]))
        return waiting if waiting is not None and waiting.any() else None

    def outcome(self, iteration: int) -> StepOutcome:
        """Return what the step at a raw counter value led to.

        Raises
        ------
        LookupError
            If the optimizer did not note that step.
        """
        scalars = self._optimizer.recorded_step(iteration)
        stepped: list[np.ndarray] | None = None
        if self._optimizer.is_watching:
            stepped, values = self._optimizer.watched_step(iteration)
            left = iter(values)
            groups = [[next(left) for _ in group] for group in self._groups]
        else:
            groups = [_values(group) for group in self._groups]
        weights, state, momentum, second_moment, accumulated = groups
        theta = _flat(weights)
        theta_stepped = None if stepped is None else _flat([stepped[i] for i in self._indices])
        factors = None if scalars is None else scalars.clip_factors
        return StepOutcome(
            theta=theta,
            state=state,
            scalars=scalars,
            clip_factors=None if factors is None else factors[self._indices],
            theta_stepped=_unless_equal(theta_stepped, theta),
            momentum=_flat_or_none(momentum),
            second_moment=None if scalars is None else _flat_or_none(second_moment),
            accumulated=_flat_or_none(accumulated),
        )

    def decay_mask(self) -> np.ndarray:
        """Return w, shape (D,)."""
        flags = self._optimizer.decay_mask(self._groups[0])
        return _flat([np.full(v.shape, f, v.dtype) for v, f in zip(self._groups[0], flags, strict=True)])

    def used_gradient(
        self, start: StepRecord, theta_before: np.ndarray, outcome: StepOutcome
    ) -> "UsedGradient | None":
        """Return the gradient that a run's first step used, as far as the optimizer's variables betray it.

        None if they do not: under a learning rate of 0, SGD remembers nothing of a gradient.
        """
        eps = float(np.finfo(theta_before.dtype).eps)
        zeros = np.zeros_like(theta_before)
        waiting = zeros if start.accumulated is None else start.accumulated
        if outcome.scalars is None:
            assert outcome.accumulated is not None  # nothing else postpones an update
            return UsedGradient(outcome.accumulated - waiting, 4 * eps * _size(waiting), lambda g: g)
        law, rate = self._optimizer.law(), outcome.scalars.learning_rate
        moment = outcome.second_moment
        factors = law.factors(None if moment is None else tf.constant(moment), rate, 0)
        if factors.gain == 0:
            return None
        if outcome.momentum is None:
            before, after = (
                theta_before,
                outcome.theta if outcome.theta_stepped is None else outcome.theta_stepped,
            )
            kept = theta_before + _decay(law, theta_before, self.decay_mask(), rate)
        else:
            before, after = zeros if start.momentum is None else start.momentum, outcome.momentum
            kept = law.momentum(tf.constant(before), tf.constant(zeros), rate).numpy()
        # What is recovered from a rounded sum is rounded by as much as the rest of the sum is larger.
        value = (after - kept) / theta_before.dtype.type(factors.gain)
        return UsedGradient(
            value, 4 * eps * _size(before) / abs(factors.gain), self._clipping(waiting, outcome.clip_factors)
        )

    def _clipping(
        self, waiting: np.ndarray, factors: np.ndarray | None
    ) -> Callable[[np.ndarray], np.ndarray]:
        every = self._optimizer.gradient_accumulation_steps or 1
        limit = self._optimizer.clipvalue

        def clip(gradient: np.ndarray) -> np.ndarray:
            gradient = (gradient + waiting) / gradient.dtype.type(every)
            if factors is not None:
                sizes = [int(np.prod(v.shape)) for v in self._groups[0]]
                return gradient * np.repeat(factors, sizes).astype(gradient.dtype)
            if limit is not None:
                return gradient * clip_ratio(tf.constant(gradient), limit).numpy()
            return gradient

        return clip


@dataclass(frozen=True)
class UsedGradient:
    """The gradient that an update used, and how to make the batch's own gradient comparable with it.

    Attributes
    ----------
    value : np.ndarray
        Shape (D,).
    rounding : float
        Norm of its rounding error.
    of_batch : callable
        From the gradient of the batch to what the update should have used: accumulated, averaged, clipped.
    """

    value: np.ndarray
    rounding: float
    of_batch: Callable[[np.ndarray], np.ndarray]


def _values(variables: list[Any]) -> list[np.ndarray]:
    """Return copies of Keras variables as they are now; `Variable.numpy()` takes ten times as long to do so."""
    values = [v.value for v in variables]
    return [tf.raw_ops.ReadVariableOp(resource=v.handle, dtype=v.dtype).numpy() for v in values]


def _must_watch(model: keras.Model, optimizer: PathOptimizer) -> bool:
    constrained = any(v.constraint is not None for v in model.trainable_variables)
    overwritten = optimizer.use_ema and optimizer.ema_overwrite_frequency
    return bool(model.steps_per_execution > 1 or constrained or overwritten)


def _decay(law: Law, theta: np.ndarray, mask: np.ndarray, learning_rate: float) -> np.ndarray:
    return law.decay(tf.constant(theta), tf.constant(mask), learning_rate).numpy()


def _unless_equal(vector: np.ndarray | None, other: np.ndarray) -> np.ndarray | None:
    return None if vector is None or np.array_equal(vector, other) else vector


def _size(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))


def _flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.reshape(-1) for array in arrays])


def _flat_or_none(arrays: list[np.ndarray]) -> np.ndarray | None:
    return _flat(arrays) if arrays else None
