"""Graphs of a measurement's gradients by rules, with the nodes of each input stacked.

Gradients at several nodes are summed within the matrix products that compute them, and never stored one by one.
"""

from typing import Any

import tensorflow as tf

from explaind_tf.kernel.derivatives.arguments import Measured, Stack
from explaind_tf.kernel.derivatives.example_gradients import ExampleGradients
from explaind_tf.kernel.derivatives.node_graphs import AveragedOutputs
from explaind_tf.kernel.operations.called import called


def stacked_rows(
    averaged_outputs: AveragedOutputs, stack: Stack, measured: Measured, width: int
) -> tf.Tensor:
    """Return the weighted gradients, summed over the nodes of each input, shape (batch, O, Z); O is the width."""
    examples, taps, count = _stacked_examples(averaged_outputs, stack, measured, width)
    return tf.reshape(examples.gradients(taps, count), (-1, width, averaged_outputs.model.point_size))


def stacked_products(
    averaged_outputs: AveragedOutputs, directions: tf.Tensor, stack: Stack, measured: Measured, width: int
) -> tf.Tensor:
    """Return their products with directions (K, Z), variable by variable, shape (batch, O, K, V)."""
    model = averaged_outputs.model
    pieces = tf.split(directions, model.sizes, axis=1)
    shaped = [
        tf.reshape(piece, (-1, *spec.shape))
        for piece, spec in zip(pieces, (*model.trained, *model.state), strict=True)
    ]
    examples, taps, count = _stacked_examples(averaged_outputs, stack, measured, width)
    products = tf.transpose(examples.contract(shaped, taps, count), (1, 0, 2))
    return tf.reshape(products, (-1, width, tf.shape(directions)[0], len(shaped)))


def _stacked_examples(
    averaged_outputs: AveragedOutputs, stack: Stack, measured: Measured, width: int
) -> tuple[ExampleGradients, list[tf.Tensor], tf.Tensor]:
    """Return examples at one node, the taps at all nodes with one example for each input and output, and their number."""
    pairs = stack.pairs
    built: list[ExampleGradients] = []

    def taps_at(node: tf.Tensor) -> list[tf.Tensor]:
        members = pairs.inputs_at(node)
        # Each output has a cotangent of its own.
        repeated = _repeated(members, width)
        own = measured.each(lambda a: tf.gather(a, repeated))
        variables = averaged_outputs.model.unpack(pairs.line.at(pairs.nodes[node]))
        outputs = averaged_outputs.at(variables, pairs.line, pairs.pieces[node], own)
        shares = _repeated(stack.weights[pairs.splits[node] : pairs.splits[node + 1]], width)
        cotangent = tf.tile(tf.eye(width, dtype=outputs.dtype), [tf.size(members), 1]) * shares[:, None]
        samples = [*own.inputs, *own.targets]
        built.append(ExampleGradients(outputs, cotangent, variables, samples, tf.size(repeated)))
        return built[-1].taps()

    # Before the loop, arrays need the types and shapes of the taps. As a function of its own the model is traced once for
    # both; to trace takes much of the first question about a large model.
    node_taps = tf.function(taps_at, input_signature=[tf.TensorSpec((), tf.int32)], autograph=False)
    traced = node_taps.get_concrete_function()

    def add_node(node: tf.Tensor, found: list[tf.TensorArray]) -> list[Any]:
        return [node + 1, [array.write(node, tap) for array, tap in zip(found, traced(node), strict=True)]]

    empty = [
        tf.TensorArray(
            tap.dtype, tf.size(pairs.nodes), infer_shape=False, element_shape=(None, *tap.shape[1:])
        )
        for tap in traced.structured_outputs
    ]
    _, found = tf.while_loop(
        lambda node, _: node < tf.size(pairs.nodes), add_node, [0, empty], parallel_iterations=1
    )
    rows = _rows_of_inputs(stack.places, width, tf.size(pairs.members))
    return built[-1], [_by_input(array.concat(), rows) for array in found], tf.shape(rows)[0]


def _repeated(values: tf.Tensor, times: int) -> tf.Tensor:
    """Return each of the values, shape (m,), so many times; `tf.repeat` adds four times as many operations."""
    return tf.reshape(tf.tile(values[:, None], [1, times]), [-1])


def _rows_of_inputs(places: tf.Tensor, width: int, pairs: tf.Tensor) -> tf.Tensor:
    """Return where the n nodes of each input and output are among taps of pairs, shape (batch · O, n).

    An input with fewer than n nodes fills up with the place m, which no pair has. There it gets the number of rows, of
    which :func:`_by_input` makes zeros.
    """
    rows = places[:, None] * width + tf.range(width)[:, None]  # (batch, O, n)
    return tf.reshape(tf.minimum(rows, pairs * width), [-1, tf.shape(places)[1]])


@called
def _by_input(tap: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Return a tap of pairs, (m · O, rows, ...), as one of inputs, (batch · O, n · rows, ...): the rows of all nodes."""
    rest = tap.shape[2:]
    padded = tf.pad(tap, [[0, 1]] + [[0, 0]] * (1 + len(rest)))
    by_input = tf.gather(padded, rows)  # (batch · O, n, rows, ...)
    # A tap may have no elements, so its sizes are given rather than one of them left to be found.
    sizes = tf.shape(by_input)
    joined = tf.reshape(by_input, tf.concat([sizes[:1], [sizes[1] * sizes[2]], sizes[3:]], axis=0))
    return tf.ensure_shape(joined, (None, None, *rest))
