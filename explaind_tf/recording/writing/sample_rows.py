"""The samples that are already stored, and their rows in the sample store."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.runs.fingerprints import NO_NUMBER, ContentTable, Fingerprints
from explaind_tf.runs.samples import SampleId
from explaind_tf.runs.storage.tf_example import as_buffer


class BatchRows(NamedTuple):
    """The rows of a batch's samples.

    Attributes
    ----------
    rows : np.ndarray of int64
        The row of each sample, shape (batch,).
    new : list of int
        Positions in the batch of the samples that are not stored yet, in the order of their rows.
    """

    rows: np.ndarray
    new: list[int]


class SampleRows:
    """The rows of samples by fingerprint, and by id where there are ids."""

    def __init__(self) -> None:
        self._by_fingerprint = ContentTable(8)
        self._by_id: dict[tuple[int, SampleId], int] = {}
        # Rows by number in a series: indexing an array is faster than searching.
        self._series: object = None
        self._by_number = np.zeros(0, np.int64)

    def know(self, fingerprint: int, sample_id: SampleId | None, row: int) -> None:
        """Add a sample that was written before."""
        if sample_id is None:
            content = as_buffer(np.array([fingerprint], np.int64)).reshape(1, 8)
            self._by_fingerprint.values_of(content, partial(_constant, row))
        else:
            self._by_id[fingerprint, sample_id] = row

    def of_batch(self, batch: StepBatch, next_row: int) -> BatchRows:
        """Return the row of each sample of a batch, and which samples are new. New samples are added.

        Parameters
        ----------
        batch : StepBatch
            The batch.
        next_row : int
            The row of the first new sample. The other new samples follow.
        """
        new: list[int] = []

        def new_row(i: int) -> int:
            new.append(i)
            return next_row + len(new) - 1

        found = batch.fingerprints
        if batch.ids is None:
            return BatchRows(self._of_fingerprints(found, new_row), new)
        rows = []
        for i, key in enumerate(zip(found.values.tolist(), batch.ids, strict=True)):
            if key not in self._by_id:
                self._by_id[key] = new_row(i)
            rows.append(self._by_id[key])
        return BatchRows(np.array(rows, np.int64), new)

    def _of_fingerprints(self, found: Fingerprints, new_row: Callable[[int], int]) -> np.ndarray:
        if found.series is not self._series:
            self._series, self._by_number = found.series, np.zeros(0, np.int64)
        missing = found.numbers.max(initial=NO_NUMBER) + 1 - len(self._by_number)
        if missing > 0:
            self._by_number = np.append(self._by_number, np.full(missing, NO_NUMBER))
        is_numbered = found.numbers != NO_NUMBER
        rows = np.full(len(found.values), NO_NUMBER)
        rows[is_numbered] = self._by_number[found.numbers[is_numbered]]
        left = np.flatnonzero(rows == NO_NUMBER)
        if left.size:
            contents = as_buffer(found.values[left]).reshape(-1, 8)
            rows[left] = self._by_fingerprint.values_of(contents, lambda i: new_row(int(left[i])))
            self._by_number[found.numbers[is_numbered]] = rows[is_numbered]
        return rows


def _constant(value: int, _: int) -> int:
    return value
