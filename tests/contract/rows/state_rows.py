"""Rows for terms besides the data: penalties, constraints, statistics, frozen layers."""

from collections.abc import Iterator
from typing import Any

import keras

from tests.contract.rows.row import WITH, Row
from tests.contract.rows.small_models import dense

layers, schedules = keras.layers, keras.optimizers.schedules


class AddsLoss(keras.layers.Layer):
    """Passes its inputs on and adds their mean square to the loss."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.1 * keras.ops.mean(x**2))
        return x


def regularisation_and_state() -> Iterator[Row]:
    """Terms besides the data: penalties, constraints, statistics, frozen layers."""
    family = "regularisation"
    penalised = {"terms": WITH["regularizer"]}
    for where in ("kernel", "bias", "activity"):

        def inner(w=where):
            return dense(layers.Dense(4, "tanh", **{f"{w}_regularizer": keras.regularizers.L2(0.1)}))

        yield Row(family, f"{where} regulariser", inner, **penalised)
    yield Row(family, "add_loss", lambda: dense(layers.Dense(4, "tanh"), AddsLoss()), **penalised)
    yield Row(family, "dropout", lambda: dense(layers.Dense(8, "tanh"), layers.Dropout(0.5, seed=1)))
    bounded = lambda: dense(layers.Dense(4, "tanh", kernel_constraint=keras.constraints.MaxNorm(0.5)))  # noqa: E731
    yield Row(family, "constraint (recorded as external)", bounded, terms=WITH["external"])
    normalised = lambda: dense(layers.Dense(4), layers.BatchNormalization(), layers.Activation("tanh"))  # noqa: E731
    # A bias before BatchNorm has no gradient but rounding.
    yield Row("state", "BatchNorm in training mode", normalised, terms=WITH["state"], most_rounding=1e-10)
    frozen = lambda: dense(layers.Dense(4, "tanh", trainable=False))  # noqa: E731
    yield Row("state", "frozen layers", frozen)

    def together():
        return dense(
            layers.Dense(6),
            layers.BatchNormalization(),
            layers.Activation("tanh"),
            layers.Dropout(0.3, seed=2),
        )

    rate = {"options": lambda: {"learning_rate": schedules.CosineDecay(0.05, 9)}}
    yield Row(
        "state",
        "schedule, ragged batches, dropout and BatchNorm together",
        together,
        **rate,
        terms=WITH["state"],
        most_rounding=1e-10,
    )
