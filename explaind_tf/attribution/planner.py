"""What an answer would cost: each kind of pass, run on a few steps of the very run, and the memory it takes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from explaind_tf.attribution.engine import ledger_bytes
from explaind_tf.kernel import contractions, path_integrals
from explaind_tf.kernel.functions import TrainingPoint
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.sweeps.path import path_rows, path_steps
from explaind_tf.sweeps.routes import Routes, seconds
from explaind_tf.sweeps.task import Task

# Steps on which a plan tries the passes: the first ones cost most, and fall off fast.
_FIRST_TRIED = (0, 2, 8)
_LATER_TRIED = (0.2, 0.6)
# A JVP and a backward pass hold the activations of a block about so many times.
_ACTIVATIONS = 4
_ROWS = 4


@dataclass(frozen=True)
class Pass:
    """One kind of pass, averaged over the steps that were tried.

    Attributes
    ----------
    name : str
        What it does.
    count : float
        How often each step, for each input where it depends on the input.
    seconds : float
        For one step, all inputs.
    """

    name: str
    count: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What :meth:`Run.attribute` would do with the same arguments. ``print(plan)`` shows it as a table.

    Attributes
    ----------
    method : str
        The sweeps and routes, as in the ledger's ``attrs["method"]``.
    steps, inputs, outputs : int
        Sizes of the question.
    nodes : float
        Quadrature nodes an input and step.
    passes : tuple of Pass
        The work of one step.
    ledger_bytes, peak_bytes : int
        Memory of the result, and of everything beside TensorFlow itself.
    """

    method: str
    steps: int
    inputs: int
    outputs: int
    nodes: float
    passes: tuple[Pass, ...]
    ledger_bytes: int
    peak_bytes: int

    @property
    def seconds(self) -> float:
        """Estimated time, without the compilation of the first step."""
        return self.steps * sum(part.seconds for part in self.passes)

    def __str__(self) -> str:
        """Return the plan as a table."""
        table = Table(
            title=f"{self.method}: {self.steps} steps, {self.inputs} inputs × {self.outputs} outputs"
        )
        table.add_column("pass")
        for column in ("a step", "time a step", "time"):
            table.add_column(column, justify="right")
        for part in self.passes:
            row = (part.name, f"{part.count:.3g}", _time(part.seconds), _time(self.steps * part.seconds))
            table.add_row(*row)
        table.add_section()
        table.add_row("all", "", _time(self.seconds / self.steps), _time(self.seconds))
        table.caption = f"memory {_bytes(self.peak_bytes)}, of which the ledger {_bytes(self.ledger_bytes)}"
        console = Console(width=100)
        with console.capture() as captured:
            console.print(table)
        return captured.get()


def make_plan(task: Task, routes: Routes) -> Plan:
    """Try the passes of an answer on a few of its steps."""
    positions = {0, *(at for at in _FIRST_TRIED if at < task.steps)}
    if not task.replay.needs_history(
        routes.grouping
    ):  # otherwise a late step is reached through all before it
        positions |= {int(at * task.steps) for at in _LATER_TRIED}
    numbers = np.array(sorted(positions))
    tried = [_try_step(task, routes, task.question.first + int(number)) for number in numbers]
    weights = _shares(numbers, task.steps)
    passes = tuple(
        Pass(
            parts[0].name,
            *(float(weights @ [getattr(p, key) for p in parts]) for key in ("count", "seconds")),
        )
        for parts in zip(*(passes for passes, _ in tried), strict=True)
    )
    ledger = ledger_bytes(task, routes)
    return Plan(
        method=routes.method,
        steps=task.steps,
        inputs=len(task.everything),
        outputs=task.outputs,
        nodes=float(weights @ [nodes for _, nodes in tried]),
        passes=passes,
        ledger_bytes=ledger,
        peak_bytes=ledger + _working_bytes(task, routes),
    )


def _shares(tried: np.ndarray, steps: int) -> np.ndarray:
    """Return the weights with which numbers of the tried steps make the mean of all, by straight lines between them."""
    every = np.arange(steps)
    return np.array([np.interp(every, tried, column).mean() for column in np.eye(len(tried))])


