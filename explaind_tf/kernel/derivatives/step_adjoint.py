"""Compiled adjoints of training steps: how the end of a step depends on its start, and on the weights of its samples.

A step is a function of what is carried (weights θ, moments, floating-point state u) and of the weights w_k that its samples
have in the loss. Given the derivatives λ of some measurements by all that the step leaves, these graphs return their
derivatives by all that it started with: one vector–Jacobian product for each measurement. The forward and backward pass of
the step's batch are computed once for all of them. No Hessian is ever formed.
"""

from typing import Any, NamedTuple

import tensorflow as tf

from explaind_tf.kernel.derivatives.arguments import Trained
from explaind_tf.kernel.derivatives.compiled import PARALLEL_DIRECTIONS, Compiled
from explaind_tf.kernel.functions import Batch, PureModel
from explaind_tf.kernel.operations.reverse_mode import differentiate_as_computed, gradients
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
        step = _BatchGradient(self.model, point, trained, shares, by_token=self._stepping.by_token)
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
        step = _BatchGradient(self.model, point, trained, shares, by_token=self._stepping.by_token)
        return step.pulled_back(by_gradient, by_state)

    def _build_parts(
        self,
        point: tf.Tensor,
        trained: Trained,
        shares: tf.Tensor,
        by_gradient: StepGradient,
        masks: tf.Tensor,
    ) -> tf.Tensor:
        step = _BatchGradient(self.model, point, trained, shares, by_token=self._stepping.by_token)
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


class _BatchGradient:
    """The gradient of a batch in the graph that is being built, ready to be differentiated.

    Parameters
    ----------
    model : PureModel
        The functions of the model.
    point : tf.Tensor
        z, shape (Z,).
    trained : Trained
        The batch.
    shares : tf.Tensor
        The weight of each sample, shape (batch,).
    by_token : bool
        Whether the weights are those of positions.
    """

    def __init__(
        self, model: PureModel, point: tf.Tensor, trained: Trained, shares: tf.Tensor, *, by_token: bool
    ) -> None:
        self._model, self._point = model, point
        variables = model.unpack(point)
        assert model.losses_and_state is not None  # a recorded run of the level "sample" has it
        losses, state = model.losses_and_state(variables, *trained)
        if by_token:
            assert model.token_losses is not None  # the axis was checked
            losses = model.token_losses(variables, *trained)
        # Of each position, if derivatives are by positions.
        self._shares = tf.ones_like(losses) * tf.reshape(shares, [-1, *[1] * (len(losses.shape) - 1)])
        total = tf.reduce_sum(losses * self._shares)
        if model.regularizer is not None:
            total += model.regularizer(variables, trained.constants, trained.inputs)
        self._weights = variables[: len(model.trained)]
        self._gradients = gradients(total, self._weights)
        differentiate_as_computed(point.graph)
        flat = [tf.reshape(tf.cast(value, model.dtype), [-1]) for value in state]
        self.state = tf.concat([tf.zeros((0,), model.dtype), *flat], axis=0)

    def dense(self) -> tf.Tensor:
        """Return g, shape (D,)."""
        return self._flat([None if g is None else tf.convert_to_tensor(g) for g in self._gradients])

    def squares(self) -> tf.Tensor:
        """Return what Keras adds to a second moment for g², shape (D,)."""
        squared = []
        for gradient in self._gradients:
            if isinstance(gradient, tf.IndexedSlices):
                gradient = tf.IndexedSlices(
                    tf.square(gradient.values), gradient.indices, gradient.dense_shape
                )
                squared.append(tf.convert_to_tensor(gradient))
            else:
                squared.append(None if gradient is None else tf.square(gradient))
        return self._flat(squared)

    def _flat(self, values: list[tf.Tensor | None]) -> tf.Tensor:
        pairs = zip(values, self._weights, strict=True)
        return tf.concat(
            [tf.reshape(tf.zeros_like(w) if value is None else value, [-1]) for value, w in pairs], axis=0
        )

    def pulled_back(self, by_gradient: StepGradient, by_state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the derivatives by the shares of samples, (F, batch, ...), and by the point, (F, Z).

        Parameters
        ----------
        by_gradient : StepGradient
            The derivatives by g and by its squares, each of shape (F, D).
        by_state : tf.Tensor
            The derivatives by the state after the step, shape (F, U).
        """

        def one(rows: tuple[StepGradient, tf.Tensor]) -> tuple[tf.Tensor, ...]:
            outputs, upstream = self._cotangents(rows[0])
            return _derivatives([self.state, *outputs], [self._shares, self._point], [rows[1], *upstream])

        shares = tf.TensorSpec(self._shares.shape, self._shares.dtype)
        return tf.map_fn(
            one,
            (by_gradient, by_state),
            fn_output_signature=(shares, tf.TensorSpec(self._point.shape, self._point.dtype)),
            parallel_iterations=PARALLEL_DIRECTIONS,
        )

    def shares_by_part(self, by_gradient: StepGradient, masks: tf.Tensor) -> tf.Tensor:
        """Return the derivatives by the shares of samples through parts of the weights, shape (F, P, batch, ...)."""
        shares = tf.TensorSpec(self._shares.shape, self._shares.dtype)
        by_part = tf.TensorSpec((None, *self._shares.shape), self._shares.dtype)

        def one(rows: StepGradient) -> tf.Tensor:
            def through(mask: tf.Tensor) -> tf.Tensor:
                outputs, upstream = self._cotangents(StepGradient(*(row * mask for row in rows)))
                return _derivatives(outputs, [self._shares], upstream)[0]

            return tf.map_fn(
                through, masks, fn_output_signature=shares, parallel_iterations=PARALLEL_DIRECTIONS
            )

        return tf.map_fn(
            one, by_gradient, fn_output_signature=by_part, parallel_iterations=PARALLEL_DIRECTIONS
        )

    def _cotangents(self, by_gradient: StepGradient) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        """Return the gradients of the variables, and the derivatives of one measurement by them, from rows (D,)."""
        outputs, upstream = [], []
        pieces = [tf.split(row, self._model.sizes[: len(self._weights)]) for row in by_gradient]
        for gradient, weight, row, square in zip(self._gradients, self._weights, *pieces, strict=True):
            if gradient is None:
                continue
            shaped, squared = (tf.reshape(part, weight.shape) for part in (row, square))
            values = gradient
            if isinstance(gradient, tf.IndexedSlices):
                # Each occurrence of a row has a gradient of its own, which is squared by itself.
                values = gradient.values
                shaped, squared = (tf.gather(part, gradient.indices) for part in (shaped, squared))
            outputs.append(values)
            upstream.append(shaped + 2 * values * squared)
        return outputs, upstream


def _derivatives(
    outputs: list[tf.Tensor], inputs: list[tf.Tensor], upstream: list[tf.Tensor]
) -> tuple[tf.Tensor, ...]:
    """Return ∂/∂input ⟨outputs, upstream⟩ for each input."""
    found = gradients(outputs, inputs, upstream)
    return tuple(
        tf.zeros_like(x) if y is None else tf.convert_to_tensor(y) for x, y in zip(inputs, found, strict=True)
    )
