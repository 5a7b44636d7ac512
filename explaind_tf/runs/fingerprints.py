"""Fingerprints: how a training sample is known by its content."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from explaind_tf.runs.storage.tf_example import as_buffer

# Of a content that is not remembered, or not yet.
NO_NUMBER = -1
# In a place of a table.
_EMPTY = -1


def fingerprint(arrays: Sequence[np.ndarray]) -> int:
    """Return the 64-bit fingerprint of one sample: BLAKE2b over dtype, shape and bytes of its tensors.

    Signed, as TFRecord features are. Two different samples among a million share one with a probability
    of 3e-8.
    """
    return _digest(b"".join(part for array in arrays for part in (_head(array[None]), array.tobytes())))


def _digest(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


@dataclass(frozen=True)
class Fingerprints:
    """The fingerprints of a batch's samples, and numbers by which those that are remembered are known sooner.

    Attributes
    ----------
    values, numbers : np.ndarray of int64
        Shape (batch,). A number stands for the same content in all batches of a series, counted from 0; −1 for none.
    series : object
        Numbers of another one have nothing to do with these.
    """

    values: np.ndarray
    numbers: np.ndarray
    series: object


class BatchFingerprints:
    """The :func:`fingerprint` of each sample of a batch.

    Batches of thousands of small samples (tokens, tables) take longer to hash, a Python call each, than a small model
    takes to train on them. The fingerprints of small samples are therefore remembered, with all of their bytes.
    """

    _LARGEST_REMEMBERED = 256  # bytes of a sample
    _MOST_REMEMBERED = 2**16  # samples: some 40 MB

    def __init__(self) -> None:
        self._form: list[bytes] = []
        self._series = object()
        self._known = ContentTable(0)

    def remembers(self, arrays: Sequence[np.ndarray]) -> bool:
        """Tell whether samples like those of a batch are remembered: looked up, not hashed, from the second time on."""
        return sum(array[:1].nbytes for array in arrays) <= self._LARGEST_REMEMBERED

    def __call__(self, arrays: Sequence[np.ndarray]) -> Fingerprints:
        """Return the fingerprints of a batch, given its tensors (batch, ...)."""
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
    """Return what the digest of each sample of a batch says of a tensor beside its bytes."""
    return f"{array.dtype.str}{array.shape[1:]}".encode()


class ContentTable:
    """Integers by content, looked up for many contents at once.

    A dictionary takes a Python object for each content, and a call for each that is looked up. Here the contents lie in one
    array, in the order of their hashes, and an open-addressed table of places tells where: all contents of a batch are
    compared at once, in full, and those that met another one of the same hash go on to the next place.

    Parameters
    ----------
    width : int
        Bytes of a content.
    limit : int, optional
        Most contents to remember.
    """

    _PLACES_PER_CONTENT = 4

    def __init__(self, width: int, limit: int | None = None) -> None:
        self.width = width
        self._limit = limit
        words = -(-width // 8)
        # Any odd numbers do, for what is found by its hash is compared in full.
        self._factors = np.random.default_rng(0).integers(1, 2**63, words, np.uint64) * np.uint64(
            2
        ) + np.uint64(1)
        self._words = np.zeros((words, 0), np.uint64)  # word by word: what is compared lies side by side
        self._values = np.zeros(0, np.int64)
        self._numbers = np.zeros(0, np.int64)  # in the order in which they came
        self._at_place = np.full(1, _EMPTY, np.int64)  # which content, by place; the last place is empty
        self._bits = 0
        self._recent: dict[bytes, int] = {}  # not sorted in yet

    def __len__(self) -> int:
        return len(self._values) + len(self._recent)

    def values_of(self, contents: np.ndarray, make: Callable[[int], int]) -> np.ndarray:
        """Return the value of each content, int64 of shape (batch,).

        Parameters
        ----------
        contents : np.ndarray
            uint8, shape (batch, width).
        make : callable
            Gives the value of a content that is not known, by its position in the batch. It is asked in order.
        """
        return self.values_and_numbers_of(contents, make)[0]

    def values_and_numbers_of(
        self, contents: np.ndarray, make: Callable[[int], int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the values of contents as :meth:`values_of`, and the number by which each is known here, if it is."""
        found = self._look_up(self._as_words(contents))
        left = np.flatnonzero(found == _EMPTY)
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
                if self._limit is None or len(self) < self._limit:
                    self._recent[content] = value
            values[i] = value
        # To sort anew costs as much as the table is large: it is done when that has grown by a share.
        if 4 * len(self._recent) > len(self._values):
            self._sort_in()
        return values, numbers

    def _look_up(self, words: np.ndarray) -> np.ndarray:
        """Return which content each one is, shape (batch,)."""
        places = self._first_places(words)
        found = self._at_place[places]
        left = np.flatnonzero(self._is_another(found, words))
        while left.size:
            places[left] += 1
            found[left] = self._at_place[places[left]]
            left = left[self._is_another(found[left], words[:, left])]
        return found

    def _is_another(self, found: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Tell which contents met another one, shape (batch,)."""
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
        # Each takes its own place, or the next one after the content before it.
        sorted_in = np.arange(count)
        taken = np.maximum.accumulate(places[order] - sorted_in) + sorted_in
        self._at_place = np.full(max(2**self._bits, taken[-1] + 1) + 1, _EMPTY)
        self._at_place[taken] = sorted_in
        self._words, self._values, self._numbers = words[:, order], values[order], numbers[order]
        self._recent = {}

    def _first_places(self, words: np.ndarray) -> np.ndarray:
        """Return the place where the search for each content begins: the highest bits of its hash."""
        if not self._bits:
            return np.zeros(words.shape[1], np.int64)
        return (self._hash(words) >> np.uint64(64 - self._bits)).astype(np.int64)

    def _as_words(self, contents: np.ndarray) -> np.ndarray:
        """Return the contents' bytes, filled up with zeros, as whole words: shape (words, batch)."""
        padded = np.zeros((len(contents), 8 * len(self._words)), np.uint8)
        padded[:, : self.width] = contents
        return np.ascontiguousarray(padded.view(np.uint64).T)

    def _hash(self, words: np.ndarray) -> np.ndarray:
        hashes = np.zeros(words.shape[1], np.uint64)
        for word, factor in zip(words, self._factors, strict=True):
            hashes ^= hashes >> np.uint64(32)  # low bits must not depend on low bits alone
            hashes = (hashes ^ word) * factor
        return hashes
