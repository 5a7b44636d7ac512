"""The nested structure of inputs: round trips, and errors for arrays that do not fit."""

import json
from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from explaind_tf import RunFormatError
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.structure import Leaf

DTYPES = [
    "bool",
    "uint8",
    "int32",
    "int64",
    "uint64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
    "complex64",
]

leaves = st.builds(
    Leaf,
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.none() | st.integers(0, 5), max_size=3).map(tuple),
)
structures = st.recursive(
    leaves,
    lambda parts: (
        st.dictionaries(st.text(max_size=3), parts, max_size=3)
        | st.dictionaries(st.integers(-9, 9), parts, max_size=3)
        | st.lists(parts, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
    ),
    max_leaves=6,
)

LEAF = {"leaf": {"dtype": "float32", "shape": []}}
VECTOR = Leaf("float32", (3,))
TOKENS = Leaf("int32", (4,))


class TestRoundTrips:
    @given(structure=structures)
    def test_json(self, structure: Any):
        assert struct.from_json(json.loads(json.dumps(struct.to_json(structure)))) == structure

    @given(structure=structures)
    def test_flatten_is_the_inverse_of_pack(self, structure: Any):
        leaves = struct.leaves(structure)
        values = list(range(len(leaves)))
        flat = struct.flatten(structure, struct.pack(structure, values), "x")
        assert [value for _, _, value in flat] == values
        assert [leaf for _, leaf, _ in flat] == leaves
        assert len({where for where, _, _ in flat}) == len(values), "each place has a name of its own"

    @given(structure=structures)
    def test_pack_is_the_inverse_of_flatten(self, structure: Any):
        value = struct.map_leaves(structure, str)
        assert struct.pack(structure, [v for _, _, v in struct.flatten(structure, value, "x")]) == value

    def test_order_of_leaves_is_that_of_tensorflow(self):
        """TensorFlow flattens batches while training, and this module does so afterwards."""
        element = {"b": (np.ones((2, 3)), np.ones((2, 1))), "a": np.ones((2, 4), "int32")}
        spec = tf.data.Dataset.from_tensor_slices(element).batch(2).element_spec
        structure = struct.from_element_spec(spec)
        expected = [(leaf.dtype.name, tuple(leaf.shape[1:])) for leaf in tf.nest.flatten(spec)]
        assert [(leaf.dtype, leaf.shape) for leaf in struct.leaves(structure)] == expected
        assert structure == {"a": TOKENS, "b": (Leaf("float64", (3,)), Leaf("float64", (1,)))}


class TestForeignJson:
    @pytest.mark.parametrize(
        "value",
        [
            None,
            3,
            [],
            {},
            {"leaf": {}},
            {"leaf": {"dtype": "float32"}},
            {"leaf": {"dtype": "float32", "shape": [3], "more": 1}},
            {"dict": []},
            {"list": {}},
            {"tuple": 1},
            {"set": []},
            {"list": [], "dict": {}},
            {"list": [{"leaf": 1}]},
        ],
    )
    def test_unknown_structure_is_refused(self, value: Any):
        with pytest.raises(RunFormatError, match="describes an input in a way this version does not know"):
            struct.from_json(value)

    @pytest.mark.parametrize(
        "items", [[3], [["a"]], [[1.5, LEAF]], [["a", LEAF], ["a", LEAF]], [[True, LEAF]]]
    )
    def test_dict_by_items_that_are_no_pairs_is_refused(self, items: Any):
        with pytest.raises(RunFormatError, match=r"describes a dict by the item .* pair of a key"):
            struct.from_json({"items": items})

    def test_namedtuple_becomes_a_tuple(self):
        pair = namedtuple("Pair", "left right")(VECTOR, TOKENS)
        assert struct.from_json(struct.to_json(pair)) == (VECTOR, TOKENS)
        assert struct.pack(pair, [1, 2]) == type(pair)(1, 2)

    @pytest.mark.parametrize(
        ("dtype", "shape"),
        [
            ("object", []),
            ("string", []),
            ("complex256", []),
            (3, []),
            ("float32", 3),
            ("float32", [-1]),
            ("float32", [1.5]),
            ("float32", [True]),
            ("float32", ["3"]),
        ],
    )
    def test_unknown_tensor_is_refused(self, dtype: Any, shape: Any):
        with pytest.raises(RunFormatError, match="describes a tensor of dtype"):
            struct.from_json({"leaf": {"dtype": dtype, "shape": shape}})


class TestAsBatches:
    def test_arrays_come_back_flat_in_the_recorded_dtypes(self):
        structure = {"b": VECTOR, "a": (TOKENS, Leaf("bool", ()))}
        value = {"a": [np.ones((2, 4), "int64"), [True, False]], "b": tf.ones((2, 3), tf.float64)}
        tokens, flags, vectors = struct.as_batches(structure, value, "inputs")
        assert (tokens.dtype, flags.dtype, vectors.dtype) == ("int32", "bool", "float32")
        assert (tokens.shape, flags.shape, vectors.shape) == ((2, 4), (2,), (2, 3))

    def test_unknown_sizes_take_any_length(self):
        for length in (1, 7):
            (array,) = struct.as_batches(Leaf("float32", (None, 2)), np.zeros((3, length, 2)), "inputs")
            assert array.shape == (3, length, 2)

    @pytest.mark.parametrize(
        ("structure", "value", "message"),
        [
            (VECTOR, np.zeros((2, 4)), r"inputs has shape \(2, 4\).*must have shape \(batch, 3\)\.$"),
            (VECTOR, np.zeros(3), r"looks like a single input: add the batch dimension, as in x\[None\]"),
            (VECTOR, np.zeros((2, 1, 3)), r"shape \(2, 1, 3\)"),
            (VECTOR, np.zeros((0, 3)), "inputs is empty"),
            (VECTOR, np.zeros((2, 3), "uint8"), r"dtype uint8.*recorded with float32.*scaling included"),
            (VECTOR, np.zeros((2, 3), int), r"dtype int64.*x\.astype\('float32'\)"),
            (VECTOR, np.zeros((2, 3), complex), "dtype complex128"),
            (VECTOR, np.array([["a"] * 3]), "dtype <U1"),
            (VECTOR, np.full((1, 3), None), "dtype object"),
            (TOKENS, np.zeros((2, 4)), "dtype float64.*recorded with int32"),
            (TOKENS, np.zeros((2, 4), bool), "dtype bool.*recorded with int32"),
            (VECTOR, np.array([[0, 0, 0], [0, np.nan, 0]]), r"first in input 1 \(1 of 2 inputs\)"),
            (VECTOR, np.array([[0, 0, np.inf]]), "NaN or infinite"),
            (VECTOR, np.array([[0, 0, 1e300]]), "NaN or infinite"),
            (TOKENS, np.full((1, 4), 2**31), "integers that do not fit into int32"),
            (Leaf("uint8", ()), np.array([256]), "do not fit into uint8"),
            (Leaf("uint64", ()), np.array([-1]), "do not fit into uint64"),
            (Leaf("int64", ()), np.array([2**63], "uint64"), "do not fit into int64"),
            ({"a": VECTOR}, np.zeros((2, 3)), r"dict with the keys \['a'\].*Found: ndarray"),
            ({"a": VECTOR}, {"b": np.zeros((2, 3))}, r"keys \['a'\].*Found: \['b'\]"),
            ((VECTOR, VECTOR), (np.zeros((2, 3)),), "sequence of 2 tensors. Found: 1 parts"),
            ((VECTOR, VECTOR), np.zeros((2, 3)), "sequence of 2 tensors. Found: ndarray"),
            (VECTOR, {"a": np.zeros((2, 3))}, "inputs is a dict; the run was recorded with one tensor"),
            ((VECTOR, VECTOR), (np.zeros((2, 3)), np.zeros((1, 3))), r"one batch size; found \[1, 2\]"),
            ((VECTOR, VECTOR), (np.zeros((2, 3)), np.zeros((2, 4))), r"inputs\[1\] has shape \(2, 4\)"),
            ({"a": (VECTOR,)}, {"a": (np.zeros(3),)}, r"inputs\['a'\]\[0\] has shape \(3,\)"),
        ],
    )
    def test_what_does_not_fit_is_refused_in_words(self, structure: Any, value: Any, message: str):
        with pytest.raises(ValueError, match=f"(?s){message}"):
            struct.as_batches(structure, value, "inputs")

    @given(
        array=hnp.arrays(st.sampled_from(["int8", "uint8", "int32", "int64", "uint64"]), st.just((3,))),
        dtype=st.sampled_from(["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"]),
    )
    def test_integers_are_kept_exactly_or_refused(self, array: np.ndarray, dtype: str):
        limits = np.iinfo(dtype)
        if all(limits.min <= int(value) <= limits.max for value in array):
            (found,) = struct.as_batches(Leaf(dtype, ()), array, "inputs")
            assert found.dtype == dtype
            assert found.tolist() == array.tolist()
        else:
            with pytest.raises(ValueError, match=f"do not fit into {dtype}"):
                struct.as_batches(Leaf(dtype, ()), array, "inputs")
