"""The inputs that a model declares."""

from typing import Any

import keras
import numpy as np

from explaind_tf.errors import RefusedError
from explaind_tf.runs.format.structure import Leaf, Structure


def input_structure(model: keras.Model, inputs: Any, way_on: str) -> Structure:
    """Return the structure of one input of a model, from some inputs, or as the model declares it if they are None.

    Parameters
    ----------
    model : keras.Model
        Built.
    inputs : array or nested structure of arrays, or None
        Some inputs with a batch dimension.
    way_on : str
        What to write if neither is there.

    Raises
    ------
    RefusedError
        If neither is there.
    """
    if inputs is not None:
        return _structure(inputs)
    if not declares_inputs(model):
        raise RefusedError(
            f"The model {model.name!r} does not declare its inputs, as subclassed models do not. {way_on}"
        )
    return _structure(model.inputs[0] if isinstance(model, keras.Sequential) else model.input)


def declares_inputs(model: keras.Model) -> bool:
    """Return whether a model says what its inputs are."""
    return bool(model.inputs) if isinstance(model, keras.Sequential) else hasattr(model, "input_shape")


def _structure(value: Any) -> Structure:
    """Return the structure of a batch, of arrays or symbolic tensors."""
    if isinstance(value, dict):
        return {str(key): _structure(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return type(value)(_structure(part) for part in value)
    tensor = value if isinstance(value, keras.KerasTensor) else np.asarray(value)
    return Leaf(str(tensor.dtype), tuple(tensor.shape[1:]))
