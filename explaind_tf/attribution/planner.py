"""Plans: estimates the time and memory of an answer by running each kind of pass on a few steps of the run."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from rich.console import Console
from rich.table import Table

from explaind_tf.attribution.counterfactual import response_lengths
from explaind_tf.attribution.engine import ledger_bytes, method_of
from explaind_tf.attribution.shared_work import Shared, Work, share_out
from explaind_tf.ledgers.responses import response_dims
from explaind_tf.sweeps.choose import sweeps_of
from explaind_tf.sweeps.clock import seconds
from explaind_tf.sweeps.response_sweep import By, ResponseSweep
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.sweep import Pass
from explaind_tf.sweeps.task import Task

__all__ = ["Pass", "Plan", "make_plan", "make_response_plan"]

# Steps on which a plan tries the passes. The first steps cost most, and the cost falls fast.
_FIRST_TRIED = (0, 2, 8)
_LATER_TRIED = (0.2, 0.6)
# The same of a counterfactual answer, whose steps cost the same but for the size of their batches.
_TRIED_BACK = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Plan:
    """What :meth:`Run.attribute` or :meth:`Run.counterfactual` would do. ``print(plan)`` shows it as a table.

    Attributes
    ----------
    method : str
        The sweeps and routes, as in the ledger's ``attrs["method"]``.
    steps, inputs, outputs : int
        Sizes of the question. A counterfactual answer goes through all steps of the run.
    nodes : float
        Quadrature nodes per input and step, 0 of a counterfactual answer.
    passes : tuple of Pass
        The work of one step.
    ledger_bytes, peak_bytes : int
        Memory of the answer, and of all that is held (the answer included) except TensorFlow itself.
    shared : Shared or None
        What several workers would take, if they were asked about.
    """

    method: str
    steps: int
    inputs: int
    outputs: int
    nodes: float
    passes: tuple[Pass, ...]
    ledger_bytes: int
    peak_bytes: int
    shared: Shared | None = None

    @property
    def seconds(self) -> float:
        """Estimated seconds, without the compilation in the first step."""
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
        table.caption = f"memory {_bytes(self.peak_bytes)}, of which the answer {_bytes(self.ledger_bytes)}"
        if self.shared is not None:
            own = self.shared
            table.caption += (
                f"\n{own.workers} workers, each as fast as this process: {_time(own.seconds)}, memory of one "
                f"{_bytes(own.peak_bytes)}, moved {_bytes(own.moved_bytes)}; more than {own.enough} help little"
            )
        console = Console(width=100)
        with console.capture() as captured:
            console.print(table)
        return captured.get()


def make_plan(task: Task, routes: Routes, workers: int | None = None) -> Plan:
    """Try the passes of an answer on a few of its steps; with a number of workers, say what they would take.

    Raises
    ------
    ValueError
        If the number of workers is not positive.
    """
    sweeps = sweeps_of(task, routes)
    path = sweeps[0]
    positions = {0, *(at for at in _FIRST_TRIED if at < task.steps)}
    # With a history, a late step can be reached only through all steps before it.
    if not task.replay.needs_history(routes.grouping):
        positions |= {int(at * task.steps) for at in _LATER_TRIED}
    numbers = np.array(sorted(positions))
    tried = [path.tried(task.question.first + int(number)) for number in numbers]
    weights = _shares(numbers, task.steps)
    by_sweep = [_averages([list(sweep.price(step)) for step in tried], weights) for sweep in sweeps]
    ledger = ledger_bytes(task, routes)
    working = sum(int(sweep.working_bytes) for sweep in sweeps)
    shared = None
    if workers is not None:
        path_passes, *others = ([one.seconds for one in passes] for passes in by_sweep)
        work = Work(
            reading=task.steps * _reading(task),
            path=task.steps * sum(path_passes),
            back=task.steps * sum(itertools.chain(*others)),
            inputs=len(task.everything),
            steps=task.steps,
            blocks=len(task.blocks),
            row_bytes=len(task.everything) * task.outputs * task.point_bytes,
            ledger_bytes=ledger,
            working_bytes=working,
        )
        shared = share_out(work, workers)
    return Plan(
        method=method_of(sweeps),
        steps=task.steps,
        inputs=len(task.everything),
        outputs=task.outputs,
        nodes=float(weights @ [step.nodes for step in tried]),
        passes=tuple(itertools.chain(*by_sweep)),
        ledger_bytes=ledger,
        peak_bytes=ledger + working,
        shared=shared,
    )


def make_response_plan(task: Task, by: By) -> Plan:
    """Try the passes of a counterfactual answer on a few steps of the run.

    Raises
    ------
    RefusedError
        If such a step cannot be differentiated.
    """
    sweep, count = ResponseSweep(task, by), len(task.run.steps)
    numbers = np.array(sorted({round(at * (count - 1)) for at in _TRIED_BACK}))
    by_step = [list(sweep.price(int(number))) for number in numbers]
    lengths = response_lengths(task)
    answer = 8 * math.prod(lengths[dim] for dim in response_dims(task.question))
    weights = _shares(numbers, count)
    return Plan(
        method=sweep.name,
        steps=count,
        inputs=len(task.everything),
        outputs=task.outputs,
        nodes=0.0,
        passes=_averages(by_step, weights),
        ledger_bytes=answer,
        peak_bytes=answer + sweep.working_bytes,
    )


def _averages(by_step: list[list[Pass]], weights: np.ndarray) -> tuple[Pass, ...]:
    """Return the passes, each averaged over the tried steps."""
    return tuple(
        Pass(
            alike[0].name,
            float(weights @ [one.count for one in alike]),
            float(weights @ [one.seconds for one in alike]),
        )
        for alike in zip(*by_step, strict=True)
    )


def _reading(task: Task) -> float:
    """Return how long it takes to read a step: that of reading the first two in turn, since the last one read is kept."""
    both = (task.question.first, min(task.question.first + 1, task.question.stop - 1))
    return seconds(lambda: [task.replay.step(number) for number in both]) / len(both)


def _shares(tried: np.ndarray, steps: int) -> np.ndarray:
    """Return weights by which the tried steps give the mean over all steps, interpolated linearly between them."""
    every = np.arange(steps)
    return np.array([np.interp(every, tried, column).mean() for column in np.eye(len(tried))])


def _time(spent: float) -> str:
    if spent < 1:
        return f"{spent * 1e3:.3g} ms"
    return f"{spent:.3g} s" if spent < 120 else f"{spent / 60:.3g} min"


def _bytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
