"""`OnWorkers`: answers with the workers of a Dask client.

A question is cut twice. The path sweep is cut over inputs: each input is integrated on its own. The reverse sweep goes
through the batches, whose passes all inputs share, so it is cut over the steps (:mod:`explaind_tf.sweeps.segments`). What
leaves one segment of steps enters the segment before it (:mod:`explaind_tf.sweeps.joining`): workers send it to each other.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.attribution.counterfactual import Differentiated
from explaind_tf.attribution.engine import close, new_book
from explaind_tf.attribution.workers.assignment import Assignment, Part
from explaind_tf.attribution.workers.jobs import (
    choose_here,
    leaving_of,
    look_ahead,
    respond,
    rows_of,
    sweep_back,
    sweep_path,
)
from explaind_tf.errors import WorkersError
from explaind_tf.ledgers.book import total_memory
from explaind_tf.measurements import Measurement
from explaind_tf.progress import Progress
from explaind_tf.sweeps.choose import sweeps_of
from explaind_tf.sweeps.joining import enter
from explaind_tf.sweeps.path_sweep import Integrated
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.segments import segments_of
from explaind_tf.sweeps.task import Task

# Share of a worker's memory that a computation may take beside its ledger.
_MEMORY_SHARE = 0.5
# While jobs run, it is looked so often whether there are workers, and so many times in vain before they are given up.
_LOOK_SECONDS = 10
_PATIENCE = 6


@dataclass(frozen=True)
class Job:
    """A function of :mod:`explaind_tf.attribution.workers.jobs`, and its arguments after the assignment.

    Jobs among the arguments stand for what they return. It is moved from worker to worker, and does not come here.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    needs_assignment: bool = True


