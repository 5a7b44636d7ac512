"""The fingerprints of a batch are the fingerprints of its samples."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.runs.fingerprints import NO_NUMBER, BatchFingerprints, ContentTable, fingerprint
from explaind_tf.runs.storage.tf_example import as_buffer


class TestBatchFingerprints:
    @pytest.mark.parametrize("shape", [(), (2,), (2, 3), (0,), (40, 3)])
    @pytest.mark.parametrize("dtype", ["int32", "float32", "bool", "bfloat16"])
    def test_they_are_those_of_the_samples(self, shape, dtype):
        dtype = tf.dtypes.as_dtype(dtype).as_numpy_dtype
        rng = np.random.default_rng(0)
        x, y = rng.integers(0, 2, (5, *shape)).astype(dtype), np.arange(5)
        of_batch = BatchFingerprints()
        expected = [fingerprint([x[i], y[i]]) for i in range(5)]
        assert of_batch([x, y]).values.tolist() == expected
        again = of_batch([x[::-1], y[::-1]])  # not contiguous, and known by now
        assert again.values.tolist() == expected[::-1]

    def test_those_of_large_and_growing_sets(self):
        rng = np.random.default_rng(1)
        x = rng.integers(0, 50, (3000, 2)).astype(np.int32)  # many twice
        expected = [fingerprint([row]) for row in x]
        of_batch = BatchFingerprints()
        for _ in range(2):
            found = np.concatenate([of_batch([x[start : start + 7]]).values for start in range(0, 3000, 7)])
            assert found.tolist() == expected
        wider = x.astype(np.int64)
        assert of_batch([wider]).values.tolist() == [fingerprint([row]) for row in wider]

    def test_a_hash_is_no_proof(self, monkeypatch):
        monkeypatch.setattr(ContentTable, "_hash", lambda self, words: np.zeros(words.shape[1], np.uint64))
        of_batch, x = BatchFingerprints(), np.arange(5)
        for _ in range(3):
            assert of_batch([x]).values.tolist() == [fingerprint([value]) for value in x]

    def test_numbers_stand_for_contents(self):
        rng = np.random.default_rng(3)
        of_batch, known = BatchFingerprints(), {}
        for _ in range(60):
            x = rng.integers(0, 40, 7)
            found = of_batch([x])
            for number, content in zip(found.numbers.tolist(), x.tolist(), strict=True):
                if number != NO_NUMBER:
                    assert known.setdefault(number, content) == content
        assert len(set(known.values())) == len(known) > 30  # each by one number, but for the last to come
        other = of_batch([x.astype(np.int32)])
        assert other.series is not found.series
        assert (other.numbers == NO_NUMBER).all()

    def test_only_so_many_are_remembered(self, monkeypatch):
        monkeypatch.setattr(BatchFingerprints, "_MOST_REMEMBERED", 2)
        of_batch, x = BatchFingerprints(), np.arange(5.0)
        for _ in range(2):
            assert of_batch([x]).values.tolist() == [fingerprint([value]) for value in x]
        assert len(of_batch._known) == 2

    def test_few_are_remembered_until_one_comes_again(self, monkeypatch):
        monkeypatch.setattr(ContentTable, "_UNTIL_FOUND", 4)
        fingerprints, x = BatchFingerprints(), np.arange(12.0)[:, None]
        fingerprints([x])
        again = fingerprints([x]).numbers
        assert again.max() == 3
        fingerprints([x])
        assert sorted(fingerprints([x]).numbers) == list(range(12))

    def test_an_empty_batch_has_none(self):
        assert BatchFingerprints()([np.zeros((0, 2))]).values.tolist() == []


class TestContentTable:
    def test_each_content_of_eight_bytes_is_made_once(self):
        # The writer relies on this to store a sample once.
        rng = np.random.default_rng(2)
        numbers = rng.integers(-(2**63), 2**63 - 1, 500)[rng.integers(0, 500, 3000)]
        numbers[:100] = np.arange(100)
        table, made = ContentTable(8), []
        for start in range(0, 3000, 13):
            part = numbers[start : start + 13]
            found = table.values_of(
                as_buffer(part).reshape(-1, 8), lambda i, part=part: made.append(part[i]) or len(made) - 1
            )
            assert [made[row] for row in found] == part.tolist()
        assert len(made) == len(set(made)) == len(table)
