"""Fingerprints: how a training sample is known by its content."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from explaind_tf.runs.examples import as_buffer


def fingerprint(arrays: Sequence[np.ndarray]) -> int:
    """Return the 64-bit fingerprint of one sample: BLAKE2b over dtype, shape and bytes of its tensors.

    Signed, as TFRecord features are. Two different samples among a million share one with a probability
    of 3e-8.
    """
    parts = ((f"{array.dtype.str}{array.shape}".encode(), array.tobytes()) for array in arrays)
    return _digest(b"".join(part for pair in parts for part in pair))


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


class BatchFingerprints:
    """The :func:`fingerprint` of each sample of a batch.

    Batches of thousands of small samples (tokens, tables) take longer to hash, a Python call each, than a small model
    takes to train on them. The fingerprints of small samples are therefore remembered, with all of their bytes.
    """

    _LARGEST_REMEMBERED = 256  # bytes of a sample
    _MOST_REMEMBERED = 2**16  # samples: some 40 MB

    def __init__(self) -> None:
        self._known = ContentTable(0)

    def __call__(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Return the fingerprints of a batch, given its tensors (batch, ...), int64 of shape (batch,)."""
        rows = _rows(arrays)
        width = rows.shape[1]
        if width > self._LARGEST_REMEMBERED:
            return np.array([_digest(row.tobytes()) for row in rows], np.int64)
        if self._known.width != width:  # sequences may be padded anew in each batch
            self._known = ContentTable(width, self._MOST_REMEMBERED)
        return self._known.values_of(rows, lambda i: _digest(rows[i].tobytes()))


class ContentTable:
    """Numbers by content, looked up for many contents at once.

    A dictionary takes a Python object for each content. Here the contents lie in one array, sorted by a hash. The hash
    finds a candidate, and all of its bytes are compared: where two contents share a hash, the number of one of them is made
    anew each time. Contents of eight bytes never do, for their hash can be undone.

    Parameters
    ----------
    width : int
        Bytes of a content.
    limit : int, optional
        Most contents to remember.
    """

    def __init__(self, width: int, limit: int | None = None) -> None:
        self.width = width
        self._limit = limit
        words = -(-width // 8)
        # Any odd numbers do, for what is found by its hash is compared in full.
        self._factors = np.random.default_rng(0).integers(1, 2**63, words, np.uint64) * np.uint64(
            2
        ) + np.uint64(1)
        self._hashes = np.zeros(0, np.uint64)
        self._words = np.zeros((0, words), np.uint64)
        self._values = np.zeros(0, np.int64)
        self._recent: dict[bytes, int] = {}  # not sorted in yet

    def __len__(self) -> int:
        return len(self._values) + len(self._recent)

    def values_of(self, contents: np.ndarray, make: Callable[[int], int]) -> np.ndarray:
        """Return the number of each content, int64 of shape (batch,).

        Parameters
        ----------
        contents : np.ndarray
            uint8, shape (batch, width).
        make : callable
            Gives the number of a content that is not known, by its position in the batch. It is asked in order.
        """
        values, is_known = self._look_up(contents)
        for i in np.flatnonzero(~is_known).tolist():
            content = contents[i].tobytes()
            value = self._recent.get(content)
            if value is None:
                value = make(i)
                if self._limit is None or len(self) < self._limit:
                    self._recent[content] = value
            values[i] = value
        # To sort anew costs as much as the table is large: it is done when that has grown by a share.
        if 4 * len(self._recent) > len(self._values):
            self._sort_in()
        return values

    def _look_up(self, contents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not len(self._values):
            return np.zeros(len(contents), np.int64), np.zeros(len(contents), bool)
        words = self._as_words(contents)
        at = np.searchsorted(self._hashes, self._hash(words))
        at = np.minimum(at, len(self._values) - 1)
        return self._values[at], (self._words[at] == words).all(axis=1)

    def _sort_in(self) -> None:
        new = np.frombuffer(b"".join(self._recent), np.uint8).reshape(len(self._recent), self.width)
        words = np.concatenate([self._words, self._as_words(new)])
        values = np.concatenate([self._values, np.fromiter(self._recent.values(), np.int64)])
        hashes = self._hash(words)
        order = np.argsort(hashes, kind="stable")
        self._hashes, self._words, self._values = hashes[order], words[order], values[order]
        self._recent = {}

    def _as_words(self, contents: np.ndarray) -> np.ndarray:
        return np.pad(contents, [(0, 0), (0, -self.width % 8)]).view(np.uint64)

    def _hash(self, words: np.ndarray) -> np.ndarray:
        hashes = np.zeros(len(words), np.uint64)
        for column, factor in zip(words.T, self._factors, strict=True):
            hashes = (hashes ^ column) * factor
            hashes ^= hashes >> np.uint64(32)  # low bits must not depend on low bits alone
        return hashes


def _rows(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return what the digest of each sample is taken of, uint8 of shape (batch, bytes)."""
    count = len(arrays[0])
    pieces: list[np.ndarray] = []
    for array in arrays:
        head = np.frombuffer(f"{array.dtype.str}{array.shape[1:]}".encode(), np.uint8)
        body = as_buffer(array).reshape(count, array[:1].nbytes)
        pieces += [np.broadcast_to(head, (count, len(head))), body]
    return np.concatenate(pieces, axis=1)
