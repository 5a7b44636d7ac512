"""Trainings that several tests record."""

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

import explaind_tf as xtf
from tests.helpers import (
    batches,
    dense_model,
    fit,
)


def compiled() -> keras.Model:
    model = dense_model()
    model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
    return model


def filtered() -> tf.data.Dataset:
    return batches().filter(lambda x, y: True)


def record_model(run_dir: Path, model: keras.Model, *callbacks: Any, **arguments: Any) -> xtf.Run:
    """Record two epochs of three steps. In `callbacks`, "logger" stands for the logger."""
    if not model.compiled:
        model.compile(xtf.PathAdamW(0.01, weight_decay=0.1), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    chosen = [logger if callback == "logger" else callback for callback in callbacks or ("logger",)]
    fit(model, logger.tap(batches()), *chosen, **({"epochs": 2} | arguments))
    return xtf.open_run(run_dir)
