"""What the trained model predicts."""

from typing import Any

import numpy as np
import tensorflow as tf

from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format import structure as struct

# Inputs that are looked at to tell probabilities from logits.
_LOOKED_AT = 32
_SUM_TOLERANCE = 1e-3


def final_outputs(run: RecordedRun, x: Any, count: int = _LOOKED_AT) -> Any:
    """Return what the trained model returns for the first inputs, nested as it does."""
    last = len(run.steps)
    flat = [array[:count] for array in struct.as_batches(run.manifest.inputs, x, "inputs")]
    arguments = [*run.theta(last).values(), *run.step_store.state(last), *flat]
    forward = tf.function(lambda *tensors: run.graphs.forward(*tensors), autograph=False)
    values = forward(*(tf.constant(value) for value in arguments))
    return struct.pack(run.manifest.outputs, [value.numpy() for value in values])


def are_probabilities(values: np.ndarray) -> bool:
    """Tell whether each row is a distribution over two classes or more."""
    if values.ndim < 2 or values.shape[-1] < 2 or values.dtype.kind != "f":
        return False
    sums = values.sum(axis=-1, dtype=np.float64)
    return bool((values >= 0).all() and (np.abs(sums - 1) < _SUM_TOLERANCE).all())
