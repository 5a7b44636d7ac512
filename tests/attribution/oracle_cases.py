"""The models and trainings on which ledgers are compared with the oracle."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import explaind_tf as xtf
from tests import oracle


class Attention(keras.layers.Layer):
    """One head without a mask. Its projections are broadcasting matmuls of rank 3 × rank 2, in plain TF."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (input_shape[-1], input_shape[-1])
        self.query_weight = self.add_weight(shape=shape, name="query")
        self.key_weight = self.add_weight(shape=shape, name="key")
        self.value_weight = self.add_weight(shape=shape, name="value")
        self.output_weight = self.add_weight(shape=shape, name="output")

    def call(self, x: Any) -> Any:
        query = tf.matmul(x, tf.convert_to_tensor(self.query_weight))
        key = tf.matmul(x, tf.convert_to_tensor(self.key_weight))
        value = tf.matmul(x, tf.convert_to_tensor(self.value_weight))
        scale = tf.sqrt(tf.cast(x.shape[-1], x.dtype))
        pattern = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / scale)
        return x + tf.matmul(tf.matmul(pattern, value), tf.convert_to_tensor(self.output_weight))


def dense_model() -> keras.Model:
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(6, activation="tanh", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="readout")(hidden))


def convolutional_model() -> keras.Model:
    inputs = keras.Input((4, 4, 2))
    maps = keras.layers.Conv2D(3, 3, padding="same", activation="tanh", name="conv")(inputs)
    pooled = keras.layers.Flatten()(keras.layers.AveragePooling2D(2)(maps))
    return keras.Model(inputs, keras.layers.Dense(2, name="readout")(pooled))


def attention_model() -> keras.Model:
    inputs = keras.Input((4,), dtype="int32")
    states = keras.layers.Embedding(5, 4, name="tokens")(inputs)
    states = Attention(name="attention")(states)
    states = keras.layers.Dense(4, activation="tanh", name="mlp")(states)
    return keras.Model(inputs, keras.layers.Dense(3, name="readout")(states[:, -1]))


@dataclass(frozen=True)
class Case:
    """A model in Keras and in the oracle, its training set and its test inputs."""

    model: Callable[[], keras.Model]
    network: oracle.Network
    keras_loss: Callable[[], keras.losses.Loss]
    loss: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ids: np.ndarray
    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    x_test: np.ndarray
    classes: np.ndarray
    batch_size: int
    epochs: int
    seed: int
    initial_rate: float

    def dataset(self) -> tf.data.Dataset:
        """Return the training set, shuffled anew in each epoch. Equal calls give equal orders."""
        elements = (self.ids, (self.x, self.y, self.weights))
        shuffled = tf.data.Dataset.from_tensor_slices(elements).shuffle(
            len(self.x), seed=self.seed, reshuffle_each_iteration=True
        )
        return shuffled.batch(self.batch_size)

    @property
    def steps(self) -> int:
        return self.epochs * -(-len(self.x) // self.batch_size)

    def measurement(self, name: str) -> Any:
        """Return one of the package's measurements."""
        known = {"outputs": xtf.measurements.outputs(), "log_prob": xtf.measurements.log_prob(self.classes)}
        return known[name]

    def measure(self, outputs: np.ndarray) -> np.ndarray:
        """Return the oracle's measurements side by side: all outputs, then the log-probability."""
        return np.concatenate([outputs, oracle.log_prob(outputs, self.classes)], axis=1)


def dense_case() -> Case:
    """Return the dense network: 4 + 4 + 4 + 1 samples in an epoch."""
    rng = np.random.default_rng(1)
    ids = 100 + np.arange(13)
    ids[8] = ids[5]  # two views of one sample, in one batch or in two: their entries are added
    return Case(
        model=dense_model,
        network=oracle.dense_network(features=4, hidden=6, outputs=3),
        keras_loss=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        loss=oracle.crossentropy,
        ids=ids,
        x=rng.normal(size=(13, 4)),
        y=rng.integers(0, 3, 13),
        weights=np.append(0.0, rng.uniform(0.2, 2, 12)),  # a sample may count for nothing
        x_test=rng.normal(size=(3, 4)),
        classes=rng.integers(0, 3, 3),
        batch_size=4,
        epochs=2,
        seed=11,
        initial_rate=np.float64(0.05),
    )


def convolution_case() -> Case:
    """Return the convolution: 5 + 5 + 2 samples in an epoch."""
    rng = np.random.default_rng(2)
    return Case(
        model=convolutional_model,
        network=oracle.convolutional_network(side=4, channels=2, filters=3, pool=2, outputs=2),
        keras_loss=keras.losses.MeanSquaredError,
        loss=oracle.squared_error,
        ids=np.arange(12)[::-1].copy(),
        x=rng.normal(size=(12, 4, 4, 2)),
        y=rng.normal(size=(12, 2)),
        weights=rng.uniform(0.2, 2, 12),
        x_test=rng.normal(size=(3, 4, 4, 2)),
        classes=rng.integers(0, 2, 3),
        batch_size=5,
        epochs=2,
        seed=12,
        initial_rate=np.float64(0.04),
    )


def attention_case() -> Case:
    """Return the attention: 4 + 4 + 3 samples in an epoch. Token 4 occurs in a test input and never in training."""
    rng = np.random.default_rng(3)
    x_test = rng.integers(0, 4, (3, 4))
    x_test[0, 1] = 4
    return Case(
        model=attention_model,
        network=oracle.attention_network(tokens=5, depth=4, hidden=4, outputs=3),
        keras_loss=lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        loss=oracle.crossentropy,
        ids=np.array([f"sequence {k}" for k in range(11)]),
        x=rng.integers(0, 4, (11, 4)).astype(np.int32),
        y=rng.integers(0, 3, 11),
        weights=rng.uniform(0.2, 2, 11),
        x_test=x_test.astype(np.int32),
        classes=rng.integers(0, 3, 3),
        batch_size=4,
        epochs=2,
        seed=13,
        initial_rate=0.03,  # a Python float: Keras computes the schedule in float32
    )


MAKE = {"dense": dense_case, "convolution": convolution_case, "attention": attention_case}


def make_case(name: str) -> Case:
    """Return a case by its name."""
    return MAKE[name]()
