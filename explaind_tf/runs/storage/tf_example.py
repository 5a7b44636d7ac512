"""Serialised ``tf.train.Example`` messages, made without copying the tensors in them.

A step holds all weights several times over, and protocol buffers copy each tensor at least three times on its way to a
file. Here the few bytes of the wire format around the tensors are written by hand, and the tensors are not copied.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

# Concatenated, they are a message. Arrays are flat, uint8 and read-only.
Buffers = list[bytes | np.ndarray]

# Smaller buffers than this are copied together: a list of many small buffers costs more.
_SMALL = 4096


class Integers:
    """Values of an ``Int64List``, or one of them."""

    def __init__(self, values: Sequence[int] | np.ndarray | int) -> None:
        self.values = np.atleast_1d(np.asarray(values, np.int64)).reshape(-1)


# What a feature holds.
Feature = Integers | Sequence[np.ndarray]


def as_buffer(array: np.ndarray) -> np.ndarray:
    """Return the bytes of an array, in memory order, flat and read-only. It is a view if the array is contiguous."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    flat.flags.writeable = False
    return flat


def encode_example(features: Mapping[str, Feature]) -> Buffers:
    """Return a serialised ``tf.train.Example``.

    Parameters
    ----------
    features : mapping of str
        Integers, or arrays, which become a ``BytesList`` of their bytes. The message refers to the arrays: they must not
        be changed until it was written.
    """
    entries: Buffers = []
    size = 0
    for name, feature in features.items():
        encoded = name.encode()
        key = _head(1, len(encoded)) + encoded
        field, body = (
            (3, _int64_list(feature)) if isinstance(feature, Integers) else (1, _bytes_list(feature))
        )
        length = sum(map(len, body))
        values = _head(field, length)
        value = _head(2, len(values) + length)
        # The next entry of the map `feature`.
        inner = len(key) + len(value) + len(values) + length
        head = _head(1, inner)
        entries += [head + key + value + values, *body]
        size += len(head) + inner
    return _joined([_head(1, size), *entries])


def _bytes_list(arrays: Sequence[np.ndarray]) -> Buffers:
    return [part for array in arrays for part in (_head(1, array.nbytes), as_buffer(array))]


def _int64_list(integers: Integers) -> Buffers:
    values = _varints(integers.values)
    return [_head(1, len(values)), values]


@lru_cache(maxsize=1024)  # all records of a run have the same sizes
def _head(field: int, length: int) -> bytes:
    """Return the head of a field of given length (developers.google.com/protocol-buffers/docs/encoding, wire type 2)."""
    return bytes([field << 3 | 2]) + _varint(length)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _varints(numbers: np.ndarray) -> bytes:
    """Return the numbers as base-128 varints, negative ones as 64-bit two's complement."""
    unsigned = numbers.view(np.uint64)
    most = len(_varint(int(unsigned.max(initial=0))))
    bits = unsigned[:, None] >> (7 * np.arange(most, dtype=np.uint64))
    going_on = bits > 127
    digits = (bits & 127).astype(np.uint8) | (going_on.astype(np.uint8) << 7)
    is_used = np.concatenate([np.ones((len(numbers), 1), bool), going_on[:, :-1]], axis=1)
    return digits[is_used].tobytes()


def _joined(parts: Buffers) -> Buffers:
    """Return the same bytes in fewer buffers: adjacent small buffers are joined."""
    joined: Buffers = []
    small: list[bytes] = []
    for part in parts:
        if len(part) < _SMALL:
            small.append(bytes(part))
            continue
        joined += [b"".join(small), part]
        small = []
    return [*joined, b"".join(small)]
