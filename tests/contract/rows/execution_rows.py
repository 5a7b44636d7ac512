"""Rows for precision, modes of execution, and further fits."""

from collections.abc import Iterator

import keras
import tensorflow as tf

from tests.contract.rows.arrays import X, Y
from tests.contract.rows.row import WITH, Row
from tests.contract.rows.small_models import dense


def train_before(model: keras.Model) -> None:
    """Train some steps before the logger exists."""
    model.fit(tf.data.Dataset.from_tensor_slices((X, Y)).batch(5), verbose=0, shuffle=False)


def freeze(model: keras.Model) -> None:
    """Train, then freeze the first layer and compile again."""
    train_before(model)
    model.layers[0].trainable = False
    model.compile(type(model.optimizer)(0.05), loss="mse")


def precision_and_devices() -> Iterator[Row]:
    """Dtype policies and compilation."""
    family = "precision and devices"
    yield Row(family, "float64", dense)
    yield Row(family, "float32", dense, policy="float32")
    yield Row(family, "mixed_bfloat16", dense, policy="mixed_bfloat16", terms=WITH["precision"])
    yield Row(family, "mixed_float16", dense, policy="mixed_float16", terms=WITH["precision"])
    for jit in (True, False, "auto"):
        made = lambda jit=jit: {"loss": "mse", "jit_compile": jit}  # noqa: E731
        yield Row(family, f"jit_compile={jit!r}", dense, compile=made)
    yield Row(family, "run_eagerly=True", dense, compile=lambda: {"loss": "mse", "run_eagerly": True})


def continuation() -> Iterator[Row]:
    """Fits that continue earlier ones."""
    family = "continuation"
    yield Row(family, "a second fit continues the run", dense, fits=2)
    yield Row(family, "pre-used optimizer", dense, prepare=train_before, terms=WITH["carryover"])
    yield Row(family, "trainable toggled between two fits", dense, prepare=freeze)
