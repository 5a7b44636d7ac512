"""Compiled functions, and their vector–Jacobian (VJP) and Jacobian–vector products (JVP).

Both products are built by symbolic reverse mode. A JVP is a VJP of a VJP: g(v) = ∂/∂z ⟨f, v⟩ is linear in v, so the
derivative of ⟨g(v), d⟩ by v is the JVP of f in direction d. After pruning, only the part of the first backward pass
that is linear in v is left. A JVP costs about one more forward pass. It needs neither ``ForwardAccumulator`` (fails
through called functions with sparse gradients) nor ``vectorized_map`` (aborts the process on broadcasting batch
matmuls with oneDNN, TensorFlow 2.20 and 2.21).
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import tensorflow as tf

from explaind_tf.kernel.operations.reverse_mode import gradients, has_symbolic_gradient
from explaind_tf.kernel.points import Point

# Iterations of a map_fn that may run at once. Each holds the activations of one backward pass.
PARALLEL_EXAMPLES = 16
PARALLEL_DIRECTIONS = 2


class Compiled:
    """A compiled function of one signature, traced when it is first called.

    With a single trace, TensorFlow need not look for the right one. The search takes a third of a small function's call.

    Parameters
    ----------
    function : callable
        Builds the graph.
    signature : list
        A nest of specs for each of its arguments.
    """

    def __init__(self, function: Callable[..., Any], signature: list[Any]) -> None:
        self._function = tf.function(function, input_signature=signature, autograph=False)

    @cached_property
    def _traced(self) -> Any:
        return self._function.get_concrete_function()

    @property
    def graph(self) -> tf.Graph:
        """The traced graph."""
        return self._traced.graph

    def __call__(self, *arguments: Any) -> Any:
        """Run it on arguments of the signature."""
        return self._traced(*arguments)

    def experimental_get_tracing_count(self) -> int:
        """Return how often it was traced. The name is TensorFlow's."""
        return int(self._function.experimental_get_tracing_count())


def vjp(outputs: tf.Tensor, point: Point, cotangent: tf.Tensor | None) -> tf.Tensor:
    """Return ∂/∂z ⟨outputs, cotangent⟩, shape (Z,); without a cotangent, that of the sum of the outputs."""
    return point.pack(gradients(outputs, point.variables, cotangent))


def jvp_many(outputs: tf.Tensor, point: Point, directions: tf.Tensor) -> tf.Tensor:
    """Return the derivatives of ``outputs`` in K directions (K, Z), shape (K, *outputs).

    Where an operation of the backward pass has no gradient, they take a backward pass for each output.

    Raises
    ------
    LookupError
        If an operation has no gradient, or only one that cannot be trusted.
    """
    dummy = tf.zeros_like(outputs)
    found = [
        None if gradient is None else tf.convert_to_tensor(gradient)
        for gradient in gradients(outputs, point.variables, dummy)
    ]
    pulled = [gradient for gradient in found if gradient is not None]
    if not pulled:
        return tf.zeros([tf.shape(directions)[0], *tf.unstack(tf.shape(outputs))], outputs.dtype)

    def one(direction: tf.Tensor) -> tf.Tensor:
        pairs = zip(point.unpack(direction), found, strict=True)
        (derivative,) = gradients(pulled, [dummy], [own for own, gradient in pairs if gradient is not None])
        return tf.zeros_like(outputs) if derivative is None else derivative

    try:
        if directions.shape[0] is not None:
            # Traced once and inlined for each direction: to trace it takes as long as all the rest.
            spec = tf.TensorSpec(directions.shape[1:], directions.dtype)
            traced = tf.function(one, input_signature=[spec], autograph=False).get_concrete_function()
            return tf.stack([traced(direction) for direction in tf.unstack(directions)])
        return tf.map_fn(
            one, directions, parallel_iterations=PARALLEL_DIRECTIONS, fn_output_signature=outputs.dtype
        )
    except LookupError:  # raised by tf.gradients for an operation without gradient
        if has_symbolic_gradient(outputs.graph):
            raise
        return _jvp_by_rows(outputs, point, directions)


def _jvp_by_rows(outputs: tf.Tensor, point: Point, directions: tf.Tensor) -> tf.Tensor:
    """Return the same as :func:`jvp_many`: the products of the directions with the gradient of each output."""
    count, shape = tf.size(outputs), tf.shape(outputs)

    def products(place: tf.Tensor) -> tf.Tensor:
        cotangent = tf.reshape(tf.one_hot(place, count, dtype=outputs.dtype), shape)
        return tf.cast(tf.linalg.matvec(directions, vjp(outputs, point, cotangent)), outputs.dtype)

    found = tf.map_fn(
        products,
        tf.range(count),
        fn_output_signature=tf.TensorSpec(directions.shape[:1], outputs.dtype),
        parallel_iterations=PARALLEL_EXAMPLES,
    )
    derivatives = tf.reshape(tf.transpose(found), tf.concat([tf.shape(directions)[:1], shape], axis=0))
    derivatives.set_shape([directions.shape[0], *outputs.shape])
    return derivatives
