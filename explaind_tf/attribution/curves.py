"""The training curves: loss and learning rate by step."""

import numpy as np
import tensorflow as tf
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.errors import RefusedError
from explaind_tf.progress import Progress
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.graphs.loaded import Graphs


def training_curves(run: RecordedRun, progress: Progress) -> xr.Dataset:
    """Return loss and learning rate of each step.

    Learning rates are recorded. Losses are not. The loss of a step is one forward pass of its batch in training mode, with
    the weights before the step and with dropout and sample weights as they were.

    Parameters
    ----------
    run : RecordedRun
        The run, whose samples are read.
    progress : Progress
        Shows a bar.

    Returns
    -------
    xarray.Dataset
        ``loss`` (Keras' loss of the batch, including ``model.losses``) and ``learning_rate`` (0 if the step updated
        nothing, as when gradients are accumulated), dims (step,).
    """
    if not isinstance(run.graphs, Graphs):
        raise RefusedError(
            f"{run!r} does not hold the losses of its training, so they cannot be computed again: "
            f"{run.manifest.level_reason}"
        )
    functions = run.graphs.loss_functions()
    has_penalty = bool(run.manifest.loss.get("has_regularizer"))
    loss, rate = np.zeros(len(run.steps)), np.zeros(len(run.steps))
    with progress.task("Training curves", len(run.steps)) as advance:
        for step in run.steps.tolist():
            known = run.step_store.transition(step)
            inputs, targets = run.samples.take_flat(known.rows)
            parameters = [*_split(run, known.theta_start), *known.state_start]
            batch = [*parameters, *inputs, *targets, *known.weights]
            scales = functions.loss_scales(*map(tf.constant, batch))[0]
            losses = functions.sample_losses(*map(tf.constant, batch), scales)[0]
            loss[step] = float(tf.reduce_sum(losses))
            if has_penalty:
                loss[step] += float(functions.penalty(*map(tf.constant, [*parameters, *inputs]))[0])
            rate[step] = known.learning_rate
            advance()
    return xr.Dataset(
        {
            "loss": (names.STEP, loss, {"long_name": "loss of the step's batch, before the step"}),
            "learning_rate": (names.STEP, rate, {"long_name": "learning rate of the step"}),
        },
        {names.STEP: run.steps},
    )


def _split(run: RecordedRun, theta: np.ndarray) -> list[np.ndarray]:
    pieces = np.split(theta, np.cumsum([variable.size for variable in run.variables])[:-1])
    return [piece.reshape(v.shape) for piece, v in zip(pieces, run.variables, strict=True)]
