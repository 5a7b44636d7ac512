"""Sizes in a SavedModel: what TensorFlow would take memory or time for is refused before it is asked."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.graphs.possible_sizes import check_sizes


@pytest.fixture
def saved() -> SavedModel:
    """A SavedModel of one function, with a constant of equal values and an operation that returns a list."""
    model = SavedModel()
    graph = model.meta_graphs.add().graph_def
    nodes = graph.library.function.add().node_def
    nodes.add(name="zeros", op="Const")
    constant = stored(nodes)
    retype(nodes, tf.float32.as_datatype_enum)
    constant.tensor_shape.dim.add(size=1000)
    constant.float_val.append(0)
    nodes.add(name="parts", op="Unpack").attr["num"].i = 2
    return model


def nodes_of(saved: SavedModel) -> Any:
    return saved.meta_graphs[0].graph_def.library.function[0].node_def


def size(nodes: Any, value: int) -> None:
    nodes[0].attr["value"].tensor.tensor_shape.dim[0].size = value


def stored(nodes: Any) -> Any:
    return nodes[0].attr["value"].tensor


def retype(nodes: Any, dtype: int) -> None:
    stored(nodes).dtype = nodes[0].attr["dtype"].type = dtype


def masks(nodes: Any) -> None:
    size(nodes, 2**26)
    for _ in range(4):
        nodes.add().CopyFrom(nodes[0])


def test_sizes_of_models_are_possible(saved: SavedModel):
    check_sizes(saved, "file")
    size(nodes_of(saved), 2**26)
    check_sizes(saved, "file")


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(0, np.float32),
        np.zeros((2, 3), np.float16),
        np.ones((2, 2), np.complex64),
        np.array([b"a", b"bc"]),
        np.array(True),
        tf.constant([1, 2], tf.bfloat16).numpy(),
    ],
    ids=lambda value: f"{value.dtype}",
)
def test_constants_of_all_types_are_possible(saved: SavedModel, value: np.ndarray):
    """As bytes, as lists of values, and as one value that is repeated."""
    first = [] if not value.size else [tf.make_tensor_proto(value.flat[0], shape=value.shape)]
    with tf.Graph().as_default():
        made = tf.constant(value).op.node_def.attr["value"].tensor
    for tensor in (made, tf.make_tensor_proto(value), *first):
        stored(nodes_of(saved)).CopyFrom(tensor)
        retype(nodes_of(saved), tensor.dtype)
        check_sizes(saved, "file")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda nodes: size(nodes, 2**40), r"'zeros' \(Const\).*bytes are not stored"),
        (lambda nodes: size(nodes, -1), "sizes must be from 0"),
        (masks, "with those before it"),
        (
            lambda nodes: setattr(nodes[1].attr["num"], "i", 2**62),
            r"'parts' \(Unpack\).*num=4611686018427387904",
        ),
        (lambda nodes: setattr(nodes[1].attr["num"], "i", -1), "num=-1"),
        (lambda nodes: retype(nodes, 99), "unknown type, number 99"),
        # At this one TensorFlow ended the process.
        (
            lambda nodes: setattr(stored(nodes), "dtype", 32),
            "its type has the number 1, and that of its value 32",
        ),
        (lambda nodes: size(nodes, 0), r"the shape \[0\] and stores 1 values"),
        (
            lambda nodes: stored(nodes).float_val.extend([0] * 1000),
            r"the shape \[1000\] and stores 1001 values",
        ),
        (lambda nodes: stored(nodes).scomplex_val.extend([0] * 2002), "stores 1001 values"),
        (
            lambda nodes: setattr(stored(nodes), "tensor_content", bytes(40)),
            "takes 4000 bytes, and stores 40",
        ),
    ],
)
def test_sizes_that_cannot_be(saved: SavedModel, edit: Callable[[Any], Any], message: str):
    edit(nodes_of(saved))
    with pytest.raises(RunFormatError, match=message):
        check_sizes(saved, "file")
