"""The arguments of compiled functions: named tuples, so none of their tensors is taken for another.

TensorFlow treats a named tuple as a nest. It holds specs in a signature, arrays or tensors in a call, tensors in a graph.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from explaind_tf.kernel.functions import Batch, Block, PureModel, StepPath
from explaind_tf.kernel.quadrature.nodes import NodeTable, Quadrature


class Line(NamedTuple):
    """The straight path of a step, z(t) = start + t · displacement, both of shape (Z,)."""

    start: Any
    displacement: Any

    @classmethod
    def spec(cls, model: PureModel) -> "Line":
        """Return the signature."""
        point = tf.TensorSpec((model.point_size,), model.dtype)
        return cls(point, point)

    def at(self, place: tf.Tensor) -> tf.Tensor:
        """Return z(place)."""
        return self.start + place * self.displacement


class Pairs(NamedTuple):
    """Pairs of a node of a step and an input, by node; the arrays are those of a :class:`NodeTable`."""

    line: Line
    nodes: Any
    pieces: Any
    splits: Any
    members: Any

    @classmethod
    def spec(cls, model: PureModel) -> "Pairs":
        """Return the signature."""
        integers = tf.TensorSpec((None,), tf.int32)
        return cls(Line.spec(model), *_node_specs(model), integers, integers)

    @classmethod
    def of(cls, path: StepPath, table: NodeTable, model: PureModel) -> "Pairs":
        """Return the pairs of a table, in the model's dtype."""
        dtype = model.dtype.as_numpy_dtype
        nodes, pieces = table.nodes.astype(dtype), table.pieces.astype(dtype)
        return cls(Line(*path.line), nodes, pieces, table.splits, table.members)

    def inputs_at(self, node: tf.Tensor) -> tf.Tensor:
        """Return the inputs that have a node."""
        return self.members[self.splits[node] : self.splits[node + 1]]


class Stack(NamedTuple):
    """Pairs whose weighted sum over the nodes of each input is asked for.

    Attributes
    ----------
    pairs : Pairs
        The pairs.
    weights : Any
        Of each pair, shape (m,).
    places : Any
        The places of each input's pairs among them, shape (batch, n); see :meth:`Quadrature.places`.
    """

    pairs: Pairs
    weights: Any
    places: Any

    @classmethod
    def spec(cls, model: PureModel) -> "Stack":
        """Return the signature."""
        weights, places = tf.TensorSpec((None,), model.dtype), tf.TensorSpec((None, None), tf.int32)
        return cls(Pairs.spec(model), weights, places)

    @classmethod
    def of(cls, path: StepPath, quadrature: Quadrature, model: PureModel) -> "Stack":
        """Return the pairs of a quadrature, by node, in the model's dtype."""
        table, weights = quadrature.by_node()
        pairs = Pairs.of(path, table, model)
        return cls(pairs, weights.astype(model.dtype.as_numpy_dtype), quadrature.places(table))


class Nodes(NamedTuple):
    """The nodes of each input of a block, end to end; the arrays are those of a :class:`Quadrature`."""

    line: Line
    nodes: Any
    pieces: Any
    weights: Any
    splits: Any

    @classmethod
    def spec(cls, model: PureModel) -> "Nodes":
        """Return the signature."""
        weights, splits = tf.TensorSpec((None,), model.dtype), tf.TensorSpec((None,), tf.int32)
        return cls(Line.spec(model), *_node_specs(model), weights, splits)

    @classmethod
    def of(cls, path: StepPath, quadrature: Quadrature, model: PureModel) -> "Nodes":
        """Return the nodes of a quadrature, in the model's dtype."""
        dtype = model.dtype.as_numpy_dtype
        nodes, pieces = quadrature.nodes.astype(dtype), quadrature.pieces.astype(dtype)
        return cls(Line(*path.line), nodes, pieces, quadrature.weights.astype(dtype), quadrature.splits)


class Measured(NamedTuple):
    """What a measurement reads besides the variables; each a list of tensors."""

    constants: Any
    inputs: Any
    targets: Any

    @classmethod
    def spec(cls, model: PureModel) -> "Measured":
        """Return the signature."""
        return cls(list(model.constants), list(model.inputs), list(model.measure_targets))

    @classmethod
    def of(cls, constants: list[Any], block: Block) -> "Measured":
        """Return what is measured of a block."""
        return cls(constants, block.inputs, block.targets)

    def each(self, function: Callable[[tf.Tensor], tf.Tensor]) -> "Measured":
        """Return it with a function applied to every tensor that has an axis of inputs."""
        inputs, targets = ([function(a) for a in part] for part in (self.inputs, self.targets))
        return Measured(self.constants, inputs, targets)


class Trained(NamedTuple):
    """What the losses read besides the variables: lists of tensors, and the scales, shape (L,)."""

    constants: Any
    inputs: Any
    targets: Any
    weights: Any
    scales: Any

    @classmethod
    def spec(cls, model: PureModel) -> "Trained":
        """Return the signature."""
        return cls(
            list(model.constants),
            list(model.inputs),
            list(model.loss_targets),
            list(model.loss_weights),
            tf.TensorSpec((None,), model.dtype),
        )

    @classmethod
    def of(cls, constants: list[Any], batch: Batch) -> "Trained":
        """Return what the losses of a batch read."""
        return cls(constants, batch.inputs, batch.targets, batch.weights, batch.scales)


def _node_specs(model: PureModel) -> tuple[tf.TensorSpec, tf.TensorSpec]:
    """Return the signatures of nodes (n,) and of the pieces that they stand for (n, 2)."""
    return tf.TensorSpec((None,), model.dtype), tf.TensorSpec((None, 2), model.dtype)
