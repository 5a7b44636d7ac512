"""The mean slope of each operation with a kink, over a piece of a step (:mod:`explaind_tf.kernel.operations.kinks`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import tensorflow as tf

from explaind_tf.kernel.operations.reverse_mode import gradients

# Applies an operation to another tensor than the one that it reads.
Made = Callable[[tf.Operation, tf.Tensor], tf.Tensor]


class MeanSlope(Protocol):
    """How one kind of operation is differentiated over a piece of a step; slopes hold what :meth:`pull_back` needs."""

    def at_node(self, operation: tf.Operation) -> list[tf.Tensor]:
        """Return the slopes at the node."""
        ...

    def over_piece(self, operation: tf.Operation, first: tf.Tensor, last: tf.Tensor) -> list[tf.Tensor]:
        """Return the mean slopes between what is read at both ends of the piece."""
        ...

    def pull_back(self, operation: tf.Operation, slope: list[tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        """Return the function from δ to the gradient by what is read."""
        ...


@dataclass(frozen=True)
class _Activation:
    """An element-wise function of one tensor. Slopes: one tensor, by which gradients are multiplied."""

    function: Made

    def at_node(self, operation: tf.Operation) -> list[tf.Tensor]:
        return [self._slope(operation, operation.inputs[0])]

    def over_piece(self, operation: tf.Operation, first: tf.Tensor, last: tf.Tensor) -> list[tf.Tensor]:
        is_crossed = self._slope(operation, first) != self._slope(operation, last)
        run = tf.where(is_crossed, last - first, tf.ones_like(first))
        rise = self.function(operation, last) - self.function(operation, first)
        return [tf.where(is_crossed, rise / run, self._slope(operation, operation.inputs[0]))]

    def pull_back(self, operation: tf.Operation, slope: list[tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        return lambda upstream: upstream * slope[0]

    def _slope(self, operation: tf.Operation, x: tf.Tensor) -> tf.Tensor:
        return _gradient(self.function(operation, x), x)


@dataclass(frozen=True)
class _Maximum:
    """The largest elements of the first input.

    Slopes: the input at both ends of the piece, and the share of the piece for which the largest at its start stay so.
    """

    function: Made

    def at_node(self, operation: tf.Operation) -> list[tf.Tensor]:
        x = operation.inputs[0]
        return [x, x, tf.ones_like(operation.outputs[0])]

    def over_piece(self, operation: tf.Operation, first: tf.Tensor, last: tf.Tensor) -> list[tf.Tensor]:
        def lead(at: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
            """Return how far, at one end, its largest elements exceed those that are largest at the other end."""
            made = self.function(operation, other)
            dummy = tf.zeros_like(made)
            # Elements masked by −∞ are not the largest, but would be multiplied by zero, which gives NaN.
            finite = tf.where(tf.math.is_finite(at), at, tf.zeros_like(at))
            return self.function(operation, at) - _gradient(_gradient(made, other, dummy), dummy, finite)

        at_first, at_last = lead(first, last), lead(last, first)
        total = at_first + at_last
        return [first, last, tf.where(total > 0, at_first / total, tf.ones_like(total))]

    def pull_back(self, operation: tf.Operation, slope: list[tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        first, last, share = slope

        def pulled(upstream: tf.Tensor) -> tf.Tensor:
            parts = ((first, upstream * share), (last, upstream * (1 - share)))
            return tf.add_n([_gradient(self.function(operation, x), x, own) for x, own in parts])

        return pulled


def _max_pool(operation: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.MaxPool(
        input=x,
        **{name: operation.get_attr(name) for name in ("ksize", "strides", "explicit_paddings")},
        padding=operation.get_attr("padding").decode(),
        data_format=operation.get_attr("data_format").decode(),
    )


# An operation with another kind of kink needs a class like those above, and a line here.
_MEAN_SLOPES: dict[str, MeanSlope] = {
    "Relu": _Activation(lambda operation, x: tf.nn.relu(x)),
    "Relu6": _Activation(lambda operation, x: tf.nn.relu6(x)),
    "LeakyRelu": _Activation(lambda operation, x: tf.nn.leaky_relu(x, operation.get_attr("alpha"))),
    "Max": _Maximum(
        lambda operation, x: tf.reduce_max(x, operation.inputs[1], operation.get_attr("keep_dims"))
    ),
    "MaxPool": _Maximum(_max_pool),
}


def is_kinked(operation: tf.Operation) -> bool:
    """Return whether an operation has kinks that can be averaged."""
    return operation.type in _MEAN_SLOPES and operation.inputs[0].dtype.is_floating


def mean_slope(operation: tf.Operation) -> MeanSlope:
    """Return how such an operation is differentiated."""
    return _MEAN_SLOPES[operation.type]


def _gradient(made: tf.Tensor, x: tf.Tensor, upstream: tf.Tensor | None = None) -> tf.Tensor:
    (gradient,) = gradients(made, [x], upstream)
    return gradient
