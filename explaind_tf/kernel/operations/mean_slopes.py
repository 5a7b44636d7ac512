"""The mean slope of each operation with a kink, over a piece of a step (:mod:`explaind_tf.kernel.operations.kinks`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from explaind_tf.kernel.operations.called import called_elementwise
from explaind_tf.kernel.operations.reverse_mode import gradients

Tensors = Sequence[tf.Tensor]
PullBack = Callable[[tf.Tensor], list[tf.Tensor | None]]
# Applies an operation to another tensor than the one that it reads.
Made = Callable[[tf.Operation, tf.Tensor], tf.Tensor]


class MeanSlope(Protocol):
    """How one kind of operation is differentiated over a piece of a step; slopes hold what :meth:`pull_back` needs."""

    def at_node(self, operation: tf.Operation) -> list[tf.Tensor]:
        """Return the slopes at the node."""
        ...

    def over_piece(self, operation: tf.Operation, first: Tensors, last: Tensors) -> list[tf.Tensor]:
        """Return the mean slopes between what is read at both ends of the piece."""
        ...

    def pull_back(self, operation: tf.Operation, slope: list[tf.Tensor]) -> PullBack:
        """Return the function from δ to the gradients by what is read."""
        ...


@dataclass(frozen=True)
class _Activation:
    """An element-wise function of one tensor. Slopes: one tensor, by which gradients are multiplied.

    Attributes
    ----------
    function : callable
        Maps a tensor to what the operation returns, given its attributes by name.
    attributes : tuple of str
        Their names.
    """

    function: Callable[..., tf.Tensor]
    attributes: tuple[str, ...] = ()

    def at_node(self, operation: tf.Operation) -> list[tf.Tensor]:
        return [_slope_at(operation.inputs[0], **self._options(operation))]

    def over_piece(self, operation: tf.Operation, first: Tensors, last: Tensors) -> list[tf.Tensor]:
        return [_slope_between(operation.inputs[0], first[0], last[0], **self._options(operation))]

    def pull_back(self, operation: tf.Operation, slope: list[tf.Tensor]) -> PullBack:
        return lambda upstream: [upstream * slope[0]]

    def _options(self, operation: tf.Operation) -> dict[str, Any]:
        return {"function": self.function, **{name: operation.get_attr(name) for name in self.attributes}}


@called_elementwise
def _slope_at(x: tf.Tensor, *, function: Callable[..., tf.Tensor], **attributes: Any) -> tf.Tensor:
    """Return the slope of an element-wise function."""
    return _gradient(function(x, **attributes), x)


@called_elementwise
def _slope_between(
    x: tf.Tensor, a: tf.Tensor, b: tf.Tensor, *, function: Callable[..., tf.Tensor], **attributes: Any
) -> tf.Tensor:
    """Return its mean slope between a and b, and that at x where the slope is the same at both."""
    made = [function(end, **attributes) for end in (x, a, b)]
    at_x, at_a, at_b = (_gradient(own, end) for own, end in zip(made, (x, a, b), strict=True))
    is_crossed = at_a != at_b
    run = tf.where(is_crossed, b - a, tf.ones_like(a))
    return tf.where(is_crossed, (made[2] - made[1]) / run, at_x)


@dataclass(frozen=True)
class _Maximum:
    """The largest elements of the first input.

    Slopes: the input at both ends of the piece, and the share of the piece for which the largest at its start stay so.
    """

    function: Made

    def at_node(self, operation: tf.Operation) -> list[tf.Tensor]:
        x = operation.inputs[0]
        return [x, x, tf.ones_like(operation.outputs[0])]

    def over_piece(self, operation: tf.Operation, first: Tensors, last: Tensors) -> list[tf.Tensor]:
        def lead(at: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
            """Return how far, at one end, its largest elements exceed those that are largest at the other end."""
            made = self.function(operation, other)
            dummy = tf.zeros_like(made)
            # Elements masked by −∞ are not the largest, but would be multiplied by zero, which gives NaN.
            finite = tf.where(tf.math.is_finite(at), at, tf.zeros_like(at))
            return self.function(operation, at) - _gradient(_gradient(made, other, dummy), dummy, finite)

        a, b = first[0], last[0]
        at_first, at_last = lead(a, b), lead(b, a)
        total = at_first + at_last
        return [a, b, tf.where(total > 0, at_first / total, tf.ones_like(total))]

    def pull_back(self, operation: tf.Operation, slope: list[tf.Tensor]) -> PullBack:
        first, last, share = slope

        def pulled(upstream: tf.Tensor) -> list[tf.Tensor | None]:
            parts = ((first, upstream * share), (last, upstream * (1 - share)))
            by_input = tf.add_n([_gradient(self.function(operation, x), x, own) for x, own in parts])
            return [by_input, *[None] * (len(operation.inputs) - 1)]

        return pulled


@dataclass(frozen=True)
class _Larger:
    """The larger of two inputs, element by element, or the smaller one.

    Slopes: one tensor, the share of the piece for which the result is the first input.
    """

    sign: float

    def at_node(self, operation: tf.Operation) -> list[tf.Tensor]:
        a, b = operation.inputs
        return [self._is_first(a, b)]

    def over_piece(self, operation: tf.Operation, first: Tensors, last: Tensors) -> list[tf.Tensor]:
        return [_share_between(self._is_first(*operation.inputs), *first, *last, sign=self.sign)]

    def pull_back(self, operation: tf.Operation, slope: list[tf.Tensor]) -> PullBack:
        def pulled(upstream: tf.Tensor) -> list[tf.Tensor | None]:
            a, b = operation.inputs
            shape = tf.shape(upstream)
            parts = ((a, upstream * slope[0]), (b, upstream * (1 - slope[0])))
            return [_gradient(tf.broadcast_to(x, shape), x, own) for x, own in parts]

        return pulled

    def _is_first(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        # As in TensorFlow, the first input has the whole gradient where both are equal.
        return tf.cast((a - b) * self.sign >= 0, a.dtype)


@called_elementwise
def _share_between(
    at_node: tf.Tensor,
    first_start: tf.Tensor,
    second_start: tf.Tensor,
    first_end: tf.Tensor,
    second_end: tf.Tensor,
    *,
    sign: float,
) -> tf.Tensor:
    """Return for which share of a piece the first of two is the larger one, and that at the node if it stays so."""
    before, after = (first_start - second_start) * sign, (first_end - second_end) * sign
    is_crossed = (before >= 0) != (after >= 0)
    run = tf.where(is_crossed, after - before, tf.ones_like(before))
    share = (tf.nn.relu(after) - tf.nn.relu(before)) / run
    return tf.where(is_crossed, share, at_node)


def _max_pool(operation: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    return tf.raw_ops.MaxPool(
        input=x,
        **{name: operation.get_attr(name) for name in ("ksize", "strides", "explicit_paddings")},
        padding=operation.get_attr("padding").decode(),
        data_format=operation.get_attr("data_format").decode(),
    )


# An operation with another kind of kink needs a class like those above, and a line here.
_MEAN_SLOPES: dict[str, MeanSlope] = {
    "Relu": _Activation(tf.nn.relu),
    "Relu6": _Activation(tf.nn.relu6),
    "Abs": _Activation(tf.abs),
    "Maximum": _Larger(1.0),
    "Minimum": _Larger(-1.0),
    "LeakyRelu": _Activation(tf.nn.leaky_relu, ("alpha",)),
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
