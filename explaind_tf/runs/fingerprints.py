"""Fingerprints: a training sample is identified by its content."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from explaind_tf.runs.storage.tf_example import as_buffer

# The number of a content that is not remembered, or not yet.
NO_NUMBER = -1
# Marks an empty place of a table.
_EMPTY = -1


def fingerprint(arrays: Sequence[np.ndarray]) -> int:
    """Return the 64-bit fingerprint of one sample: BLAKE2b over dtype, shape and bytes of its tensors.

    It is signed, as TFRecord features are. The probability that any two different samples among a million
    share a fingerprint is 3e-8.
    """
    return _digest(b"".join(part for array in arrays for part in (_head(array[None]), array.tobytes())))


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of a batch's samples, and short numbers for the samples that are remembered.

    Attributes
    ----------
    values, numbers : np.ndarray of int64
        Shape (batch,). Within a series, a number stands for the same content in all batches. Numbers count from 0; −1
        means that the sample has none.
    series : object
        Identifies the series. Numbers of different series are unrelated.
    """

    values: np.ndarray
    numbers: np.ndarray
    series: object


class BatchFingerprints:
    """The :func:`fingerprint` of each sample of a batch.

    Hashing takes one Python call per sample. For batches of thousands of small samples (tokens, tables), this takes
    longer than a small model takes to train on them. The fingerprints of small samples are therefore remembered,
    together with all bytes of the samples.
    """

    _LARGEST_REMEMBERED = 256  # bytes of a sample
    _MOST_REMEMBERED = 2**16  # samples: some 40 MB

    def __init__(self) -> None:
        self._form: list[bytes] = []
        self._series = object()
        self._known = ContentTable(0)

    def remembers(self, arrays: Sequence[np.ndarray]) -> bool:
        """Return whether samples of this size are remembered, and so looked up from the second time on."""
        return sum(array[:1].nbytes for array in arrays) <= self._LARGEST_REMEMBERED

    def __call__(self, arrays: Sequence[np.ndarray]) -> Fingerprints:
        """Return the fingerprints of a batch, given its tensors (batch, ...)."""
        if not len(arrays[0]):  # the batch of a replica that got none
            return Fingerprints(np.zeros(0, np.int64), np.zeros(0, np.int64), self._series)
        form = [_head(array) for array in arrays]
        bodies = [as_buffer(array).reshape(len(array), array[:1].nbytes) for array in arrays]

        def digest(i: int) -> int:
            parts = (
                part for head, body in zip(form, bodies, strict=True) for part in (head, body[i].tobytes())
            )
            return _digest(b"".join(parts))

        if not self.remembers(arrays):
            values = np.array([digest(i) for i in range(len(arrays[0]))], np.int64)
            return Fingerprints(values, np.full(len(values), NO_NUMBER), self._series)
        if self._form != form:  # sequences may be padded anew in each batch
            self._form, self._series = form, object()
            self._known = ContentTable(sum(body.shape[1] for body in bodies), self._MOST_REMEMBERED)
        values, numbers = self._known.values_and_numbers_of(np.concatenate(bodies, axis=1), digest)
        return Fingerprints(values, numbers, self._series)


def _head(array: np.ndarray) -> bytes:
    """Return the bytes that precede the content of a tensor in each sample's digest: dtype and shape."""
    return f"{array.dtype.str}{array.shape[1:]}".encode()


