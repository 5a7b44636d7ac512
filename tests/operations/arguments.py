"""Candidates for arguments, by the names of parameters: shapes of inputs, small sizes, functions and layers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Floats:
    """A floating-point tensor, which is a part of the point z. A complex one takes two numbers for each element."""

    shape: tuple[int, ...]
    is_complex: bool = False
    # Colours are not negative.
    is_image: bool = False

    @property
    def is_square(self) -> bool:
        """Whether it holds square matrices. They are symmetric, as some functions read one triangle only."""
        return len(self.shape) > 1 and self.shape[-1] == self.shape[-2] and not self.is_complex

    @property
    def count(self) -> int:
        """How many numbers of z it takes."""
        return int(np.prod(self.shape)) * (2 if self.is_complex else 1)

    def of(self, part: tf.Tensor) -> tf.Tensor:
        """Return the tensor, given its part of z."""
        if not self.is_complex:
            whole = tf.cast(tf.reshape(part, self.shape), keras.config.floatx())
            return 0.5 * (whole + tf.linalg.matrix_transpose(whole)) if self.is_square else whole
        real, imaginary = tf.unstack(tf.reshape(part, (2, *self.shape)))
        return tf.complex(real, imaginary)


@dataclass(frozen=True)
class Fresh:
    """Something that is made anew for each call, a layer for instance."""

    make: Callable[[], Any]


def _integers(*shape: int) -> np.ndarray:
    return (np.arange(int(np.prod(shape))) % 2 + 1).astype("int32").reshape(shape)


def _product(*arguments: Any) -> tf.Tensor:
    """Multiply anything by anything."""
    whole = tf.constant(1.1, tf.float64)
    for argument in tf.nest.flatten(arguments):
        whole = whole * tf.cast(argument, tf.float64)
    return whole


def _carry(carry: Any, element: Any) -> tuple[tf.Tensor, tf.Tensor]:
    return _product(carry, element), _product(carry, carry)


def _with_gradient(argument: Any) -> tuple[tf.Tensor, Callable[..., tf.Tensor]]:
    """Return a square, and a gradient that is not that of a square."""
    return _product(argument, argument), lambda *upstream, **_: 7.0 * upstream[-1]


def _is_small(*arguments: Any) -> tf.Tensor:
    return tf.reduce_max(tf.abs(_product(*arguments))) < 3.0


def _larger(*arguments: Any) -> list[tf.Tensor]:
    return [1.5 * tf.math.sign(argument) + argument for argument in arguments]


SHAPES = (
    (2, 3),
    (2, 4, 4, 3),
    (2, 6, 3),
    (2, 4, 4, 4, 3),
    (2, 4, 4),
    (3,),
    (2, 3, 3),
    (4, 4),
    (),
    (2, 9, 9, 3),
    (2, 3, 4, 4, 4, 3),
    (2, 12, 12, 1),
    (2, 2),
    (2, 32),
    (1, 2100),
    (1, 300, 1),
)
FLOATS = [Floats(shape) for shape in SHAPES]
INTEGERS = [_integers(*shape) for shape in ((4,), (2, 3), (2, 6), ())]
PAIRS = [[Floats(shape), Floats(shape)] for shape in SHAPES[:6]]
NESTED = [
    (Floats((2, 3)), Floats((2, 3))),
    (Floats((2, 4, 4)), Floats((2, 4, 4))),
    (Floats((2, 2)), [Floats((2, 2))] * 2),
    (Floats((2, 6, 3)), [[Floats((2, 6, 3))]]),
]
COMPLEX = [Floats((2, 4), is_complex=True), Floats((2, 3, 3), is_complex=True)]
BOOLEANS = [np.array([True, False, True]), np.array([[True, False, True]] * 2)]
STRINGS = [np.array([["a"], ["b"]], "object")]
IMAGES = {"images": Floats((2, 6, 6, 3), is_image=True)}
DICTIONARIES = [
    IMAGES | {"labels": Floats((2, 3))},
    IMAGES | {"bounding_boxes": {"boxes": Floats((2, 2, 4)), "labels": _integers(2, 2)}},
]
TENSORS = [
    *FLOATS[:8],
    *INTEGERS,
    *FLOATS[8:],
    *PAIRS,
    *NESTED,
    *COMPLEX,
    *BOOLEANS,
    *STRINGS,
    *DICTIONARIES,
    _integers(2),
]

_DENSE = Fresh(lambda: keras.layers.Dense(2, activation="tanh"))
_RNN = Fresh(lambda: keras.layers.LSTM(2))
_CELL = Fresh(lambda: keras.layers.SimpleRNNCell(2))
_LAYER_CONFIG = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}}
_SIZES = [2, 4, (2, 2), (2, 2, 2), (3, 3)]
_LENGTHS = [_integers(2), 2, Floats(())]
_FUNCTIONS = [_product, _carry, _with_gradient]

_BY_NAMES: dict[str, Sequence[Any]] = {
    # Sizes.
    "units filters n num_heads key_dim output_dim num_bins repeats block_size max_number": [2],
    "head_dim num_query_heads sequence_stride stride": [2],
    "num_key_value_heads shift kth k order": [1],
    "N num_tokens sequence_length": [4],
    "kernel_size pool_size output_size size": _SIZES,
    "height width": [3],
    "input_dim num_classes num_segments fft_length": [8, 4],
    "axis axis1 source": [-1, 0],
    "axis2 destination": [0],
    "axes": [1, (0, 1)],
    "shape newshape target_shape": [(6,), (3, 2), (2, 3), (4, 3), (-1,), (2, 2, 3)],
    "output_shape": [(4,), (2, 8, 8, 3), 4],
    "dims": [(2, 1)],
    "spatial_dims": [(1, 2)],
    "pad_width": [1, ((1, 1), (0, 1))],
    "indices_or_sections": [2, 3],
    "index": [0],
    "lower": [1],
    "upper length": [3],
    "factor": [0.3, 4],
    "rate height_factor width_factor stddev": [0.3],
    "scale": [2.0, Floats((2,))],
    "translation": [Floats((2,))],
    "q": [0.4],
    "threshold": [0.1],
    "bin_boundaries": [[-0.5, 0.5]],
    "vocabulary": [["a", "b", "c"], [1, 2, 3]],
    "top_cropping left_cropping top_padding left_padding": [1],
    "target_height target_width": [3, 6],
    # Words.
    "activation": ["tanh", keras.activations.tanh],
    "identifier name": ["tanh", "mean_squared_error"],
    "config": [_LAYER_CONFIG, {"class_name": "MeanSquaredError", "config": {}}],
    "dtype": ["float64"],
    "equation": ["ab,bc->ac"],
    "subscripts": ["ij,ij->i"],
    "pattern": ["a b -> b a"],
    "method": ["linear"],
    "key": [*FLOATS, (0, slice(1, 3))],
    # Functions and layers.
    "f fun function pyfunc body_fun": _FUNCTIONS,
    "true_fn false_fn": [lambda: tf.constant(1.0)],
    "cond": [_is_small],
    "body": [_larger],
    "branches": [[_product, _product]],
    "pred": [True],
    "layer": [_DENSE, _RNN],
    "loss": [Fresh(keras.losses.MeanSquaredError)],
    "cell": [_CELL],
    "cells": [Fresh(lambda: [_CELL.make(), _CELL.make()])],
    "layers": [Fresh(lambda: [keras.layers.Rescaling(2.0), keras.layers.Rescaling(0.5)])],
    # Tensors.
    "images image1 image2": [
        Floats(shape, is_image=True) for shape in ((2, 4, 4, 3), (2, 12, 12, 1), (2, 9, 9, 3))
    ],
    "states": [[Floats((2, 2))], [Floats((2, 2))] * 2, [[Floats((2, 2))], [Floats((2, 2))]]],
    "mean variance": [Floats((3,))],
    "kernel": [Floats(shape) for shape in ((2, 2, 3, 2), (2, 2, 2, 3))],
    "depthwise_kernel": [Floats((2, 2, 3, 1))],
    "pointwise_kernel": [Floats((1, 1, 3, 2))],
    "segment_ids": [np.array([0, 1], "int32")],
    "target_length output_length sequence_lengths": _LENGTHS,
    "start_indices": [(0, 1), (0,)],
    "updates values": [Floats((2,)), Floats((2, 3)), Floats((1, 2))],
    "indices": [np.array([[0, 1], [1, 2]]), _integers(2), np.array([[0], [1]])],
    "bins": [[-0.5, 0.5]],
    "transform": [Floats((2, 8))],
    "start_points end_points": [Floats((2, 4, 2))],
    "coordinates": [Floats((2, 5)), Floats((4, 5))],
    "condlist": [[np.array([True, False, True]), np.array([True, True, False])]],
    "choicelist": [[Floats((3,)), Floats((3,))]],
    "condition": [np.array([[True, False, True]] * 2)],
    "primals tangents": [(Floats((2, 3)),)],
    "loop_vars": [(Floats((2, 3)),)],
    "x_min beta max_val default_value fill_value": [Floats(())],
    "x_max": [2.0],
    "start stop": [Floats(()), Floats((3,))],
}
_TENSORS, _UNINTERESTING = {"xs", "x1", "x2"}, {"name", "dtype"}
_NAMED = {name: list(values) for names, values in _BY_NAMES.items() for name in names.split()}


def candidates(parameter: str) -> list[Any]:
    """Return what a parameter of this name may be given: tensors, unless the name says something else."""
    return _NAMED.get(parameter, TENSORS)


def is_worth_giving(parameter: str) -> bool:
    """Return whether an optional parameter may need a value: one whose name says what to give, or one of these tensors."""
    return parameter in _TENSORS or (parameter in _NAMED and parameter not in _UNINTERESTING)
