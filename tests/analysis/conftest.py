"""A small classifier, recorded."""

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from tests.helpers import LABELS, X, dense_model, fit


@dataclass(frozen=True)
class Classifier:
    """A run and the trained model."""

    run: xtf.Run
    model: keras.Model


@pytest.fixture(scope="package")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    """Ten samples with ids, two classes, tanh between two layers, six steps."""
    model = dense_model(keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(0.05, weight_decay=0.1), loss=loss, run_eagerly=True)
    run_dir = tmp_path_factory.mktemp("classifier") / "run"
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = tf.data.Dataset.from_tensor_slices((np.arange(len(X)), (X, LABELS))).batch(4)
    fit(model, logger.tap(dataset), logger, epochs=2)
    return Classifier(xtf.open_run(run_dir), model)
