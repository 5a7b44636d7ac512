"""Gradients at recorded weights, against those of the Keras model."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf.analysis.gradients import Gradients
from tests.analysis.conftest import Classifier
from tests.helpers import LABELS, X, record

pytestmark = pytest.mark.slow


def test_gradients_and_losses_are_those_of_keras(classifier: Classifier):
    run, model = classifier.run, classifier.model
    gradients = Gradients(run)
    step = len(run.steps)  # the model has the weights after training
    (rows, found), *others = gradients.of_losses(step)
    assert not others and rows == slice(0, len(X))
    x, y = run.samples.take(np.arange(len(X)))

    def keras_gradient(k: int) -> tuple[float, np.ndarray]:
        with tf.GradientTape() as tape:
            loss = keras.losses.sparse_categorical_crossentropy(
                y[k : k + 1], model(x[k : k + 1]), from_logits=True
            )[0]
        of_variables = tape.gradient(loss, model.trainable_variables)
        return float(loss), np.concatenate([tf.reshape(g, -1) for g in of_variables])

    expected = [keras_gradient(k) for k in range(len(X))]
    # float32, in another order of operations
    np.testing.assert_allclose(gradients.losses(step), [loss for loss, _ in expected], rtol=1e-5)
    np.testing.assert_allclose(found, [g for _, g in expected], rtol=1e-4, atol=1e-6)
    # log p(y|x) is minus the loss of the same sample
    of_measurements = gradients.of_measurements(step, x, np.asarray(y))
    np.testing.assert_allclose(of_measurements, -found, rtol=1e-4, atol=1e-6)


def test_samples_that_interact_are_refused(tmp_path):
    recorded = record(tmp_path / "run", [keras.layers.BatchNormalization(), keras.layers.Dense(2)], epochs=1)
    with pytest.raises(ValueError, match="depend on their batch"):
        Gradients(recorded.open(), lambda y: xtf.measurements.outputs())


def test_sample_weights_are_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(xtf.PathAdamW(0.01), loss="sparse_categorical_crossentropy")
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    weighted = tf.data.Dataset.from_tensor_slices((X, LABELS, np.ones(len(X), "float32"))).batch(5)
    model.fit(logger.tap(weighted), callbacks=[logger], verbose=0, shuffle=False)
    with pytest.raises(ValueError, match="sample weights"):
        Gradients(xtf.open_run(tmp_path / "run"))


def test_operations_without_a_second_order_gradient_need_none(tmp_path):
    # TensorFlow has no gradient of SoftsignGrad, which a JVP would take.
    layers = [keras.layers.Dense(3, activation="softsign"), keras.layers.Dense(2)]
    recorded = record(tmp_path / "run", layers, epochs=1)
    run, model = recorded.open(), recorded.model
    found = Gradients(run).of_measurements(len(run.steps), X[:2], LABELS[:2])
    for k, row in enumerate(found):
        with tf.GradientTape() as tape:
            value = tf.nn.log_softmax(model(X[k : k + 1]))[0, LABELS[k]]
        expected = [tf.reshape(g, -1) for g in tape.gradient(value, model.trainable_variables)]
        np.testing.assert_allclose(row, np.concatenate(expected), rtol=1e-4, atol=1e-6)
