"""Functions that a graph calls, instead of a copy of their operations for each place where they are used.

A deep model uses the same few small graphs hundreds of times: the mean slope of a ReLU, the products of a Dense layer.
Python builds them slowly, and a call is one operation. TensorFlow expands the calls again before it runs them.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import tensorflow as tf

# Functions and types of arguments that are kept.
_KEPT = 1024


def called(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is traced once for each signature, and then called.

    Nothing may be differentiated through it. Its arguments are tensors, then hashable options by name.
    """
    traced = _traced_once(function)

    def call(*tensors: tf.Tensor, **options: Any) -> Any:
        signature = tuple(tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors)
        return traced(signature, tuple(options.items()))(*tensors)

    return call


def called_elementwise(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Return the same as :func:`called` for a function of tensors of one shape, traced once for all shapes."""
    traced = _traced_once(function)

    def call(*tensors: tf.Tensor, **options: Any) -> tf.Tensor:
        signature = tuple(tf.TensorSpec(None, tensor.dtype) for tensor in tensors)
        return tf.ensure_shape(traced(signature, tuple(options.items()))(*tensors), tensors[0].shape)

    return call


def _traced_once(function: Callable[..., Any]) -> Callable[..., Any]:
    @lru_cache(maxsize=_KEPT)
    def traced(signature: tuple[tf.TensorSpec, ...], options: tuple[tuple[str, Any], ...]) -> Any:
        graph = tf.function(
            lambda *tensors: function(*tensors, **dict(options)), input_signature=signature, autograph=False
        )
        return graph.get_concrete_function()

    return traced
