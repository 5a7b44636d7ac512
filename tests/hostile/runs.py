"""The runs that are changed: small, and with everything that a record can hold."""

from pathlib import Path

import keras
import numpy as np

import explaind_tf as xtf
from tests.helpers import X, Y, batches, dense_model, fit


def plain(run_dir: Path) -> None:
    """Record three steps, with ids, statistics and seeds."""
    layers = keras.layers
    model = dense_model(
        layers.Dense(3, activation="tanh"),
        layers.BatchNormalization(),
        layers.Dropout(0.2, seed=1),
        layers.Dense(2),
    )
    model.compile(xtf.PathAdamW(0.01, weight_decay=0.1), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False, retrain=False)
    ids = np.array([f"sample {i}" for i in range(10)])
    fit(model, logger.tap(batches(ids, (X, Y))), logger)


def keyframes(run_dir: Path) -> None:
    """Record six steps with keyframes, weights of samples, clipping, accumulated gradients and changes by a callback."""
    model = dense_model(
        keras.layers.Dense(3, activation="tanh", kernel_regularizer="l2"), keras.layers.Dense(2)
    )
    optimizer = xtf.PathSGD(0.05, momentum=0.9, clipnorm=0.5, gradient_accumulation_steps=2)
    model.compile(optimizer, loss="mse")
    logger = xtf.PathLogger(run_dir, verbose=False, every=2, retrain=True)
    weights = np.linspace(0.5, 1.5, len(X), dtype="float32")
    fit(model, logger.tap(batches(X, Y, weights)), logger, _Shift(), epochs=2)


class _Shift(keras.callbacks.Callback):
    """Sets weights between the epochs."""

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        variable = self.model.trainable_variables[-1]
        variable.assign(variable + 0.01)


RUNS = {"plain": plain, "keyframes": keyframes}