class ContentTable:
    """Integers by content, looked up for many contents at once.

    A dictionary needs a Python object for each content and a call for each look-up. Here the contents lie in one array,
    in the order of their hashes. An open-addressed table says where each one is. All contents of a batch are compared at
    once and in full. A content that meets a different one moves to the next place of the table.

    Parameters
    ----------
    width : int
        Bytes of a content.
    limit : int, optional
        Most contents to remember.
    """

    _PLACES_PER_CONTENT = 4
    # Contents that are remembered, with a limit, as long as none of them came again: a stream of samples that all differ
    # would only fill memory.
    _UNTIL_FOUND = 2**14

    def __init__(self, width: int, limit: int | None = None) -> None:
        self.width = width
        self._limit, self._was_found = limit, False
        words = -(-width // 8)
        # Any odd numbers work: a content that is found by its hash is still compared in full.
        self._factors = np.random.default_rng(0).integers(1, 2**63, words, np.uint64) * np.uint64(
            2
        ) + np.uint64(1)
        self._words = np.zeros((words, 0), np.uint64)  # word by word: compared words are adjacent
        self._values = np.zeros(0, np.int64)
        self._numbers = np.zeros(0, np.int64)  # in order of arrival
        self._at_place = np.full(
            1, _EMPTY, np.int32
        )  # index of the content at each place; the last place is empty
        self._bits = 0
        self._recent: dict[bytes, int] = {}  # contents that are not sorted in yet

    def __len__(self) -> int:
        return len(self._values) + len(self._recent)

    def values_of(self, contents: np.ndarray, make: Callable[[int], int]) -> np.ndarray:
        """Return the value of each content, int64 of shape (batch,).

        Parameters
        ----------
        contents : np.ndarray
            uint8, shape (batch, width).
        make : callable
            Returns the value of a new content, given its position in the batch. It is called in order of position.
        """
        return self.values_and_numbers_of(contents, make)[0]

    def values_and_numbers_of(
        self, contents: np.ndarray, make: Callable[[int], int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of contents as :meth:`values_of`, and the number of each, or ``NO_NUMBER``."""
        found = self._look_up(self._as_words(contents))
        left = np.flatnonzero(found == _EMPTY)
        self._was_found = self._was_found or left.size < len(found)
        if not left.size:
            return self._values[found], self._numbers[found]
        values = np.zeros(len(contents), np.int64)
        is_known = found != _EMPTY
        values[is_known] = self._values[found[is_known]]
        numbers = np.full(len(contents), NO_NUMBER)
        numbers[is_known] = self._numbers[found[is_known]]
        for i in left.tolist():
            content = contents[i].tobytes()
            value = self._recent.get(content)
            if value is None:
                value = make(i)
                if self._has_room():
                    self._recent[content] = value
            else:
                self._was_found = True
            values[i] = value
        # Sorting costs time in proportion to the table's size, so it is done only after the table grew by a share.
        if 4 * len(self._recent) > len(self._values):
            self._sort_in()
        return values, numbers

    def _has_room(self) -> bool:
        if self._limit is None:
            return True
        return len(self) < (self._limit if self._was_found else min(self._limit, self._UNTIL_FOUND))

    def _look_up(self, words: np.ndarray) -> np.ndarray:
        """Return the index of each content, or ``_EMPTY`` if it is not known; shape (batch,)."""
        places = self._first_places(words)
        found = self._at_place[places]
        left = np.flatnonzero(self._is_another(found, words))
        while left.size:
            places[left] += 1
            found[left] = self._at_place[places[left]]
            left = left[self._is_another(found[left], words[:, left])]
        return found

    def _is_another(self, found: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Return which contents met a different content at their place, shape (batch,)."""
        is_another = np.zeros(len(found), bool)
        if len(self._values):
            for known, wanted in zip(self._words, words, strict=True):
                is_another |= known[found] != wanted
            is_another &= found != _EMPTY
        return is_another

    def _sort_in(self) -> None:
        new = np.frombuffer(b"".join(self._recent), np.uint8).reshape(len(self._recent), self.width)
        words = np.concatenate([self._words, self._as_words(new)], axis=1)
        values = np.concatenate([self._values, np.fromiter(self._recent.values(), np.int64)])
        count = len(values)
        numbers = np.concatenate([self._numbers, np.arange(len(self._numbers), count)])
        self._bits = (self._PLACES_PER_CONTENT * count - 1).bit_length()
        places = self._first_places(words)
        order = np.argsort(places, kind="stable")
        # Each content takes its own place, or the place after that of the content before it.
        sorted_in = np.arange(count)
        taken = np.maximum.accumulate(places[order] - sorted_in) + sorted_in
        self._at_place = np.full(max(2**self._bits, taken[-1] + 1) + 1, _EMPTY, np.int32)
        self._at_place[taken] = sorted_in
        self._words, self._values, self._numbers = words[:, order], values[order], numbers[order]
        self._recent = {}

    def _first_places(self, words: np.ndarray) -> np.ndarray:
        """Return the place where the search for each content begins: the highest bits of its hash."""
        if not self._bits:
            return np.zeros(words.shape[1], np.int64)
        return (self._hash(words) >> np.uint64(64 - self._bits)).astype(np.int64)

    def _as_words(self, contents: np.ndarray) -> np.ndarray:
        """Return the contents' bytes as whole words, padded with zeros: shape (words, batch)."""
        padded = np.zeros((len(contents), 8 * len(self._words)), np.uint8)
        padded[:, : self.width] = contents
        return np.ascontiguousarray(padded.view(np.uint64).T)

    def _hash(self, words: np.ndarray) -> np.ndarray:
        hashes = np.zeros(words.shape[1], np.uint64)
        for word, factor in zip(words, self._factors, strict=True):
            hashes ^= hashes >> np.uint64(32)  # low bits must not depend on low bits alone
            hashes = (hashes ^ word) * factor
        return hashes
