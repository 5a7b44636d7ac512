"""The path sweep of an answer: integrates every step for all inputs, split by cause."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from explaind_tf import constants as names
from explaind_tf.kernel import path_integrals
from explaind_tf.kernel.functions import Block
from explaind_tf.kernel.path_integrals import PathStep, StepIntegral
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.ledgers.book import Entry
from explaind_tf.progress import Progress
from explaind_tf.sweeps.clock import seconds
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.sweep import Pass, TriedStep
from explaind_tf.sweeps.task import ROWS_HELD, Task

# A JVP and a backward pass hold about so many copies of a block's activations.
_ACTIVATIONS = 4
# Vectors of the point's size that a step needs: weights, moments, causes.
_POINTS = 12


@dataclass
class Integrated:
    """What a path sweep finds besides entries.

    Attributes
    ----------
    initial : np.ndarray
        The outputs before the first step, shape (inputs, O).
    lost : np.ndarray
        The outputs of the model as it is, less those in the precision of the analysis, at the last step, (inputs, O).
    movement : np.ndarray
        Farthest that any output of an input got from its initial value, shape (inputs,).
    residual : np.ndarray
        What the integrals of all steps missed, shape (inputs, O).
    worst_step, worst_residual, worst_jump : np.ndarray
        For each output the step whose integral missed most, what it missed, and how far the output jumped in this step,
        shape (inputs, O).
    quadratures : dict
        The nodes and weights of each (step, block).
    largest : dict
        For each step that is split later, the size of the largest step up to it.
    """

    initial: np.ndarray
    lost: np.ndarray
    movement: np.ndarray
    residual: np.ndarray
    worst_step: np.ndarray
    worst_residual: np.ndarray
    worst_jump: np.ndarray
    quadratures: dict[tuple[int, int], Quadrature] = field(default_factory=dict)
    largest: dict[int, float] = field(default_factory=dict)

    @classmethod
    def nothing(cls, inputs: int, outputs: int) -> "Integrated":
        """Return the state before the first step."""
        initial, lost, residual, worst, jump = np.zeros((5, inputs, outputs))
        return cls(initial, lost, np.zeros(inputs), residual, np.zeros((inputs, outputs), int), worst, jump)

    def note_residual(self, rows: slice, integral: StepIntegral) -> None:
        """Note what the integral of a step missed for some inputs."""
        residual = integral.residual
        self.residual[rows] += residual
        is_larger = np.abs(residual) > np.abs(self.worst_residual[rows])
        self.worst_step[rows][is_larger] = integral.step.number
        self.worst_residual[rows][is_larger] = residual[is_larger]
        self.worst_jump[rows][is_larger] = integral.jumps[is_larger]

    @classmethod
    def joined(cls, parts: "Sequence[Integrated]", blocks: Sequence[int]) -> "Integrated":
        """Return what was found of all inputs, from that of parts of them.

        Parameters
        ----------
        parts : sequence of Integrated
            In the order of the inputs.
        blocks : sequence of int
            Number of blocks of each part.
        """
        by_input = [entry.name for entry in fields(cls) if entry.type is np.ndarray]
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in by_input}
        first = np.cumsum([0, *blocks])
        quadratures = {
            (step, int(start) + block): quadrature
            for part, start in zip(parts, first[:-1], strict=True)
            for (step, block), quadrature in part.quadratures.items()
        }
        return cls(**arrays, quadratures=quadratures, largest=parts[0].largest)

    def of_steps(self, first: int, stop: int) -> "Integrated":
        """Return the same with the quadratures of the steps ``first … stop − 1`` alone."""
        kept = {at: quadrature for at, quadrature in self.quadratures.items() if first <= at[0] < stop}
        return replace(self, quadratures=kept)

    @property
    def node_count(self) -> int:
        """Number of quadrature nodes used, over all inputs and steps."""
        return sum(quadrature.node_count for quadrature in self.quadratures.values())


class PathSweep:
    """Yields the outputs, the quadrature error, and every cause that is not left to a reverse sweep.

    Parameters
    ----------
    task : Task
        What is to be computed.
    routes : Routes
        How it is computed.

    Attributes
    ----------
    found : Integrated
        What the reverse sweep needs. It is complete when :meth:`run` has ended.
    """

    def __init__(self, task: Task, routes: Routes) -> None:
        self._task, self._routes = task, routes
        self.found = Integrated.nothing(len(task.everything), task.outputs)

    @property
    def name(self) -> str:
        """The sweep in words, with the route of the parts."""
        parts = "" if self._routes.parts is None else f" (parts by {self._routes.parts.name})"
        return f"path sweep{'' if self._routes.grouping is None else ', forward sweep by groups'}{parts}"

    @property
    def first_step(self) -> int:
        """The first step of the question."""
        return self._task.question.first

    @property
    def inputs_at_once(self) -> int:
        """Number of inputs in a block."""
        return len(self._task.blocks[0])

    @property
    def working_bytes(self) -> int:
        """Bytes of activations, of the points of a step, and of rows if parts are split by rows."""
        task, routes = self._task, self._routes
        activations = _ACTIVATIONS * len(task.blocks[0]) * task.run.graphs.forward_bytes_per_input
        rows = 0 if routes.parts is None or routes.samples is not None else routes.parts.row_bytes(task)
        groups = 0 if routes.grouping is None else ROWS_HELD * routes.grouping.count
        return _POINTS * task.point_bytes + activations + rows + groups * task.point_bytes

    def run(self, progress: Progress) -> Iterator[Entry]:
        """Yield the entries of all steps, step by step and block by block."""
        task, question = self._task, self._task.question
        integrals = path_integrals.integrate_steps(
            self._steps(question.first, question.stop),
            task.derivatives.measurement,
            task.blocks,
            end=task.replay.end(question.stop),
            count=task.steps,
            tolerance=question.tolerance,
            max_nodes=question.options.max_nodes,
        )
        with progress.task("Path sweep", task.steps * len(task.blocks)) as advance:
            for integral in integrals:
                yield from self._outputs(integral)
                if not self._routes.splits_late:
                    yield from self._causes(integral)
                self.found.quadratures[integral.step.number, integral.block] = integral.quadrature
                advance()

    def _steps(self, first: int, stop: int) -> Iterator[PathStep]:
        """Yield the steps to integrate: split into causes, or whole if they are split later."""
        if not self._routes.splits_late:
            yield from self._task.replay.path_steps(first, stop, grouping=self._routes.grouping)
            return
        for whole in self._task.recorded.whole_steps(first, stop):
            self.found.largest[whole.step.number] = whole.largest
            yield whole.step

    def tried(self, number: int) -> TriedStep:
        """Integrate one step for the first block of inputs, as a basis for trying passes."""
        task, question, block = self._task, self._task.question, self._task.blocks[0]
        (step,) = self._steps(number, number + 1)
        replayed = task.replay.step(number)
        (integral,) = path_integrals.integrate_steps(
            [step],
            task.derivatives.measurement,
            [block],
            end=task.replay.end(question.stop),
            count=1,
            # About the share of the whole tolerance that one step gets.
            tolerance=question.tolerance / (1 + np.sqrt(task.steps - 1) / 2),
            max_nodes=question.options.max_nodes,
        )
        nodes = integral.quadrature.node_count / len(block)
        return TriedStep(replayed, step, integral, nodes, len(task.everything) / len(block))

    def price(self, tried: TriedStep) -> Iterator[Pass]:
        """Yield the passes of one step with their measured time."""
        task, routes, path, block = self._task, self._routes, tried.step.path, self._task.blocks[0]
        measure = task.derivatives.measurement.values
        yield Pass("forward", 1, tried.share * seconds(lambda: measure(path.end, path.constants, block)))
        directions = tried.step.directions
        what = "the displacement" if routes.splits_late else f"{len(directions)} causes"
        at = (path, directions, task.derivatives.measurement, block, tried.integral.quadrature)
        spent = seconds(lambda: path_integrals.integrate_directions(*at))
        yield Pass(f"JVP of {what}, per node", tried.nodes, tried.share * spent)
        grouping = routes.grouping
        if grouping is not None:
            spent = seconds(lambda: task.recorded.gradients.of_groups(tried.replayed, grouping))
            yield Pass("gradients of groups", grouping.count, spent)
        if routes.parts is not None:
            yield routes.parts.price(task, tried)

    def _outputs(self, integral: StepIntegral) -> Iterator[Entry]:
        """Yield the outputs at both ends of a step, and its quadrature error."""
        task, found, number = self._task, self.found, integral.step.number
        rows, path, block = task.slices[integral.block], integral.step.path, task.blocks[integral.block]
        lost = self._lost_at(path.end, path.constants, block, integral.end_value)
        if number == self._task.question.first:
            found.lost[rows] = self._lost_at(path.start, path.constants, block, integral.start_value)
            found.initial[rows] = integral.start_value + found.lost[rows]
            yield Entry(names.INITIAL, rows, number, found.initial[rows])
        final = integral.end_value + lost
        yield Entry(names.FINAL, rows, number, final)
        distance = np.abs(final - found.initial[rows]).max(axis=1)
        found.movement[rows] = np.maximum(found.movement[rows], distance)
        if self._task.precisions.differ:
            yield Entry(names.PRECISION, rows, number, lost - found.lost[rows])
        found.lost[rows] = lost
        if task.derivatives.measurement.may_jump:
            yield Entry(names.JUMPS, rows, number, integral.jumps)
        found.note_residual(rows, integral)
        yield Entry(names.RESIDUAL, rows, number, integral.residual)

    def _lost_at(
        self, point: np.ndarray, constants: list[np.ndarray], block: Block, analysed: np.ndarray
    ) -> np.ndarray:
        """Return the outputs of the model as it is, less those in the precision of the analysis, shape (batch, O)."""
        if not self._task.precisions.differ:
            return np.zeros_like(analysed)
        own = self._task.as_trained
        point = point.astype(own.model.dtype.as_numpy_dtype, copy=False)
        return own.measurement.values(point, constants, block).numpy().astype(np.float64) - analysed

    def _causes(self, integral: StepIntegral) -> Iterator[Entry]:
        """Yield the change by each cause in a step, by part if parts are kept."""
        task, routes = self._task, self._routes
        rows, step = task.slices[integral.block], integral.step
        left_out: set[str] = set()
        if routes.samples is not None:
            left_out.add(names.DATA)  # the reverse sweep yields it sample by sample
        totals = {name: values for name, values in integral.causes.items() if name not in left_out}
        if routes.parts is None:
            for name, values in totals.items():
                yield Entry(name, rows, step.number, _groups_behind_outputs(step, name, values))
            return
        for name in [name for name in totals if not task.has_parts(name)]:
            yield Entry(name, rows, step.number, totals[name])
            left_out.add(name)
        causes = {name: vectors for name, vectors in step.causes.items() if name not in left_out}
        if causes:
            kept = PathStep(step.number, step.path, causes)
            for inputs, by_part in routes.parts.values(task, kept, integral):
                yield from entries_of_parts(kept, inputs, by_part)


def entries_of_parts(step: PathStep, inputs: slice, values: np.ndarray) -> Iterator[Entry]:
    """Yield values (K, batch, O, parts) of all directions of a step as entries."""
    for name, found in step.by_cause(values).items():
        yield Entry(name, inputs, step.number, _groups_behind_outputs(step, name, found))


def _groups_behind_outputs(step: PathStep, name: str, values: np.ndarray) -> np.ndarray:
    """Return (batch, O[, G], ...) of ([G, ]batch, O, ...)."""
    return np.moveaxis(values, 0, 2) if step.causes[name].ndim == 2 else values
