"""Series of checkpoints without Keras: which files belong to them, in which order, and how many are in memory."""

import weakref
from pathlib import Path

import numpy as np
import pytest

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.format.description import VariableSpec
from explaind_tf.runs.format.step_records import Layout
from explaind_tf.runs.series import CheckpointStore, find_checkpoints

LAYOUT = Layout(
    (VariableSpec("a/kernel", (2,), "float32", False),), (VariableSpec("a/seed", (), "int64", False),)
)
PATHS = [Path(str(position)) for position in range(6)]


def values(path):
    return [np.full(2, float(path.name), np.float32), np.array(7)]


def touch(directory, *files):
    for file in files:
        (directory / file).touch()


def found(*arguments):
    return [path.name for path in find_checkpoints(*arguments)]


def test_matches_of_a_pattern_are_sorted_by_the_numbers_in_them(tmp_path):
    touch(tmp_path, "epoch-10.keras", "epoch-2.keras", "epoch-1.keras", "other.txt")
    assert found(tmp_path / "epoch-*") == ["epoch-1.keras", "epoch-2.keras", "epoch-10.keras"]
    assert found(str(tmp_path / "epoch-?.keras")) == ["epoch-1.keras", "epoch-2.keras"]


def test_a_list_is_kept_in_its_order(tmp_path):
    touch(tmp_path, "b", "a")
    assert found([tmp_path / "b", str(tmp_path / "a")]) == ["b", "a"]


@pytest.mark.parametrize("pattern", ["*", "ckpt-*", "ckpt-*.index"])
def test_the_files_of_a_tensorflow_checkpoint_are_one(tmp_path, pattern):
    ends = ("index", "data-00000-of-00002", "data-00001-of-00002")
    touch(tmp_path, "checkpoint", *(f"ckpt-{i}.{end}" for i in (9, 10) for end in ends))
    assert found(tmp_path / pattern) == ["ckpt-9", "ckpt-10"]


def test_too_few_and_twice_the_same_are_refused(tmp_path):
    touch(tmp_path, "a.keras", "b.keras")
    with pytest.raises(ValueError, match=r"matches 1 checkpoints: .*a\.keras\. A path needs two or more"):
        find_checkpoints(tmp_path / "a*")
    with pytest.raises(ValueError, match="The list has 0 checkpoints"):
        find_checkpoints([])
    with pytest.raises(ValueError, match=r"2 of the list is checkpoint 0 again: .*a\.keras"):
        find_checkpoints([tmp_path / "a.keras", tmp_path / "b.keras", tmp_path / "c" / ".." / "a.keras"])


def test_two_are_in_memory_at_most_whichever_way_they_are_walked():
    alive = weakref.WeakSet()

    class Tracked(np.ndarray):
        """An array that is hashable, as a WeakSet needs; NumPy's own are not."""

        __hash__ = object.__hash__

    def read(path):
        assert len(alive) <= 1  # this one is the second
        arrays = [values(path)[0], np.zeros((), np.int64).view(Tracked)]
        alive.add(arrays[1])
        return arrays

    store = CheckpointStore(PATHS, read, LAYOUT)
    for step in [*range(5), *reversed(range(5)), 3, 0]:
        transition = store.transition(step)
        assert (transition.theta_start[0], transition.theta_end[0]) == (step, step + 1)
        del transition
    assert len(store) == 5
    assert len(alive) == 2


def test_each_is_read_once_on_the_way():
    reads = []

    def read(path):
        reads.append(path)
        return values(path)

    store = CheckpointStore(PATHS, read, LAYOUT)
    assert reads == PATHS
    for step in range(5):
        store.transition(step)
    assert reads == [*PATHS, *PATHS]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            np.ones(3, np.float32),
            r"4: the variable 'a/kernel' has shape \(3,\) there; in the model it has \(2,\)",
        ),
        (np.array([1, np.inf], np.float32), "4: the variable 'a/kernel' holds NaN or infinite values"),
    ],
)
def test_what_is_no_checkpoint_of_the_model_is_refused_on_opening(bad, message):
    def read(path):
        return [bad, np.array(7)] if path.name == "4" else values(path)

    with pytest.raises(RunFormatError, match=message):
        CheckpointStore(PATHS, read, LAYOUT)


def test_what_changed_after_opening_is_noticed():
    shift = [0.0]
    store = CheckpointStore(PATHS, lambda path: [values(path)[0] + shift[0], np.array(7)], LAYOUT)
    shift[0] = 1.0
    with pytest.raises(RunFormatError, match="3 has changed since the series was opened"):
        store.theta(3)
