"""What the experiments' classifiers have in common: how they are compiled, fed, and accounted for."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xarray as xr

from explaind_tf.measurements import Measurement


def compiled(model: keras.Model, optimizer: Any, **options: Any) -> keras.Model:
    """Return the model, compiled with the cross-entropy of logits and classes; options are those of ``compile``."""
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return model


def shuffled(samples: tuple[Any, ...], seed: int) -> tf.data.Dataset:
    """Return samples, arrays or tuples of arrays, in a random order that is another in each epoch."""
    return tf.data.Dataset.from_tensor_slices(samples).shuffle(len(samples[0]), seed=seed)


def balanced_ledger(path: Any, x: np.ndarray, of: Measurement, **question: Any) -> xr.Dataset:
    """Return a ledger that was checked.

    Parameters
    ----------
    path : Run or Series
        What to account for: a recorded run, or a series of checkpoints.
    x : np.ndarray
        Inputs.
    of : Measurement
        What of the outputs.
    **question
        Axes, tolerance and all else that ``attribute`` takes.

    Raises
    ------
    UnbalancedLedgerError
        If it does not balance.
    """
    ledger = path.attribute(x, of, **question)
    assert isinstance(ledger, xr.Dataset)
    ledger.explaind.check()
    return ledger


def layer_name(path: str) -> str:
    """Return the name of a layer of the ledger, without those of the models that it is in."""
    return path.rsplit("/", 1)[-1]
