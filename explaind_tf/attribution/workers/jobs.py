"""What a worker does: pure functions of an assignment and a part of it.

A process does one job at a time. TensorFlow spreads it over the process's threads.
"""

import threading
from dataclasses import dataclass

import xarray as xr

from explaind_tf.attribution.counterfactual import Differentiated, responses
from explaind_tf.attribution.engine import new_book
from explaind_tf.attribution.failing_graphs import failing_graphs
from explaind_tf.attribution.workers.assignment import Assignment, Part
from explaind_tf.ledgers.book import BookPart
from explaind_tf.progress import Progress
from explaind_tf.sweeps import joining
from explaind_tf.sweeps.choose import choose_routes
from explaind_tf.sweeps.joining import Ahead, Joined, KeptRows, Later, Leaving
from explaind_tf.sweeps.path_sweep import Integrated, PathSweep
from explaind_tf.sweeps.reverse_sweep import ReverseSweep
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.segments import Segment
from explaind_tf.sweeps.sweep import Sweep
from explaind_tf.sweeps.task import Task

_turn = threading.Lock()


@dataclass(frozen=True)
class Done:
    """What a job found.

    Attributes
    ----------
    entries : BookPart
        Its entries, added up.
    unexplained : dict of int to float
        The steps that the law does not explain.
    found : Integrated or None
        What a path sweep found besides, None of a reverse sweep.
    """

    entries: BookPart
    unexplained: dict[int, float]
    found: Integrated | None = None


def choose_here(assignment: Assignment) -> Routes:
    """Decide how a question is computed."""
    with _turn:
        task = assignment.task(Part(slice(None)))
        with failing_graphs(task.run):
            return choose_routes(task)


def sweep_path(assignment: Assignment, part: Part, routes: Routes) -> Done:
    """Integrate all steps for some inputs."""
    with _turn:
        task = assignment.task(part)
        sweep = PathSweep(task, routes)
        entries = _entries(task, sweep, sweep.first_step, task.question.stop)
        return Done(entries, dict(task.replay.unexplained), sweep.found)


def look_ahead(
    assignment: Assignment, part: Part, routes: Routes, found: Integrated, segment: Segment
) -> Ahead:
    """Compute what leaves a segment of the steps."""
    with _turn:
        task = assignment.task(part)
        with failing_graphs(task.run):
            return joining.rows_ahead(task, routes, found, segment)


def leaving_of(ahead: Ahead) -> Leaving:
    """Return what leaves a segment: all that other workers need of it."""
    return ahead.leaving


def rows_of(ahead: Ahead) -> KeptRows:
    """Return the rows that a segment needs again."""
    return ahead.rows


def sweep_back(
    assignment: Assignment,
    part: Part,
    routes: Routes,
    found: Integrated,
    segment: Segment,
    later: Later | None = None,
    rows: KeptRows | None = None,
) -> Done:
    """Go back through a segment of the steps for some inputs.

    Parameters
    ----------
    assignment, part, routes
        The question, some of its inputs, and how it is computed.
    found : Integrated
        What the path sweep found of these inputs.
    segment : Segment
        The steps.
    later, rows
        What enters the segment from later steps, and the rows that it has computed for those before it.
    """
    with _turn:
        task = assignment.task(part)
        sweep = ReverseSweep(task, routes, found, segment, Joined(later, rows or {}))
        # Entries by use are within the segment, those by effect also after it.
        by_use = task.question.options.step_of == "use"
        first, stop = (segment.first, segment.stop) if by_use else (sweep.first_step, task.question.stop)
        return Done(_entries(task, sweep, first, stop), dict(task.replay.unexplained))


def respond(assignment: Assignment, part: Part, how: Differentiated) -> xr.Dataset:
    """Return the responses of some inputs."""
    with _turn:
        task, run = assignment.task(part), assignment.run()
        with failing_graphs(task.run):
            return responses(task, assignment.measured(part), how, lambda: run._retrainer, Progress(False))


def _entries(task: Task, sweep: Sweep, first: int, stop: int) -> BookPart:
    book = new_book(task, first_step=first, stop=stop)
    with failing_graphs(task.run):
        for entry in sweep.run(Progress(False)):
            book.add(entry)
    return book.written()
