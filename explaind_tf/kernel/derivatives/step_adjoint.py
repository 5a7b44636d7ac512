"""Compiled adjoints of training steps: how the end of a step depends on its start, and on the weights of its samples.

A step is a function of what is carried (weights θ, moments, floating-point state u) and of the weights w_k that its samples
have in the loss. Given the derivatives λ of some measurements by all that the step leaves, these graphs return their
derivatives by all that it started with: one vector–Jacobian product for each measurement. The forward and backward pass of
the step's batch are computed once for all of them. No Hessian is ever formed.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from explaind_tf.kernel.derivatives.arguments import Trained
from explaind_tf.kernel.derivatives.batch_gradient import BatchGradient
from explaind_tf.kernel.derivatives.compiled import Compiled
from explaind_tf.kernel.functions import Batch, PureModel
from explaind_tf.laws import Law
from explaind_tf.laws.carried import Carried, Clipping, Rates, StepGradient, take_step


class Adjoints(NamedTuple):
    """Derivatives of F measurements by what a step leaves or starts with.

    Attributes
    ----------
    carried : Carried
        By θ and the moments, each of shape (F, D); (F, 0) for a moment that the optimizer lacks.
    state : Any
        By the floating-point state, shape (F, U).
    """

    carried: Carried
    state: Any


class StepNumbers(NamedTuple):
    """The numbers that an update used.

    Attributes
    ----------
    learning_rate, weight_decay, iteration : Any
        η, λ and the number of updates before it, each of shape ().
    clip_factors : Any
        κ: the share of its norm to which the gradient of each variable was clipped, shape (variables,); 1 where it was not.
    accumulated : Any
        The number of batches whose gradients it averages, shape ().
    """

    learning_rate: Any
    weight_decay: Any
    iteration: Any
    clip_factors: Any
    accumulated: Any


class StepResponse(NamedTuple):
    """What the adjoint of an update returns.

    Attributes
    ----------
    before : Adjoints
        The derivatives by what the step starts with.
    by_sample : Any
        By the weight of each sample of the batch, shape (F, batch), or of each of its positions, (F, batch, positions).
    by_learning_rate, by_weight_decay : Any
        Shape (F,).
    by_gradient : StepGradient
        By the gradient of the batch and by its squares, each of shape (F, D).
    left : Carried
        What the step leaves according to the law, each of shape (D,).
    left_state : Any
        The floating-point state that it leaves, shape (U,).
    """

    before: Adjoints
    by_sample: Any
    by_learning_rate: Any
    by_weight_decay: Any
    by_gradient: StepGradient
    left: Carried
    left_state: Any


class Stepping(NamedTuple):
    """How a training takes its steps.

    Attributes
    ----------
    law : Law
        The law of the optimizer.
    clipping : Clipping
        How gradients are clipped.
    decays : tuple of bool
        Whether weight decay applies to each variable.
    by_token : bool
        Whether samples are told apart by position.
    """

    law: Law
    clipping: Clipping
    decays: tuple[bool, ...]
    by_token: bool


class StepAdjoint:
    """The compiled adjoints of one model and its steps. Each is traced once.

    Parameters
    ----------
    model : PureModel
        The functions of the model and its losses.
    stepping : Stepping
        How it takes steps.
    """

    def __init__(self, model: PureModel, stepping: Stepping) -> None:
        self.model, self._stepping = model, stepping
        number, vector = tf.TensorSpec((), model.dtype), tf.TensorSpec((None,), model.dtype)
        rows = tf.TensorSpec((None, None), model.dtype)
        point = tf.TensorSpec((model.point_size,), model.dtype)
        trained, adjoints = Trained.spec(model), Adjoints(Carried(rows, rows, rows), rows)
        numbers = StepNumbers(number, number, tf.TensorSpec((), tf.int32), vector, number)
        self._update = Compiled(
            self._build_update,
            [point, Carried(vector, vector, vector), trained, vector, vector, numbers, adjoints],
        )
        gradient = StepGradient(rows, rows)
        self._batch = Compiled(self._build_batch, [point, trained, vector, gradient, rows])
        masks = tf.TensorSpec((None, model.theta_size), model.dtype)
        self._parts = Compiled(self._build_parts, [point, trained, vector, gradient, masks])

    def update(
        self,
        point: Any,
        constants: list[Any],
        batch: Batch,
        shares: Any,
        before: Carried,
        waiting: Any,
        numbers: StepNumbers,
        after: Adjoints,
    ) -> StepResponse:
        """Return the adjoint of a step that updates the weights.

        Parameters
        ----------
        point, constants, batch
            Where the gradient of the batch was taken.
        shares : Any
            w: the weight of each sample of the batch, at which the derivative is taken, shape (batch,).
        before : Carried
            What the step started with.
        waiting : Any
            The sum of the gradients of earlier batches that the update averages with its own, shape (D,).
        numbers : StepNumbers
            The numbers of the step.
        after : Adjoints
            The derivatives by what the step leaves.
        """
        return self._update(point, before, Trained.of(constants, batch), shares, waiting, numbers, after)

    def batch(
        self,
        point: Any,
        constants: list[Any],
        batch: Batch,
        shares: Any,
        by_gradient: StepGradient,
        by_state: Any,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the derivatives by the weights of a batch's samples, and by the point at which its gradient was taken.

        Parameters
        ----------
        point, constants, batch, shares
            The batch, as for :meth:`update`.
        by_gradient : StepGradient
            The derivatives by its gradient and its squares, each of shape (F, D).
        by_state : Any
            The derivatives by the state that it leaves, shape (F, U).

        Returns
        -------
        tuple of tf.Tensor
            Shapes (F, batch) or (F, batch, positions), and (F, Z).
        """
        return self._batch(point, Trained.of(constants, batch), shares, by_gradient, by_state)

    def parts(
        self,
        point: Any,
        constants: list[Any],
        batch: Batch,
        shares: Any,
        by_gradient: StepGradient,
        masks: Any,
    ) -> tf.Tensor:
        """Return the derivatives by the weights of a batch's samples through parts of the model's weights.

        Parameters
        ----------
        point, constants, batch, shares, by_gradient
            As for :meth:`batch`.
        masks : Any
            One for the weights of each part, zero for all others, shape (P, D).

        Returns
        -------
        tf.Tensor
            Shape (F, P, batch) or (F, P, batch, positions).
        """
        return self._parts(point, Trained.of(constants, batch), shares, by_gradient, masks)

    # Graphs.

    def _build_update(
        self,
        point: tf.Tensor,
        before: Carried,
        trained: Trained,
        shares: tf.Tensor,
        waiting: tf.Tensor,
        numbers: StepNumbers,
        after: Adjoints,
    ) -> StepResponse:
        step = BatchGradient(self.model, point, trained, shares, by_token=self._stepping.by_token)
        summed = (step.dense() + waiting) / numbers.accumulated
        is_alone = tf.equal(numbers.accumulated, 1)
        squares = tf.where(is_alone, step.squares(), tf.square(summed))
        prepared = self._prepare(StepGradient(summed, squares), numbers)
        left, found = self._through_update(before, prepared, numbers, after.carried)
        by_summed, by_squares = found.gradient
        # The square of an averaged gradient is that of its elements, and follows from it.
        by_average = tf.where(is_alone, by_summed, by_summed + 2 * summed * by_squares)
        by_gradient = by_average / numbers.accumulated
        by_squares = tf.where(is_alone, by_squares, tf.zeros_like(by_squares))
        pulled = StepGradient(by_gradient, by_squares)
        by_sample, by_point = step.pulled_back(pulled, after.state)
        by_theta, by_state = tf.split(by_point, [self.model.theta_size, -1], axis=1)
        carried = found.before._replace(theta=found.before.theta + by_theta)
        return StepResponse(
            Adjoints(carried, by_state),
            by_sample,
            found.learning_rate,
            found.weight_decay,
            pulled,
            left,
            step.state,
        )

    def _prepare(self, gradient: StepGradient, numbers: StepNumbers) -> "_Prepared":
        """Return a gradient with the norms to which it was clipped, which follow from the recorded factors."""
        sums = [tf.reduce_sum(part) for part in tf.split(gradient.square, self._stepping.clipping.sizes)]
        is_clipped = numbers.clip_factors < 1
        # One factor for all variables is that of their common norm.
        is_global = tf.reduce_all(tf.equal(numbers.clip_factors, numbers.clip_factors[0]))
        norms = tf.where(is_global, tf.reduce_sum(sums), tf.stack(sums))
        limits = tf.where(is_clipped, numbers.clip_factors * tf.sqrt(norms), 0.0)
        return _Prepared(gradient, limits, is_global)

    def _through_update(
        self, before: Carried, prepared: "_Prepared", numbers: StepNumbers, after: Carried
    ) -> tuple[Carried, "_UpdateAdjoint"]:
        """Return what the optimizer leaves, and the adjoint of its step for each row of ``after``."""

        def wide(vector: tf.Tensor) -> tf.Tensor:
            return tf.broadcast_to(vector, [tf.shape(after.theta)[0], tf.size(vector)])

        start = Carried(*(wide(part) for part in before))
        gradient = StepGradient(*(wide(part) for part in prepared.gradient))
        rate, decay = wide(numbers.learning_rate[None]), wide(numbers.weight_decay[None])
        clipped = self._stepping.clipping.clip(gradient, prepared.limits, prepared.is_global)
        rates = Rates(rate, decay, numbers.iteration)
        decays = tf.constant(self._stepping.decays)
        mask = tf.repeat(tf.cast(decays, before.theta.dtype), self._stepping.clipping.sizes)
        end = take_step(self._stepping.law.update, start, clipped, rates, mask)
        inputs = [*start, *gradient, rate, decay]
        pulled = tf.gradients(list(end), inputs, grad_ys=list(after))
        found = [tf.zeros_like(x) if y is None else y for x, y in zip(inputs, pulled, strict=True)]
        count = len(start)
        return Carried(*(part[0] for part in end)), _UpdateAdjoint(
            Carried(*found[:count]), StepGradient(*found[count : count + 2]), found[-2][:, 0], found[-1][:, 0]
        )

    def _build_batch(
        self,
        point: tf.Tensor,
        trained: Trained,
        shares: tf.Tensor,
        by_gradient: StepGradient,
        by_state: tf.Tensor,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        step = BatchGradient(self.model, point, trained, shares, by_token=self._stepping.by_token)
        return step.pulled_back(by_gradient, by_state)

    def _build_parts(
        self,
        point: tf.Tensor,
        trained: Trained,
        shares: tf.Tensor,
        by_gradient: StepGradient,
        masks: tf.Tensor,
    ) -> tf.Tensor:
        step = BatchGradient(self.model, point, trained, shares, by_token=self._stepping.by_token)
        return step.shares_by_part(by_gradient, masks)


class _Prepared(NamedTuple):
    """A gradient, and how it is clipped; see :meth:`Clipping.clip`."""

    gradient: StepGradient
    limits: tf.Tensor
    is_global: tf.Tensor


class _UpdateAdjoint(NamedTuple):
    """The derivatives by what an optimizer's step starts with, its gradient, its learning rate and weight decay."""

    before: Carried
    gradient: StepGradient
    learning_rate: tf.Tensor
    weight_decay: tf.Tensor
