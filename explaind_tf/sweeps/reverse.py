"""The reverse sweep of an answer: from the last step back, what each use of a training sample did."""

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.attribution.progress import Progress
from explaind_tf.errors import UnbalancedLedgerError
from explaind_tf.kernel import contractions
from explaind_tf.kernel.functions import TrainingPoint
from explaind_tf.kernel.use_rows import RowsByEffect, RowsByUse, UpdateRows, UseRows
from explaind_tf.ledgers.entries import Entries
from explaind_tf.sweeps.path import Quadratures, path_rows, split_step
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.task import Piece, Task

# Samples that miss what the data did by more than this share of it were not those that trained.
_LARGEST_MISS = 1e-2


def walk_back(
    task: Task, routes: Routes, entries: Entries, quadratures: Quadratures, progress: Progress
) -> np.ndarray:
    """Book the data term, sample by sample (or group by group), and what the path sweep left to be split.

    Returns
    -------
    np.ndarray
        What all samples did in the steps that were split here, shape (inputs, O).
    """
    total = np.zeros_like(entries.arrays[names.INITIAL])
    question, memory = task.question, task.recorded.law.memory
    rows_of: type[RowsByUse | RowsByEffect] = RowsByUse if question.step_of == "use" else RowsByEffect
    steps = range(question.stop - 1, -1, -1)
    with progress.task("Reverse sweep", len(steps) * len(task.batches_of_pieces)) as advance:
        for pieces in task.batches_of_pieces:
            rows = rows_of(memory)
            found: dict[int, UseRows] | None = {}
            for step in steps:
                # A batch that only accumulated its gradient is used by the update after it.
                if task.replay.transition(step).updates:
                    found = {}  # lets go of rows as large as those that are made next
                    found = rows.take(_pull_back(task, routes, entries, step, pieces, quadratures, total))
                if found is None:
                    break
                if question.step_of == "use":
                    found = dict(zip([step] * len(found), found.values(), strict=True))
                _book_samples(task, routes, entries, pieces, step, found)
                advance()
    return total


def _pull_back(
    task: Task,
    routes: Routes,
    entries: Entries,
    step: int,
    pieces: list[Piece],
    quadratures: Quadratures,
    total: np.ndarray,
) -> UpdateRows:
    """Return how the update at ``step`` turns momentum and gradient into the measurements of the pieces.

    A step that is still whole is split by the same rows; what the samples did in it is added to ``total``.
    """
    transition = task.replay.transition(step)
    update = task.recorded.update(transition)
    if step < task.question.first:
        return UpdateRows(step, None, update)
    segment = task.replay.segment(transition)
    rows = [
        path_rows(task, segment, piece, quadratures[step, piece.block], by_rule=routes.rows_by_rule)
        for piece in pieces
    ]
    if routes.splits_late:
        (split,) = task.recorded.path_steps(step, step + 1)
        for piece, phi in zip(pieces, rows, strict=True):
            total[piece.rows] += split_step(task, entries, split, piece, phi)
    phi = tf.concat(rows, axis=0)[:, : task.derivatives.model.theta_size]
    return UpdateRows(step, phi, update)


def _book_samples(
    task: Task,
    routes: Routes,
    entries: Entries,
    pieces: list[Piece],
    step: int,
    rows_by_effect: dict[int, UseRows],
) -> None:
    if not rows_by_effect:
        return
    assert routes.samples is not None  # there is no reverse sweep without
    transition = task.replay.transition(step)
    segment, batch = task.replay.segment(transition), task.recorded.batch(transition)
    positions = task.run.samples.id_of_row[transition.rows]
    if task.question.groups is not None:
        positions = task.question.groups.of_id[positions]
    route, loss = contractions.ROUTES[routes.samples], task.derivatives.loss
    at = TrainingPoint(segment.line[0], segment.constants, batch)
    if task.question.keeps_parameters:
        for chunk, gradients in route.gradient_chunks(loss, at, task.chunk_bytes):
            for effect, use in rows_by_effect.items():
                products = (use.factor * use.rows.numpy().astype(np.float64))[:, None, :] * gradients.numpy()
                _book_rows(task, entries, pieces, positions[chunk], products, effect)
        return
    partition = contractions.within(task.question.partition, task.derivatives.model.theta_size)
    stacked = tf.concat([use.rows for use in rows_by_effect.values()], axis=0)
    values = route.contract(loss, at, stacked, partition, task.chunk_bytes)
    parts = np.split(values, len(rows_by_effect))
    for (effect, use), part in zip(rows_by_effect.items(), parts, strict=True):
        kept = use.factor * (part if task.question.keeps_layers else part[..., 0])
        _book_rows(task, entries, pieces, positions, kept, effect)


def _book_rows(
    task: Task, entries: Entries, pieces: list[Piece], positions: np.ndarray, values: np.ndarray, step: int
) -> None:
    """Book values (F, K[, tokens][, parts]); the rows F are the pieces' inputs and outputs in order."""
    start = 0
    for piece in pieces:
        stop = start + len(piece.inputs) * task.outputs
        shaped = values[start:stop].reshape(len(piece.inputs), task.outputs, *values.shape[1:])
        entries.add_samples(piece.rows, positions, shaped, step)
        start = stop


def check_samples(task: Task, entries: Entries, total: np.ndarray) -> None:
    """Hold the sum over samples against what the data term as a whole did, shape (inputs, O).

    Raises
    ------
    UnbalancedLedgerError
        If they differ by more than rounding can explain.
    """
    missed = np.abs(entries.total(names.DATA) - total)
    moved = np.abs(entries.arrays[names.FINAL] - entries.arrays[names.INITIAL])
    scale = np.maximum(moved, np.abs(total)).max(axis=1, keepdims=True)
    allowed = max(_LARGEST_MISS, task.question.tolerance) * scale
    if not (missed <= allowed).all():
        worst = float((missed / np.maximum(scale, 1e-300)).max())
        raise UnbalancedLedgerError(
            f"The samples recorded in {task.recorded.run.run_dir} do not add up to what the optimizer's momentum did: they "
            f"miss it by {worst:.1%}. A batch that trained was not the recorded one. run.verify() finds the step."
        )
