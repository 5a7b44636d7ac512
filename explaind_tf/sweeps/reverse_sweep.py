"""The reverse sweep of an answer: from the last step back, the change by each use of a training sample."""

from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.errors import UnbalancedLedgerError
from explaind_tf.kernel import contractions
from explaind_tf.kernel.functions import TrainingPoint
from explaind_tf.kernel.operations.rule import scalar_products
from explaind_tf.kernel.path_integrals import PathStep
from explaind_tf.kernel.use_rows import RowsByEffect, RowsByUse, Update, UpdateRows, UseRows
from explaind_tf.ledgers.book import Book, Entry
from explaind_tf.progress import Progress
from explaind_tf.replay.path_replay import ReplayedStep
from explaind_tf.sweeps.clock import seconds
from explaind_tf.sweeps.path_sweep import PathSweep, entries_of_parts
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.rows import parts_of_rows, path_rows
from explaind_tf.sweeps.sweep import Pass, TriedStep
from explaind_tf.sweeps.task import ROWS_HELD, Piece, Task

# The samples may miss the change by the data as a whole by this share, or by the tolerance if that is larger.
_LARGEST_MISS = 1e-2


class _Booked(NamedTuple):
    """The uses of a step's batch: their rows, by the step under which they are entered."""

    step: ReplayedStep
    pieces: list[Piece]
    rows: dict[int, UseRows]


