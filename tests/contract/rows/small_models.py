"""Models shared by several kinds of rows."""

from typing import Any

import keras

layers = keras.layers


def dense(*inner: keras.layers.Layer, **last: Any) -> keras.Model:
    """Return a model that takes X and has two outputs."""
    return keras.Sequential(
        [keras.Input((3,)), *(inner or [layers.Dense(4, "tanh")]), layers.Dense(2, **last)]
    )


def over(shape: tuple[int, ...], *inner: keras.layers.Layer, dtype: str | None = None) -> keras.Model:
    """Return a model of inputs of a shape, some layers, and a dense layer with two outputs."""
    return keras.Sequential([keras.Input(shape, dtype=dtype), *inner, layers.Flatten(), layers.Dense(2)])


def two_outputs() -> keras.Model:
    """Return a model that takes X, with outputs a (2) and b (1)."""
    x = keras.Input((3,))
    hidden = layers.Dense(4, "tanh")(x)
    return keras.Model(x, [layers.Dense(2, name="a")(hidden), layers.Dense(1, name="b")(hidden)])
