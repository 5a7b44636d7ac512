"""Protocol buffers can read the messages that are written by hand."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from explaind_tf.runs.storage.tf_example import Integers, encode_example

SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
ARRAYS = arrays_of.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.uint8, np.bool_]), SHAPES)


class TestEncodeExample:
    @settings(max_examples=50)
    @given(
        blobs=st.dictionaries(st.text(min_size=1, max_size=200), st.lists(ARRAYS, max_size=3), max_size=4),
        numbers=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=300),
    )
    def test_protocol_buffers_read_it(self, blobs, numbers):
        encoded = encode_example({**blobs, "numbers": Integers(numbers)})
        read = tf.train.Example.FromString(b"".join(map(bytes, encoded))).features.feature
        assert set(read) == {*blobs, "numbers"}
        assert list(read["numbers"].int64_list.value) == numbers
        for name in set(blobs) - {"numbers"}:
            assert list(read[name].bytes_list.value) == [array.tobytes() for array in blobs[name]]

    # Lengths near those at which their encoding grows by one byte, and a tensor that is not copied.
    @pytest.mark.parametrize("size", [0, 1, 119, 127, 128, 16383, 16384, 2**21])
    def test_sizes(self, size):
        array = np.arange(size, dtype=np.uint8)
        encoded = encode_example({"tensor": [array]})
        read = tf.train.Example.FromString(b"".join(map(bytes, encoded)))
        assert read.features.feature["tensor"].bytes_list.value[0] == array.tobytes()
        assert size < 4096 or any(np.shares_memory(array, part) for part in encoded if len(part) == size)

    def test_memory_order_is_the_arrays_own(self):
        array = np.arange(12, dtype=np.float32).reshape(3, 4).T
        read = tf.train.Example.FromString(b"".join(map(bytes, encode_example({"tensor": [array]}))))
        assert read.features.feature["tensor"].bytes_list.value[0] == array.tobytes()
