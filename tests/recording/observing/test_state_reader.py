"""State is read without copies of what rests, and every change of it is seen."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.recording.observing.state_reader import StateReader


@pytest.fixture
def variables() -> list[tf.Variable]:
    return [tf.Variable(tf.random.stateless_normal((50, 4), (0, k))) for k in range(3)]


@pytest.fixture
def reader(variables: list[tf.Variable]) -> StateReader:
    return StateReader(variables)


def test_what_rests_is_the_same_array(reader: StateReader, variables: list[tf.Variable]):
    first = reader.read()
    variables[1].assign_add(tf.ones((50, 4)))
    second = reader.read()
    assert [a is b for a, b in zip(first, second, strict=True)] == [True, False, True]
    assert second[0] is reader.views()[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.assign(v + 1),
        lambda v: v.assign_add(tf.ones_like(v)),
        lambda v: v.scatter_nd_update([[0]], [[5.0, 6.0, 7.0, 8.0]]),
        lambda v: v.scatter_update(tf.IndexedSlices([[5.0, 6.0, 7.0, 8.0]], [2])),
        lambda v: v[3].assign(tf.zeros(4)),
        tf.function(lambda v: v.assign_sub(tf.ones_like(v)), autograph=False),
        tf.function(lambda v: v.assign_sub(tf.ones_like(v)), autograph=False, jit_compile=True),
    ],
)
def test_each_change_is_seen_and_none_reaches_what_was_read(
    change, reader: StateReader, variables: list[tf.Variable]
):
    first = reader.read()
    known = [np.array(value) for value in first]
    for times in range(1, 4):
        change(variables[2])
        found = reader.read()
        np.testing.assert_array_equal(found[2], variables[2].numpy())
        np.testing.assert_array_equal(reader.views()[2], variables[2].numpy())
        assert found[0] is first[0] and found[1] is first[1]
        if times == 1:
            assert not np.array_equal(found[2], known[2])
    for value, before in zip(first, known, strict=True):
        np.testing.assert_array_equal(value, before)
