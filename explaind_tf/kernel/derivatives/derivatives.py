"""Compiled derivatives of a :class:`PureModel`: JVP, VJP and per-example gradients.

All are built by symbolic reverse mode. A JVP is a VJP of a VJP: g(v) = ∂/∂z ⟨f, v⟩ is linear in v, so the
derivative of ⟨g(v), d⟩ by v is the JVP of f in direction d, and of the first backward pass only what is
linear in v is left after pruning. It costs about one more forward pass, and needs neither
``ForwardAccumulator`` (fails through called functions with sparse gradients) nor ``vectorized_map`` (aborts
the process on broadcasting batch matmuls with oneDNN, TensorFlow 2.20 and 2.21).

Gradients of single examples are made by rules (:mod:`explaind_tf.kernel.derivatives.example_gradients`), all at once.
Where a graph has operations without a rule, a ``map_fn`` differentiates one example at a time; what it returns is the same.
"""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.example_gradients import ExampleGradients
from explaind_tf.kernel.functions import Batch, Block, PureModel, StepPath
from explaind_tf.kernel.operations.kinks import averaged, has_kinks
from explaind_tf.kernel.quadrature.nodes import NodeTable, Quadrature

# Iterations of a map_fn that may run at once. Each holds the activations of one backward pass.
_PARALLEL_EXAMPLES = 16
_PARALLEL_DIRECTIONS = 2
# So many directions are laid out one by one, in a graph for each number of them: a loop in the loop over nodes took a
# sixth of the time.
_LAID_OUT = 4


def _vjp(outputs: tf.Tensor, point: tf.Tensor, cotangent: tf.Tensor | None) -> tf.Tensor:
    (gradient,) = tf.gradients(outputs, point, grad_ys=cotangent)
    return tf.zeros_like(point) if gradient is None else tf.convert_to_tensor(gradient)


def _jvp_many(outputs: tf.Tensor, point: tf.Tensor, directions: tf.Tensor) -> tf.Tensor:
    """Return the derivatives of ``outputs`` in K directions (K, Z), shape (K, *outputs)."""
    dummy = tf.zeros_like(outputs)
    gradient = _vjp(outputs, point, dummy)

    def one(direction: tf.Tensor) -> tf.Tensor:
        (derivative,) = tf.gradients(gradient, dummy, grad_ys=direction)
        return tf.zeros_like(outputs) if derivative is None else derivative

    if directions.shape[0] is not None:
        return tf.stack([one(direction) for direction in tf.unstack(directions)])
    return tf.map_fn(one, directions, parallel_iterations=_PARALLEL_DIRECTIONS)


