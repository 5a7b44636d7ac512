"""The response sweep: from the last step back, how the end of training depends on the weight of each use of a sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.errors import RefusedError
from explaind_tf.kernel.contractions import within
from explaind_tf.kernel.derivatives.step_adjoint import Adjoints, StepNumbers, Stepping, StepResponse
from explaind_tf.kernel.functions import StepPath
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.laws.carried import Carried, Clipping, StepGradient
from explaind_tf.ledgers.book import Entry
from explaind_tf.progress import Progress
from explaind_tf.replay.path_replay import ReplayedStep, in_dtype
from explaind_tf.runs.steps import Transition
from explaind_tf.sweeps.rows import path_rows
from explaind_tf.sweeps.task import Piece, Task

# By what measurements are differentiated.
By = Literal["weight", "learning_rate", "weight_decay"]
BY: Final = get_args(By)

# Largest share of a step's length, or of the size of a second moment or a state, by which the step may differ from the
# record. Rounding explains less. A step that differs more was not taken by the optimizer alone.
_LARGEST_DIFFERENCE = 1e-2


@dataclass
class _Walk:
    """Where a sweep stands: the derivatives of the measurements by what was carried into the last step that it took.

    Attributes
    ----------
    adjoints : Adjoints
        They are rows (F, ...).
    by_gradient : StepGradient
        The derivatives by the gradient of each batch that waited for the last update, and by its squares, (F, D).
    """

    adjoints: Adjoints
    by_gradient: StepGradient


class ResponseSweep:
    """Yields the derivatives of measurements at the end of training by the weights of samples, or by other numbers.

    Parameters
    ----------
    task : Task
        What is to be computed.
    by : {"weight", "learning_rate", "weight_decay"}
        By what to differentiate: the weights of samples, or numbers of a step.
    """

    name = "response sweep"

    def __init__(self, task: Task, by: By = "weight") -> None:
        self._task, self._by = task, by
        self._dtype = task.derivatives.model.dtype.as_numpy_dtype
        self._run = task.recorded.run
        specs, settings = self._run.manifest.variables, self._run.manifest.optimizer
        by_norm = any(
            self._run.step_store.step(number).clip_factors is not None
            for number in range(settings.accumulates)
        )
        self._sizes = tuple(spec.size for spec in specs)
        stepping = Stepping(
            task.recorded.law,
            Clipping(self._sizes, settings.clipvalue, by_norm=by_norm),
            tuple(spec.decay for spec in specs),
            by_token=task.question.keeps_tokens,
        )
        self._adjoint = task.derivatives.of_steps(stepping)

    def run(self, progress: Progress) -> Iterator[Entry]:
        """Yield the entries of all steps, from the last one back, for batches of inputs whose rows fit into memory."""
        task = self._task
        count = len(task.run.steps)
        with progress.task("Response sweep", count * len(task.batches_of_pieces)) as advance:
            for pieces in task.batches_of_pieces:
                yield from self._back(pieces, advance)

    def _back(self, pieces: list[Piece], advance: Callable[[], None]) -> Iterator[Entry]:
        task = self._task
        walk = self._at_the_end(pieces)
        for number in range(len(task.run.steps) - 1, -1, -1):
            step = task.replay.step(number)
            _refuse_changed(step.transition)
            through = self._through_update if step.transition.updates else self._through_batch
            values = through(walk, step)
            if task.question.first <= number < task.question.stop and not step.transition.is_skipped:
                if task.question.keeps_layers:
                    values = self._by_layer(walk, step)
                yield from self._entries(step, pieces, values)
            advance()

    def _at_the_end(self, pieces: list[Piece]) -> _Walk:
        """Return the derivatives of the measurements by the weights and the state at the end of training."""
        task, model = self._task, self._task.derivatives.model
        point, constants = task.replay.end(len(task.run.steps))
        path = StepPath(point, point, np.zeros_like(point), constants)
        rows = tf.concat(
            [
                path_rows(task, path, piece, Quadrature.same(len(task.blocks[piece.block])), by_rule=False)
                for piece in pieces
            ],
            axis=0,
        )
        by_theta, by_state = tf.split(rows, [model.theta_size, -1], axis=1)
        start = self._run.step_store.start
        moments = [
            tf.zeros_like(by_theta if kept is not None else by_theta[:, :0])
            for kept in (start.momentum, start.second_moment)
        ]
        nothing = tf.zeros_like(by_theta)
        return _Walk(Adjoints(Carried(by_theta, *moments), by_state), StepGradient(nothing, nothing))

    def _through_update(self, walk: _Walk, step: ReplayedStep) -> np.ndarray:
        """Take a step that updated the weights back. Return the derivatives by the weights of its batch's samples."""
        task, transition = self._task, in_dtype(step.transition, self._dtype)
        found = self._adjoint.update(
            step.path.line[0],
            step.path.constants,
            task.recorded.gradients.batch(step),
            self._carried(transition),
            self._waiting(step),
            self._numbers(transition),
            walk.adjoints,
        )
        self._refuse_other(step, transition, found)
        walk.adjoints, walk.by_gradient = found.before, found.by_gradient
        found_by = {
            "weight": found.by_sample,
            "learning_rate": found.by_learning_rate,
            "weight_decay": found.by_weight_decay,
        }
        return found_by[self._by].numpy()

    def _through_batch(self, walk: _Walk, step: ReplayedStep) -> np.ndarray:
        """Take a step back whose gradient waited for a later update, or was left out."""
        rows = walk.by_gradient
        if step.transition.is_skipped:
            rows = StepGradient(*(tf.zeros_like(part) for part in rows))
        by_sample, by_point = self._adjoint.batch(
            step.path.line[0],
            step.path.constants,
            self._task.recorded.gradients.batch(step),
            rows,
            walk.adjoints.state,
        )
        by_theta, by_state = tf.split(by_point, [self._task.derivatives.model.theta_size, -1], axis=1)
        carried = walk.adjoints.carried
        walk.adjoints = Adjoints(carried._replace(theta=carried.theta + by_theta), by_state)
        return by_sample.numpy() if self._by == "weight" else np.zeros(len(by_sample), self._dtype)

    def _by_layer(self, walk: _Walk, step: ReplayedStep) -> np.ndarray:
        """Return the derivatives by the weights of a batch's samples through each layer, (F, batch[, positions], layers)."""
        size = self._task.derivatives.model.theta_size
        masks = np.zeros((len(self._task.question.partition), size), self._dtype)
        for mask, slices in zip(masks, within(self._task.question.partition, size), strict=True):
            for start, stop in slices:
                mask[start:stop] = 1
        batch = self._task.recorded.gradients.batch(step)
        found = self._adjoint.parts(step.path.line[0], step.path.constants, batch, walk.by_gradient, masks)
        return np.moveaxis(found.numpy(), 1, -1)

    def _carried(self, transition: Transition) -> Carried:
        """Return what a step started with. The record has no moments where they are zero."""
        nothing = np.zeros(0, self._dtype)

        def moment(start: np.ndarray | None, end: np.ndarray | None) -> np.ndarray:
            if end is None:
                return nothing
            return np.zeros_like(end) if start is None else start

        return Carried(
            transition.theta_start,
            moment(transition.momentum_start, transition.momentum),
            moment(transition.second_moment_start, transition.second_moment),
        )

    def _numbers(self, transition: Transition) -> StepNumbers:
        settings = self._run.manifest.optimizer
        factors = transition.clip_factors
        ones = np.ones(len(self._sizes), self._dtype)
        return StepNumbers(
            self._dtype(transition.learning_rate),
            self._dtype(getattr(self._task.recorded.law, "weight_decay", 0.0)),
            np.int32(transition.iteration),
            ones if factors is None else factors.astype(self._dtype),
            self._dtype(settings.accumulates),
        )

    def _waiting(self, step: ReplayedStep) -> np.ndarray:
        """Return the sum of the gradients of earlier batches that an update averages with its own, shape (D,)."""
        replay, start = self._task.recorded, self._run.step_store.start
        waiting = np.zeros(self._task.derivatives.model.theta_size, self._dtype)
        number = step.number - 1
        while number >= 0 and not (earlier := replay.step(number)).transition.updates:
            if not earlier.transition.is_skipped:
                waiting = waiting + replay.gradients.whole(earlier).astype(self._dtype)
            number -= 1
        if number < 0 and start.accumulated is not None:
            waiting = waiting + start.accumulated.astype(self._dtype)
        return waiting

    def _refuse_other(self, step: ReplayedStep, transition: Transition, found: StepResponse) -> None:
        """Refuse a step that the function which is differentiated does not reproduce."""
        stepped = transition.theta_stepped
        state = step.path.end[self._task.derivatives.model.theta_size :]
        pairs = {
            "weights": (found.left.theta, stepped, np.linalg.norm(stepped - transition.theta_start)),
            "momentum": (found.left.momentum, transition.momentum, None),
            "second moment": (found.left.second_moment, transition.second_moment, None),
            "state": (found.left_state, state, None),
        }
        for what, (computed, recorded, length) in pairs.items():
            if recorded is None:
                continue
            missed = float(np.linalg.norm(computed.numpy() - recorded))
            size = float(np.linalg.norm(recorded) if length is None else length)
            if missed > _LARGEST_DIFFERENCE * size:
                raise RefusedError(
                    f"Step {step.number} of {self._run.run_dir} left another {what} than its batch and the optimizer's "
                    f"law give: they differ by {missed / max(size, 1e-300):.2g} of its size, and rounding explains "
                    f"{_LARGEST_DIFFERENCE:g}. What other weights of samples would have done in such a step is not known. "
                    f"It is known for trainings in which only Adam, AdamW, Adagrad, Nadam or SGD set weights, without "
                    f"amsgrad or moving averages of weights. What the samples did is known: run.attribute(…)."
                )

    def _entries(self, step: ReplayedStep, pieces: list[Piece], values: np.ndarray) -> Iterator[Entry]:
        task, start = self._task, 0
        members = None
        if self._by == "weight":
            members = task.run.samples.id_of_row[step.transition.rows]
            if task.question.groups is not None:
                members = task.question.groups.of_id[members]
        for piece in pieces:
            stop = start + len(piece.inputs) * task.outputs
            shaped = values[start:stop].reshape(len(piece.inputs), task.outputs, *values.shape[1:])
            yield Entry(names.RESPONSE, piece.rows, step.number, shaped, members)
            start = stop


def _refuse_changed(transition: Transition) -> None:
    """Refuse a step after which something other than the optimizer changed the weights."""
    if not np.array_equal(transition.theta_stepped, transition.theta_end):
        raise RefusedError(
            f"Something other than the optimizer's step set weights in step {transition.step}: a callback, a constraint or "
            f"a moving average. How that would have gone with other weights of samples is not recorded. What the samples "
            f"did in this training is known: run.attribute(…)."
        )
