"""The engine: drives the kernel's sweeps over a run and books what they yield."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.attribution.entries import Entries
from explaind_tf.attribution.progress import Progress
from explaind_tf.attribution.question import Question
from explaind_tf.attribution.replay import Replay
from explaind_tf.kernel import contractions, sweeps, trials
from explaind_tf.kernel.contractions import Partition, Route
from explaind_tf.kernel.derivatives import Derivatives
from explaind_tf.kernel.functions import Block, Segment
from explaind_tf.kernel.quadrature import PathRule
from explaind_tf.runs import RecordedRun

# Rows of Φ or Ψ held at once; the sweeps keep about four arrays of this size.
_ROWS_BYTES = 512 * 2**20
# Activations of one block of inputs; a JVP holds a few times as much.
_BLOCK_BYTES = 256 * 2**20
_LARGEST_BLOCK = 1024


@dataclass(frozen=True)
class Result:
    """What the engine found, without labels."""

    entries: Entries
    movement: np.ndarray
    nodes: int
    method: str


@dataclass(frozen=True)
class _Piece:
    """Inputs whose rows fit into memory together with others: a part of one block, from ``start``."""

    block: int
    start: int
    rows: slice
    inputs: Block

    def rule_of(self, rule: PathRule) -> PathRule:
        """Return the part of the block's rule that is these inputs'."""
        return rule.part(self.start, self.start + len(self.inputs))


class Engine:
    """Answers one question.

    Parameters
    ----------
    run : RecordedRun
        The run.
    derivatives : Derivatives
        Of the run's model and the measurement.
    question : Question
        What to keep.
    inputs, targets : list of np.ndarray
        The inputs to attribute and the measurement's targets, flat.
    batch_size : int or None
        Inputs measured at once; None lets memory decide.
    max_nodes : int
        Most quadrature nodes for one step.
    """

    def __init__(
        self,
        run: RecordedRun,
        derivatives: Derivatives,
        question: Question,
        inputs: list[np.ndarray],
        targets: list[np.ndarray],
        *,
        batch_size: int | None,
        max_nodes: int,
    ) -> None:
        self._run, self._derivatives, self._question = run, derivatives, question
        self._replay = Replay(run, derivatives, question.tolerance)
        self._rows_by_rule: bool | None = None
        self._max_level = int(np.log(max_nodes) / np.log(3) + 1e-9)
        everything = Block(inputs, targets)
        size = batch_size or _block_size(run.graphs.forward_bytes_per_input)
        starts = range(0, len(everything), size)
        self._slices = [slice(start, min(start + size, len(everything))) for start in starts]
        self._blocks = [everything.take(s) for s in self._slices]
        first_point, first_constants = self._replay.end(question.first)
        probe = derivatives.measure(first_point, first_constants, everything.take(slice(0, 1)))
        self._outputs = int(probe.shape[1])
        uses_earlier_steps = question.keeps_samples and question.step_of == "use"
        self._entries = Entries(
            question,
            inputs=len(everything),
            outputs=self._outputs,
            samples=len(run.samples.ids) if question.keeps_samples else 0,
            tokens=self._most_tokens() if question.keeps_tokens else 0,
            parts=derivatives.model.theta_size if question.keeps_parameters else len(question.layers),
            first_step=0 if uses_earlier_steps else question.first,
            stop_step=question.stop,
        )

    def answer(self, progress: Progress) -> Result:
        """Run the sweeps."""
        rules, movement = self._walk_path(progress)
        method = "path sweep"
        if self._question.keeps_samples:
            route = self._sample_route()
            self._walk_back(rules, route, progress)
            method = f"path sweep, reverse sweep ({route})"
        self._entries.close()
        nodes = sum(rule.node_count for rule in rules.values())
        return Result(self._entries, movement, nodes, method)

    # Path sweep.

    def _walk_path(self, progress: Progress) -> tuple[dict[tuple[int, int], PathRule], np.ndarray]:
        question, entries = self._question, self._entries
        count = question.stop - question.first
        rules: dict[tuple[int, int], PathRule] = {}
        movement = np.zeros(self._slices[-1].stop)
        integrals = sweeps.path_sweep(
            self._replay.path_steps(question.first, question.stop),
            self._derivatives,
            self._blocks,
            end=self._replay.end(question.stop),
            count=count,
            tolerance=question.tolerance,
            max_level=self._max_level,
        )
        with progress.task("Path sweep", count * len(self._blocks)) as advance:
            for integral in integrals:
                rows, step = self._slices[integral.block], integral.step.number
                if step == question.first:
                    entries.set_outputs(names.INITIAL, rows, integral.start_value)
                entries.set_outputs(names.FINAL, rows, integral.end_value)
                distance = np.abs(integral.end_value - entries.arrays[names.INITIAL][rows]).max(axis=1)
                movement[rows] = np.maximum(movement[rows], distance)
                entries.add(names.RESIDUAL, rows, integral.residual, step)
                self._book_causes(integral)
                rules[step, integral.block] = integral.rule
                advance()
        return rules, movement

    def _book_causes(self, integral: sweeps.StepIntegral) -> None:
        question = self._question
        rows, step = self._slices[integral.block], integral.step.number
        totals = dict(integral.causes)
        directions = dict(integral.step.causes)
        if question.keeps_samples:  # booked sample by sample in the reverse sweep
            del totals[names.DATA], directions[names.DATA]
        if not (question.keeps_layers or question.keeps_parameters):
            for term, values in totals.items():
                self._entries.add(term, rows, values, step)
            return
        if question.keeps_parameters and names.STATE in directions:
            self._entries.add(names.STATE, rows, totals[names.STATE], step)
            del directions[names.STATE]
        if not directions:
            return
        if question.keeps_layers and self._prefers_jvp(len(directions)):
            self._book_layers_by_jvp(integral, directions)
        else:
            self._book_parts_by_rows(integral, directions)

    def _prefers_jvp(self, directions: int) -> bool:
        # A JVP serves a whole block in one pass of about 2 forwards; a row takes a forward and a backward pass
        # of a single input, which run at a fraction of a block's speed.
        return directions * len(self._question.partition) <= 4 * self._outputs

    def _book_layers_by_jvp(self, integral: sweeps.StepIntegral, directions: dict[str, np.ndarray]) -> None:
        block, rows = self._blocks[integral.block], self._slices[integral.block]
        for term, direction in directions.items():
            masked = np.zeros((len(self._question.partition), len(direction)), direction.dtype)
            for part, slices in zip(masked, self._question.partition, strict=True):
                for start, stop in slices:
                    part[start:stop] = direction[start:stop]
            values = sweeps.integrate_directions(
                integral.step.segment, masked, self._derivatives, block, integral.rule
            )
            self._entries.add(term, rows, np.moveaxis(values, 0, -1), integral.step.number)

    def _book_parts_by_rows(self, integral: sweeps.StepIntegral, directions: dict[str, np.ndarray]) -> None:
        for piece in self._pieces(integral.block):
            phi = self._path_rows(integral.step.segment, piece, integral.rule)
            for term, direction in directions.items():
                if self._question.keeps_parameters:
                    theta = self._derivatives.model.theta_size
                    values = phi[:, :theta].numpy().astype(np.float64) * direction[:theta]
                else:
                    values = _dot_by_part(phi, direction, self._question.partition)
                shaped = values.reshape(len(piece.inputs), self._outputs, -1)
                self._entries.add(term, piece.rows, shaped, integral.step.number)

    def _path_rows(self, segment: Segment, piece: _Piece, rule: PathRule) -> tf.Tensor:
        """Return Φ, the averaged gradients of a piece's measurements, shape (inputs · O, Z)."""
        if self._rows_by_rule is None:
            self._rows_by_rule = trials.row_rules_hold(self._derivatives, segment, self._blocks[0])
        own = piece.rule_of(rule)
        rows = self._derivatives.path_rows(segment, own, piece.inputs, by_rule=self._rows_by_rule)
        return tf.reshape(rows, (-1, self._derivatives.model.point_size))

    # Reverse sweep.

    def _most_tokens(self) -> int:
        """Return the largest number of positions that the loss of a sample has."""
        if self._run.graphs.token_count is not None:
            return self._run.graphs.token_count
        # It follows from the shapes: one look at each.
        tokens: dict[tuple[tuple[int, ...], ...], int] = {}
        for step in range(self._question.stop):
            transition = self._replay.transition(step)
            sample = self._run.samples.read(int(transition.rows[0]))
            arrays = (*sample.inputs, *sample.targets, *(weights[0] for weights in transition.weights))
            shapes = tuple(array.shape for array in arrays)
            if shapes not in tokens:
                segment, batch = self._replay.segment(transition), self._replay.batch(transition)
                losses = self._derivatives.token_losses(segment.start, segment.constants, batch.part(0, 1))
                tokens[shapes] = int(losses.shape[1])
        return max(tokens.values())

    def _sample_route(self) -> Route:
        """Choose how a batch is contracted with the rows; tokens and coupled samples leave no choice."""
        if self._question.keeps_tokens:
            return "token_jvp"
        steps = range(min(self._question.stop, 4))
        transition = max((self._replay.transition(s) for s in steps), key=lambda t: len(t.rows))
        segment = self._replay.segment(transition)
        batch = self._replay.batch(transition)
        at = (self._derivatives, segment.start, segment.constants, batch)
        if len(transition.rows) > 1 and trials.samples_are_coupled(*at):
            return "jvp"
        return "rules" if trials.sample_rules_hold(*at) else "loop"

    def _walk_back(
        self,
        rules: dict[tuple[int, int], PathRule],
        route: Route,
        progress: Progress,
    ) -> None:
        question, memory = self._question, self._replay.law.memory
        rows_of = sweeps.rows_by_use if question.step_of == "use" else sweeps.rows_by_effect
        groups = list(self._groups())
        steps = range(question.stop - 1, -1, -1)
        with progress.task("Reverse sweep", len(steps) * len(groups)) as advance:
            for pieces in groups:
                updates = (s for s in steps if self._replay.transition(s).updates)
                rows = rows_of((self._pull_back(s, pieces, rules) for s in updates), memory)
                found: dict[int, tf.Tensor] | None = {}
                for step in steps:
                    # A batch that only accumulated its gradient is used by the update after it.
                    if self._replay.transition(step).updates:
                        found = next(rows, None)
                    if found is None:
                        break
                    if question.step_of == "use":
                        found = dict(zip([step] * len(found), found.values(), strict=True))
                    self._book_samples(pieces, step, found, route)
                    advance()

    def _pull_back(
        self, step: int, pieces: list[_Piece], rules: dict[tuple[int, int], PathRule]
    ) -> sweeps.UpdateRows:
        """Return how the update at ``step`` turns momentum and gradient into the measurements of the pieces."""
        transition = self._replay.transition(step)
        update = self._replay.update(transition)
        if step < self._question.first:
            return sweeps.UpdateRows(step, None, None, update.gain, update.scale)
        segment = self._replay.segment(transition)
        rows = [self._path_rows(segment, piece, rules[step, piece.block]) for piece in pieces]
        phi = tf.concat(rows, axis=0)[:, : self._derivatives.model.theta_size]
        dtype = phi.dtype.as_numpy_dtype
        direct = phi * tf.constant(update.direct, phi.dtype) if update.direct else None
        return sweeps.UpdateRows(step, phi * update.pull.astype(dtype), direct, update.gain, update.scale)

    def _book_samples(
        self,
        pieces: list[_Piece],
        step: int,
        rows_by_effect: dict[int, tf.Tensor],
        route: Route,
    ) -> None:
        if not rows_by_effect:
            return
        transition = self._replay.transition(step)
        segment, batch = self._replay.segment(transition), self._replay.batch(transition)
        positions = self._run.samples.id_of_row[transition.rows]
        arguments = (self._derivatives, segment.start, segment.constants, batch)
        if self._question.keeps_parameters:
            for chunk, gradients in contractions.gradient_chunks(*arguments, route):
                for effect, rows in rows_by_effect.items():
                    products = rows[:, None, :].numpy().astype(np.float64) * gradients.numpy()
                    self._book_rows(pieces, positions[chunk], products, effect)
            return
        theta_partition = _within(self._question.partition, self._derivatives.model.theta_size)
        stacked = tf.concat(list(rows_by_effect.values()), axis=0)
        values = contractions.contract(*arguments, stacked, theta_partition, route)
        for effect, part in zip(rows_by_effect, np.split(values, len(rows_by_effect)), strict=True):
            kept = part if self._question.keeps_layers else part[..., 0]
            self._book_rows(pieces, positions, kept, effect)

    def _book_rows(self, pieces: list[_Piece], positions: np.ndarray, values: np.ndarray, step: int) -> None:
        """Book values (F, K[, tokens][, parts]); the rows F are the pieces' inputs and outputs in order."""
        start = 0
        for piece in pieces:
            stop = start + len(piece.inputs) * self._outputs
            shaped = values[start:stop].reshape(len(piece.inputs), self._outputs, *values.shape[1:])
            self._entries.add_samples(piece.rows, positions, shaped, step)
            start = stop

    # Memory.

    def _most_inputs(self) -> int:
        bytes_per_input = (
            self._outputs * self._derivatives.model.point_size * self._derivatives.model.dtype.size
        )
        return max(1, _ROWS_BYTES // bytes_per_input)

    def _pieces(self, block: int) -> Iterator[_Piece]:
        rows, inputs = self._slices[block], self._blocks[block]
        for start in range(0, len(inputs), self._most_inputs()):
            stop = min(start + self._most_inputs(), len(inputs))
            yield _Piece(
                block, start, slice(rows.start + start, rows.start + stop), inputs.take(slice(start, stop))
            )

    def _groups(self) -> Iterator[list[_Piece]]:
        """Yield pieces in groups whose rows fit into memory at once."""
        group: list[_Piece] = []
        size = 0
        for block in range(len(self._blocks)):
            for piece in self._pieces(block):
                if group and size + len(piece.inputs) > self._most_inputs():
                    yield group
                    group, size = [], 0
                group.append(piece)
                size += len(piece.inputs)
        yield group


def _block_size(bytes_per_input: int) -> int:
    return int(np.clip(_BLOCK_BYTES // max(1, bytes_per_input), 1, _LARGEST_BLOCK))


def _within(partition: Partition, size: int) -> Partition:
    """Return the partition of the first ``size`` elements."""
    return [[(a, min(b, size)) for a, b in part if a < size] for part in partition]


def _dot_by_part(phi: tf.Tensor, direction: np.ndarray, partition: Partition) -> np.ndarray:
    """Return Φ · d restricted to each part, shape (F, parts), float64."""
    parts = [tf.add_n([tf.linalg.matvec(phi[:, a:b], direction[a:b]) for a, b in part]) for part in partition]
    return tf.stack(parts, axis=-1).numpy().astype(np.float64)
