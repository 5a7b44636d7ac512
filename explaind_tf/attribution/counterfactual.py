"""Counterfactual answers: what the end of training would have been with other weights of samples, to first order."""

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.attribution.engine import most_tokens
from explaind_tf.ledgers.responses import add_up, build_responses
from explaind_tf.measurements import Measurement
from explaind_tf.progress import Progress
from explaind_tf.sweeps.response_sweep import ResponseSweep
from explaind_tf.sweeps.task import Task


def respond(task: Task, measurement: Measurement, progress: Progress) -> xr.Dataset:
    """Return the responses of a task.

    Raises
    ------
    RefusedError
        If a step of the run cannot be differentiated.
    MemoryError
        If the answer would take more memory than is allowed.
    """
    question, run = task.question, task.run
    sweep = ResponseSweep(task)
    lengths = {
        names.INPUT: len(task.everything),
        names.OUTPUT: task.outputs,
        names.SAMPLE: len(run.samples.ids),
        names.GROUP: 0 if question.groups is None else len(question.groups.labels),
        names.TOKEN: most_tokens(task) if question.keeps_tokens else 0,
        names.STEP: task.steps,
    }
    values = add_up(sweep.run(progress), question, lengths)
    point = task.replay.end(len(run.steps))
    final = [task.as_trained.measurement.values(*point, block).numpy() for block in task.blocks]
    return build_responses(run, question, measurement, values, np.concatenate(final).astype(np.float64))
