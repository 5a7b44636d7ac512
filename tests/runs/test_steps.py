"""Reading steps ahead: it saves time, and gives the same records as reading them when they are asked for."""

import threading
import tracemalloc
import weakref
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from explaind_tf import RunFormatError
from explaind_tf.runs import steps
from explaind_tf.runs.format.description import VariableSpec
from explaind_tf.runs.format.step_records import START, STEP, Layout, Snapshot, StepRecord, encode_step
from explaind_tf.runs.steps import StepStore
from explaind_tf.runs.storage.records import RecordFile, RecordWriter

STEPS, SIZE = 12, 5
LAYOUT = Layout((VariableSpec("net/kernel", (SIZE,), "float32", True),), (), has_second_moment=False)
FORWARD = range(STEPS)
BACKWARD = range(STEPS - 1, -1, -1)
RANDOM = np.random.default_rng(0).integers(0, STEPS, 60)
ORDERS = {
    "forward": FORWARD,
    "backward": BACKWARD,
    "random": RANDOM,
    "turning": [*range(7), *range(5, 1, -1), *range(3, STEPS)],
    "repeated": np.repeat(BACKWARD, 3),
}


def theta(position: int) -> np.ndarray:
    return np.full(SIZE, position, np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of twelve steps. The weights after each record are its position."""
    writer = RecordWriter(tmp_path / "steps.tfrecord")
    for position in range(STEPS + 1):
        kind = STEP if position else START
        writer.write(encode_step(StepRecord(kind, position - 1, Snapshot(theta(position), [])), ""))
    writer.close()
    return writer.path


def open_steps(path: Path) -> StepStore:
    return StepStore([RecordFile(path, STEPS + 1)], LAYOUT)


def damage(path: Path, index: int) -> None:
    """Flip a bit in the data of a record."""
    offset = RecordFile(path, None)._offsets[index]
    data = bytearray(path.read_bytes())
    data[offset + 20] ^= 1
    path.write_bytes(data)


def wait(store: StepStore) -> None:
    """Let the store finish what it is reading."""
    if store._ahead is not None:
        store._ahead.join()


def walk(store: StepStore, order: Iterable[int]) -> None:
    for step in order:
        transition = store.transition(int(step))
        assert transition.step == step
        np.testing.assert_array_equal(transition.theta_start, theta(step))
        np.testing.assert_array_equal(transition.theta_end, theta(step + 1))


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_every_order_gives_the_same_records(path: Path, order: Iterable[int]):
    walk(open_steps(path), order)


@pytest.mark.parametrize(
    ("order", "ahead"),
    [(FORWARD, range(4, STEPS + 1)), (BACKWARD, range(STEPS - 3, -1, -1)), ([0, 5, 2], [])],
)
def test_a_walk_reads_ahead_and_jumps_do_not(
    path: Path, order: Iterable[int], ahead: Iterable[int], monkeypatch: pytest.MonkeyPatch
):
    store, read = open_steps(path), []
    plain = store._decode

    def note(index: int) -> StepRecord:
        if threading.current_thread() is not threading.main_thread():
            read.append(index)
        return plain(index)

    monkeypatch.setattr(store, "_decode", note)
    walk(store, order)
    wait(store)
    assert read == list(ahead)


@pytest.mark.parametrize(("order", "first"), [(FORWARD, 6), (BACKWARD, 8)], ids=["forward", "backward"])
def test_a_damaged_record_raises_when_it_is_asked_for_and_not_earlier(path: Path, order: range, first: int):
    damage(path, 8)
    store = open_steps(path)
    before = list(order)[: list(order).index(first)]
    for step in before:
        store.transition(step)
        wait(store)
    assert (
        store._ahead is not None and store._ahead.position == 8
    )  # it was read ahead, and no error was raised
    for _ in range(2):
        with pytest.raises(RunFormatError, match=r"record 8, at byte .* is damaged"):
            store.transition(first)
    walk(store, before)


def test_threads_may_walk_in_opposite_directions(path: Path):
    store = open_steps(path)
    with ThreadPoolExecutor(4) as pool:
        for walked in [
            pool.submit(walk, store, order) for order in (FORWARD, BACKWARD, RANDOM, RANDOM[::-1])
        ]:
            walked.result()


def test_one_record_more_is_held_than_without_reading_ahead(path: Path, monkeypatch: pytest.MonkeyPatch):
    store = open_steps(path)
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    plain = store._decode

    class Tracked(StepRecord):
        __hash__ = object.__hash__

    def note(index: int) -> StepRecord:
        record = Tracked(**vars(plain(index)))
        alive.add(record)
        return record

    monkeypatch.setattr(store, "_decode", note)
    for step in (*FORWARD, *BACKWARD, *RANDOM):
        store.transition(int(step))
        wait(store)
        assert len(alive) <= steps._CACHED_RECORDS + 1


def test_a_run_is_closed_when_nobody_holds_it(path: Path):
    """It is closed at once, not later by the garbage collector: threads leave no reference cycle."""
    store = open_steps(path)
    walk(store, FORWARD[:5])
    thread = store._ahead
    assert thread is not None
    thread.join()
    closed = store.records.files[0]._file._close
    del store, thread
    assert not closed.alive


def test_records_are_read_where_no_thread_can_be_had(path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    walk(open_steps(path), FORWARD)


def _opened(path: Path, steps: int) -> tuple[int, int]:
    """Write steps, open them, and return the bytes that this read and the bytes of memory that it keeps."""
    writer = RecordWriter(path)
    records = (
        encode_step(StepRecord(STEP if position else START, position - 1, Snapshot(theta(position), [])), "")
        for position in range(steps + 1)
    )
    writer.write_all(records)
    writer.close()
    file = RecordFile(path, steps + 1)
    read, counts = file._file.read, []
    file._file.read = lambda offset, count: counts.append(len(read(offset, count))) or read(offset, count)
    tracemalloc.start()
    try:
        store = StepStore([file], LAYOUT)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(store) == steps
    return sum(counts), kept


def test_opening_ten_times_as_many_steps_reads_no_more_and_keeps_few_bytes(tmp_path: Path):
    few, many = (_opened(tmp_path / str(steps), steps) for steps in (2_000, 20_000))
    assert many[0] <= few[0] + 100  # step numbers take more digits
    assert many[1] - few[1] < 10 * 18_000  # the number of each record, 8 bytes
