"""Graphs of a measurement along the path of a step, one node after the other.

Each function adds its operations to the graph that is being built. A loop runs over the nodes, so only the activations of
one node are held at a time.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from explaind_tf.kernel.derivatives.arguments import Line, Measured, Nodes, Pairs
from explaind_tf.kernel.derivatives.compiled import PARALLEL_EXAMPLES, Compiled, jvp_many, vjp
from explaind_tf.kernel.functions import PureModel
from explaind_tf.kernel.operations.kinks import averaged, read_by_kinks


class AveragedOutputs:
    """A measurement whose derivatives average kinks over the piece that a node stands for.

    Attributes
    ----------
    model : PureModel
        The model.
    """

    def __init__(self, model: PureModel) -> None:
        self.model = model
        point = tf.TensorSpec((model.point_size,), model.dtype)
        # One trace for all graphs, which call it at both ends of their pieces: to copy the model into each of them takes
        # most of the time of tracing.
        self._read_by_kinks = Compiled(self._read, [point, Measured.spec(model)])

    def at(self, variables: list[tf.Tensor], line: Line, piece: tf.Tensor, measured: Measured) -> tf.Tensor:
        """Return f of the variables at a node, shape (batch, O)."""

        def at_end(place: tf.Tensor) -> list[tf.Tensor]:
            return self._read_by_kinks(line.at(place), measured)

        return averaged(
            lambda own: self.model.measure(own, *measured),
            variables,
            lambda: (at_end(piece[0]), at_end(piece[1])),
            piece[1] > piece[0],
        )

    def _read(self, vector: tf.Tensor, measured: Measured) -> list[tf.Tensor]:
        self.model.measure(self.model.unpack(vector), *measured)
        return read_by_kinks(tf.compat.v1.get_default_graph().get_operations())


def path_values(model: PureModel, pairs: Pairs, measured: Measured, width: int) -> tf.Tensor:
    """Return f at pairs of a node and an input, shape (m, O)."""

    def value(node: tf.Tensor, point: tf.Tensor, own: Measured) -> tf.Tensor:  # values need no pieces
        return model.measure(model.unpack(point), *own)

    return _at_nodes(model, value, (), pairs, measured, width)


def path_jvp(
    averaged_outputs: AveragedOutputs, pairs: Pairs, directions: tf.Tensor, measured: Measured, width: int
) -> tf.Tensor:
    """Return the derivatives in K directions at pairs of a node and an input, shape (m, K, O)."""
    model = averaged_outputs.model

    def derivatives(node: tf.Tensor, vector: tf.Tensor, own: Measured) -> tf.Tensor:
        point = model.at(vector)
        outputs = averaged_outputs.at(point.variables, pairs.line, pairs.pieces[node], own)
        return tf.transpose(jvp_many(outputs, point, directions), (1, 0, 2))

    return _at_nodes(model, derivatives, (None,), pairs, measured, width)


def _at_nodes(
    model: PureModel,
    function: Callable[[tf.Tensor, tf.Tensor, Measured], tf.Tensor],
    shape: tuple[Any, ...],
    pairs: Pairs,
    measured: Measured,
    width: int,
) -> tf.Tensor:
    """Return a function of a node, its point and its inputs at all pairs, shape (m, *shape, O)."""

    def add_node(node: tf.Tensor, found: tf.TensorArray) -> list[Any]:
        members = pairs.inputs_at(node)
        own = measured.each(lambda a: tf.gather(a, members))
        value = function(node, pairs.line.at(pairs.nodes[node]), own)
        return [node + 1, found.write(node, value)]

    empty = tf.TensorArray(
        model.dtype, tf.size(pairs.nodes), infer_shape=False, element_shape=(None, *shape, width)
    )
    _, found = tf.while_loop(
        lambda node, _: node < tf.size(pairs.nodes), add_node, [0, empty], parallel_iterations=1
    )
    return found.concat()


def path_row(
    averaged_outputs: AveragedOutputs, nodes: Nodes, cotangent: tf.Tensor, measured: Measured
) -> tf.Tensor:
    """Return Σ_j weights_j · ∂/∂z ⟨f, cotangent⟩ at the nodes of one input, with a cotangent (1, O), shape (Z,)."""
    model = averaged_outputs.model

    def add_node(node: tf.Tensor, total: tf.Tensor) -> list[Any]:
        point = model.at(nodes.line.at(nodes.nodes[node]))
        outputs = averaged_outputs.at(point.variables, nodes.line, nodes.pieces[node], measured)
        return [node + 1, total + vjp(outputs, point, nodes.weights[node] * cotangent)]

    empty = tf.zeros((model.point_size,), model.dtype)
    _, total = tf.while_loop(
        lambda node, _: node < tf.size(nodes.nodes), add_node, [0, empty], parallel_iterations=1
    )
    return total


def path_rows(averaged_outputs: AveragedOutputs, nodes: Nodes, measured: Measured) -> tf.Tensor:
    """Return Φ by one backward pass for each output, input and node, shape (batch, O, Z)."""
    model = averaged_outputs.model
    shape = (None, model.point_size)

    def one_input(example: tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor, tf.Tensor]) -> tf.Tensor:
        own = Measured(measured.constants, *example[:2]).each(lambda part: part[None])
        first, stop = example[2:]

        def rows_at(node: tf.Tensor) -> tf.Tensor:
            point = model.at(nodes.line.at(nodes.nodes[node]))
            outputs = averaged_outputs.at(point.variables, nodes.line, nodes.pieces[node], own)[0]
            cotangents = nodes.weights[node] * tf.eye(outputs.shape[0], dtype=outputs.dtype)
            return tf.map_fn(
                lambda cotangent: vjp(outputs, point, cotangent),
                cotangents,
                parallel_iterations=PARALLEL_EXAMPLES,
            )

        _, total = tf.while_loop(
            lambda node, _: node < stop,
            lambda node, total: [node + 1, total + rows_at(node)],
            [first + 1, rows_at(first)],
            shape_invariants=[tf.TensorShape(()), tf.TensorShape(shape)],
        )
        return total

    return tf.map_fn(
        one_input,
        (measured.inputs, measured.targets, nodes.splits[:-1], nodes.splits[1:]),
        fn_output_signature=tf.TensorSpec(shape, model.dtype),
        parallel_iterations=PARALLEL_EXAMPLES,
    )
