"""Predictions of the trained model."""

from typing import Any

import numpy as np
import tensorflow as tf
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.ledgers.labels import output_labels
from explaind_tf.measurements import Measurement
from explaind_tf.replay.binding import constants_of, flat_point
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format import structure as struct
from explaind_tf.sweeps.task import Task

# Number of inputs that decide whether outputs are probabilities or logits.
_LOOKED_AT = 32
_SUM_TOLERANCE = 1e-3


def final_outputs(run: RecordedRun, x: Any, count: int = _LOOKED_AT) -> Any:
    """Return the trained model's outputs for the first inputs, nested as the model returns them."""
    last = len(run.steps)
    flat = [array[:count] for array in struct.as_batches(run.manifest.inputs, x, "inputs")]
    arguments = [*run.theta(last).values(), *run.step_store.state(last), *flat]
    forward = tf.function(lambda *tensors: run.graphs.functions.forward(*tensors), autograph=False)
    values = forward(*(tf.constant(value) for value in arguments))
    return struct.pack(run.manifest.outputs, [value.numpy() for value in values])


def final_values(task: Task, measurement: Measurement) -> xr.DataArray:
    """Return a measurement of the trained model, as it computes, dims (input, output)."""
    run, own = task.run, task.as_trained
    last = len(run.steps)
    state = run.step_store.state(last)
    point = flat_point(run, run.step_store.theta(last), state, own.model.dtype.as_numpy_dtype)
    constants = constants_of(run, state)
    blocks = [own.measurement.values(point, constants, block).numpy() for block in task.blocks]
    values = np.concatenate(blocks).astype(np.float64)
    inputs, outputs = values.shape
    coordinates = {names.INPUT: np.arange(inputs), names.OUTPUT: output_labels(measurement, outputs)}
    return xr.DataArray(values, coordinates, name=names.FINAL, attrs={"measurement": measurement.name})


def are_probabilities(values: np.ndarray) -> bool:
    """Whether each row is a distribution over two or more classes."""
    if values.ndim < 2 or values.shape[-1] < 2 or values.dtype.kind != "f":
        return False
    sums = values.sum(axis=-1, dtype=np.float64)
    return bool((values >= 0).all() and (np.abs(sums - 1) < _SUM_TOLERANCE).all())