class ReverseSweep:
    """Yields the data term by sample (or group), and splits the steps that the path sweep left whole.

    Parameters
    ----------
    task : Task
        What is to be computed.
    routes : Routes
        How it is computed.
    path : PathSweep
        The path sweep, whose quadratures are used again. It must have run to its end.
    """

    def __init__(self, task: Task, routes: Routes, path: PathSweep) -> None:
        assert routes.samples is not None  # without this route no reverse sweep is chosen
        self._task, self._routes, self._route, self._path = task, routes, routes.samples, path
        self._by_use = task.question.options.step_of == "use"
        # Change by all samples together in the steps that are split here, shape (inputs, O).
        self._data = np.zeros_like(path.found.data)

    @property
    def name(self) -> str:
        """The sweep in words, with the route of the contraction."""
        return f"reverse sweep ({self._route.name})"

    @property
    def first_step(self) -> int:
        """Step 0 if entries are by use step: momentum carries early uses into the question's steps."""
        return 0 if self._by_use else self._task.question.first

    @property
    def inputs_at_once(self) -> int:
        """Number of inputs whose rows are held together."""
        return sum(len(piece.inputs) for piece in self._task.batches_of_pieces[0])

    @property
    def working_bytes(self) -> int:
        """Bytes of rows and of gradients of single samples."""
        rows = ROWS_HELD * self._rows_at_once * self._task.point_bytes
        return rows + contractions.STRETCH * self._task.chunk_bytes

    @property
    def _rows_at_once(self) -> int:
        batches = self._task.batches_of_pieces
        return max(sum(len(piece.inputs) for piece in pieces) for pieces in batches) * self._task.outputs

    def run(self, progress: Progress) -> Iterator[Entry]:
        """Yield the entries of all steps, from the last one back, for batches of inputs whose rows fit into memory."""
        batches = self._task.batches_of_pieces
        with progress.task("Reverse sweep", self._task.question.stop * len(batches)) as advance:
            for pieces in batches:
                yield from self._back(pieces, advance)

    def _back(self, pieces: list[Piece], advance: Callable[[], None]) -> Iterator[Entry]:
        memory = self._task.recorded.law.memory
        window = RowsByUse(memory) if self._by_use else RowsByEffect(memory)
        rows: dict[int, UseRows] | None = {}
        for number in range(self._task.question.stop - 1, -1, -1):
            step = self._task.replay.step(number)
            # The gradient of a batch that was only accumulated is used by the next update.
            if step.transition.updates:
                rows = {}  # frees rows as large as those that are made next
                rows = yield from self._recall(step, pieces, window)
                if rows is None:
                    return
            if rows:
                if self._by_use:
                    rows = {number: next(iter(rows.values()))}
                yield from self._samples(_Booked(step, pieces, rows))
            advance()

    def _recall(
        self, step: ReplayedStep, pieces: list[Piece], window: RowsByUse | RowsByEffect
    ) -> Generator[Entry, None, dict[int, UseRows] | None]:
        """Return the rows of an update's uses. If its step is still whole, split it and yield the entries.

        None means that this update and all before it can no longer have an effect.
        """
        update = self._task.recorded.update(step)
        if step.number < self._task.question.first:
            return window.take(UpdateRows(step.number, None, update))
        phi = yield from self._rows(step, pieces, update)
        return window.take(UpdateRows(step.number, phi, update))

    def _rows(
        self, step: ReplayedStep, pieces: list[Piece], update: Update
    ) -> Generator[Entry, None, tf.Tensor]:
        """Return the rows Φ of all pieces, shape (F, D). If the step is still whole, split it and yield the entries.

        This is a function of its own: the rows of single pieces are freed before what is computed from them takes memory.
        """
        task, by_rule = self._task, self._routes.rows_by_rule
        quadratures = self._path.found.quadratures
        rows = [
            path_rows(task, step.path, piece, quadratures[step.number, piece.block], by_rule=by_rule)
            for piece in pieces
        ]
        if self._routes.splits_late:
            split = task.recorded.split(step, update, self._path.found.largest[step.number])
            for piece, phi in zip(pieces, rows, strict=True):
                yield from self._split(split, piece, phi)
        return tf.concat(rows, axis=0)[:, : task.derivatives.model.theta_size]

    def _split(self, step: PathStep, piece: Piece, phi: tf.Tensor) -> Iterator[Entry]:
        """Yield the change of a piece by each cause except the samples, in a step that was integrated whole."""
        task = self._task
        causes = {**step.causes, names.RESIDUAL: step.rest}
        products = scalar_products(tf.constant(np.stack(list(causes.values()))), phi)
        shaped = products.numpy().astype(np.float64).reshape(len(causes), len(piece.inputs), task.outputs)
        totals = dict(zip(causes, shaped, strict=True))
        self._data[piece.rows] += totals.pop(names.DATA)
        by_part = {
            name: vector
            for name, vector in step.causes.items()
            if name != names.DATA and task.has_parts(name)
        }
        if by_part:
            kept = PathStep(step.number, step.path, by_part)
            values = parts_of_rows(task, phi, kept.directions, len(piece.inputs))
            yield from entries_of_parts(kept, piece.rows, values)
        for name in totals.keys() - by_part.keys():
            yield Entry(name, piece.rows, step.number, totals[name])

    def _samples(self, booked: _Booked) -> Iterator[Entry]:
        """Yield the change by each sample of a step's batch."""
        task, step = self._task, booked.step
        members = task.run.samples.id_of_row[step.transition.rows]
        if task.question.groups is not None:
            members = task.question.groups.of_id[members]
        at = TrainingPoint(step.path.line[0], step.path.constants, task.recorded.gradients.batch(step))
        if task.question.keeps_parameters:
            chunks = self._route.gradient_chunks(task.derivatives.loss, at, task.chunk_bytes)
            for chunk, gradients in chunks:
                for effect, use in booked.rows.items():
                    weighted = (use.factor * use.rows.numpy().astype(np.float64))[:, None, :]
                    yield from self._of_pieces(
                        booked.pieces, members[chunk], weighted * gradients.numpy(), effect
                    )
            return
        partition = contractions.within(task.question.partition, task.derivatives.model.theta_size)
        stacked = tf.concat([use.rows for use in booked.rows.values()], axis=0)
        values = self._route.contract(task.derivatives.loss, at, stacked, partition, task.chunk_bytes)
        parts = np.split(values, len(booked.rows))
        for (effect, use), part in zip(booked.rows.items(), parts, strict=True):
            kept = use.factor * (part if task.question.keeps_layers else part[..., 0])
            yield from self._of_pieces(booked.pieces, members, kept, effect)

    def _of_pieces(
        self, pieces: list[Piece], members: np.ndarray, values: np.ndarray, step: int
    ) -> Iterator[Entry]:
        """Yield values (F, K[, tokens][, parts]) as entries. The F rows are the pieces' inputs and outputs, in order."""
        start, outputs = 0, self._task.outputs
        for piece in pieces:
            stop = start + len(piece.inputs) * outputs
            shaped = values[start:stop].reshape(len(piece.inputs), outputs, *values.shape[1:])
            yield Entry(names.DATA, piece.rows, step, shaped, members)
            start = stop

    def price(self, tried: TriedStep) -> Iterator[Pass]:
        """Yield the passes of one step with their measured time."""
        task, path = self._task, tried.step.path
        piece, by_rule = next(task.pieces(0)), self._routes.rows_by_rule

        def rows() -> tf.Tensor:
            return path_rows(task, path, piece, tried.integral.quadrature, by_rule=by_rule)

        theta = task.derivatives.model.theta_size
        psi = tf.repeat(rows()[:1, :theta], self._rows_at_once, axis=0)
        at = TrainingPoint(path.start, path.constants, task.recorded.gradients.batch(tried.replayed))
        partition = contractions.within(task.question.partition, theta)
        spent = seconds(
            lambda: self._route.contract(task.derivatives.loss, at, psi, partition, task.chunk_bytes)
        )
        of_rows = seconds(rows) * len(task.everything) / len(piece.inputs)
        count = len(task.batches_of_pieces)
        yield Pass("rows Φ, per node", tried.nodes, of_rows)
        yield Pass(f"contraction with the batch ({self._route.name})", count, spent * count)

    def check(self, book: Book) -> None:
        """Compare the sum over samples with the change by the data as a whole.

        The sum follows from the recorded batches. The whole follows from the recorded momentum, if the optimizer keeps one.

        Raises
        ------
        UnbalancedLedgerError
            If they differ by more than 1 % of the change, or than the tolerance if that is larger.
        """
        total = self._path.found.data + self._data
        missed = np.abs(book.total(names.DATA) - total)
        moved = np.abs(book.arrays[names.FINAL] - book.arrays[names.INITIAL])
        scale = np.maximum(moved, np.abs(total)).max(axis=1, keepdims=True)
        allowed = max(_LARGEST_MISS, self._task.question.tolerance) * scale
        if not (missed <= allowed).all():
            worst = float((missed / np.maximum(scale, 1e-300)).max())
            raise UnbalancedLedgerError(
                f"The entries of the samples recorded in {self._task.recorded.run.run_dir} do not add up to the change by "
                f"the data as a whole: they miss it by {worst:.1%}, and at most "
                f"{max(_LARGEST_MISS, self._task.question.tolerance):.1%} is accepted. Either a batch that trained was not "
                f"the recorded one, or rounding was amplified: where gradients nearly cancel, as those of a bias before "
                f"BatchNormalization, AdamW divides them by their own size. Call run.verify(): if it passes, the batches "
                f"are the recorded ones; otherwise it names the first step that does not follow from its batch. Against "
                f"rounding, train without such biases (use_bias=False) or in float64. Ledgers that keep neither samples "
                f"nor groups are not affected."
            )
