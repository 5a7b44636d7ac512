"""Rows for the learning rate, and for how samples reach a step."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tests.contract.rows.arrays import LABELS, WEIGHTS, X, Y
from tests.contract.rows.row import Row
from tests.contract.rows.small_models import dense

losses, schedules = keras.losses, keras.optimizers.schedules


class SetsRate(keras.callbacks.Callback):
    """Halves the learning rate after the fourth step, in the middle of an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == 4:
            self.model.optimizer.learning_rate.assign(0.01)


def learning_rates() -> Iterator[Row]:
    """Everything that sets a learning rate."""
    rates: dict[str, Any] = {
        "float": lambda: 0.05,
        "CosineDecay": lambda: schedules.CosineDecay(0.05, 9, warmup_steps=2, warmup_target=0.1),
        "CosineDecayRestarts": lambda: schedules.CosineDecayRestarts(0.05, 4),
        "ExponentialDecay": lambda: schedules.ExponentialDecay(0.05, 3, 0.7),
        "InverseTimeDecay": lambda: schedules.InverseTimeDecay(0.05, 3, 0.7),
        "PiecewiseConstantDecay": lambda: schedules.PiecewiseConstantDecay([3, 6], [0.05, 0.02, 0.01]),
        "PolynomialDecay": lambda: schedules.PolynomialDecay(0.05, 9),
        "callable": lambda: lambda: 0.05,
    }
    for name, rate in rates.items():
        yield Row("learning rate", name, dense, options=lambda rate=rate: {"learning_rate": rate()})
    callbacks = {
        "LearningRateScheduler": lambda: [
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 / (epoch + 1))
        ],
        "ReduceLROnPlateau": lambda: [keras.callbacks.ReduceLROnPlateau("loss", min_delta=10.0, patience=0)],
        "callback that sets it mid-epoch": lambda: [SetsRate()],
    }
    for name, made in callbacks.items():
        yield Row("learning rate", name, dense, callbacks=made)


def batches() -> Iterator[Row]:
    """Batch sizes, repeated and weighted samples, and steps per execution and per epoch."""
    yield Row("batches", "ragged tail", dense)
    twice = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5, 6])
    yield Row("batches", "repeated sample in a batch", dense, arrays=lambda: (X[twice], Y[twice]))
    yield Row("batches", "sample weights", dense, arrays=lambda: (X, Y, WEIGHTS))
    labelled: dict[str, Any] = {
        "arrays": lambda: (X, LABELS),
        "compile": lambda: {"loss": losses.SparseCategoricalCrossentropy(from_logits=True)},
    }
    weights = {0: 0.5, 1: 3.0}
    yield Row("batches", "class weights, given to tap()", dense, **labelled, tap={"class_weight": weights})
    yield Row(
        "batches", "class weights, given to fit()", dense, **labelled, fit=lambda: {"class_weight": weights}
    )
    for count in (1, 4):
        spe = {"compile": lambda count=count: {"loss": "mse", "steps_per_execution": count}}
        yield Row("batches", f"steps_per_execution={count}", dense, **spe)
    repeated = {"wrap": lambda dataset: dataset.repeat(), "fit": lambda: {"steps_per_epoch": 2}}
    yield Row("batches", "steps_per_epoch < epoch", dense, **repeated)
