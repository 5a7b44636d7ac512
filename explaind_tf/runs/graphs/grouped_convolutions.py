"""Grouped convolutions, made of other ones: TensorFlow has neither their gradients nor fused kernels on processors.

Keras lets XLA compile them there. But a compiled function cannot be differentiated again.
"""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf


def ungroup(operations: Iterable[tf.Operation], outputs: list[tf.Tensor]) -> list[tf.Tensor]:
    """Let all readers of grouped convolutions, in a graph that is being built, read what others return.

    Parameters
    ----------
    operations : iterable of tf.Operation
        The operations to look at.
    outputs : list of tf.Tensor
        Results, which may be such tensors.

    Returns
    -------
    list of tf.Tensor
        The results that take their place.
    """
    for operation in operations:
        if operation.type != "Conv2D" or not _is_grouped(operation):
            continue
        grouped, made = operation.outputs[0], _ungrouped(operation)
        for reader in grouped.consumers():
            for place, tensor in enumerate(reader.inputs):
                if tensor.name == grouped.name:
                    # The only method to change a graph that is being built; TensorFlow's own loops use it.
                    reader._update_input(place, made)
        outputs = [made if output.name == grouped.name else output for output in outputs]
    return outputs


def _is_grouped(operation: tf.Operation) -> bool:
    """Return whether a convolution sees only some of the channels for each of its results."""
    images, filters = operation.inputs
    is_nhwc = operation.get_attr("data_format") == b"NHWC"
    return is_nhwc and images.shape[-1] is not None and images.shape[-1] != filters.shape[2]


def _ungrouped(operation: tf.Operation) -> tf.Tensor:
    """Return what a grouped convolution returns, by a depthwise one or by one for each group."""
    images, filters = operation.inputs
    groups = images.shape[-1] // filters.shape[2]
    arguments: dict[str, Any] = {
        "strides": operation.get_attr("strides"),
        "padding": operation.get_attr("padding").decode(),
        "dilations": operation.get_attr("dilations"),
        "explicit_paddings": operation.get_attr("explicit_paddings"),
    }
    strides, dilations = arguments["strides"], arguments["dilations"]
    # The depthwise kernels of processors know neither dilation nor strides that differ.
    if filters.shape[2] == 1 and set(dilations) == {1} and strides[1] == strides[2]:
        height, width, _, count = filters.shape
        by_channel = tf.reshape(filters, (height, width, groups, count // groups))
        return tf.raw_ops.DepthwiseConv2dNative(input=images, filter=by_channel, **arguments)
    parts = zip(tf.split(images, groups, axis=-1), tf.split(filters, groups, axis=-1), strict=True)
    return tf.concat([tf.raw_ops.Conv2D(input=x, filter=f, **arguments) for x, f in parts], axis=-1)
