"""The outcome of a step for model and optimizer, read between steps or from the optimizer's ring buffers."""

from dataclasses import dataclass

import keras
import numpy as np

from explaind_tf.laws import Moments, UsedGradient
from explaind_tf.laws.used_gradients import Preparation, StepGradient
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.optimizers.ring_buffer import StepScalars
from explaind_tf.runs.format.step_records import LOSS_SCALE, Snapshot
from explaind_tf.runs.graphs.training_variables import TrainingVariables, flat_or_none, views_of


@dataclass(frozen=True)
class StepOutcome:
    """The model and its optimizer after a step.

    Attributes
    ----------
    snapshot : Snapshot
        All variables after the step.
    scalars : StepScalars or None
        Scalars that the update used; None if the step only accumulated its gradient.
    clip_factors : np.ndarray or None
        Clipping factor of each trainable variable of the model.
    theta_stepped : np.ndarray or None
        Weights after the update, shape (D,), if something else changed them within the step.
    is_skipped : bool
        Whether the optimizer left the batch out because a gradient was not finite.
    """

    snapshot: Snapshot
    scalars: StepScalars | None
    clip_factors: np.ndarray | None
    theta_stepped: np.ndarray | None
    is_skipped: bool = False


class StepObserver:
    """Reads the variables of a model in training.

    Most steps can be read from outside, after they end. If one execution takes several steps, or something besides the
    update changes weights within a step, the optimizer notes them instead. It does so in training steps that are traced
    after this object was made.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    optimizer : PathOptimizer
        The model's optimizer, built.

    Attributes
    ----------
    variables : TrainingVariables
        Variables of model and optimizer.
    optimizer_variables : list of keras.Variable
        The optimizer's variables other than its moments and accumulated gradients, also those of a LossScaleOptimizer.
    may_skip : bool
        Whether a LossScaleOptimizer may leave batches out.
    """

    def __init__(self, model: keras.Model, optimizer: PathOptimizer) -> None:
        self._model, self._optimizer = model, optimizer
        momentum, second_moment = optimizer.moments(model.trainable_variables)
        accumulated = optimizer.accumulators(model.trainable_variables)
        taken = {id(variable) for variable in (*momentum, *second_moment, *accumulated)}
        self.optimizer_variables = [v for v in model.optimizer.variables if id(v) not in taken]
        self.may_skip = model.optimizer is not optimizer
        groups = [
            model.trainable_variables,
            model.non_trainable_variables,
            momentum,
            second_moment,
            accumulated,
            self.optimizer_variables,
        ]
        self.variables = TrainingVariables(*([v.value for v in group] for group in groups))
        self._indices = [optimizer._get_variable_index(v) for v in model.trainable_variables]
        if _must_watch(model, optimizer):
            optimizer.watch([v for group in groups for v in group], slots=model.steps_per_execution)
        else:
            optimizer.unwatch()

    def iteration(self) -> int:
        """Return the optimizer's raw counter."""
        return int(views_of([self._optimizer._iterations.value])[0])

    def changed_weights(self, known: np.ndarray) -> np.ndarray | None:
        """Return the current θ, shape (D,), or None if it equals ``known``."""
        return _unless_equal(_flat(views_of(self.variables.parameters)), known)

    def changed_state(self, known: list[np.ndarray]) -> list[np.ndarray] | None:
        """Return the current non-trainable variables, or None if they equal ``known``."""
        values = views_of(self.variables.state)
        if _all_equal(values, known):
            return None
        return [np.array(value) for value in values]

    def momentum(self) -> np.ndarray | None:
        """Return the current m, or None if the optimizer has none."""
        return flat_or_none(views_of(self.variables.momentum))

    def outcome(self, iteration: int) -> StepOutcome:
        """Return the outcome of the step at a raw counter value.

        Raises
        ------
        LookupError
            If the optimizer did not note that step.
        """
        scalars = self._optimizer.recorded_step(iteration)
        stepped: list[np.ndarray] | None = None
        if self._optimizer.is_watching:
            stepped, values = self._optimizer.watched_step(iteration)
            snapshot = self.variables.pack(values)
        else:
            snapshot = self.variables.snapshot()
        theta_stepped = None if stepped is None else _flat([stepped[i] for i in self._indices])
        factors = None if scalars is None else scalars.clip_factors
        return StepOutcome(
            snapshot=snapshot,
            scalars=scalars,
            clip_factors=None if factors is None else factors[self._indices],
            theta_stepped=_unless_equal(theta_stepped, snapshot.theta),
        )

    def skipped(self) -> StepOutcome:
        """Return the outcome of a step that the optimizer left out."""
        return StepOutcome(self.variables.snapshot(), None, None, None, is_skipped=True)

    def loss_scale_in(self, snapshot: Snapshot) -> float:
        """Return the loss scale at a snapshot; 1 if the loss is not scaled."""
        scales = [
            value
            for variable, value in zip(self.optimizer_variables, snapshot.optimizer, strict=True)
            if variable.path.endswith(LOSS_SCALE)
        ]
        return float(scales[0]) if scales else 1.0

    def decay_mask(self) -> np.ndarray:
        """Return for each weight whether weight decay applies (1 or 0), shape (D,)."""
        trainable = self._model.trainable_variables
        flags = self._optimizer.decay_mask(trainable)
        return _flat([np.full(v.shape, f, v.dtype) for v, f in zip(trainable, flags, strict=True)])

    def used_gradient(
        self, start: Snapshot, theta_before: np.ndarray, outcome: StepOutcome, iteration: int
    ) -> StepGradient | None:
        """Return the gradient that the first recorded step used, recovered from the optimizer's variables.

        ``iteration`` is the number of updates before it. Return None if the gradient cannot be recovered. With a learning
        rate of 0, for example, SGD keeps no trace of it.
        """
        waiting = np.zeros_like(theta_before) if start.accumulated is None else start.accumulated
        after = outcome.snapshot
        if outcome.scalars is None:
            assert after.accumulated is not None  # only accumulation postpones an update
            rounding = 4 * np.finfo(theta_before.dtype).eps * np.abs(waiting)
            used = UsedGradient(after.accumulated - waiting, rounding)
            return StepGradient(used, Preparation(), np.zeros_like(waiting))
        stepped = after.theta if outcome.theta_stepped is None else outcome.theta_stepped
        found = self._optimizer.law().used_gradient(
            Moments(theta_before, start.momentum, start.second_moment),
            Moments(stepped, after.momentum, after.second_moment),
            self.decay_mask(),
            outcome.scalars.learning_rate,
            iteration,
        )
        if found is None:
            return None
        factors = outcome.clip_factors
        sizes = [int(np.prod(v.shape)) for v in self.variables.parameters]
        preparation = Preparation(
            accumulates=self._optimizer.gradient_accumulation_steps or 1,
            clip_factors=None if factors is None else np.repeat(factors, sizes),
            clipvalue=self._optimizer.clipvalue,
        )
        return StepGradient(found, preparation, waiting)


def _must_watch(model: keras.Model, optimizer: PathOptimizer) -> bool:
    constrained = any(v.constraint is not None for v in model.trainable_variables)
    overwritten = optimizer.use_ema and optimizer.ema_overwrite_frequency
    return bool(model.steps_per_execution > 1 or constrained or overwritten)


def _unless_equal(vector: np.ndarray | None, other: np.ndarray) -> np.ndarray | None:
    return None if vector is None or np.array_equal(vector, other) else vector


def _all_equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def _flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.reshape(-1) for array in arrays])
