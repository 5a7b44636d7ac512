"""Counterfactual answers: how the end of training depends on the weights of samples."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.attribution.engine import most_tokens
from explaind_tf.attribution.predictions import final_values
from explaind_tf.attribution.streaming import fingerprint
from explaind_tf.errors import RefusedError
from explaind_tf.ledgers.responses import add_up, build_responses
from explaind_tf.ledgers.store import LedgerStore
from explaind_tf.levels import SAMPLE
from explaind_tf.measurements import Measurement
from explaind_tf.progress import Progress
from explaind_tf.questions.options import Options
from explaind_tf.replay.replay import Replay
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.retraining import Retrainer
from explaind_tf.runs.reweighted import ReweightedSteps
from explaind_tf.runs.storage.files import AnyPath
from explaind_tf.sweeps.response_sweep import BY, By, ResponseSweep
from explaind_tf.sweeps.task import Task

# Where to differentiate.
At = Literal["recorded", "halves"]
AT: Final = get_args(At)


@dataclass(frozen=True)
class Differentiated:
    """By what to differentiate, and where; see ``Run.counterfactual``."""

    by: By
    at: At
    repeats: int
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """What an answer depends on."""
        halves = {"repeats": self.repeats, "seed": self.seed} if self.at == "halves" else {}
        return {"by": self.by, "at": self.at} | halves


def responses(
    task: Task,
    measurement: Measurement,
    how: Differentiated,
    retrainer: Callable[[], Retrainer],
    progress: Progress,
) -> xr.Dataset:
    """Return the responses of a task: the mean over the trainings at which they are taken.

    Parameters
    ----------
    task : Task
        What is asked of the run.
    measurement : Measurement
        What is measured.
    how : Differentiated
        By what to differentiate, and where.
    retrainer : callable
        Returns what trains again, for the trainings on halves.
    progress : Progress
        Shows bars.

    Raises
    ------
    RefusedError
        If a step of the run cannot be differentiated.
    MemoryError
        If the answer would take more memory than is allowed.
    """
    # The task for each training, with the weight of each row of the sample store in it, None for 1.
    paths: Iterable[tuple[Task, np.ndarray | None]] = [(task, None)]
    if how.at == "halves":
        paths = at_halves(task, retrainer(), how.repeats, how.seed, progress)
    question, run = task.question, task.run
    lengths = response_lengths(task)
    total, count = np.zeros(()), 0
    for own, factors in paths:
        total = total + add_up(ResponseSweep(own, how.by, factors).run(progress), question, lengths)
        count += 1
    covers = "all steps" if task.steps == len(run.steps) else f"steps {question.first} to {question.stop - 1}"
    final = final_values(task, measurement)
    answer = build_responses(run, question, measurement, total / count, final)
    return answer.assign_attrs(by=how.by, covers=covers, at=how.at)


def check_response(run: RecordedRun, options: Options, by: By, at: At, repeats: int) -> None:
    """Refuse a question that has no response.

    Raises
    ------
    RefusedError
        If the run does not tell samples apart, or its optimizer keeps more for each weight than its law carries.
    ValueError
        If ``by``, ``at``, the number of repeats or the axes are not those of a response.
    """
    if by not in BY:
        raise ValueError(f"by must be one of {BY}; got {by!r}.")
    if at not in AT or repeats < 1:
        raise ValueError(f"at must be one of {AT}, and repeats 1 or more; got {at!r} and {repeats}.")
    if run.level != SAMPLE:
        raise RefusedError(
            f"{run!r} does not know the losses of samples, so how its end depends on them is not known. "
            f"{run.manifest.level_reason}"
        )
    if run.manifest.environment.get("replicas", 1) != 1 and any(
        spec.is_floating for spec in run.manifest.state
    ):
        raise RefusedError(
            f"{run!r} is a training of several replicas, each with state of its own, such as the moving averages of "
            f"BatchNormalization. The run holds that of the first one, so how its end depends on a sample is not known. "
            f"Train on one device, or without such layers."
        )
    if names.PARAMETER in options.kept:
        raise ValueError(
            f"A response is not split over single weights. Ask for {names.LAYER!r} instead of {names.PARAMETER!r}."
        )
    others = options.kept - {names.STEP}
    if by != "weight" and others:
        raise ValueError(
            f"by={by!r} is about steps, not about {', '.join(sorted(others))}. Write axes=({names.STEP!r},), "
            f"or axes=() for the sum over all steps."
        )
    if by == "weight" and not options.kept & {names.SAMPLE, names.GROUP}:
        raise ValueError(
            f"A response is by the weight of a sample or of a group. Add {names.SAMPLE!r} or {names.GROUP!r} to axes."
        )


def response_lengths(task: Task) -> dict[str, int]:
    """Return the lengths of the axes that a response may have, by name."""
    question, run = task.question, task.run
    return {
        names.INPUT: len(task.everything),
        names.OUTPUT: task.outputs,
        names.SAMPLE: len(run.samples.ids),
        names.GROUP: 0 if question.groups is None else len(question.groups.labels),
        names.TOKEN: most_tokens(task) if question.keeps_tokens else 0,
        names.LAYER: len(question.layers),
        names.STEP: task.steps,
    }


def respond_to(
    out: str | AnyPath,
    task: Task,
    how: Differentiated,
    answer: Callable[[Task], xr.Dataset],
    measurement: Measurement,
) -> xr.Dataset:
    """Answer a task block by block of inputs into a store. It goes on where an earlier call with the same task ended.

    Parameters
    ----------
    out : str, Path or UPath
        Of the store.
    task : Task
        What is asked.
    how : Differentiated
        By what to differentiate, and where.
    answer : callable
        Returns the responses of a part of the task.
    measurement : Measurement
        What is measured.

    Raises
    ------
    OtherWriterError
        If another attribution is writing there.
    ValueError
        If there is something else at the path.
    """
    with LedgerStore(out, fingerprint(task, measurement, counterfactual=how.identity)) as store:
        size = sum(len(piece.inputs) for piece in task.batches_of_pieces[0])
        for start in range(store.inputs_done, len(task.everything), size):
            store.append(answer(replace(task, everything=task.everything.take(slice(start, start + size)))))
        store.finish()
    found = store.open()
    assert isinstance(found, xr.Dataset)  # responses are not split over weights
    return found


def at_halves(
    task: Task, retrainer: Retrainer, repeats: int, seed: int, progress: Progress
) -> Iterator[tuple[Task, np.ndarray | None]]:
    """Yield the task for trainings on random halves of the samples, one after the other.

    Raises
    ------
    RefusedError
        If the training cannot be repeated with other weights.
    """
    recorded = task.recorded
    count, rng = len(task.run.samples.ids), np.random.default_rng(seed)
    for _ in range(repeats):
        chosen = rng.permutation(count) < count // 2
        factors = chosen[task.run.samples.id_of_row].astype(np.float64)
        # All of the run but its steps.
        run: Any = copy.copy(recorded.run)
        run.step_store = ReweightedSteps(recorded.run, retrainer, factors, progress)
        yield replace(task, run=run, replay=Replay(run, task.precisions, task.question.tolerance)), factors
