"""Counterfactual answers: how the end of training depends on the weights of samples."""

import xarray as xr

from explaind_tf import constants as names
from explaind_tf.attribution.engine import most_tokens
from explaind_tf.attribution.predictions import final_values
from explaind_tf.errors import RefusedError
from explaind_tf.ledgers.responses import add_up, build_responses
from explaind_tf.levels import SAMPLE
from explaind_tf.measurements import Measurement
from explaind_tf.progress import Progress
from explaind_tf.questions.options import Options
from explaind_tf.runs import RecordedRun
from explaind_tf.sweeps.response_sweep import BY, By, ResponseSweep
from explaind_tf.sweeps.task import Task


def check_response(run: RecordedRun, options: Options, by: By) -> None:
    """Refuse a question that has no response.

    Raises
    ------
    RefusedError
        If the run does not tell samples apart.
    ValueError
        If ``by`` or the axes are not those of a response.
    """
    if by not in BY:
        raise ValueError(f"by must be one of {BY}; got {by!r}.")
    if run.level != SAMPLE:
        raise RefusedError(
            f"{run!r} does not know the losses of samples, so how its end depends on them is not known. "
            f"{run.manifest.level_reason}"
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


def respond(task: Task, measurement: Measurement, by: By, progress: Progress) -> xr.Dataset:
    """Return the responses of a task.

    Raises
    ------
    RefusedError
        If a step of the run cannot be differentiated.
    MemoryError
        If the answer would take more memory than is allowed.
    """
    question, run = task.question, task.run
    lengths = {
        names.INPUT: len(task.everything),
        names.OUTPUT: task.outputs,
        names.SAMPLE: len(run.samples.ids),
        names.GROUP: 0 if question.groups is None else len(question.groups.labels),
        names.TOKEN: most_tokens(task) if question.keeps_tokens else 0,
        names.LAYER: len(question.layers),
        names.STEP: task.steps,
    }
    values = add_up(ResponseSweep(task, by).run(progress), question, lengths)
    covers = "all steps" if task.steps == len(run.steps) else f"steps {question.first} to {question.stop - 1}"
    answer = build_responses(run, question, measurement, values, final_values(task, measurement))
    return answer.assign_attrs(by=by, covers=covers)
