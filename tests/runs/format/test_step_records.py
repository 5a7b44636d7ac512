"""Records of steps leave out what is as it was before training, bit for bit, and give it back."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf import RunFormatError
from explaind_tf.runs.format.description import VariableSpec
from explaind_tf.runs.format.possible_numbers import check_numbers
from explaind_tf.runs.format.step_records import END, START, STEP, Layout, Snapshot, StepRecord, encode_step
from explaind_tf.runs.steps import StepStore
from explaind_tf.runs.storage.records import RecordFile, RecordWriter

STATE = [np.arange(1000, dtype=np.float32), np.zeros(2, np.int64), np.zeros((0, 3), np.float32)]
LAYOUT = Layout(
    (VariableSpec("kernel", (3,), "float32", True),),
    tuple(VariableSpec(f"state{k}", a.shape, a.dtype.name, False) for k, a in enumerate(STATE)),
    has_second_moment=False,
)
THETA = np.ones(3, np.float32)


def example_of(record: StepRecord, start: Any = ()) -> tf.train.Example:
    return tf.train.Example.FromString(b"".join(bytes(part) for part in encode_step(record, "", start)))


def based(layout: Layout = LAYOUT) -> Layout:
    return Layout(layout.variables, layout.state, has_second_moment=False, start=tuple(STATE))


def test_state_that_rests_takes_no_bytes_and_is_the_array_from_the_start():
    moved = [STATE[0], STATE[1] + 1, STATE[2]]
    example = example_of(StepRecord(STEP, 0, Snapshot(THETA, moved)), STATE)
    assert example.ByteSize() < 400
    found = based().decode(example).known.state
    assert found[0] is STATE[0]
    np.testing.assert_array_equal(found[1], moved[1])
    assert found[2].shape == (0, 3)


def test_a_sign_of_zero_is_a_change():
    start = [np.zeros(4, np.float32)]
    layout = Layout(
        LAYOUT.variables,
        (VariableSpec("state", (4,), "float32", False),),
        has_second_moment=False,
        start=tuple(start),
    )
    example = example_of(StepRecord(STEP, 0, Snapshot(THETA, [-start[0]])), start)
    assert np.signbit(layout.decode(example).known.state[0]).all()


def test_state_that_something_set_is_left_out_alike():
    record = StepRecord(STEP, 0, Snapshot(THETA, STATE), state_before=[STATE[0], STATE[1] + 1, STATE[2]])
    found = based().decode(example_of(record, STATE))
    assert found.state_before is not None
    assert found.state_before[0] is STATE[0]
    np.testing.assert_array_equal(found.state_before[1], STATE[1] + 1)


def test_the_first_record_must_hold_all_of_it():
    example = example_of(StepRecord(START, -1, Snapshot(THETA, STATE)), STATE)
    with pytest.raises(RunFormatError, match="holds 0 bytes for the variable 'state0' instead of 1000"):
        LAYOUT.decode(example)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (StepRecord(END, 2, None, is_unchanged=True), "is no step"),
        (StepRecord(STEP, 2, None, is_unchanged=True, updates=True, iteration=0), "it updates the weights"),
    ],
)
def test_only_a_step_without_an_update_changes_nothing(record: StepRecord, words: str):
    with pytest.raises(RunFormatError, match=words):
        check_numbers(based().decode(example_of(record)), LAYOUT)


def test_a_step_that_changed_nothing_has_the_state_before_it(tmp_path: Any):
    changed = THETA * 2
    records = [
        StepRecord(START, -1, Snapshot(THETA, STATE)),
        StepRecord(STEP, 0, None, is_unchanged=True),
        StepRecord(STEP, 1, None, is_unchanged=True, theta_before=changed),
        StepRecord(STEP, 2, Snapshot(THETA * 3, [STATE[0] + 1, *STATE[1:]])),
        StepRecord(STEP, 3, None, is_unchanged=True),
    ]
    writer = RecordWriter(tmp_path / "steps.tfrecord")
    for record in records:
        writer.write(encode_step(record, "", () if record.kind == START else STATE))
    writer.close()
    store = StepStore([RecordFile(writer.path, len(records))], LAYOUT)
    for number in (3, 0, 2, 1, 3):
        theta = {0: THETA, 1: changed, 2: THETA * 3, 3: THETA * 3}[number]
        np.testing.assert_array_equal(store.step(number).known.theta, theta)
    np.testing.assert_array_equal(store.transition(1).theta_start, changed)
    np.testing.assert_array_equal(store.transition(1).theta_end, changed)
    np.testing.assert_array_equal(store.state(4)[0], STATE[0] + 1)
