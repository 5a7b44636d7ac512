"""Functions that all experiments with classifiers use: compile, shuffle, account for."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xarray as xr

from explaind_tf.measurements import Measurement


def compiled(model: keras.Model, optimizer: Any, **options: Any) -> keras.Model:
    """Compile a model with the cross-entropy of logits and classes, and return it; options are those of ``compile``."""
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **options)
    return model


def shuffled(samples: tuple[Any, ...], seed: int) -> tf.data.Dataset:
    """Return samples (arrays or tuples of arrays) in a random order, another one in each epoch."""
    return tf.data.Dataset.from_tensor_slices(samples).shuffle(len(samples[0]), seed=seed)


def balanced_ledger(path: Any, x: np.ndarray, of: Measurement, **question: Any) -> xr.Dataset:
    """Return a ledger that passed ``check()``.

    Parameters
    ----------
    path : Run or Series
        A recorded run, or a series of checkpoints.
    x : np.ndarray
        Inputs.
    of : Measurement
        What is measured of the outputs.
    **question
        Axes, tolerance and other options of ``attribute``.

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
    """Return the name of a layer of the ledger, without the names of the models that contain it."""
    return path.rsplit("/", 1)[-1]
