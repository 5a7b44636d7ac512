"""Rows of samples, compared with a dictionary, for each of the routes by which they are found."""

from concurrent.futures import Future

import numpy as np
import pytest

from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.recording.writing.sample_rows import SampleRows
from explaind_tf.runs.fingerprints import BatchFingerprints


class _Stored:
    """Acts as a writer: each sample is stored once, in order of first appearance."""

    def __init__(self) -> None:
        self.rows, self.expected = SampleRows(), {}

    def check(self, fingerprints: BatchFingerprints, x: np.ndarray, ids: list[int] | None = None) -> None:
        hashed: Future = Future()
        hashed.set_result(fingerprints([x]))
        before = len(self.expected)
        found, new = self.rows.of_batch(StepBatch([x], [], [], hashed, ids))
        keys = [(value.dtype, value.tobytes(), i) for value, i in zip(x, ids or [None] * len(x), strict=True)]
        for key in keys:
            self.expected.setdefault(key, len(self.expected))
        assert found.tolist() == [self.expected[key] for key in keys]
        assert [self.expected[keys[i]] for i in new] == list(range(before, len(self.expected)))


@pytest.mark.parametrize("most", [0, 20, 2**16])
def test_growing_sets_of_samples_in_any_order(monkeypatch, most):
    monkeypatch.setattr(BatchFingerprints, "_MOST_REMEMBERED", most)
    rng, stored, of_batch = np.random.default_rng(0), _Stored(), BatchFingerprints()
    for step in range(200):
        stored.check(of_batch, rng.integers(0, 2 + step, 1 + step % 17))
    assert len(stored.expected) > 150


def test_taps_and_forms_number_samples_anew():
    rng, stored = np.random.default_rng(1), _Stored()
    taps = [BatchFingerprints(), BatchFingerprints()]
    for step in range(120):
        dtype = (np.int64, np.int32)[step // 5 % 2]
        stored.check(taps[rng.integers(2)], rng.integers(0, 30, 9).astype(dtype))
    assert len(stored.expected) == 60


def test_samples_with_ids_are_told_apart_by_them():
    rng, stored, of_batch = np.random.default_rng(2), _Stored(), BatchFingerprints()
    for _ in range(40):
        stored.check(of_batch, rng.integers(0, 5, 6), rng.integers(0, 3, 6).tolist())
    assert len(stored.expected) == 15


def test_samples_known_from_before_keep_their_rows():
    of_batch, x, rows = BatchFingerprints(), np.arange(50), SampleRows()
    rows.know((int(value), None) for value in of_batch([x]).values)
    for _ in range(3):
        hashed: Future = Future()
        hashed.set_result(of_batch([x[::-1]]))
        found, new = rows.of_batch(StepBatch([x], [], [], hashed, None))
        assert found.tolist() == x[::-1].tolist() and not new.size
