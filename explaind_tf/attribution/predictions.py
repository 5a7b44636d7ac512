"""Predictions of the trained model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.ledgers.labels import output_labels
from explaind_tf.measurements import Measurement
from explaind_tf.replay.binding import constants_of, flat_point
from explaind_tf.runs import WeightPath
from explaind_tf.runs.format import structure as struct
from explaind_tf.sweeps.task import Task

# Number of inputs that decide whether outputs are probabilities or logits.
_LOOKED_AT = 32
_SUM_TOLERANCE = 1e-3


def final_outputs(run: WeightPath, x: Any, count: int = _LOOKED_AT) -> Any:
    """Return the trained model's outputs for the first inputs, nested as the model returns them."""
    flat = [array[:count] for array in struct.as_batches(run.manifest.inputs, x, "inputs")]
    return outputs_at(run, flat, [len(run.steps)])[0]


def outputs_at(
    run: WeightPath, flat: Sequence[np.ndarray], steps: Sequence[int], block: int | None = None
) -> list[Any]:
    """Return the model's outputs before some steps, nested as the model returns them.

    Parameters
    ----------
    run : WeightPath
        The run.
    flat : sequence of np.ndarray
        Inputs, flat as the model's graphs take them.
    steps : sequence of int
        The steps; ``len(run.steps)`` stands for the trained model.
    block : int, optional
        Inputs at once; by default all.
    """
    forward = tf.function(lambda *tensors: run.graphs.functions.forward(*tensors), autograph=False)
    count = len(flat[0])
    found = []
    for step in steps:
        weights = [tf.constant(v) for v in (*run.theta(step).values(), *run.step_store.state(step))]
        blocks = []
        for start in range(0, count, block or count):
            part = [tf.constant(array[start : start + (block or count)]) for array in flat]
            blocks.append([value.numpy() for value in forward(*weights, *part)])
        joined = [np.concatenate(parts) for parts in zip(*blocks, strict=True)]
        found.append(struct.pack(run.manifest.outputs, joined))
    return found


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
