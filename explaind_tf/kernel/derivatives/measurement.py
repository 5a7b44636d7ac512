"""Compiled derivatives of a model's measurement, at a point and along the path of a step."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.arguments import Measured, Nodes, Pairs, Stack
from explaind_tf.kernel.derivatives.compiled import Compiled
from explaind_tf.kernel.derivatives.node_graphs import (
    AveragedOutputs,
    path_jvp,
    path_row,
    path_rows,
    path_values,
)
from explaind_tf.kernel.derivatives.stacked_graphs import stacked_products, stacked_rows
from explaind_tf.kernel.functions import Block, PureModel, StepPath
from explaind_tf.kernel.operations.jumps import may_jump
from explaind_tf.kernel.operations.kinks import has_kinks
from explaind_tf.kernel.quadrature.nodes import NodeTable, Quadrature

# Up to this many directions are unrolled, in one graph for each number of them. A loop over directions within the loop
# over nodes cost a sixth of the time.
_LAID_OUT = 4
# A measurement with more operations is a large model's. There, each graph takes longer to trace and to optimize than a
# thousand calls save.
_LARGE = 400

# How rows are computed: by rules, in a loop over the measurements, or by a call for each of them.
RowsRoute = Literal["rules", "loop", "calls"]


class MeasurementDerivatives:
    """The compiled functions of a measurement f. Each is traced once, whatever the batch size.

    Parameters
    ----------
    model : PureModel
        The functions to differentiate.
    """

    def __init__(self, model: PureModel) -> None:
        self.model = model
        point = tf.TensorSpec((model.point_size,), model.dtype)
        directions = tf.TensorSpec((None, model.point_size), model.dtype)
        pairs, stack, measured = Pairs.spec(model), Stack.spec(model), Measured.spec(model)
        outputs = AveragedOutputs(model)

        self._values = Compiled(lambda z, own: model.measure(model.unpack(z), *own), [point, measured])
        self._path_values = Compiled(lambda p, own: path_values(model, p, own, self.width), [pairs, measured])
        self._path_jvp = {
            k: Compiled(
                lambda p, d, own: path_jvp(outputs, p, d, own, self.width),
                [pairs, tf.TensorSpec((k, model.point_size), model.dtype), measured],
            )
            for k in (None, *range(1, _LAID_OUT + 1))
        }
        self._path_rows = Compiled(
            lambda nodes, own: path_rows(outputs, nodes, own), [Nodes.spec(model), measured]
        )
        self._path_row = Compiled(
            lambda nodes, cotangent, own: path_row(outputs, nodes, cotangent, own),
            [Nodes.spec(model), tf.TensorSpec((1, None), model.dtype), measured],
        )
        self._stacked_rows = Compiled(
            lambda s, own: stacked_rows(outputs, s, own, self.width), [stack, measured]
        )
        self._stacked_products = Compiled(
            lambda d, s, own: stacked_products(outputs, d, s, own, self.width), [directions, stack, measured]
        )

    @property
    def width(self) -> int:
        """O, from the trace of the measurement alone, which every question needs."""
        return int(self._values.graph.outputs[0].shape[1])

    @cached_property
    def operation_count(self) -> int:
        """Number of operations of the measurement: how large a model's graphs are."""
        return len(self._values.graph.get_operations())

    @property
    def _laid_out(self) -> int:
        return 1 if self.operation_count > _LARGE else _LAID_OUT

    @cached_property
    def has_kinks(self) -> bool:
        """Whether the measurement has kinks (non-smooth points) that nodes can average over their pieces."""
        graph = self._values.graph
        return has_kinks(graph.outputs[0], graph.inputs[0])

    @cached_property
    def may_jump(self) -> bool:
        """Whether the measurement may jump while the weights move on."""
        graph = self._values.graph
        return may_jump(graph.outputs[0], graph.inputs[0])

    def values(self, point: Any, constants: list[Any], block: Block) -> tf.Tensor:
        """Return f, shape (batch, O)."""
        return self._values(point, Measured.of(constants, block))

    def path_values(self, path: StepPath, table: NodeTable, block: Block) -> tf.Tensor:
        """Return f at pairs of a node and an input, in the order of the table, shape (m, O)."""
        return self._path_values(Pairs.of(path, table, self.model), Measured.of(path.constants, block))

    def path_jvp(self, path: StepPath, table: NodeTable, directions: Any, block: Block) -> tf.Tensor:
        """Return ∂f/∂z (z(t)) · d for directions (K, Z) at pairs of a node and an input, shape (m, K, O)."""
        count = len(directions)
        compiled = self._path_jvp[count if count <= self._laid_out else None]
        pairs = Pairs.of(path, table, self.model)
        return compiled(pairs, directions, Measured.of(path.constants, block))

    def path_rows(
        self,
        path: StepPath,
        quadrature: Quadrature,
        block: Block,
        *,
        route: RowsRoute,
        stacked: int = 1,
    ) -> tf.Tensor:
        """Return Φ = Σ_j weights_ij · ∂f_i/∂z (z(nodes_j)), one row for each measurement, shape (batch, O, Z).

        Parameters
        ----------
        path : StepPath
            The path.
        quadrature : Quadrature
            The nodes and weights of each input.
        block : Block
            The inputs.
        route : {"rules", "loop", "calls"}
            Whether examples are differentiated all at once, by rules, or one by one: in a loop, or by calls of a graph that
            takes a fraction of the time to trace.
        stacked : int
            Number of nodes of one input whose activations are held at once. With rules, their gradients are summed
            within the products that compute them, so more is faster.

        Raises
        ------
        NotCoveredError
            If the model has no rules.
        """
        if route == "rules":
            return self._by_rule(self._stacked_rows, path, quadrature, block, stacked)
        if route == "calls":
            return self._by_calls(path, quadrature, block)
        return self._path_rows(Nodes.of(path, quadrature, self.model), Measured.of(path.constants, block))

    def path_products(
        self, path: StepPath, quadrature: Quadrature, directions: Any, block: Block, *, stacked: int = 1
    ) -> tf.Tensor:
        """Return Φ · d variable by variable for directions (K, Z), shape (batch, O, K, V).

        Rules take one backward pass per node for all measurements, and no row Φ is ever formed. ``stacked`` as in
        :meth:`path_rows`.

        Raises
        ------
        NotCoveredError
            If the model has no rules.
        """
        function = partial(self._stacked_products, directions)
        return self._by_rule(function, path, quadrature, block, stacked)

    def _by_calls(self, path: StepPath, quadrature: Quadrature, block: Block) -> tf.Tensor:
        """Return Φ by one call for each input and output."""
        cotangents = np.eye(self.width, dtype=self.model.dtype.as_numpy_dtype)[:, None]

        def rows_of(place: int) -> tf.Tensor:
            nodes = Nodes.of(path, quadrature.part(place, place + 1), self.model)
            own = Measured.of(path.constants, block.take(slice(place, place + 1)))
            return tf.stack([self._path_row(nodes, cotangent, own) for cotangent in cotangents])

        return tf.stack([rows_of(place) for place in range(len(block))])

    def _by_rule(
        self,
        function: Callable[..., tf.Tensor],
        path: StepPath,
        quadrature: Quadrature,
        block: Block,
        stacked: int,
    ) -> tf.Tensor:
        """Return the sum over the nodes of each input."""
        total: tf.Tensor | None = None
        for members, own in quadrature.rounds(stacked):
            inputs = block if len(members) == len(block) else block.take(members)
            found = function(Stack.of(path, own, self.model), Measured.of(path.constants, inputs))
            if total is None:
                assert len(members) == len(block), "every input has a node, and is in the first round"
                total = found
            else:
                total = tf.tensor_scatter_nd_add(total, members[:, None], found)
        assert total is not None, "a block has inputs"
        return total
