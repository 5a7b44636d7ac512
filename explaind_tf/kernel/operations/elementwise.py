"""Rules of operations that broadcast a variable over examples."""

from collections.abc import Callable

import tensorflow as tf

from explaind_tf.kernel.operations.reverse_mode import gradients
from explaind_tf.kernel.operations.rule import ByGradients, Taps
from explaind_tf.kernel.operations.uses import NotCoveredError, Use


class Elementwise(ByGradients):
    """An operation that broadcasts its two inputs.

    Parameters
    ----------
    use : Use
        The use.
    slope : callable
        Maps the use and δ to the gradient by the source, as if the source had been broadcast before.
    """

    tap_count = 1

    def __init__(self, use: Use, slope: Callable[[Use, tf.Tensor], tf.Tensor]) -> None:
        super().__init__(use)
        shape, rank = use.source.shape, use.output.shape.rank
        if rank is None or shape.rank > rank or (shape.rank == rank and shape[0] != 1):
            raise NotCoveredError(
                f"{use.operation.name} reads a variable of shape {shape} and returns {use.output.shape}. Its rule needs a "
                f"variable with fewer axes than the result, or with one element on the first axis."
            )
        self._slope = slope

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        """Return the gradients themselves, summed over the axes that were broadcast, shape (K, 1, *source)."""
        shape, rank = self._use.source.shape, self._use.output.shape.rank
        full = self._slope(self._use, delta)
        missing = rank - shape.rank
        # The first axis holds examples and may hold several positions of each.
        axes = [a for a in range(1, rank) if a < missing or shape[a - missing] == 1]
        summed = tf.reduce_sum(full, axis=axes)
        rest = [size for size in shape.as_list()[max(0, 1 - missing) :] if size != 1]
        by_example = tf.reduce_sum(tf.reshape(summed, (count, -1, *rest)), axis=1)
        return [tf.reshape(by_example, (count, 1, *shape.as_list()))]

    def gradients(self, taps: Taps) -> tf.Tensor:
        """Return their sum over rows."""
        return tf.reduce_sum(taps[0], axis=1)


class Tile(Elementwise):
    """``tf.tile(v, [batch, 1, ...])``, of a class token, say: a repetition that broadcasting could also do."""

    def __init__(self, use: Use) -> None:
        super().__init__(use, _same)
        made, source = use.output.shape.as_list(), use.source.shape.as_list()
        if any(m != s and s != 1 for m, s in zip(made[1:], source[1:], strict=True)):
            raise NotCoveredError(
                f"{use.operation.name} tiles a variable of shape {use.source.shape} to {use.output.shape}. Its rule needs "
                f"one element on each axis that is repeated."
            )


def sums(use: Use) -> Elementwise:
    """Return the rule of ``x + v`` and ``v + x``."""
    return Elementwise(use, _same)


def differences(use: Use) -> Elementwise:
    """Return the rule of ``x − v`` and ``v − x``."""
    return Elementwise(use, lambda use, delta: -delta if use.index else delta)


def multiplications(use: Use) -> Elementwise:
    """Return the rule of ``x · v``."""
    return Elementwise(use, lambda use, delta: delta * use.other)


def any_slope(use: Use) -> Elementwise:
    """Return the rule of any element-wise operation: TensorFlow's derivative of it by the broadcast source."""
    return Elementwise(use, _slope)


def _same(use: Use, delta: tf.Tensor) -> tf.Tensor:
    return delta


def _slope(use: Use, delta: tf.Tensor) -> tf.Tensor:
    source = tf.broadcast_to(use.source, tf.shape(use.output))
    (slope,) = gradients(use.again({use.index: source}), [source], delta)
    return slope
