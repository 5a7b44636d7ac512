"""Which samples are stored already, and in which row of the sample store."""

from collections.abc import Callable
from functools import partial

import numpy as np

from explaind_tf.recording.observing.tap import TappedBatch
from explaind_tf.runs.fingerprints import NO_NUMBER, ContentTable, Fingerprints
from explaind_tf.runs.samples import SampleId
from explaind_tf.runs.storage.tf_example import as_buffer

NewRow = Callable[[int], int]


class SampleRows:
    """The rows of samples by fingerprint, and by id where there are ids."""

    def __init__(self) -> None:
        self._by_fingerprint = ContentTable(8)
        self._by_id: dict[tuple[int, SampleId], int] = {}
        # Of numbers in a series: a look in an array instead of a search.
        self._series: object = None
        self._by_number = np.zeros(0, np.int64)

    def know(self, fingerprint: int, sample_id: SampleId | None, row: int) -> None:
        """Take note of a sample that was written before."""
        if sample_id is None:
            content = as_buffer(np.array([fingerprint], np.int64)).reshape(1, 8)
            self._by_fingerprint.values_of(content, partial(_constant, row))
        else:
            self._by_id[fingerprint, sample_id] = row

    def of_batch(self, batch: TappedBatch, new_row: NewRow) -> np.ndarray:
        """Return the row of each sample, shape (batch,).

        Parameters
        ----------
        batch : TappedBatch
            The samples.
        new_row : callable
            Gives the row of a sample that is not known, by its position in the batch. It is asked in order.
        """
        found = batch.fingerprints
        if batch.ids is None:
            return self._of_fingerprints(found, new_row)
        rows = []
        for i, key in enumerate(zip(found.values.tolist(), batch.ids, strict=True)):
            if key not in self._by_id:
                self._by_id[key] = new_row(i)
            rows.append(self._by_id[key])
        return np.array(rows, np.int64)

    def _of_fingerprints(self, found: Fingerprints, new_row: NewRow) -> np.ndarray:
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
