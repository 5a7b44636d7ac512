"""Says why a ledger does not balance: which part of a residual comes from where.

It looks at one input, one output and one step: those with the largest residual. The residual of the step is

    r = what rounding of the weights adds + what rounding of the derivatives adds + what is left in float64

The first is known from the integral of the whole displacement, the second from the same integral in float64. For the rest,
the derivative of each operation is compared with differences.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.derivatives.measurement import MeasurementDerivatives
from explaind_tf.kernel.derivatives.operation_errors import (
    DerivativeErrors,
    OperationError,
    derivative_errors,
)
from explaind_tf.kernel.functions import Block, StepPath
from explaind_tf.kernel.path_integrals import integrate_directions
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.measurements import Measurement
from explaind_tf.replay.binding import pure_model
from explaind_tf.runs.graphs.loaded import INLINED
from explaind_tf.sweeps.path_sweep import Integrated
from explaind_tf.sweeps.task import Task

# An operation that causes less of a residual than this is not named.
_SHARE = 0.2
# So many units in the last place of a prediction are not refined away.
_UNSEEN = 4
# Operations that are named where the derivative is wrong, and none that was compared is.
_NAMED = 3

_OF_WEIGHTS = (
    "the rounding of the weights in training, or of the sums, which belongs to no cause. Attribute with a larger "
    "tolerance."
)


@dataclass(frozen=True)
class _Place:
    """The step and the output with the largest residual, as the sweep integrated them.

    ``jump`` is how far the output jumped in the step, ``unit`` the unit in the last place of the predictions of its block.
    """

    output: int
    residual: float
    jump: float
    path: StepPath
    block: Block
    quadrature: Quadrature
    unit: float

    def in_float64(self) -> StepPath:
        """Return the path in float64."""
        start, end = self.path.start.astype(np.float64), self.path.end.astype(np.float64)
        return StepPath(start, end, end - start, self.path.constants)


def diagnose(task: Task, measurement: Measurement, found: Integrated, residual: np.ndarray) -> str | None:
    """Return what makes a residual larger than the tolerance allows, in words; None if none is.

    Parameters
    ----------
    task : Task
        What was asked.
    measurement : Measurement
        What is measured.
    found : Integrated
        What the path sweep found.
    residual : np.ndarray
        The residual of the ledger, shape (inputs, O).
    """
    excess = np.nan_to_num(np.abs(residual) - task.question.tolerance * found.movement[:, None], nan=0.0)
    if not (excess > 0).any():
        return None
    row, output = map(int, np.unravel_index(excess.argmax(), excess.shape))
    of_sums = residual[row, output] - found.residual[row, output]
    if abs(of_sums) > abs(found.residual[row, output]):
        return f"{of_sums:.3g} of it is {_OF_WEIGHTS}"
    step, own = int(found.worst_step[row, output]), float(found.worst_residual[row, output])
    head = f"Of the input and output that exceed it most, step {step} has the largest residual of all steps, {own:.3g}."
    try:
        return f"{head} {_cause(task, measurement, _place(task, found, row, output))}"
    # The ledger and its residual are right whatever goes wrong here, so it becomes part of the message.
    except Exception as error:
        return f"{head} Its cause could not be found: {type(error).__name__}: {error}"


def _place(task: Task, found: Integrated, row: int, output: int) -> _Place:
    step = int(found.worst_step[row, output])
    number = next(place for place, rows in enumerate(task.slices) if rows.start <= row < rows.stop)
    at = row - task.slices[number].start
    eps = np.finfo(task.derivatives.model.dtype.as_numpy_dtype).eps
    return _Place(
        output=output,
        residual=float(found.worst_residual[row, output]),
        jump=float(found.worst_jump[row, output]),
        path=task.replay.step(step).path,
        block=task.everything.take(slice(row, row + 1)),
        quadrature=found.quadratures[step, number].part(at, at + 1),
        unit=float(eps * np.abs(found.initial[task.slices[number]]).max()),
    )


def _cause(task: Task, measurement: Measurement, at: _Place) -> str:
    analysed = task.derivatives.measurement
    precise = _in_float64(task, measurement)
    of_numbers = _missed(analysed, at.path, at)
    left = of_numbers if precise is analysed else _missed(precise, at.in_float64(), at)
    of_weights, of_rounding = at.residual - of_numbers, of_numbers - left
    largest = max((of_weights, of_rounding, left), key=abs)
    if largest == of_weights:
        return f"{of_weights:.3g} of that is {_OF_WEIGHTS}"
    if precise is not analysed and (largest == of_rounding or abs(left) <= _UNSEEN * at.unit):
        return (
            f"{of_rounding:.3g} of that is rounding in {analysed.model.dtype.name}, where predictions round by about "
            f"{at.unit:.1g} and no nodes are added for less. In float64 the same nodes leave {left:.3g}. Attribute with "
            f'dtype="float64".'
        )
    errors = derivative_errors(precise.model, at.in_float64(), at.block, at.output)
    return _of_derivatives(errors, at, task, left)


def _in_float64(task: Task, measurement: Measurement) -> MeasurementDerivatives:
    if task.derivatives.model.dtype == tf.float64:
        return task.derivatives.measurement
    return Derivatives(pure_model(task.run, measurement, tf.float64)).measurement


def _missed(measurement: MeasurementDerivatives, path: StepPath, at: _Place) -> float:
    """Return what the jump and the integral of the whole displacement miss, with the nodes of the sweep."""
    first, last = (
        measurement.values(point, path.constants, at.block).numpy().astype(np.float64)
        for point in (path.start, path.end)
    )
    integral = integrate_directions(path, path.displacement[None], measurement, at.block, at.quadrature)[0]
    return float((last - first - integral)[0, at.output]) - at.jump


def _of_derivatives(errors: DerivativeErrors, at: _Place, task: Task, left: float) -> str:
    """Say which operation's derivative is wrong, if one is."""
    suspects = [own for own in errors.operations if own.found.is_certain]
    worst = max(suspects, key=lambda own: abs(own.found.error), default=None)
    if worst is not None and abs(worst.found.error) >= _SHARE * abs(left):
        return (
            f"The likely cause is {_named(worst, task.run.layers)}: its derivative differs from differences by "
            f"{worst.found.relative:.2g} of its size, which explains {worst.found.error:.3g} of the residual. Please report "
            f"it, and write the layer with other operations. docs/operations.md lists those whose derivatives are right."
        )
    some = ", ".join(map(_own_name, errors.left_out[:_NAMED]))
    unknown = f" Loops, branches and operations that jump or have no JVP were not compared: {some}." * bool(
        some
    )
    compared = f"the derivatives of {len(errors.operations)} operations that were compared"
    if errors.whole.is_certain and abs(errors.whole.error) >= _SHARE * abs(left):
        return (
            f"The derivative of the prediction differs from differences by {errors.whole.relative:.2g} of its size, but "
            f"none of {compared} does so enough to explain it.{unknown}"
        )
    return (
        f"None of {compared} differs enough from differences to explain it, so the integral is not fine enough: "
        f"{at.quadrature.node_count} nodes were used, max_nodes is {task.question.options.max_nodes}. Attribute with a "
        f"larger max_nodes, or with a larger tolerance.{unknown}"
    )


def _named(error: OperationError, layers: Sequence[str]) -> str:
    first, _, rest = error.name.partition("/")
    if not (first.startswith(INLINED) and rest):
        return f"the operation {error.name!r} of the measurement (type {error.type})"
    parts = rest.split("/")
    for count in range(len(parts) - 1, 0, -1):
        owners = [layer for layer in layers if _is_scope_of(parts[:count], layer)]
        if len(owners) == 1:
            return f"the operation {'/'.join(parts[count:])!r} of layer {owners[0]!r} (type {error.type})"
    return f"the operation {rest!r} (type {error.type})"


def _is_scope_of(scope: Sequence[str], layer: str) -> bool:
    """Whether a scope of a graph has the name of a layer; TensorFlow numbers the scopes of a layer that is called again."""
    names = layer.split("/")
    return len(names) == len(scope) and all(
        re.fullmatch(rf"{re.escape(name)}(_\d+)?", part) for name, part in zip(names, scope, strict=True)
    )


def _own_name(operation: str) -> str:
    """Return the name of an operation in the function from which it was copied."""
    first, _, rest = operation.partition("/")
    return rest if first.startswith(INLINED) and rest else operation
