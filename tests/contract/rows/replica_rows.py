"""Rows for several replicas under a strategy: what differs from one to another, and what Keras adds up over them."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import keras
import tensorflow as tf

from tests.contract.rows.arrays import TOKENS, WEIGHTS, X, Y
from tests.contract.rows.row import WITH, Row, options_of
from tests.contract.rows.small_models import dense, over

layers, assert_cardinality = keras.layers, tf.data.experimental.assert_cardinality


@cache
def strategy_of(count: int) -> tf.distribute.Strategy:
    """Return the strategy of some replicas, one in a process: TensorFlow mixes up the sums of several."""
    return tf.distribute.MirroredStrategy([f"CPU:{k}" for k in range(count)])


def mirrored(count: int = 2) -> contextlib.AbstractContextManager[Any]:
    """Return the scope of the strategy of some replicas."""
    return strategy_of(count).scope()


class Remembers(layers.Layer):
    """Subtracts the running average of its inputs, in training too."""

    def build(self, shape: Any) -> None:
        self.average = self.add_weight(shape=(shape[-1],), initializer="zeros", trainable=False)

    def call(self, x: Any, training: bool = False) -> Any:
        if training:
            self.average.assign(0.9 * self.average + 0.1 * keras.ops.mean(x, axis=0))
        return x - self.average


def replicas() -> Iterator[Row]:
    """Trainings by two or three replicas on logical CPUs. The last batch of an epoch is a partial one."""
    family = "several replicas"
    base = Row(family, "MirroredStrategy on two logical CPUs", dense, scope=mirrored, logical_devices=2)
    yield base

    def alike(name: str, **others: Any) -> Row:
        return replace(base, name=f"MirroredStrategy: {name}", **others)

    penalised = lambda: dense(layers.Dense(4, "tanh", kernel_regularizer=keras.regularizers.L2(0.1)))  # noqa: E731
    # Keras takes no first batch of which replicas get different numbers of samples. Of the last batch, the third gets none.
    sixes = lambda dataset: dataset.unbatch().batch(6).apply(assert_cardinality(2))  # noqa: E731
    yield alike("three replicas", scope=lambda: mirrored(3), logical_devices=3, wrap=sixes)
    yield alike(
        "three replicas, kernel regulariser",
        model=penalised,
        scope=lambda: mirrored(3),
        logical_devices=3,
        wrap=sixes,
        terms=WITH["regularizer"],
    )
    weighted = {"arrays": lambda: (X, Y, WEIGHTS)}
    yield alike("sample weights", **weighted)
    for reduction in ("sum", "mean_with_sample_weight"):
        loss = lambda r=reduction: {"loss": keras.losses.MeanSquaredError(reduction=r)}  # noqa: E731
        yield alike(f"reduction={reduction!r}", compile=loss, **weighted)
    yield alike("kernel regulariser", model=penalised, terms=WITH["regularizer"])
    activity = lambda: dense(layers.Dense(4, "tanh", activity_regularizer=keras.regularizers.L2(0.1)))  # noqa: E731
    yield alike("activity regulariser", model=activity, terms=WITH["regularizer"])
    yield alike("dropout", model=lambda: dense(layers.Dense(8, "tanh"), layers.Dropout(0.5, seed=1)))
    normalised = lambda: dense(layers.Dense(4), layers.BatchNormalization(), layers.Activation("tanh"))  # noqa: E731
    yield alike("BatchNorm in training mode", model=normalised, terms=WITH["state"], most_rounding=1e-10)
    embedded = lambda: over((4,), layers.Embedding(5, 2), dtype="int32")  # noqa: E731
    yield alike("Embedding", model=embedded, arrays=lambda: (TOKENS, Y))
    bounded = lambda: dense(layers.Dense(4, "tanh", kernel_constraint=keras.constraints.MaxNorm(0.5)))  # noqa: E731
    yield alike("constraint (recorded as external)", model=bounded, terms=WITH["external"])
    momentum = {"optimizer": "SGD", "terms": frozenset()}
    yield alike("SGD with momentum", options=options_of(0.05, momentum=0.9), **momentum)
    yield alike("a second fit continues the run", fits=2)
    yield alike("float32", policy="float32")
    yield alike("run_eagerly=True", compile=lambda: {"loss": "mse", "run_eagerly": True})
    clipped = {
        "options": options_of(0.05, global_clipnorm=0.1),
        "refused": "clips the gradient of each replica",
    }
    yield alike("global_clipnorm", **clipped)
    accumulated = {
        "options": options_of(0.05, gradient_accumulation_steps=2),
        "refused": "accumulates gradients",
    }
    yield alike("gradient accumulation", **accumulated)
    yield alike(
        "a running average that losses read",
        model=lambda: dense(layers.Dense(4, "tanh"), Remembers()),
        refused="changes by its own batches",
    )