def _try_step(task: Task, routes: Routes, number: int) -> tuple[list[Pass], float]:
    """Return the passes of one step, and its nodes for each input."""
    question, derivatives = task.question, task.derivatives
    (step,) = path_steps(task, routes, number, number + 1)
    transition = task.replay.transition(number)
    block = task.blocks[0]
    share = len(task.everything) / len(block)
    (integral,) = path_integrals.integrate_steps(
        [step],
        derivatives.measurement,
        [block],
        end=task.replay.end(question.stop),
        count=1,
        tolerance=question.tolerance / (1 + np.sqrt(task.steps - 1) / 2),
        max_nodes=task.max_nodes,
    )
    nodes = integral.quadrature.node_count / len(block)
    passes = [
        Pass(name, count, spent) for name, count, spent in _path_passes(task, routes, step, integral, share)
    ]
    if routes.samples is not None:
        segment, batch = step.path, task.recorded.batch(transition)
        rows = _rows(task, routes, step, integral.quadrature)
        psi = tf.repeat(rows[:1, : derivatives.model.theta_size], _rows_at_once(task), axis=0)
        partition = contractions.within(question.partition, derivatives.model.theta_size)
        at = TrainingPoint(segment.start, segment.constants, batch)
        route = routes.samples

        def contract() -> np.ndarray:
            return contractions.ROUTES[route].contract(derivatives.loss, at, psi, partition, task.chunk_bytes)

        sweeps_back = len(task.batches_of_pieces)
        rows_spent = seconds(lambda: _rows(task, routes, step, integral.quadrature))
        inputs_tried = len(next(task.pieces(0)).inputs)
        passes += [
            Pass("rows Φ, per node", nodes, rows_spent * len(task.everything) / inputs_tried),
            Pass(f"contraction with the batch ({route})", sweeps_back, seconds(contract) * sweeps_back),
        ]
    return passes, nodes


def _path_passes(
    task: Task,
    routes: Routes,
    step: path_integrals.PathStep,
    integral: path_integrals.StepIntegral,
    share: float,
) -> Iterator[tuple[str, float, float]]:
    derivatives, block = task.derivatives, task.blocks[0]
    nodes = integral.quadrature.node_count / len(block)
    yield (
        "forward",
        1,
        share * seconds(lambda: derivatives.measurement.values(step.path.end, step.path.constants, block)),
    )

    def jvps(directions: np.ndarray) -> Callable[[], np.ndarray]:
        return lambda: path_integrals.integrate_directions(
            step.path, directions, derivatives.measurement, block, integral.quadrature
        )

    directions = step.directions
    what = "the displacement" if routes.splits_late else f"{len(directions)} causes"
    yield f"JVP of {what}, per node", nodes, share * seconds(jvps(directions))
    if routes.grouping is not None:
        transition, grouping = task.replay.transition(step.number), routes.grouping
        spent = seconds(lambda: task.recorded.group_gradients(transition, grouping))
        yield "gradients of groups", grouping.count, spent
    if routes.parts == "jvp":
        repeated = np.repeat(directions, len(task.question.partition), axis=0)
        yield "JVP of each layer, per node", nodes, share * seconds(jvps(repeated))
    elif routes.parts == "products":
        piece = next(task.pieces(0))
        quadrature = piece.quadrature_of(integral.quadrature)
        stacked = task.stacked_nodes(piece)
        spent = seconds(
            lambda: derivatives.measurement.path_products(
                step.path, quadrature, directions, piece.inputs, stacked=stacked
            )
        )
        yield "products of a backward pass, per node", nodes, spent * len(task.everything) / len(piece.inputs)
    elif routes.parts == "rows":
        spent = seconds(lambda: _rows(task, routes, step, integral.quadrature))
        yield (
            "rows for the parts, per node",
            nodes,
            spent * len(task.everything) / len(next(task.pieces(0)).inputs),
        )


def _rows(task: Task, routes: Routes, step: path_integrals.PathStep, quadrature: Quadrature) -> tf.Tensor:
    return path_rows(task, step.path, next(task.pieces(0)), quadrature, by_rule=routes.rows_by_rule)


def _rows_at_once(task: Task) -> int:
    return max(sum(len(piece.inputs) for piece in pieces) for pieces in task.batches_of_pieces) * task.outputs


def _working_bytes(task: Task, routes: Routes) -> int:
    model = task.derivatives.model
    point = model.point_size * model.dtype.size
    needed = 12 * point + _ACTIVATIONS * len(task.blocks[0]) * task.run.graphs.forward_bytes_per_input
    if routes.samples is not None:
        needed += _ROWS * _rows_at_once(task) * point + contractions.STRETCH * task.chunk_bytes
    elif routes.parts == "rows":
        needed += _ROWS * len(next(task.pieces(0)).inputs) * task.outputs * point
    if routes.grouping is not None:
        needed += _ROWS * routes.grouping.count * point
    return int(needed)


def _time(spent: float) -> str:
    if spent < 1:
        return f"{spent * 1e3:.3g} ms"
    return f"{spent:.3g} s" if spent < 120 else f"{spent / 60:.3g} min"


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
