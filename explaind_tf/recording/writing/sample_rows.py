"""The rows of samples in the store: each distinct sample has one, in order of first appearance."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.recording.observing.row_table import NO_ROW, RowTable
from explaind_tf.runs.fingerprints import NO_NUMBER, Fingerprints
from explaind_tf.runs.samples import SampleId


class BatchRows(NamedTuple):
    """The rows of a batch's samples.

    Attributes
    ----------
    rows : np.ndarray of int64
        The row of each sample, shape (batch,).
    new : np.ndarray of int64
        Positions in the batch of the samples that are not stored yet, in the order of their rows.
    """

    rows: np.ndarray
    new: np.ndarray


class SampleRows:
    """The rows of samples by fingerprint, and by id where there are ids."""

    def __init__(self) -> None:
        self._table = RowTable()
        # Rows by number in a series: indexing an array is faster than searching.
        self._series: object = None
        self._by_number = np.zeros(0, np.int64)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._table)

    def know(self, samples: Iterable[tuple[int, SampleId | None]]) -> None:
        """Add samples that were written before, in the order of their rows: fingerprints and ids."""
        keys = (
            fingerprint if sample_id is None else _key(fingerprint, sample_id)
            for fingerprint, sample_id in samples
        )
        self._table.append(np.fromiter(keys, np.int64))

    def of_batch(self, batch: StepBatch) -> BatchRows:
        """Return the row of each sample of a batch, and which samples are new. New samples are added."""
        found = batch.fingerprints
        if batch.ids is None:
            return self._of_fingerprints(found)
        pairs = zip(found.values.tolist(), batch.ids, strict=True)
        return BatchRows(*self._table.rows_of(np.fromiter((_key(*pair) for pair in pairs), np.int64)))

    def _of_fingerprints(self, found: Fingerprints) -> BatchRows:
        if found.series is not self._series:
            self._series, self._by_number = found.series, np.zeros(0, np.int64)
        missing = found.numbers.max(initial=NO_NUMBER) + 1 - len(self._by_number)
        if missing > 0:
            self._by_number = np.append(self._by_number, np.full(missing, NO_ROW))
        is_numbered = found.numbers != NO_NUMBER
        rows = np.full(len(found.values), NO_ROW)
        rows[is_numbered] = self._by_number[found.numbers[is_numbered]]
        left = np.flatnonzero(rows == NO_ROW)
        if not left.size:
            return BatchRows(rows, left)
        rows[left], new = self._table.rows_of(found.values[left])
        self._by_number[found.numbers[is_numbered]] = rows[is_numbered]
        return BatchRows(rows, left[new])


def _key(fingerprint: int, sample_id: SampleId) -> int:
    """Return a digest of content and id."""
    content = f"{fingerprint} {sample_id!r}".encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)
