"""The path sweep of an answer: integrates every step for all inputs and books what each cause did."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.attribution.progress import Progress
from explaind_tf.kernel import path_integrals
from explaind_tf.kernel.contractions import Partition, sum_by_part
from explaind_tf.kernel.functions import StepPath
from explaind_tf.kernel.operations.rule import scalar_products
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.ledgers.entries import Entries
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.task import Piece, Task

Quadratures = dict[tuple[int, int], Quadrature]


@dataclass(frozen=True)
class Walked:
    """What a path sweep found besides entries.

    Attributes
    ----------
    quadratures : dict
        The nodes and weights of each (step, block).
    movement : np.ndarray
        Largest distance of any output of an input from its start, shape (inputs,).
    samples_total : np.ndarray
        What all samples together did, shape (inputs, O), if only a reverse sweep tells them apart; otherwise zero.
    """

    quadratures: Quadratures
    movement: np.ndarray
    samples_total: np.ndarray


def walk_path(task: Task, routes: Routes, entries: Entries, progress: Progress) -> Walked:
    """Book the outputs, the error of the quadrature, and every cause that no reverse sweep tells apart."""
    question = task.question
    quadratures: Quadratures = {}
    total = np.zeros_like(entries.arrays[names.INITIAL])
    movement = np.zeros(len(total))
    integrals = path_integrals.integrate_steps(
        path_steps(task, routes, question.first, question.stop),
        task.derivatives.measurement,
        task.blocks,
        end=task.replay.end(question.stop),
        count=task.steps,
        tolerance=question.tolerance,
        max_nodes=task.max_nodes,
    )
    with progress.task("Path sweep", task.steps * len(task.blocks)) as advance:
        for integral in integrals:
            rows, step = task.slices[integral.block], integral.step.number
            if step == question.first:
                entries.set_outputs(names.INITIAL, rows, integral.start_value)
            entries.set_outputs(names.FINAL, rows, integral.end_value)
            distance = np.abs(integral.end_value - entries.arrays[names.INITIAL][rows]).max(axis=1)
            movement[rows] = np.maximum(movement[rows], distance)
            entries.add(names.RESIDUAL, rows, integral.residual, step)
            if not routes.splits_late:
                if routes.samples is not None:
                    total[rows] += integral.causes[names.DATA]
                _book_causes(task, routes, entries, integral)
            quadratures[step, integral.block] = integral.quadrature
            advance()
    return Walked(quadratures, movement, total)


def path_steps(task: Task, routes: Routes, first: int, stop: int) -> Iterator[path_integrals.PathStep]:
    """Return the steps ``first … stop − 1`` as they are integrated: split into causes, or whole to be split later."""
    if routes.splits_late:
        return task.recorded.whole_steps(first, stop)
    return task.replay.path_steps(first, stop, grouping=routes.grouping)


def split_step(
    task: Task, entries: Entries, step: path_integrals.PathStep, piece: Piece, phi: tf.Tensor
) -> np.ndarray:
    """Book what each cause but the samples did to a piece in a step that was integrated whole, told by the rows Φ.

    Returns
    -------
    np.ndarray
        What the samples did, shape (inputs, O).
    """
    causes = {**step.causes, names.RESIDUAL: step.rest}
    products = scalar_products(tf.constant(np.stack(list(causes.values()))), phi).numpy().astype(np.float64)
    totals = dict(zip(causes, products.reshape(len(causes), len(piece.inputs), task.outputs), strict=True))
    data = totals.pop(names.DATA)
    by_part = {name: vector for name, vector in step.causes.items() if _has_parts(task, name)}
    if by_part:
        kept = path_integrals.PathStep(step.number, step.path, by_part)
        _book(entries, kept, piece.rows, _of_rows(task, phi, kept.directions, len(piece.inputs)))
    for name in totals.keys() - by_part.keys():
        entries.add(name, piece.rows, totals[name], step.number)
    return data


def _has_parts(task: Task, term: str) -> bool:
    """Tell whether a term beside the samples' is booked by layer or weight."""
    question = task.question
    return term != names.DATA and (
        question.keeps_layers or (question.keeps_parameters and term != names.STATE)
    )


