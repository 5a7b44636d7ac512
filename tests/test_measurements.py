import keras
import numpy as np
import pytest
import tensorflow as tf

from explaind_tf import measurements

LOGITS = tf.constant([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
PROBABILITIES = tf.nn.softmax(LOGITS).numpy()
Y = np.array([1, 0])


def _value(measurement, outputs=LOGITS):
    return measurement(outputs, *measurement.targets).numpy()


def test_log_prob_takes_logits_log_probabilities_and_probabilities():
    expected = np.log(PROBABILITIES[[0, 1], Y])[:, None]
    np.testing.assert_allclose(_value(measurements.log_prob(Y)), expected, rtol=1e-6)
    np.testing.assert_allclose(
        _value(measurements.log_prob(Y), tf.nn.log_softmax(LOGITS)), expected, rtol=1e-6
    )
    by_probability = measurements.log_prob(Y, from_logits=False)
    np.testing.assert_allclose(_value(by_probability, tf.constant(PROBABILITIES)), expected, rtol=1e-6)


def test_margin_is_the_log_odds_of_the_class():
    p = PROBABILITIES[[0, 1], Y][:, None]
    np.testing.assert_allclose(_value(measurements.margin(Y)), np.log(p / (1 - p)), rtol=1e-5)


def test_loss_takes_names_objects_and_functions():
    expected = -np.log(PROBABILITIES[[0, 1], Y])[:, None]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    np.testing.assert_allclose(_value(measurements.loss(loss, Y)), expected, rtol=1e-5)
    targets = np.zeros((2, 3), "float32")
    squared = (LOGITS.numpy() ** 2).mean(axis=1)[:, None]
    np.testing.assert_allclose(_value(measurements.loss("mse", targets)), squared, rtol=1e-6)
    custom = measurements.loss(lambda y, p: tf.square(p - y), targets)
    np.testing.assert_allclose(_value(custom), squared, rtol=1e-6)


def test_outputs_are_flattened():
    assert _value(measurements.outputs(), tf.zeros((2, 3, 4))).shape == (2, 12)


@pytest.mark.parametrize("y", [np.eye(3), [0.5, 1.0], [[0, 1], [1, 0]]])
def test_labels_that_are_no_class_numbers_are_refused(y):
    with pytest.raises(ValueError, match="class numbers"):
        measurements.log_prob(y)


def test_a_function_that_returns_no_matrix_is_refused_with_the_cure():
    with pytest.raises(ValueError, match=r"values\[:, None\]"):
        measurements.as_measurement(lambda outputs: outputs[:, 0])(LOGITS)


def test_a_loss_over_the_whole_batch_is_refused():
    whole = measurements.loss(lambda y, p: tf.reduce_mean(tf.square(p)), Y)
    with pytest.raises(ValueError, match="one for each input"):
        whole(LOGITS, tf.constant(Y))


@pytest.mark.parametrize("make", [measurements.log_prob, measurements.margin])
def test_class_measurements_refuse_models_of_one_output(make):
    with pytest.raises(ValueError, match="two classes or more"):
        make([0, 0])(tf.zeros((2, 1)), tf.constant([0, 0]))


def test_something_else_is_no_measurement():
    with pytest.raises(TypeError, match=r"measurements\.log_prob"):
        measurements.as_measurement("log_prob")


def test_a_position_of_a_sequence():
    logits = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 4)))
    np.testing.assert_array_equal(measurements.outputs(position=-1)(logits), logits[:, -1])
    of_position = measurements.log_prob([1, 3], position=1)
    of_classes = measurements.log_prob([1, 3])
    labels = of_classes.targets[0]
    np.testing.assert_array_equal(of_position(logits, labels), of_classes(logits[:, 1], labels))
    with pytest.raises(ValueError, match=r"position=0 needs an output of shape \(batch, positions, \.\.\.\)"):
        measurements.outputs(position=0)(logits[:, 0])
