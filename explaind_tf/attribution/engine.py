"""The engine: one task in, the entries of its ledger out."""

from dataclasses import dataclass, replace

import numpy as np

from explaind_tf.attribution.progress import Progress
from explaind_tf.ledgers.entries import Entries
from explaind_tf.sweeps.path import walk_path
from explaind_tf.sweeps.reverse import check_samples, walk_back
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.task import Task


@dataclass(frozen=True)
class Result:
    """What the engine found, without labels."""

    entries: Entries
    movement: np.ndarray
    nodes: int
    method: str


def answer(task: Task, routes: Routes, progress: Progress) -> Result:
    """Run the sweeps.

    Raises
    ------
    UnbalancedLedgerError
        If what was recorded does not explain the path.
    MemoryError
        If the entries would not fit into memory.
    """
    entries = new_entries(task, routes)
    walked = walk_path(task, routes, entries, progress)
    if routes.samples is not None:
        total = walk_back(task, routes, entries, walked.quadratures, progress)
        check_samples(task, entries, walked.samples_total + total)
    entries.close()
    nodes = sum(quadrature.node_count for quadrature in walked.quadratures.values())
    return Result(entries, walked.movement, nodes, routes.method)


def new_entries(task: Task, routes: Routes) -> Entries:
    """Return empty entries for a task."""
    question, run = task.question, task.run
    uses_earlier_steps = routes.samples is not None and question.step_of == "use"
    return Entries(
        question,
        inputs=len(task.everything),
        outputs=task.outputs,
        samples=len(run.samples.ids) if question.keeps_samples else 0,
        tokens=_most_tokens(task) if question.keeps_tokens else 0,
        groups=0 if question.groups is None else len(question.groups.labels),
        parts=task.derivatives.model.theta_size if question.keeps_parameters else len(question.layers),
        first_step=0 if uses_earlier_steps else question.first,
        stop_step=question.stop,
    )


def ledger_bytes(task: Task, routes: Routes) -> int:
    """Return the bytes of the entries of a task."""
    one = replace(task, everything=task.everything.take(slice(0, 1)))
    entries = new_entries(one, routes)
    return len(task.everything) * sum(array.nbytes for array in entries.arrays.values())


def _most_tokens(task: Task) -> int:
    """Return the largest number of positions that the loss of a sample has."""
    if task.run.graphs.token_count is not None:
        return task.run.graphs.token_count
    # It follows from the shapes: one look at each.
    tokens: dict[tuple[tuple[int, ...], ...], int] = {}
    for step in range(task.question.stop):
        transition = task.replay.transition(step)
        sample = task.run.samples.read(int(transition.rows[0]))
        arrays = (*sample.inputs, *sample.targets, *(weights[0] for weights in transition.weights))
        shapes = tuple(array.shape for array in arrays)
        if shapes not in tokens:
            segment, batch = task.replay.segment(transition), task.recorded.batch(transition)
            losses = task.derivatives.loss.token_values(segment.start, segment.constants, batch.part(0, 1))
            tokens[shapes] = int(losses.shape[1])
    return max(tokens.values())
