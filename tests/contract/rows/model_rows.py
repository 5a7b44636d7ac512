"""Rows for kinds of models and of layers."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.contract.rows.arrays import IMAGES, SEQUENCES, TOKENS, X, Y
from tests.contract.rows.row import Row
from tests.contract.rows.small_models import dense, over, two_outputs

layers = keras.layers


class Subclassed(keras.Model):
    """A subclassed model that calls one layer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = layers.Dense(3, "tanh")
        self.readout = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.readout(self.shared(self.shared(x)))


class OwnStep(keras.Sequential):
    """A model with a custom ``train_step`` that computes the compiled loss."""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}


def several_inputs() -> keras.Model:
    """Return a model that takes a dict of two inputs."""
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    joined = layers.Concatenate()([layers.Dense(2, "tanh")(a), b])
    return keras.Model({"a": a, "b": b}, layers.Dense(2)(joined))


def attention() -> keras.Model:
    """Return a model with masked multi-head attention."""
    x = keras.Input((4, 3))
    mask = np.tril(np.ones((1, 4, 4), bool))
    states = layers.MultiHeadAttention(2, 2)(x, x, attention_mask=mask)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(states)))


def models() -> Iterator[Row]:
    """Sequential, Functional and subclassed models, and a custom ``train_step``."""
    yield Row("models", "Sequential", dense)
    both = {"arrays": lambda: ({"a": X, "b": Y}, Y)}
    yield Row("models", "Functional, dict of several inputs", several_inputs, **both)
    twice = {"compile": lambda: {"loss": ["mse", "mse"]}}
    yield Row(
        "models", "Functional, several outputs", two_outputs, arrays=lambda: (X, (Y, Y[:, :1])), **twice
    )
    yield Row("models", "subclassed, shared layer", Subclassed)
    own_step = lambda: OwnStep([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])  # noqa: E731
    yield Row("models", "custom train_step", own_step)


def kinds_of_layers() -> Iterator[Row]:
    """Layers for images, sequences and tokens."""
    images = {"arrays": lambda: (IMAGES, Y)}
    on_images: dict[str, Callable[[], list[keras.layers.Layer]]] = {
        "Conv2D, max-pooling": lambda: [layers.Conv2D(2, 3, padding="same"), layers.MaxPooling2D()],
        "Conv2D, average pooling": lambda: [layers.Conv2D(2, 3, padding="same"), layers.AveragePooling2D(2)],
        "Conv2D, global pooling": lambda: [
            layers.Conv2D(2, 3, activation="tanh"),
            layers.GlobalAveragePooling2D(),
        ],
        "DepthwiseConv2D": lambda: [layers.DepthwiseConv2D(3)],
        "Conv2D, groups": lambda: [layers.Conv2D(4, 1), layers.Conv2D(6, 3, groups=2)],
        "SeparableConv2D": lambda: [layers.SeparableConv2D(2, 3)],
        "Conv2DTranspose": lambda: [layers.Conv2DTranspose(2, 3)],
        "LayerNormalization": lambda: [layers.LayerNormalization()],
        "GroupNormalization": lambda: [layers.GroupNormalization(2)],
        "Conv3D": lambda: [layers.Reshape((4, 4, 2, 1)), layers.Conv3D(2, 2)],
    }
    for name, made in on_images.items():
        kinks = {"loosest": 1e-4} if "max" in name else {}
        yield Row("layers", name, lambda made=made: over((4, 4, 2), *made()), **images, **kinks)
    sequences = {"arrays": lambda: (SEQUENCES, Y)}
    on_sequences: dict[str, Callable[[], list[keras.layers.Layer]]] = {
        "Dense": lambda: [layers.Dense(2)],
        "EinsumDense": lambda: [layers.EinsumDense("abc,cd->abd", output_shape=(4, 2))],
        "Conv1D": lambda: [layers.Conv1D(2, 2)],
        "LSTM": lambda: [layers.LSTM(2)],
        "GRU": lambda: [layers.GRU(2)],
        "Bidirectional": lambda: [layers.Bidirectional(layers.GRU(2))],
    }
    for name, made in on_sequences.items():
        yield Row("layers", name, lambda made=made: over((4, 3), *made()), **sequences)
    yield Row("layers", "MultiHeadAttention, attention mask", attention, **sequences)
    embedding = lambda: over((4,), layers.Embedding(5, 2), dtype="int32")  # noqa: E731
    yield Row("layers", "Embedding", embedding, arrays=lambda: (TOKENS, Y))
