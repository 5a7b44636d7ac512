"""What a worker does: pure functions of an assignment and a part of it.

A process does one job at a time. TensorFlow spreads it over the process's threads.
"""

import threading
from dataclasses import dataclass

from explaind_tf.attribution.engine import new_book
from explaind_tf.attribution.failing_graphs import failing_graphs
from explaind_tf.attribution.workers.assignment import Assignment, Part
from explaind_tf.ledgers.book import BookPart
from explaind_tf.progress import Progress
from explaind_tf.sweeps.choose import choose_routes
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


def sweep_back(
    assignment: Assignment, part: Part, routes: Routes, found: Integrated, segment: Segment
) -> Done:
    """Go back through a segment of the steps for some inputs, of which the path sweep found something."""
    with _turn:
        task = assignment.task(part)
        sweep = ReverseSweep(task, routes, found, segment)
        # Entries by use are within the segment, those by effect also after it.
        by_use = task.question.options.step_of == "use"
        first, stop = (segment.first, segment.stop) if by_use else (sweep.first_step, task.question.stop)
        return Done(_entries(task, sweep, first, stop), dict(task.replay.unexplained))


def _entries(task: Task, sweep: Sweep, first: int, stop: int) -> BookPart:
    book = new_book(task, first_step=first, stop=stop)
    with failing_graphs(task.run):
        for entry in sweep.run(Progress(False)):
            book.add(entry)
    return book.written()