class Derivatives:
    """The compiled functions of one model and measurement. Each is traced once, whatever the batch size.

    Parameters
    ----------
    model : PureModel
        The functions to differentiate.
    """

    def __init__(self, model: PureModel) -> None:
        self.model = model
        point = tf.TensorSpec((model.point_size,), model.dtype)
        directions = tf.TensorSpec((None, model.point_size), model.dtype)
        rows = tf.TensorSpec((None, model.theta_size), model.dtype)
        weights, integers = tf.TensorSpec((None,), model.dtype), tf.TensorSpec((None,), tf.int32)
        constants, x = list(model.constants), list(model.inputs)
        measured = [constants, x, list(model.measure_targets)]
        samples = [constants, x, list(model.loss_targets), list(model.loss_weights)]
        trained = [*samples, weights]  # the scales, too, are a vector of any length
        pieces = tf.TensorSpec((None, 2), model.dtype)
        path = [point, point, weights, pieces]

        self._measure = _Compiled(self._at(model.measure), [point, *measured])
        pairs = [point, point, weights, pieces, integers, integers]
        self._measure_at = _Compiled(self._build_measure_at, [*pairs, *measured])
        self._path_jvp = {
            k: _Compiled(
                self._build_path_jvp, [*pairs, tf.TensorSpec((k, model.point_size), model.dtype), *measured]
            )
            for k in (None, *range(1, _LAID_OUT + 1))
        }
        self._path_rows = _Compiled(self._build_path_rows, [*path, weights, integers, integers, *measured])
        by_node = [*pairs, weights, tf.TensorSpec((None, None), tf.int32), *measured]
        self._path_rows_by_rule = _Compiled(self._build_path_rows_by_rule, by_node)
        self._path_products = _Compiled(self._build_path_products, [directions, *by_node])
        self._losses = _Compiled(self._at(model.losses), [point, *trained])
        self._loss_scales = _Compiled(self._at(model.loss_scales), [point, *samples])
        self._loss_gradient = _Compiled(self._build_loss_gradient, [point, weights, *trained])
        self._loss_jvp = _Compiled(self._jvp_of(model.losses), [point, directions, *trained])
        if model.token_losses is not None:
            self._token_losses = _Compiled(self._at(model.token_losses), [point, *trained])
            self._token_jvp = _Compiled(self._jvp_of(model.token_losses), [point, directions, *trained])
        self._sample_gradients = _Compiled(self._build_sample_gradients, [point, *trained])
        self._sample_gradients_by_rule = _Compiled(self._build_sample_gradients_by_rule, [point, *trained])
        self._contract = _Compiled(self._build_contraction, [point, rows, *trained])
        self._coupled_gradients = _Compiled(self._build_coupled_gradients, [point, *trained])
        self._regularizer_gradient = _Compiled(self._build_regularizer_gradient, [point, constants, x])

    # Measurements along a path.

    @cached_property
    def has_kinks(self) -> bool:
        """Whether the measurement has kinks that are averaged where nodes stand for a piece."""
        graph = self._measure.graph
        return has_kinks(graph.outputs[0], graph.inputs[0])

    def measure(self, point: Any, constants: list[Any], block: Block) -> tf.Tensor:
        """Return f, shape (batch, O)."""
        return self._measure(point, constants, block.inputs, block.targets)

    def measure_at(self, path: StepPath, table: NodeTable, block: Block) -> tf.Tensor:
        """Return f at pairs of a node and an input, in the order of the table, shape (m, O)."""
        return self._measure_at(*self._pairs(path, table), path.constants, block.inputs, block.targets)

    def path_jvp(self, path: StepPath, table: NodeTable, directions: Any, block: Block) -> tf.Tensor:
        """Return ∂f/∂z (z(t)) · d for directions (K, Z) at such pairs, shape (m, K, O)."""
        compiled = self._path_jvp.get(len(directions), self._path_jvp[None])
        pairs = self._pairs(path, table)
        return compiled(*pairs, directions, path.constants, block.inputs, block.targets)

    def path_rows(
        self,
        path: StepPath,
        quadrature: Quadrature,
        block: Block,
        *,
        by_rule: bool,
        stacked: int = 1,
        outputs: np.ndarray | None = None,
    ) -> tf.Tensor:
        """Return Φ = Σ_j weights_ij · ∂f_i/∂z (z(nodes_j)), one row a measurement, shape (batch, O, Z).

        Parameters
        ----------
        path : StepPath
            The path.
        quadrature : Quadrature
            The nodes and weights of each input.
        block : Block
            The inputs.
        by_rule : bool
            Whether examples are differentiated all at once, by rules, or one by one.
        stacked : int
            Nodes of one input whose activations are held at once. By rules, their gradients are summed within the
            products that make them: the more, the faster.
        outputs : np.ndarray of int, optional
            Which ones; by default all. One by one, only these are differentiated.

        Raises
        ------
        NotCoveredError
            If the model has no rules.
        """
        if by_rule:
            rows = self._by_rule(self._path_rows_by_rule, path, quadrature, block, stacked)
            return rows if outputs is None else tf.gather(rows, outputs, axis=1)
        dtype = self.model.dtype.as_numpy_dtype
        nodes = (array.astype(dtype) for array in (quadrature.nodes, quadrature.pieces, quadrature.weights))
        if outputs is None:
            one = self.measure(path.start, path.constants, block.take(slice(0, 1)))
            outputs = np.arange(one.shape[1])
        along = (*path.line, *nodes, quadrature.splits, outputs.astype(np.int32))
        return self._path_rows(*along, path.constants, block.inputs, block.targets)

    def path_products(
        self, path: StepPath, quadrature: Quadrature, directions: Any, block: Block, *, stacked: int = 1
    ) -> tf.Tensor:
        """Return Φ · d variable by variable for directions (K, Z), shape (batch, O, K, V).

        By rules: one backward pass a node for all measurements, and no row Φ is ever made. ``stacked`` as in
        :meth:`path_rows`.

        Raises
        ------
        NotCoveredError
            If the model has no rules.
        """
        return self._by_rule(partial(self._path_products, directions), path, quadrature, block, stacked)

    def _by_rule(
        self,
        function: Callable[..., tf.Tensor],
        path: StepPath,
        quadrature: Quadrature,
        block: Block,
        stacked: int,
    ) -> tf.Tensor:
        """Return the sum over the nodes of each input."""
        dtype = self.model.dtype.as_numpy_dtype
        total: tf.Tensor | None = None
        for members, own in quadrature.rounds(stacked):
            table, weights = own.by_node()
            inputs = block if len(members) == len(block) else block.take(members)
            pairs = (*self._pairs(path, table), weights.astype(dtype), own.places(table))
            found = function(*pairs, path.constants, inputs.inputs, inputs.targets)
            if total is None:
                assert len(members) == len(block), "every input has a node, and is in the first round"
                total = found
            else:
                total = tf.tensor_scatter_nd_add(total, members[:, None], found)
        assert total is not None, "a block has inputs"
        return total

    def _pairs(self, path: StepPath, table: NodeTable) -> tuple[Any, ...]:
        dtype = self.model.dtype.as_numpy_dtype
        nodes, pieces = table.nodes.astype(dtype), table.pieces.astype(dtype)
        return *path.line, nodes, pieces, table.splits, table.members

    # Training losses at a point.

    def losses(self, point: Any, constants: list[Any], batch: Batch) -> tf.Tensor:
        """Return what each sample adds to the loss of its batch, shape (batch,)."""
        return self._losses(point, constants, *_arguments(batch))

    def loss_scales(
        self, point: Any, constants: list[Any], inputs: list[Any], targets: list[Any], weights: list[Any]
    ) -> tf.Tensor:
        """Return the scales of a whole batch's losses, shape (L,)."""
        return self._loss_scales(point, constants, inputs, targets, weights)

    def loss_gradient(
        self, point: Any, constants: list[Any], batch: Batch, shares: np.ndarray | None = None
    ) -> tf.Tensor:
        """Return the gradient of the batch loss by θ, without regularisers, shape (D,).

        ``shares``, of shape (batch,), says how much of each sample's loss is meant; by default all of it.
        """
        if shares is None:
            shares = np.ones(len(batch))
        shares = shares.astype(self.model.dtype.as_numpy_dtype)
        return self._loss_gradient(point, shares, constants, *_arguments(batch))

    def loss_jvp(self, point: Any, constants: list[Any], batch: Batch, directions: Any) -> tf.Tensor:
        """Return ∂ℓ_k/∂z · d, ℓ_k scaled and weighted, for directions (K, Z), shape (K, batch).

        Exact for coupled samples too (BatchNorm in training mode): it differentiates the whole batch.
        """
        return self._loss_jvp(point, directions, constants, *_arguments(batch))

    def token_losses(self, point: Any, constants: list[Any], batch: Batch) -> tf.Tensor:
        """Return what each position of each sample adds to the loss of its batch, shape (batch, positions)."""
        return self._token_losses(point, constants, *_arguments(batch))

    def token_jvp(self, point: Any, constants: list[Any], batch: Batch, directions: Any) -> tf.Tensor:
        """Return the same as :meth:`loss_jvp` position by position, shape (K, batch, positions)."""
        return self._token_jvp(point, directions, constants, *_arguments(batch))

    def sample_gradients(self, point: Any, constants: list[Any], batch: Batch, *, by_rule: bool) -> tf.Tensor:
        """Return ∂ℓ_k/∂θ, ℓ_k scaled and weighted, for each sample on its own, shape (batch, D).

        Only where samples do not interact. ``by_rule`` as in :meth:`path_rows`.
        """
        compiled = self._sample_gradients_by_rule if by_rule else self._sample_gradients
        return compiled(point, constants, *_arguments(batch))

    def contract(self, point: Any, constants: list[Any], batch: Batch, rows: Any) -> tf.Tensor:
        """Return ⟨Ψ, ∂ℓ_k/∂θ⟩ for rows (F, D) and each sample on its own, variable by variable, shape (F, batch, V).

        By rules, and where it is cheaper without ever making the gradients. Only where samples do not interact.

        Raises
        ------
        NotCoveredError
            If the model has no rules.
        """
        return self._contract(point, rows, constants, *_arguments(batch))

    def coupled_gradients(self, point: Any, constants: list[Any], batch: Batch) -> tf.Tensor:
        """Return ∂ℓ_k/∂θ, ℓ_k scaled and weighted, for each sample within its batch, shape (batch, D).

        One backward pass of the whole batch a sample: for coupled samples, where nothing else will do.
        """
        return self._coupled_gradients(point, constants, *_arguments(batch))

    def regularizer_gradient(self, point: Any, constants: list[Any], inputs: list[Any]) -> tf.Tensor:
        """Return ∇R by θ for a batch of inputs, shape (D,)."""
        return self._regularizer_gradient(point, constants, inputs)

    # Graphs.

    def _at(self, function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        """Return a function of variables as one of a point."""
        return lambda point, *arguments: function(self.model.unpack(point), *arguments)

    def _jvp_of(self, function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
        """Return ``(z, directions, constants, ...) -> (K, ...)``: the derivatives of a function in K directions."""

        def jvp(
            point: tf.Tensor, directions: tf.Tensor, constants: list[tf.Tensor], *samples: Any
        ) -> tf.Tensor:
            return _jvp_many(self._at(function)(point, constants, *samples), point, directions)

        return jvp

    def _build_measure_at(self, *pairs_and_measured):
        return self._at_nodes(None, (), *pairs_and_measured)

    def _measured(
        self,
        variables: list[tf.Tensor],
        line: tuple[tf.Tensor, tf.Tensor],
        piece: tf.Tensor,
        constants: list[tf.Tensor],
        x: list[tf.Tensor],
        targets: list[tf.Tensor],
    ) -> tf.Tensor:
        """Return f of the variables at a node, whose derivatives see kinks averaged over the piece it stands for."""

        def at(place: tf.Tensor) -> list[tf.Tensor]:
            return self.model.unpack(line[0] + place * line[1])

        return averaged(
            lambda own: self.model.measure(own, constants, x, targets),
            variables,
            lambda: (at(piece[0]), at(piece[1])),
            piece[1] > piece[0],
        )

    def _build_path_jvp(
        self, start, displacement, nodes, pieces, splits, members, directions, constants, x, targets
    ):
        def derivatives(outputs: tf.Tensor, point: tf.Tensor) -> tf.Tensor:
            return tf.transpose(_jvp_many(outputs, point, directions), (1, 0, 2))

        pairs = (start, displacement, nodes, pieces, splits, members)
        return self._at_nodes(derivatives, (None,), *pairs, constants, x, targets)

    def _at_nodes(
        self,
        derivative: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None,
        shape: tuple[Any, ...],
        *pairs_and_measured,
    ) -> tf.Tensor:
        """Return a derivative of outputs by the point, or outputs, at pairs of a node and an input, (m, *shape, O)."""
        start, displacement, nodes, pieces, splits, members, constants, x, targets = pairs_and_measured
        width = self._at(self.model.measure)(start, constants, x, targets).shape[1]

        def add_node(node: tf.Tensor, found: tf.TensorArray) -> list[Any]:
            own = members[splits[node] : splits[node + 1]]
            inputs, labels = ([tf.gather(a, own) for a in part] for part in (x, targets))
            point = start + nodes[node] * displacement
            variables, line = self.model.unpack(point), (start, displacement)
            if derivative is None:  # values know no pieces
                value = self.model.measure(variables, constants, inputs, labels)
            else:
                outputs = self._measured(variables, line, pieces[node], constants, inputs, labels)
                value = derivative(outputs, point)
            return [node + 1, found.write(node, value)]

        empty = tf.TensorArray(
            self.model.dtype, tf.size(nodes), infer_shape=False, element_shape=(None, *shape, width)
        )
        _, found = tf.while_loop(
            lambda node, _: node < tf.size(nodes), add_node, [0, empty], parallel_iterations=1
        )
        return found.concat()

    def _build_path_rows(
        self, start, displacement, nodes, pieces, weights, splits, asked, constants, x, targets
    ):
        def one_input(example: tuple[list[tf.Tensor], list[tf.Tensor], tf.Tensor, tf.Tensor]) -> tf.Tensor:
            inputs, labels = ([part[None] for part in parts] for parts in example[:2])
            first, stop = example[2:]

            def rows_at(node: tf.Tensor) -> tf.Tensor:
                point = start + nodes[node] * displacement
                variables, line = self.model.unpack(point), (start, displacement)
                outputs = self._measured(variables, line, pieces[node], constants, inputs, labels)[0]
                cotangents = weights[node] * tf.one_hot(asked, tf.shape(outputs)[0], dtype=outputs.dtype)
                return tf.map_fn(
                    lambda cotangent: _vjp(outputs, point, cotangent),
                    cotangents,
                    parallel_iterations=_PARALLEL_EXAMPLES,
                )

            _, total = tf.while_loop(
                lambda node, _: node < stop,
                lambda node, total: [node + 1, total + rows_at(node)],
                [first + 1, rows_at(first)],
                shape_invariants=[tf.TensorShape(()), tf.TensorShape((None, self.model.point_size))],
            )
            return total

        return tf.map_fn(
            one_input,
            (x, targets, splits[:-1], splits[1:]),
            fn_output_signature=tf.TensorSpec((None, self.model.point_size), self.model.dtype),
            parallel_iterations=_PARALLEL_EXAMPLES,
        )

    def _build_path_rows_by_rule(self, *pairs_and_measured):
        examples, taps, width = self._stacked_examples(*pairs_and_measured)
        return tf.reshape(examples.gradients(taps), (-1, width, self.model.point_size))

    def _build_path_products(self, directions, *pairs_and_measured):
        model = self.model
        pieces = tf.split(directions, model.sizes, axis=1)
        shaped = [
            tf.reshape(piece, (-1, *spec.shape))
            for piece, spec in zip(pieces, (*model.trained, *model.state), strict=True)
        ]
        examples, taps, width = self._stacked_examples(*pairs_and_measured)
        products = tf.transpose(examples.contract(shaped, taps), (1, 0, 2))
        return tf.reshape(products, (-1, width, tf.shape(directions)[0], len(shaped)))

    def _stacked_examples(
        self, start, displacement, nodes, pieces, splits, members, weights, places, constants, x, targets
    ) -> tuple[ExampleGradients, list[tf.Tensor], int]:
        """Return one example for each input and output, and what their gradients at all nodes are made of.

        Gradients at several nodes are summed within the matrix products that make them, and never written one by one.
        """
        model = self.model
        width = self._at(model.measure)(start, constants, x, targets).shape[1]

        def examples_at(node: tf.Tensor) -> ExampleGradients:
            own = members[splits[node] : splits[node + 1]]
            # Each output has a cotangent of its own.
            inputs, labels = (
                [tf.repeat(tf.gather(a, own), width, axis=0) for a in part] for part in (x, targets)
            )
            variables, line = model.unpack(start + nodes[node] * displacement), (start, displacement)
            outputs = self._measured(variables, line, pieces[node], constants, inputs, labels)
            share = tf.repeat(weights[splits[node] : splits[node + 1]], width)[:, None]
            cotangent = tf.tile(tf.eye(width, dtype=outputs.dtype), [tf.size(own), 1]) * share
            count = tf.size(own) * width
            return ExampleGradients(outputs, cotangent, variables, [*inputs, *labels], count)

        def add_node(node: tf.Tensor, found: list[tf.TensorArray]) -> list[Any]:
            taps = examples_at(node).taps()
            return [node + 1, [array.write(node, tap) for array, tap in zip(found, taps, strict=True)]]

        pattern = examples_at(tf.constant(0))
        empty = [
            tf.TensorArray(tap.dtype, tf.size(nodes), infer_shape=False, element_shape=(None, *tap.shape[1:]))
            for tap in pattern.taps()
        ]
        _, found = tf.while_loop(
            lambda node, _: node < tf.size(nodes), add_node, [0, empty], parallel_iterations=1
        )
        return pattern, [_by_input(array.concat(), places, width) for array in found], width

    def _build_loss_gradient(self, point, shares, constants, *samples):
        # Scaled before the backward pass, as Keras does: the same rounding, often the same bits.
        losses = self._at(self.model.losses)(point, constants, *samples)
        return _vjp(losses, point, shares)[: self.model.theta_size]

    def _build_sample_gradients(self, point, constants, x, targets, weights, scales):
        def one_sample(example):
            inputs, labels, own = ([part[None] for part in parts] for parts in example)
            loss = self._at(self.model.losses)(point, constants, inputs, labels, own, scales)
            return _vjp(loss, point, None)[: self.model.theta_size]

        return tf.map_fn(
            one_sample,
            (x, targets, weights),
            fn_output_signature=self.model.dtype,
            parallel_iterations=_PARALLEL_EXAMPLES,
        )

    def _examples_of_losses(self, point, constants, x, targets, weights, scales) -> ExampleGradients:
        variables = self.model.unpack(point)
        losses = self.model.losses(variables, constants, x, targets, weights, scales)
        trained = variables[: len(self.model.trained)]
        return ExampleGradients(losses, None, trained, [*x, *targets, *weights], tf.shape(losses)[0])

    def _build_sample_gradients_by_rule(self, point, *samples):
        return self._examples_of_losses(point, *samples).gradients()

    def _build_contraction(self, point, rows, *samples):
        trained = self.model.trained
        pieces = tf.split(rows, self.model.sizes[: len(trained)], axis=1)
        shaped = [tf.reshape(p, (-1, *spec.shape)) for p, spec in zip(pieces, trained, strict=True)]
        return self._examples_of_losses(point, *samples).contract(shaped)

    def _build_coupled_gradients(self, point, constants, *samples):
        losses = self._at(self.model.losses)(point, constants, *samples)
        return tf.map_fn(
            lambda cotangent: _vjp(losses, point, cotangent)[: self.model.theta_size],
            tf.eye(tf.shape(losses)[0], dtype=losses.dtype),
            parallel_iterations=_PARALLEL_DIRECTIONS,
        )

    def _build_regularizer_gradient(self, point, constants, x):
        if self.model.regularizer is None:
            return tf.zeros_like(point[: self.model.theta_size])
        return _vjp(self._at(self.model.regularizer)(point, constants, x), point, None)[
            : self.model.theta_size
        ]


def _by_input(tap: tf.Tensor, places: tf.Tensor, width: int) -> tf.Tensor:
    """Return a tap (m · O, rows, ...) of pairs by node as one of inputs: (batch · O, n · rows, ...), all nodes' rows.

    An input of fewer than n nodes has the place m of a pair that is not there, for which it gets zeros.
    """
    rest = tap.shape[2:]
    by_pair = tf.reshape(tap, tf.concat([[-1, width], tf.shape(tap)[1:]], axis=0))
    by_pair = tf.pad(by_pair, [[0, 1]] + [[0, 0]] * (2 + len(rest)))
    by_input = tf.gather(by_pair, places)  # (batch, n, O, rows, ...)
    by_input = tf.transpose(by_input, [0, 2, 1, *range(3, 4 + len(rest))])
    shape = tf.shape(by_input)
    made = tf.reshape(by_input, tf.concat([[shape[0] * width, shape[2] * shape[3]], shape[4:]], axis=0))
    return tf.ensure_shape(made, (None, None, *rest))


def _arguments(batch: Batch) -> tuple[Any, ...]:
    return batch.inputs, batch.targets, batch.weights, batch.scales


class _Compiled:
    """A compiled function of one signature, traced when it is called first.

    Where there is but one trace, TensorFlow need not look for the right one: a third of what calling a small one takes.
    """

    def __init__(self, function: Callable[..., tf.Tensor], signature: list[Any]) -> None:
        self._function = tf.function(function, input_signature=signature, autograph=False)

    @cached_property
    def _traced(self) -> Any:
        return self._function.get_concrete_function()

    @property
    def graph(self) -> tf.Graph:
        """What it was traced to."""
        return self._traced.graph

    def __call__(self, *arguments: Any) -> tf.Tensor:
        return self._traced(*arguments)

    def experimental_get_tracing_count(self) -> int:
        """Return how often it was traced, as TensorFlow calls it."""
        return int(self._function.experimental_get_tracing_count())
