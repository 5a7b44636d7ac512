"""Compares the derivative of each operation of a measurement with differences of what the operation computes.

Along the path of a step, let x_k(t) be what operation k reads, y_k(t) what it returns, and J_k its derivative as the kernel
takes it. By the chain rule, the error of the derivative of the measurement f is a sum over its operations:

    df/dt − ∂f/∂z · dz/dt = Σ_k ⟨∂f/∂y_k, dy_k/dt − J_k dx_k/dt⟩

The derivatives by t are central differences: f is evaluated on either side of a place, with all that it is made of. An
operation whose derivative is right adds nothing. Operations that jump are left out: their derivative may be right, and
differences see the jumps all the same. A ledger has an entry for these.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.arguments import Line, Measured
from explaind_tf.kernel.derivatives.compiled import Compiled, jvp_many
from explaind_tf.kernel.functions import Block, PureModel, StepPath
from explaind_tf.kernel.operations.jumps import that_jump
from explaind_tf.kernel.operations.kinks import averaged, read_by_kinks
from explaind_tf.kernel.operations.reverse_mode import gradients, has_inner_graph, moves, operation_jvp

# Three Gauss–Legendre nodes: where in the step derivatives are compared.
_SPREAD = np.sqrt(15) / 10
_PLACES = ((0.5 - _SPREAD, 5 / 18), (0.5, 8 / 18), (0.5 + _SPREAD, 5 / 18))
# Differences reach so far to either side. What changes from one to the other is no error of a derivative.
_WIDTH, _TWICE = 2.0**-7, 2.0**-6
_CERTAIN = 5.0


@dataclass(frozen=True)
class Disagreement:
    """By how much a derivative misses differences.

    Attributes
    ----------
    error : float
        What it misses of the change of the measured output in the step, in the units of the measurement.
    noise : float
        By how much this depends on how far the differences reach. It is large beside jumps, and where numbers round.
    relative : float
        The size of what is missed, in terms of the size of the derivative.
    """

    error: float
    noise: float
    relative: float

    @property
    def is_certain(self) -> bool:
        """Whether the derivative is wrong, beyond what differences can be trusted."""
        return abs(self.error) > _CERTAIN * self.noise


@dataclass(frozen=True)
class OperationError:
    """The disagreement of one operation, with its name in the graph and its type."""

    name: str
    type: str
    found: Disagreement


@dataclass(frozen=True)
class DerivativeErrors:
    """What was compared.

    Attributes
    ----------
    whole : Disagreement
        That of the measured output.
    operations : list of OperationError
        Those of the operations that were compared.
    left_out : list of str
        Operations that were not: loops, branches, those that jump, and those without a JVP of their own.
    """

    whole: Disagreement
    operations: list[OperationError]
    left_out: list[str]


def derivative_errors(model: PureModel, path: StepPath, block: Block, output: int) -> DerivativeErrors:
    """Compare the derivative of one output of one input along a step, operation by operation.

    Parameters
    ----------
    model : PureModel
        The model and the measurement, best in float64.
    path : StepPath
        The step, in the model's dtype.
    block : Block
        The input alone.
    output : int
        Which output.
    """
    compared: list[tf.Operation] = []
    left_out: list[tf.Operation] = []

    def compare(place: tf.Tensor, width: tf.Tensor, line: Line, measured: Measured) -> tf.Tensor:
        comparison = _Comparison(model, line, measured, place, width)
        errors = comparison.errors(output)
        compared[:], left_out[:] = comparison.operations, comparison.left_out
        return errors

    scalar = tf.TensorSpec((), model.dtype)
    compiled = Compiled(compare, [scalar, scalar, Line.spec(model), Measured.spec(model)])
    at = (Line(*path.line), Measured.of(path.constants, block))
    shares = np.array([share for _, share in _PLACES])
    near, far = (
        np.stack([compiled(place, width, *at).numpy() for place, _ in _PLACES]) for width in (_WIDTH, _TWICE)
    )
    return _disagreements(near, far, shares, compared, left_out)


def _disagreements(
    near: np.ndarray,
    far: np.ndarray,
    shares: np.ndarray,
    compared: Sequence[tf.Operation],
    left_out: Sequence[tf.Operation],
) -> DerivativeErrors:
    """Sum up comparisons at all places, shape (places, 1 + operations, 3), with differences of two widths."""
    error = np.tensordot(shares, near[..., 0], 1)
    noise = np.abs(error - np.tensordot(shares, far[..., 0], 1))
    missed, size = (np.tensordot(shares, near[..., part], 1) for part in (1, 2))
    relative = np.sqrt(missed / np.maximum(size, np.finfo(np.float64).tiny))
    whole, *own = (Disagreement(*map(float, numbers)) for numbers in zip(error, noise, relative, strict=True))
    operations = [
        OperationError(operation.name, operation.type, found)
        for operation, found in zip(compared, own, strict=True)
    ]
    return DerivativeErrors(whole, operations, [operation.name for operation in left_out])


class _Comparison:
    """The graph of a measurement at a place, and on either side of it.

    Attributes
    ----------
    operations : list of tf.Operation
        Those that :meth:`errors` compared: they read what moves, and the output depends on them.
    left_out : list of tf.Operation
        Loops, branches, what jumps, and what has no JVP.
    """

    def __init__(
        self, model: PureModel, line: Line, measured: Measured, place: tf.Tensor, width: tf.Tensor
    ) -> None:
        self._width, self._line = width, line
        built: list[list[tf.Operation]] = []

        def variables(at: tf.Tensor) -> list[tf.Tensor]:
            return model.unpack(line.at(at))

        def measure(own: Sequence[tf.Tensor]) -> tf.Tensor:
            graph = tf.compat.v1.get_default_graph()
            before = len(graph.get_operations())
            outputs = model.measure(own, *measured)
            built.append(graph.get_operations()[before:])
            return outputs

        sides = [variables(place - width), variables(place + width)]
        self._ends = [measure(side) for side in sides]
        self._point = model.at(line.at(place))
        middle = self._point.variables
        # Kinks have their mean slope between both ends: differences know no other one.
        self._outputs = averaged(
            measure,
            middle,
            lambda: (read_by_kinks(built[0]), read_by_kinks(built[1])),
            tf.constant(value=True),
        )
        # Below, above, and in the middle.
        lower, upper, own = (
            [*side, *(tensor for operation in operations for tensor in operation.outputs)]
            for side, operations in zip([*sides, middle], built, strict=True)
        )
        self._tangents = {
            tensor.name: self._difference(first, last)
            for tensor, first, last in zip(own, lower, upper, strict=True)
            if moves(tensor.dtype)
        }
        jumping = that_jump(built[2], self._tangents)
        self.left_out = [own for own in built[2] if own in jumping or has_inner_graph(own)]
        self._built = [own for own in built[2] if own not in self.left_out]
        self.operations: list[tf.Operation] = []

    def _difference(self, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        return (last - first) / tf.cast(2 * self._width, last.dtype)

    def errors(self, output: int) -> tf.Tensor:
        """Return error, squared size of what is missed and of the derivative: of the output, then of each operation."""
        direction = self._line.displacement[None]
        whole = self._difference(*(end[0, output] for end in self._ends))
        found = jvp_many(self._outputs, self._point, direction)[0, 0, output]
        rows = [_error(tf.ones_like(whole), whole, found)]
        made = [t for operation in self._built for t in operation.outputs if t.name in self._tangents]
        pulled = gradients(self._outputs[0, output], made)
        adjoints = {
            tensor.name: tf.convert_to_tensor(adjoint)
            for tensor, adjoint in zip(made, pulled, strict=True)
            if adjoint is not None
        }
        self.operations = [
            operation
            for operation in self._built
            if any(tensor.name in self._tangents for tensor in operation.inputs)
            and any(tensor.name in adjoints for tensor in operation.outputs)
        ]
        for operation in list(self.operations):
            try:
                rows.append(self._error_of(operation, adjoints))
            except LookupError:  # its VJP has no gradient, so it has no JVP
                self.operations.remove(operation)
                self.left_out.append(operation)
        return tf.stack(rows)

    def _error_of(self, operation: tf.Operation, adjoints: dict[str, tf.Tensor]) -> tf.Tensor:
        products = operation_jvp(operation, [self._tangents.get(read.name) for read in operation.inputs])
        return tf.add_n(
            [
                _error(
                    adjoints[tensor.name],
                    self._tangents[tensor.name],
                    tf.zeros_like(tensor) if product is None else tf.convert_to_tensor(product),
                )
                for tensor, product in zip(operation.outputs, products, strict=True)
                if tensor.name in adjoints
            ]
        )


def _error(adjoint: tf.Tensor, difference: tf.Tensor, product: tf.Tensor) -> tf.Tensor:
    """Return what a derivative misses of the output, and the squared sizes of what it misses and of the derivative."""
    missed = difference - product

    def dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.math.real(tf.reduce_sum(tf.math.conj(a) * b)), tf.float64)

    size = tf.maximum(dot(difference, difference), dot(product, product))
    return tf.stack([dot(adjoint, missed), dot(missed, missed), size])
