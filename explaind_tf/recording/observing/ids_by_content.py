"""The ids of samples by their content, in few bytes each."""

from array import array
from collections import deque

import numpy as np

from explaind_tf.recording.observing.batches import plain_id
from explaind_tf.recording.observing.row_table import NO_ROW, RowTable
from explaind_tf.runs.samples import SampleId


class IdsByContent:
    """The ids of contents. Several samples may have the same content. They take turns, as they do in the dataset."""

    def __init__(self) -> None:
        self._rows = RowTable()
        self._firsts: array[int] | _Texts | None = None  # the first id of each content, by row
        self._turns: dict[int, deque[SampleId]] = {}  # of the contents with several ids

    def note(self, contents: np.ndarray, ids: np.ndarray) -> None:
        """Add the ids of a batch.

        Parameters
        ----------
        contents : np.ndarray
            Fingerprints, int64 of shape (batch,).
        ids : np.ndarray
            Integers, or bytes of texts. All batches must have the same kind.
        """
        if self._firsts is None:
            self._firsts = _Texts() if ids.dtype == object else array("q")
        rows, new = self._rows.rows_of(contents)
        found = [plain_id(value) for value in ids]
        for i in new.tolist():
            self._firsts.append(found[i])
        for row, sample_id in zip(rows.tolist(), found, strict=True):
            turns = self._turns.get(row)
            if turns is not None:
                if sample_id not in turns:
                    turns.append(sample_id)
            elif (first := self._firsts[row]) != sample_id:
                self._turns[row] = deque([first, sample_id])

    def take(self, contents: np.ndarray) -> list[SampleId] | None:
        """Return an id for each content, int64 of shape (batch,), in turn; None if a content is not known."""
        rows = self._rows.find(contents)
        if self._firsts is None or (rows == NO_ROW).any():
            return None
        return [self._next_of(row) for row in rows.tolist()]

    def _next_of(self, row: int) -> SampleId:
        turns = self._turns.get(row)
        if turns is None:
            assert self._firsts is not None  # there are rows
            return self._firsts[row]
        turns.rotate(-1)
        return turns[-1]


class _Texts:
    """Texts, one after the other in one buffer."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._stops = array("Q")

    def append(self, text: str) -> None:
        self._buffer += text.encode()
        self._stops.append(len(self._buffer))

    def __getitem__(self, index: int) -> str:
        start = self._stops[index - 1] if index else 0
        return self._buffer[start : self._stops[index]].decode()
