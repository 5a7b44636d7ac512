"""The reverse sweep of an answer: from the last step back, the change by each use of a training sample."""

from collections.abc import Callable, Generator, Iterator

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.kernel import contractions
from explaind_tf.kernel.functions import TrainingPoint
from explaind_tf.kernel.operations.rule import scalar_products
from explaind_tf.kernel.path_integrals import PathStep
from explaind_tf.kernel.use_rows import EffectRows, RowsByEffect, RowsByUse, Update, UpdateRows, UseRows
from explaind_tf.ledgers.book import Entry
from explaind_tf.progress import Progress
from explaind_tf.replay.path_replay import ReplayedStep
from explaind_tf.sweeps.cancelled import cancelled_weights
from explaind_tf.sweeps.clock import seconds
from explaind_tf.sweeps.joining import NOTHING_KNOWN, Joined, rows_of
from explaind_tf.sweeps.path_sweep import Integrated, entries_of_parts
from explaind_tf.sweeps.rounding import UpdateRounding
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.rows import parts_of_rows, path_rows
from explaind_tf.sweeps.segments import Segment
from explaind_tf.sweeps.sweep import Pass, TriedStep
from explaind_tf.sweeps.task import ROWS_HELD, Piece, Task


class ReverseSweep:
    """Yields the data term by sample (or group), and splits the steps that the path sweep left whole.

    Parameters
    ----------
    task : Task
        What is to be computed.
    routes : Routes
        How it is computed.
    found : Integrated
        What the path sweep found, whose quadratures are used again. It must have run to its end.
    segment : Segment, optional
        The steps whose entries are yielded. Default: all.
    joined : Joined, optional
        What is known of the steps after the segment, and of its own rows.
    """

    def __init__(
        self,
        task: Task,
        routes: Routes,
        found: Integrated,
        segment: Segment | None = None,
        joined: Joined = NOTHING_KNOWN,
    ) -> None:
        assert routes.samples is not None  # without this route no reverse sweep is chosen
        self._task, self._routes, self._route, self._found = task, routes, routes.samples, found
        self._segment = Segment.whole(task) if segment is None else segment
        self._joined = joined
        self._by_use = task.question.options.step_of == "use"
        self._memory = task.memory

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
        batches, steps = self._task.batches_of_pieces, self._segment.begin - self._segment.first
        with progress.task("Reverse sweep", steps * len(batches)) as advance:
            for batch, pieces in enumerate(batches):
                yield from self._back(pieces, self._window(batch), advance)

    def _window(self, batch: int) -> RowsByUse | RowsByEffect:
        forgets = self._task.recorded.law.forgets
        if not self._by_use:
            return RowsByEffect(self._memory, forgets=forgets)
        return RowsByUse(self._memory, forgets=forgets, later=self._joined.later_of(batch))

    def _back(
        self, pieces: list[Piece], window: RowsByUse | RowsByEffect, advance: Callable[[], None]
    ) -> Iterator[Entry]:
        update: UpdateRounding | None = None
        for number in range(self._segment.begin - 1, self._segment.first - 1, -1):
            step, is_own = self._task.replay.step(number), number < self._segment.stop
            # The gradient of a batch that was only accumulated is used by the next update.
            if step.transition.updates:
                if update is not None:
                    yield from self._rounding(update, pieces)
                update = None  # frees rows as large as those that are made next
                effects = yield from self._recall(step, pieces, window, is_own=is_own)
                if effects is None:
                    return
                if effects and is_own:
                    update = UpdateRounding(self._task, step, effects, self._memory)
                del effects
            if update is not None and not step.transition.is_skipped:
                update.take_batch(step)
                if len(step.transition.rows) or not self._task.recorded.run.may_have_empty_batches:
                    yield from self._samples(step, pieces, update)
            advance()
        if update is not None:
            yield from self._rounding(update, pieces)

    def _recall(
        self, step: ReplayedStep, pieces: list[Piece], window: RowsByUse | RowsByEffect, *, is_own: bool
    ) -> Generator[Entry, None, dict[int, EffectRows] | None]:
        """Return the rows of an update's uses. If its step is still whole, split it and yield the entries of an own one.

        None means that this update and all before it can no longer have an effect.
        """
        update = self._task.recorded.update(step)
        if step.number < self._task.question.first:
            return window.take(UpdateRows(step.number, None, update))
        phi = yield from self._rows(step, pieces, update, splits=is_own and self._routes.splits_late)
        return window.take(UpdateRows(step.number, phi, update))

    def _rows(
        self, step: ReplayedStep, pieces: list[Piece], update: Update, *, splits: bool
    ) -> Generator[Entry, None, tf.Tensor]:
        """Return the rows Φ of all pieces, shape (F, D). If asked to, split the step and yield the entries.

        This is a function of its own: the rows of single pieces are freed before what is computed from them takes memory.
        """
        task = self._task
        rows = [self._rows_of(step, piece) for piece in pieces]
        if splits:
            split = task.recorded.split(step, update, self._found.largest[step.number])
            for piece, phi in zip(pieces, rows, strict=True):
                yield from self._split(split, piece, phi)
        return tf.concat(rows, axis=0)[:, : task.derivatives.model.theta_size]

    def _rows_of(self, step: ReplayedStep, piece: Piece) -> tf.Tensor:
        known = self._joined.rows_of(step.number, piece)
        return rows_of(self._task, self._routes, self._found, step, piece) if known is None else known

    def _split(self, step: PathStep, piece: Piece, phi: tf.Tensor) -> Iterator[Entry]:
        """Yield the change of a piece by each cause except the samples, in a step that was integrated whole."""
        task = self._task
        causes = {**step.causes, names.RESIDUAL: step.rest}
        products = scalar_products(tf.constant(np.stack(list(causes.values()))), phi)
        shaped = products.numpy().astype(np.float64).reshape(len(causes), len(piece.inputs), task.outputs)
        totals = dict(zip(causes, shaped, strict=True))
        del totals[names.DATA]  # the samples' entries and their rounding add up to it
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

    def _samples(self, step: ReplayedStep, pieces: list[Piece], update: UpdateRounding) -> Iterator[Entry]:
        """Yield the change by each sample of a step's batch, and subtract it from the update."""
        task = self._task
        members = task.run.samples.id_of_row[step.transition.rows]
        if task.question.groups is not None:
            members = task.question.groups.of_id[members]
        at = TrainingPoint(step.path.line[0], step.path.constants, task.recorded.gradients.batch(step))
        for positions, effect, values in self._products(at, update.rows):
            update.subtract(effect, values)
            label = step.number if self._by_use else effect
            for piece, shaped in self._by_piece(pieces, values):
                yield Entry(names.DATA, piece.rows, label, shaped, members[positions])
        if task.question.options.conditioning:
            cancelled = cancelled_weights(task.recorded, step, update.update)
            if cancelled is not None:
                yield from self._of_cancelled(at, update.rows, cancelled, pieces, members)

    def _of_cancelled(
        self,
        at: TrainingPoint,
        rows: dict[int, UseRows],
        cancelled: np.ndarray,
        pieces: list[Piece],
        members: np.ndarray,
    ) -> Iterator[Entry]:
        """Yield what the samples did through weights whose gradient cancelled in their batch."""
        mask = cancelled.astype(at.batch.scales.dtype)
        own = {step: UseRows(use.rows * mask, use.factor) for step, use in rows.items()}
        for positions, effect, values in self._products(at, own):
            by_sample = values.reshape(*values.shape[:2], -1).sum(axis=2)
            for piece, shaped in self._by_piece(pieces, by_sample):
                yield Entry(names.CANCELLED, piece.rows, effect, shaped, members[positions])

    def _products(
        self, at: TrainingPoint, rows: dict[int, UseRows]
    ) -> Iterator[tuple[slice, int, np.ndarray]]:
        """Yield positions in the batch, a step, and what these samples did under it, (F, K[, tokens][, parts])."""
        task = self._task
        if task.question.keeps_parameters:
            chunks = self._route.gradient_chunks(task.derivatives.loss, at, task.chunk_bytes)
            for chunk, gradients in chunks:
                for effect, use in rows.items():
                    weighted = (use.factor * use.rows.numpy().astype(np.float64))[:, None, :]
                    yield chunk, effect, weighted * gradients.numpy()
            return
        partition = contractions.within(task.question.partition, task.derivatives.model.theta_size)
        stacked = tf.concat([use.rows for use in rows.values()], axis=0)
        values = self._route.contract(task.derivatives.loss, at, stacked, partition, task.chunk_bytes)
        parts = np.split(values, len(rows))
        for (effect, use), part in zip(rows.items(), parts, strict=True):
            kept = part if task.question.keeps_layers else part[..., 0]
            yield slice(None), effect, use.factor * kept

    def _rounding(self, update: UpdateRounding, pieces: list[Piece]) -> Iterator[Entry]:
        """Yield what the samples of an update leave of it."""
        update.end()
        for effect, values in update.left.items():
            for piece, shaped in self._by_piece(pieces, values):
                yield Entry(names.ROUNDING, piece.rows, effect, shaped)

    def _by_piece(self, pieces: list[Piece], values: np.ndarray) -> Iterator[tuple[Piece, np.ndarray]]:
        """Yield each piece with its part of values (F, ...): (inputs, O, ...). The rows are in the order of the pieces."""
        start, outputs = 0, self._task.outputs
        for piece in pieces:
            stop = start + len(piece.inputs) * outputs
            yield piece, values[start:stop].reshape(len(piece.inputs), outputs, *values.shape[1:])
            start = stop

    def price(self, tried: TriedStep) -> Iterator[Pass]:
        """Yield the passes of one step with their measured time."""
        task, path = self._task, tried.step.path
        piece, route = next(task.pieces(0)), self._routes.rows

        def rows() -> tf.Tensor:
            return path_rows(task, path, piece, tried.integral.quadrature, route=route)

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
