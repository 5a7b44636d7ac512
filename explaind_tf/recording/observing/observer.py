"""The outcome of a step for model and path optimizer, read between steps or from the optimizer's ring buffers."""

import keras
import numpy as np

from explaind_tf.laws import Moments, UsedGradient
from explaind_tf.laws.used_gradients import Preparation, StepGradient
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.recording.observing.weight_observer import StepOutcome, WeightObserver, flat, unless_equal
from explaind_tf.replicas import replica_count
from explaind_tf.runs.format.step_records import LOSS_SCALE, Snapshot
from explaind_tf.runs.graphs.training_variables import TrainingVariables, views_of


class StepObserver(WeightObserver):
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
    optimizer_variables : list of keras.Variable
        The optimizer's variables other than its moments and accumulated gradients, also those of a LossScaleOptimizer. Those
        that its law reads come first.
    may_skip : bool
        Whether a LossScaleOptimizer may leave batches out.
    """

    def __init__(self, model: keras.Model, optimizer: PathOptimizer) -> None:
        self._model, self._optimizer = model, optimizer
        momentum, second_moment = optimizer.moments(model.trainable_variables)
        accumulated = optimizer.accumulators(model.trainable_variables)
        read = optimizer.read_by_law(model.trainable_variables)
        taken = {id(variable) for variable in (*momentum, *second_moment, *accumulated, *read)}
        self.optimizer_variables = [*read, *(v for v in model.optimizer.variables if id(v) not in taken)]
        self.may_skip = model.optimizer is not optimizer
        groups = [
            model.trainable_variables,
            model.non_trainable_variables,
            momentum,
            second_moment,
            accumulated,
            self.optimizer_variables,
        ]
        super().__init__(TrainingVariables(*([v.value for v in group] for group in groups)))
        self._indices = [optimizer._get_variable_index(v) for v in model.trainable_variables]
        if _must_watch(model, optimizer):
            optimizer.watch([v for group in groups for v in group], slots=model.steps_per_execution)
        else:
            optimizer.unwatch()

    def iteration(self) -> int:
        """Return the optimizer's raw counter."""
        return int(views_of([self._optimizer._iterations.value])[0])

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
            snapshot = self.snapshot()
        theta_stepped = None if stepped is None else flat([stepped[i] for i in self._indices])
        # Each replica clips by factors of its own.
        factors = None if scalars is None or replica_count(self._model) > 1 else scalars.clip_factors
        return StepOutcome(
            snapshot=snapshot,
            scalars=scalars,
            clip_factors=None if factors is None else factors[self._indices],
            theta_stepped=unless_equal(theta_stepped, snapshot.theta),
        )

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
        return flat([np.full(v.shape, f, v.dtype) for v, f in zip(trainable, flags, strict=True)])

    def used_gradient(
        self,
        start: Snapshot,
        theta_before: np.ndarray,
        outcome: StepOutcome,
        iteration: int,
        replicas: int,
    ) -> StepGradient | None:
        """Return the gradient that the first recorded step used, recovered from the optimizer's variables.

        ``iteration`` is the number of updates before it; the gradients of ``replicas`` are averaged. Return None if the
        gradient cannot be recovered. With a learning rate of 0, for example, SGD keeps no trace of it.
        """
        waiting = np.zeros_like(theta_before) if start.accumulated is None else start.accumulated
        after = outcome.snapshot
        if outcome.scalars is None:
            assert after.accumulated is not None  # only accumulation postpones an update
            rounding = 4 * np.finfo(theta_before.dtype).eps * np.abs(waiting)
            used = UsedGradient(after.accumulated - waiting, rounding)
            return StepGradient(used, Preparation(), np.zeros_like(waiting))
        stepped = after.theta if outcome.theta_stepped is None else outcome.theta_stepped
        law, sizes = self._optimizer.law(), [int(np.prod(v.shape)) for v in self.variables.parameters]
        read = [law.further(snapshot.optimizer, sizes) for snapshot in (start, after)]
        found = law.used_gradient(
            Moments(theta_before, start.momentum, start.second_moment, read[0]),
            Moments(stepped, after.momentum, after.second_moment, read[1]),
            self.decay_mask(),
            outcome.scalars.learning_rate,
            iteration,
        )
        if found is None:
            return None
        factors = outcome.clip_factors
        preparation = Preparation(
            accumulates=replicas * (self._optimizer.gradient_accumulation_steps or 1),
            clip_factors=None if factors is None else np.repeat(factors, sizes),
            clipvalue=self._optimizer.clipvalue,
        )
        return StepGradient(found, preparation, waiting)


def _must_watch(model: keras.Model, optimizer: PathOptimizer) -> bool:
    constrained = any(v.constraint is not None for v in model.trainable_variables)
    overwritten = optimizer.use_ema and optimizer.ema_overwrite_frequency
    return bool(model.steps_per_execution > 1 or constrained or overwritten)
