"""Rules of lookups of examples in a table of weights."""

import tensorflow as tf

from explaind_tf.kernel.operations.rule import ByGradients, Taps
from explaind_tf.kernel.operations.uses import NotCoveredError, Use


class Gather(ByGradients):
    """``E[tokens]``."""

    def __init__(self, use: Use) -> None:
        super().__init__(use)
        axis = tf.get_static_value(use.operation.inputs[2]) if len(use.operation.inputs) > 2 else 0
        if use.index != 0 or axis != 0 or use.operation.get_attr("batch_dims"):
            raise NotCoveredError(
                f"{use.operation.name} has no rule. The rule of a lookup needs a variable as the table, axis 0 and no batch "
                f"dimensions."
            )

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        """Return tokens (K, positions) and δ (K, positions, elements of a row)."""
        rest = self._use.source.shape[1:].num_elements()
        return [tf.reshape(self._use.other, (count, -1)), tf.reshape(delta, (count, -1, rest))]

    def gradients(self, taps: Taps) -> tf.Tensor:
        """Return tables to which δ is added in the row of its token."""
        tokens, own = taps
        size, rest = self._use.source.shape[0], self._use.source.shape[1:]
        count = tf.shape(tokens, tf.int64)[0]
        places = tf.cast(tokens, tf.int64) + size * tf.range(count)[:, None]
        summed = tf.math.unsorted_segment_sum(
            tf.reshape(own, (-1, rest.num_elements())), tf.reshape(places, (-1,)), count * size
        )
        return tf.reshape(summed, (-1, size, *rest))

    def contract(self, taps: Taps, rows: tf.Tensor) -> tf.Tensor:
        """Return the products of δ with the rows of Ψ that its tokens look up."""
        tokens, own = taps
        flat = tf.reshape(rows, (tf.shape(rows)[0], self._use.source.shape[0], -1))
        # One row at a time, since what is gathered is as large as the batch.
        return tf.map_fn(
            lambda row: tf.reduce_sum(tf.gather(row, tokens) * own, axis=(1, 2)), flat, parallel_iterations=2
        )
