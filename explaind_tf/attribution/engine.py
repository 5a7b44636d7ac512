"""The engine: runs the sweeps of a task and adds up the entries of its ledger."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import xarray as xr

from explaind_tf import constants as names
from explaind_tf.attribution.diagnosis import diagnose
from explaind_tf.ledgers.book import Book
from explaind_tf.ledgers.ledger import Result, build_ledger
from explaind_tf.measurements import Measurement
from explaind_tf.progress import Progress
from explaind_tf.sweeps.choose import choose_routes, sweeps_of
from explaind_tf.sweeps.path_sweep import Integrated
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.sweep import Sweep
from explaind_tf.sweeps.task import Task


class Answerer(Protocol):
    """Who computes an answer: this process, or others for it."""

    def choose(self, task: Task, measurement: Measurement) -> Routes:
        """Decide how a task is computed."""
        ...

    def answer(
        self, task: Task, measurement: Measurement, routes: Routes, progress: Progress
    ) -> xr.Dataset | xr.DataTree:
        """Run the sweeps and return the ledger of their entries.

        Raises
        ------
        UnbalancedLedgerError
            If the record does not explain the path.
        MemoryError
            If the entries would take more memory than is allowed.
        """
        ...


class ThisProcess:
    """Computes answers here."""

    def choose(self, task: Task, measurement: Measurement) -> Routes:
        """Decide how a task is computed."""
        return choose_routes(task)

    def answer(
        self, task: Task, measurement: Measurement, routes: Routes, progress: Progress
    ) -> xr.Dataset | xr.DataTree:
        """Run the sweeps and return the ledger of their entries."""
        return answer(task, measurement, routes, progress)


def answer(
    task: Task, measurement: Measurement, routes: Routes, progress: Progress
) -> xr.Dataset | xr.DataTree:
    """Run the sweeps and return the ledger of their entries; see :class:`Answerer`."""
    sweeps = sweeps_of(task, routes)
    book = new_book(task, first_step=min(sweep.first_step for sweep in sweeps))
    for sweep in sweeps:
        for entry in sweep.run(progress):
            book.add(entry)
    return close(task, measurement, sweeps, book, sweeps[0].found)


def close(
    task: Task, measurement: Measurement, sweeps: Sequence[Sweep], book: Book, found: Integrated
) -> xr.Dataset | xr.DataTree:
    """Return the ledger of a book with the entries of all sweeps.

    Parameters
    ----------
    task : Task
        The task. Its replay knows the steps that the law does not explain.
    measurement : Measurement
        What is measured.
    sweeps : sequence of Sweep
        The sweeps.
    book : Book
        Their entries.
    found : Integrated
        What the path sweep found.
    """
    book.close()
    diagnosis = diagnose(task, measurement, found, book.total(names.RESIDUAL))
    unexplained = tuple(sorted(task.replay.unexplained))
    result = Result(book, found.movement, found.node_count, method_of(sweeps), unexplained, diagnosis)
    return build_ledger(task.run, task.question, measurement, result)


def method_of(sweeps: Sequence[Sweep]) -> str:
    """Return the sweeps in words."""
    return ", ".join(sweep.name for sweep in sweeps)


def new_book(task: Task, *, first_step: int, stop: int | None = None) -> Book:
    """Return an empty book for entries of the steps ``first_step … stop − 1``; by default up to the question's last."""
    question, run = task.question, task.run
    parts = task.derivatives.model.theta_size if question.keeps_parameters else len(question.layers)
    lengths = {
        names.INPUT: len(task.everything),
        names.OUTPUT: task.outputs,
        names.SAMPLE: len(run.samples.ids) if question.keeps_samples else 0,
        names.TOKEN: most_tokens(task) if question.keeps_tokens else 0,
        names.GROUP: 0 if question.groups is None else len(question.groups.labels),
        names.LAYER: parts,
        names.PARAMETER: parts,
    }
    return Book(question, lengths, first_step, stop)


def ledger_bytes(task: Task, routes: Routes) -> int:
    """Return the bytes of the entries of a task."""
    one = replace(task, everything=task.everything.take(slice(0, 1)))
    first_step = min(sweep.first_step for sweep in sweeps_of(one, routes))
    return len(task.everything) * new_book(one, first_step=first_step).byte_count


def most_tokens(task: Task) -> int:
    """Return the largest number of positions that the loss of a sample has."""
    if task.run.graphs.token_count is not None:
        return task.run.graphs.token_count
    # The count follows from the shapes: one sample of each shape is enough.
    tokens: dict[tuple[tuple[int, ...], ...], int] = {}
    for number in range(task.question.stop):
        step = task.replay.step(number)
        if not len(step.transition.rows):
            continue
        sample = task.run.samples.read(int(step.transition.rows[0]))
        arrays = (*sample.inputs, *sample.targets, *(weights[0] for weights in step.transition.weights))
        shapes = tuple(array.shape for array in arrays)
        if shapes not in tokens:
            part = task.recorded.gradients.batch(step).part(0, 1)
            losses = task.derivatives.loss.token_values(step.path.start, step.path.constants, part)
            tokens[shapes] = int(losses.shape[1])
    return max(tokens.values())