class OnWorkers:
    """Computes answers with the workers of a client.

    Parameters
    ----------
    client : dask.distributed.Client
        The client.
    opener : partial
        Opens the run, on a worker.

    Raises
    ------
    TypeError
        If it is no client, or an asynchronous one.
    """

    def __init__(self, client: Any, opener: "partial[Any]") -> None:
        from dask.distributed import Client

        if not isinstance(client, Client) or client.asynchronous:
            raise TypeError(
                f"client must be a dask.distributed.Client that is not asynchronous; got {type(client).__name__}. Make one "
                f"by Client(n_workers=4, threads_per_worker=1)."
            )
        self._client, self._opener = client, opener

    def choose(self, task: Task, measurement: Measurement) -> Routes:
        """Decide how a task is computed, on one of the workers."""
        sent = self._assignment(self._shared(task), measurement)
        (routes,) = self._results("choose how it is computed", [Job(choose_here)], sent)
        return routes

    def answer(
        self, task: Task, measurement: Measurement, routes: Routes, progress: Progress
    ) -> xr.Dataset | xr.DataTree:
        """Share the sweeps out and return the ledger of their entries.

        Raises
        ------
        WorkersError
            If a part could not be computed.
        """
        shared = self._shared(task)
        sent, sweeps = self._assignment(shared, measurement), sweeps_of(shared, routes)
        book = new_book(shared, first_step=min(sweep.first_step for sweep in sweeps))
        parts = self._parts(len(shared.everything))
        jobs = [Job(sweep_path, (part, routes)) for part in parts]
        with progress.task("Path sweep, by inputs", len(jobs)) as advance:
            done = self._results("integrate inputs", jobs, sent, advance)
        for part, own in zip(parts, done, strict=True):
            book.add_part(own.entries, part.inputs)
            shared.replay.unexplained.update(own.unexplained)
        whole = replace(shared, cuts=tuple(part.inputs.start for part in parts[1:]))
        found = Integrated.joined([own.found for own in done], _block_counts(shared, parts))
        if routes.samples is not None:
            jobs = self._jobs_back(whole, routes, found)
            with progress.task("Reverse sweep, by steps", len(jobs)) as advance:
                done = self._results("go back through steps", jobs, sent, advance)
            for own in done:
                book.add_part(own.entries, slice(None))
                shared.replay.unexplained.update(own.unexplained)
        return close(whole, measurement, sweeps, book, found)

    def responses(
        self, task: Task, measurement: Measurement, how: Differentiated, progress: Progress
    ) -> xr.Dataset:
        """Share the inputs out and return the responses of all.

        Raises
        ------
        WorkersError
            If a part could not be computed.
        """
        sent = self._assignment(self._shared(task), measurement)
        jobs = [Job(respond, (part, how)) for part in self._parts(len(task.everything))]
        with progress.task("Responses, by inputs", len(jobs)) as advance:
            found = self._results("differentiate training", jobs, sent, advance)
        joined = xr.concat(
            found, names.INPUT, data_vars="minimal", coords="minimal", compat="override", join="override"
        )
        return joined.assign_coords({names.INPUT: np.arange(len(task.everything))})

    def _jobs_back(self, task: Task, routes: Routes, found: Integrated) -> list[Job]:
        """Return a job for each segment of the reverse sweep, the first steps first."""
        everything = Part(slice(0, len(task.everything)), task.cuts)
        jobs: list[Job] = []
        later: Job | None = None
        segments = segments_of(task, self._count)
        for segment in reversed(segments):
            asked = everything, routes, found.of_steps(segment.first, segment.begin), segment
            if task.question.options.step_of == "effect" or len(segments) == 1:
                jobs.append(Job(sweep_back, asked))
                continue
            if segment is segments[0]:  # nothing is before it
                jobs.append(Job(sweep_back, (*asked, later)))
                continue
            ahead = Job(look_ahead, asked)
            jobs.append(Job(sweep_back, (*asked, later, _alone(rows_of, ahead))))
            later = _alone(enter, _alone(leaving_of, ahead), later)
        return jobs[::-1]

    def _shared(self, task: Task) -> Task:
        """Return a task with options that mean the same in every process."""
        limit = min(limit or total_memory() / self._count for limit in self._memory_limits)
        question = task.question
        options = replace(
            question.options,
            steps=range(question.first, question.stop),
            memory_limit=question.options.memory_limit or max(1, int(limit * _MEMORY_SHARE)),
        )
        return replace(task, question=replace(question, options=options))

    def _assignment(self, shared: Task, measurement: Measurement) -> Assignment:
        run: Any = shared.run
        sizes = shared.question.stop, len(run.samples)
        return Assignment(
            self._opener, run.run_id, *sizes, shared.everything, measurement, shared.question.options
        )

    def _parts(self, inputs: int) -> list[Part]:
        """Return the inputs in about equal parts, one for each worker."""
        bounds = np.linspace(0, inputs, min(self._count, inputs) + 1).round().astype(int).tolist()
        return [Part(slice(start, stop)) for start, stop in itertools.pairwise(bounds)]

    @property
    def _count(self) -> int:
        return len(self._memory_limits)

    @cached_property
    def _memory_limits(self) -> list[int]:
        """The bytes that each worker may take, 0 for no limit.

        They are asked once: an answer is cut in the same way to its end, also if workers leave or come.

        Raises
        ------
        WorkersError
            If there are no workers.
        """
        with _told(self._client, "look for workers"):
            found = self._client.scheduler_info(-1)["workers"].values()
        if not found:
            raise WorkersError(f"{self._client!r} has no workers. Start some, then ask again.")
        return [worker["memory_limit"] for worker in found]

    def _results(
        self, what: str, jobs: list[Job], assignment: Assignment, advance: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """Return what jobs found, in their order."""
        client = self._client
        # As the result of a task, it is computed again if the worker that holds it ends.
        sent = client.submit(_same, assignment, pure=False)
        submitted: dict[int, Any] = {}  # a job may be an argument of several

        def submit(job: Job) -> Any:
            if id(job) not in submitted:
                arguments = [submit(one) if isinstance(one, Job) else one for one in job.arguments]
                first = [sent] if job.needs_assignment else []
                submitted[id(job)] = client.submit(job.function, *first, *arguments, pure=False)
            return submitted[id(job)]

        futures = [submit(job) for job in jobs]
        try:
            with _told(client, what):
                waiting = set(futures)
                while waiting:
                    done = self._next(waiting)
                    for future in done:
                        self._raise_from(
                            future, f"asked to {what}, part {futures.index(future) + 1} of {len(jobs)}"
                        )
                        advance()
                    waiting -= done
                return list(client.gather(futures))
        finally:
            client.cancel([sent, *submitted.values()])

    def _raise_from(self, future: Any, where: str) -> None:
        """Raise what a job raised, if it did."""
        if (error := future.exception()) is not None:
            error.add_note(f"It was raised by a worker of {self._client!r}, {where}.")
            raise error

    def _next(self, waiting: set[Any]) -> set[Any]:
        """Wait for some of the futures and return those that are done. Without workers they never would be."""
        from dask.distributed import wait

        missing = 0
        while True:
            try:
                return set(wait(waiting, timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED").done)
            except TimeoutError:
                is_alone = not self._client.scheduler_info(-1)["workers"]
            missing = missing + 1 if is_alone else 0
            if missing > _PATIENCE:
                raise WorkersError(
                    f"All workers of {self._client!r} are gone, and none came back within {_PATIENCE * _LOOK_SECONDS} "
                    f"seconds. Start some, then ask again."
                )


def _same(assignment: Assignment) -> Assignment:
    return assignment


def _alone(function: Callable[..., Any], *arguments: Any) -> Job:
    """Return a job that needs no run."""
    return Job(function, arguments, needs_assignment=False)


def _block_counts(task: Task, parts: list[Part]) -> list[int]:
    return [len(replace(task, everything=task.everything.take(part.inputs)).blocks) for part in parts]


@contextmanager
def _told(client: Any, what: str) -> Iterator[None]:
    """Turn errors of the cluster into one that says what could not be done. Errors of a job stay what they are."""
    from dask.distributed import CancelledError, KilledWorker
    from distributed.comm import CommClosedError

    try:
        yield
    except KilledWorker as error:
        raise WorkersError(
            f"The workers of {client!r} could not {what}: several ended in the middle of the same part, most often for want "
            f"of memory. Give workers more memory, or pass a lower memory_limit. {error}"
        ) from error
    except (CancelledError, CommClosedError) as error:
        raise WorkersError(
            f"{client!r} could not {what}: the connection to the scheduler or its workers was lost. With out= the answer is "
            f"written block by block, and the same call goes on where this one ended. {type(error).__name__}: {error}"
        ) from error
