"""Rows Φ of some inputs, and their products with displacements, by weight or by layer."""

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.contractions import Partition, within
from explaind_tf.kernel.derivatives.measurement import RowsRoute
from explaind_tf.kernel.functions import StepPath
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.kernel.use_rows import UseRows
from explaind_tf.sweeps.task import Piece, Task


def path_rows(
    task: Task, path: StepPath, piece: Piece, quadrature: Quadrature, *, route: RowsRoute
) -> tf.Tensor:
    """Return Φ, the averaged gradients of a piece's measurements, shape (inputs · O, Z)."""
    rows = task.derivatives.measurement.path_rows(
        path,
        piece.quadrature_of(quadrature),
        piece.inputs,
        route=route,
        stacked=task.stacked_nodes(piece),
    )
    return tf.reshape(rows, (-1, task.derivatives.model.point_size))


def parts_of_rows(task: Task, phi: tf.Tensor, directions: np.ndarray, inputs: int) -> np.ndarray:
    """Return Φ ⊙ d by weight, or Φ · d by layer, for rows (inputs · O, Z) and directions (K, Z): (K, inputs, O, parts)."""
    if task.question.keeps_parameters:
        theta = task.derivatives.model.theta_size
        values = phi[:, :theta].numpy().astype(np.float64) * directions[:, None, :theta]
    else:
        values = np.stack([_dot_by_part(phi, d, task.question.partition) for d in directions])
    return values.reshape(len(directions), inputs, task.outputs, -1)


def products_by_part(task: Task, use: UseRows, vector: np.ndarray) -> np.ndarray:
    """Return the products of rows (F, D) with a vector (D,): by weight (F, D), by layer (F, parts), or whole (F,)."""
    if task.question.keeps_parameters:
        return use.factor * (use.rows.numpy().astype(np.float64) * vector)
    if not task.question.keeps_layers:
        return products(use, vector)
    partition = within(task.question.partition, task.derivatives.model.theta_size)
    return use.factor * _dot_by_part(use.rows, vector, partition)


def products(use: UseRows, vector: np.ndarray, *, absolute: bool = False) -> np.ndarray:
    """Return the products of rows (F, D) with a vector (D,), or of the absolute values of both, shape (F,), float64."""
    rows, factor = use.rows.numpy(), use.factor
    if absolute:
        rows, vector, factor = np.abs(rows), np.abs(vector), abs(factor)
    return factor * _dot(rows, vector)


def _dot_by_part(phi: tf.Tensor, direction: np.ndarray, partition: Partition) -> np.ndarray:
    """Return Φ · d restricted to each part, shape (F, parts), float64."""
    rows = phi.numpy()
    return np.stack(
        [
            sum((_dot(rows[:, a:b], direction[a:b]) for a, b in part), np.zeros(len(rows)))
            for part in partition
        ],
        axis=-1,
    )


def _dot(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return the products of rows (F, D) with a vector (D,), shape (F,), added up in float64.

    Added up in float32 they would be the least exact numbers of a ledger. BLAS would wake all cores for a short task.
    """
    found: np.ndarray = np.einsum("fd,d->f", rows, vector.astype(np.float64, copy=False))
    return found
