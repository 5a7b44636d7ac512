"""The gradient of a batch in a graph, ready to be differentiated by the point and by the weights of its samples."""

import tensorflow as tf

from explaind_tf.kernel.derivatives.arguments import Trained
from explaind_tf.kernel.derivatives.compiled import PARALLEL_DIRECTIONS
from explaind_tf.kernel.functions import PureModel
from explaind_tf.kernel.operations.reverse_mode import differentiate_as_computed, gradients
from explaind_tf.laws.carried import StepGradient


class BatchGradient:
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
        self._model, self._point = model, model.at(point)
        variables = self._point.variables
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
        left = zip(state, model.moving, strict=True)
        flat = [tf.reshape(tf.cast(value, model.dtype), [-1]) for value, moves in left if moves]
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
            inputs = [self._shares, *self._point.variables]
            by_shares, *by_point = _derivatives([self.state, *outputs], inputs, [rows[1], *upstream])
            return by_shares, self._point.pack(by_point)

        shares = tf.TensorSpec(self._shares.shape, self._shares.dtype)
        return tf.map_fn(
            one,
            (by_gradient, by_state),
            fn_output_signature=(shares, tf.TensorSpec((self._model.point_size,), self._model.dtype)),
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
