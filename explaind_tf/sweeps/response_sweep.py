"""The response sweep: from the last step back, how the end of training depends on the weight of each use of a sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
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
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format.description import averages_of
from explaind_tf.runs.steps import Transition
from explaind_tf.sweeps.clock import seconds
from explaind_tf.sweeps.rows import path_rows
from explaind_tf.sweeps.sweep import Pass
from explaind_tf.sweeps.task import Piece, Task

# By what measurements are differentiated.
By = Literal["weight", "learning_rate", "weight_decay"]
BY: Final = get_args(By)

# Largest share of its size by which a moment or the state after a step may differ from the record. Rounding explains less.
_LARGEST_DIFFERENCE = 1e-2
# The same of the step's length. Where a gradient is nothing but rounding, as that of a bias before BatchNorm, Adam's step
# follows its sign.
_LARGEST_OF_STEP = 0.1
# Rows of the size of the model that it holds for each measurement: adjoints of the weights and of both moments, those of the
# gradient, and what a step needs to compute them.
_ROWS = 8
# So many times as much where training computed in bfloat16 or float16, and the analysis does not.
_IN_LESS_PRECISION = 5


@dataclass
class _Walk:
    """Where a sweep stands: the derivatives of the measurements by what was carried into the last step that it took.

    Attributes
    ----------
    adjoints : Adjoints
        They are rows (F, ...).
    by_gradient : StepGradient
        The derivatives by the gradient of each batch that waited for the last update, and by its squares, (F, D).
    by_average : tf.Tensor or None
        The derivatives by the moving average of the weights, (F, D); None if there is none.
    """

    adjoints: Adjoints
    by_gradient: StepGradient
    by_average: tf.Tensor | None


class ResponseSweep:
    """Yields the derivatives of measurements at the end of training by the weights of samples, or by other numbers.

    Parameters
    ----------
    task : Task
        What is to be computed.
    by : {"weight", "learning_rate", "weight_decay"}
        By what to differentiate: the weights of samples, or numbers of a step.
    factors : np.ndarray, optional
        The weight of each row of the sample store with which the path was trained, shape (rows,). Default: 1.
    """

    name = "response sweep"

    def __init__(self, task: Task, by: By = "weight", factors: np.ndarray | None = None) -> None:
        self._task, self._by, self._factors = task, by, factors
        self._dtype = task.derivatives.model.dtype.as_numpy_dtype
        self._run = task.recorded.run
        _refuse_further_moments(self._run)
        specs, settings = self._run.manifest.variables, self._run.manifest.optimizer
        records = (self._run.step_store.recorded(number) for number in range(len(self._run.steps)))
        first = next((record for record in records if record.updates), None)
        by_norm = first is not None and first.clip_factors is not None
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

    @property
    def working_bytes(self) -> int:
        """Bytes of the rows of all measurements that are taken together."""
        at_once = max(sum(len(piece.inputs) for piece in pieces) for pieces in self._task.batches_of_pieces)
        return _ROWS * at_once * self._task.outputs * self._task.point_bytes

    def price(self, number: int) -> Iterator[Pass]:
        """Yield the passes of a step with their measured time."""
        batches = self._task.batches_of_pieces
        step, walk = self._task.replay.step(number), self._at_the_end(batches[0])

        def step_back() -> None:
            self._through(replace(walk), step)

        yield Pass(
            f"{self.name}, per step and batch of measurements",
            len(batches),
            len(batches) * seconds(step_back),
        )
        if self._task.question.keeps_layers:
            count = len(self._task.question.partition)
            spent = seconds(lambda: self._by_layer(walk, step))
            yield Pass("backward pass of a batch, per layer", count * len(batches), len(batches) * spent)

    def _back(self, pieces: list[Piece], advance: Callable[[], None]) -> Iterator[Entry]:
        task = self._task
        walk = self._at_the_end(pieces)
        for number in range(len(task.run.steps) - 1, -1, -1):
            step = task.replay.step(number)
            self._through_average(walk, step.transition)
            values = self._through(walk, step)
            if task.question.first <= number < task.question.stop and not step.transition.is_skipped:
                if task.question.keeps_layers:
                    values = self._by_layer(walk, step)
                yield from self._entries(step, pieces, values)
            advance()

    def _through(self, walk: _Walk, step: ReplayedStep) -> np.ndarray:
        """Take a step back. Return the derivatives by the weights of its batch's samples, or by its numbers."""
        through = self._through_update if step.transition.updates else self._through_batch
        try:
            return through(walk, step)
        except LookupError as error:  # raised by tf.gradients for an operation without gradient
            raise RefusedError(
                f"The gradient of the loss of {self._run.run_dir} has no derivative that is known: {error} So how later "
                f"steps depend on earlier ones is not known. What the samples did is known: run.attribute(…)."
            ) from error

    def _at_the_end(self, pieces: list[Piece]) -> _Walk:
        """Return the derivatives of the measurements by the weights and the state at the end of training."""
        task, model = self._task, self._task.derivatives.model
        point, constants = task.replay.end(len(task.run.steps))
        path = StepPath(point, point, np.zeros_like(point), constants)
        rows = tf.concat(
            [
                path_rows(task, path, piece, Quadrature.same(len(task.blocks[piece.block])), route="loop")
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
        average = None if self._run.manifest.optimizer.ema_momentum is None else nothing
        return _Walk(Adjoints(Carried(by_theta, *moments), by_state), StepGradient(nothing, nothing), average)

    def _through_average(self, walk: _Walk, transition: Transition) -> None:
        """Take what came after the optimizer's step back: the moving average of the weights, if it has one.

        a_s = ρ a_{s−1} + (1 − ρ) θ, with ρ = 0 in the first update, and now and then θ = a_s
        (``base_optimizer.py::_update_model_variables_moving_average``).

        Raises
        ------
        RefusedError
            If something else set the weights.
        """
        carried, kept = walk.adjoints.carried, self._run.manifest.optimizer.ema_momentum
        stepped = transition.theta_stepped if transition.updates else transition.theta_start
        if not np.array_equal(stepped, transition.theta_end):
            if walk.by_average is None or not np.array_equal(transition.theta_end, self._average(transition)):
                raise RefusedError(
                    f"Something other than the optimizer's step set weights in step {transition.step}: a callback or a "
                    f"constraint. How that would have gone with other weights of samples is not recorded. What the samples "
                    f"did in this training is known: run.attribute(…)."
                )
            walk.by_average += carried.theta
            carried = carried._replace(theta=tf.zeros_like(carried.theta))
        if walk.by_average is not None:
            assert kept is not None  # there is an average
            share = kept if transition.iteration > 0 else 0.0
            carried = carried._replace(theta=carried.theta + (1 - share) * walk.by_average)
            walk.by_average *= share
        walk.adjoints = walk.adjoints._replace(carried=carried)

    def _average(self, transition: Transition) -> np.ndarray:
        """Return the moving average of the weights after a step, shape (D,), empty if it is not recorded."""
        averages = averages_of(self._run.manifest.optimizer_state, transition.optimizer)
        return averages.astype(self._dtype, copy=False)

    def _through_update(self, walk: _Walk, step: ReplayedStep) -> np.ndarray:
        """Take a step that updated the weights back. Return the derivatives by the weights of its batch's samples."""
        task, transition = self._task, in_dtype(step.transition, self._dtype)
        found = self._adjoint.update(
            step.path.line[0],
            step.path.constants,
            task.recorded.gradients.batch(step),
            self._shares(step),
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
            self._shares(step),
            rows,
            walk.adjoints.state,
        )
        by_theta, by_state = tf.split(by_point, [self._task.derivatives.model.theta_size, -1], axis=1)
        carried = walk.adjoints.carried
        walk.adjoints = Adjoints(carried._replace(theta=carried.theta + by_theta), by_state)
        return by_sample.numpy() if self._by == "weight" else np.zeros(len(by_sample), self._dtype)

    def _by_layer(self, walk: _Walk, step: ReplayedStep) -> np.ndarray:
        """Return the derivatives by the weights of a batch's samples through each layer, (F, batch[, positions], layers)."""
        batch = self._task.recorded.gradients.batch(step)
        at = (step.path.line[0], step.path.constants, batch, self._shares(step))
        found = self._adjoint.parts(*at, walk.by_gradient, self._masks)
        return np.moveaxis(found.numpy(), 1, -1)

    @cached_property
    def _masks(self) -> np.ndarray:
        """One for the weights of each layer, zero for all others, shape (layers, D)."""
        size = self._task.derivatives.model.theta_size
        masks = np.zeros((len(self._task.question.partition), size), self._dtype)
        for mask, slices in zip(masks, within(self._task.question.partition, size), strict=True):
            for start, stop in slices:
                mask[start:stop] = 1
        return masks

    def _shares(self, step: ReplayedStep) -> np.ndarray:
        """Return the weights of a batch's samples in this training."""
        rows = step.transition.rows
        return (np.ones(len(rows)) if self._factors is None else self._factors[rows]).astype(self._dtype)

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
        times = _IN_LESS_PRECISION if self._task.precisions.differ else 1
        moved = float(np.linalg.norm(stepped - transition.theta_start))
        self._refuse_unlike("weights", step, found.left.theta, stepped, times * moved * _LARGEST_OF_STEP)
        others = {
            "momentum": (found.left.momentum, transition.momentum),
            "second moment": (found.left.second_moment, transition.second_moment),
            "state": (found.left_state, state),
        }
        for what, (computed, recorded) in others.items():
            if recorded is not None:
                largest = times * _LARGEST_DIFFERENCE * float(np.linalg.norm(recorded))
                self._refuse_unlike(what, step, computed, recorded, largest)

    def _refuse_unlike(
        self, what: str, step: ReplayedStep, computed: tf.Tensor, recorded: np.ndarray, largest: float
    ) -> None:
        missed = float(np.linalg.norm(computed.numpy() - recorded))
        if missed > largest:
            raise RefusedError(
                f"Step {step.number} of {self._run.run_dir} left {what} other than its batch and the law give: "
                f"they differ by {missed:.2g}, and rounding explains {largest:.2g}. So what other weights of samples would "
                f"have done in this step is not known. What the samples did is known: run.attribute(…)."
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


def _refuse_further_moments(run: RecordedRun) -> None:
    """Refuse an optimizer that carries more from step to step than its law's function knows.

    A maximum of the second moment changes so little in a step that no check of the step would see that it was taken.
    """
    further = [spec.path for spec in run.manifest.optimizer_state if spec.shape and not spec.is_average]
    if further:
        raise RefusedError(
            f"The optimizer keeps {', '.join(further[:3])} beside its moments, as with amsgrad=True. How these depend on "
            f"the weights of samples is not known. Train with amsgrad=False."
        )
