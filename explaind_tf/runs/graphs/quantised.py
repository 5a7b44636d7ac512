"""Derivatives of operations that quantise. Those of TensorFlow pass on what they are given, as if nothing were rounded.

A quantised value is (n − z) · s. The whole numbers n and z only jump, and the step s is a share of the range. So the value
moves with the range alone: by its own size times the relative change of the range.
"""

from collections.abc import Callable
from typing import Final

import tensorflow as tf

Gradient = Callable[..., list[tf.Tensor | None]]


def _of_fixed_range(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    return [None] * len(operation.inputs)


def _of_given_range(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    """Return the gradients by the bounds, inputs 1 and 2: one pair, or one for each channel."""
    _, low, high = operation.inputs
    products = upstream * operation.outputs[0] / (high - low)
    by_high = tf.reduce_sum(products, axis=tf.range(tf.rank(products) - tf.rank(high)))
    return [None, -by_high, by_high]


def _of_own_range(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    """Return the gradient by the element farthest from zero, of all or of its channel, from which the range is taken."""
    nothing: list[tf.Tensor | None] = [None] * len(operation.inputs)
    if operation.get_attr("range_given"):
        return nothing
    x = operation.inputs[0]
    channel, size = operation.get_attr("axis"), tf.abs(x) if operation.get_attr("signed_input") else x
    others = [axis for axis in range(x.shape.rank) if axis != channel]
    farthest = tf.cast(tf.equal(size, tf.reduce_max(size, others, keepdims=True)), x.dtype)
    products = tf.reduce_sum(upstream * operation.outputs[0], others, keepdims=True)
    share = products / tf.reduce_sum(farthest, others, keepdims=True)
    return [tf.math.divide_no_nan(farthest * share, x), *nothing[1:]]


QUANTISED: Final[dict[str, Gradient]] = {
    "FakeQuantWithMinMaxArgs": _of_fixed_range,
    "FakeQuantWithMinMaxVars": _of_given_range,
    "FakeQuantWithMinMaxVarsPerChannel": _of_given_range,
    "QuantizeAndDequantizeV2": _of_own_range,
    "QuantizeAndDequantizeV3": _of_own_range,
    "QuantizeAndDequantizeV4": _of_own_range,
}