def _book_causes(task: Task, routes: Routes, entries: Entries, integral: path_integrals.StepIntegral) -> None:
    rows, step = task.slices[integral.block], integral.step.number
    left_out = {names.DATA} if routes.samples is not None else set()  # booked sample by sample
    totals = {name: values for name, values in integral.causes.items() if name not in left_out}
    if routes.parts is None:
        for term, values in totals.items():
            entries.add(term, rows, _groups_behind_outputs(integral.step, term, values), step)
        return
    if task.question.keeps_parameters and names.STATE in totals:
        entries.add(names.STATE, rows, totals[names.STATE], step)
        left_out.add(names.STATE)
    causes = {name: vectors for name, vectors in integral.step.causes.items() if name not in left_out}
    if not causes:
        return
    kept = path_integrals.PathStep(step, integral.step.path, causes)
    if routes.parts == "rows":
        for piece in task.pieces(integral.block):
            phi = path_rows(task, kept.path, piece, integral.quadrature, by_rule=routes.rows_by_rule)
            _book(entries, kept, piece.rows, _of_rows(task, phi, kept.directions, len(piece.inputs)))
    elif routes.parts == "products":
        for piece in task.pieces(integral.block):
            _book(entries, kept, piece.rows, _products(task, kept, piece, integral.quadrature))
    else:
        _book(entries, kept, rows, _jvps(task, kept, integral))


def _book(entries: Entries, step: path_integrals.PathStep, rows: slice, values: np.ndarray) -> None:
    """Book values (K, batch, O, parts) of all directions of a step."""
    for term, found in step.by_cause(values).items():
        entries.add(term, rows, _groups_behind_outputs(step, term, found), step.number)


def _groups_behind_outputs(step: path_integrals.PathStep, term: str, values: np.ndarray) -> np.ndarray:
    """Return (batch, O[, G], ...) of ([G, ]batch, O, ...)."""
    return np.moveaxis(values, 0, 2) if step.causes[term].ndim == 2 else values


def path_rows(
    task: Task, segment: StepPath, piece: Piece, quadrature: Quadrature, *, by_rule: bool
) -> tf.Tensor:
    """Return Φ, the averaged gradients of a piece's measurements, shape (inputs · O, Z)."""
    rows = task.derivatives.measurement.path_rows(
        segment,
        piece.quadrature_of(quadrature),
        piece.inputs,
        by_rule=by_rule,
        stacked=task.stacked_nodes(piece),
    )
    return tf.reshape(rows, (-1, task.derivatives.model.point_size))


def _jvps(task: Task, step: path_integrals.PathStep, integral: path_integrals.StepIntegral) -> np.ndarray:
    """Return Φ · d of each part, by a JVP for each direction and part, shape (K, batch, O, P)."""
    found = []
    for direction in step.directions:
        masked = np.zeros((len(task.question.partition), len(direction)), direction.dtype)
        for part, slices in zip(masked, task.question.partition, strict=True):
            for start, stop in slices:
                part[start:stop] = direction[start:stop]
        block = task.blocks[integral.block]
        values = path_integrals.integrate_directions(
            step.path, masked, task.derivatives.measurement, block, integral.quadrature
        )
        found.append(np.moveaxis(values, 0, -1))
    return np.stack(found)


def _products(task: Task, step: path_integrals.PathStep, piece: Piece, quadrature: Quadrature) -> np.ndarray:
    """Return the same by one backward pass a node for all measurements, shape (K, inputs, O, P)."""
    by_variable = task.derivatives.measurement.path_products(
        step.path,
        piece.quadrature_of(quadrature),
        step.directions,
        piece.inputs,
        stacked=task.stacked_nodes(piece),
    )
    by_part = sum_by_part(by_variable.numpy(), task.derivatives.model, task.question.partition)
    return np.moveaxis(by_part, 2, 0)


def _of_rows(task: Task, phi: tf.Tensor, directions: np.ndarray, inputs: int) -> np.ndarray:
    """Return Φ ⊙ d for each weight, or Φ · d for each layer, of rows (inputs · O, Z), shape (K, inputs, O, parts)."""
    if task.question.keeps_parameters:
        theta = task.derivatives.model.theta_size
        values = phi[:, :theta].numpy().astype(np.float64) * directions[:, None, :theta]
    else:
        values = np.stack([_dot_by_part(phi, d, task.question.partition) for d in directions])
    return values.reshape(len(directions), inputs, task.outputs, -1)


def _dot_by_part(phi: tf.Tensor, direction: np.ndarray, partition: Partition) -> np.ndarray:
    """Return Φ · d restricted to each part, shape (F, parts), float64."""
    parts = [tf.add_n([tf.linalg.matvec(phi[:, a:b], direction[a:b]) for a, b in part]) for part in partition]
    return tf.stack(parts, axis=-1).numpy().astype(np.float64)
