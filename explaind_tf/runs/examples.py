"""Serialised ``tf.train.Example`` messages without copies of the tensors in them.

A step holds all weights several times over. Protocol buffers copy each tensor at least three times on its way to a file;
here the few bytes of the wire format around them are written by hand, and the tensors stay where they are.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

# One after the other they make up a message. Arrays are flat, uint8 and read-only.
Buffers = list[bytes | np.ndarray]

# What is smaller than this is copied: a list of many small buffers costs more.
_SMALL = 4096


def int_feature(values: Sequence[int] | np.ndarray) -> tf.train.Feature:
    """Return a feature of integers."""
    plain = values.tolist() if isinstance(values, np.ndarray) else values
    return tf.train.Feature(int64_list=tf.train.Int64List(value=plain))


def as_buffer(array: np.ndarray) -> np.ndarray:
    """Return the bytes of an array, in memory order, flat and read-only; a view where it is contiguous."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    flat.flags.writeable = False
    return flat


def encode_example(features: Mapping[str, tf.train.Feature | Sequence[np.ndarray]]) -> Buffers:
    """Return a serialised ``tf.train.Example``.

    Parameters
    ----------
    features : mapping of str
        Features, or arrays that become a ``BytesList`` of their bytes. Arrays must not be changed until the message
        was written: it refers to them.
    """
    entries: Buffers = []
    for name, feature in features.items():
        key = _message(1, [name.encode()])
        value = _message(
            2, _blobs(feature) if isinstance(feature, Sequence) else [feature.SerializeToString()]
        )
        entries += _message(1, [*key, *value])  # an entry of the map `feature`
    return _joined(_message(1, entries))


def _blobs(arrays: Sequence[np.ndarray]) -> Buffers:
    values = [buffer for array in arrays for buffer in _message(1, [as_buffer(array)])]
    return _message(1, values)


def _message(field: int, content: Buffers) -> Buffers:
    """Return a length-delimited field (developers.google.com/protocol-buffers/docs/encoding, wire type 2)."""
    return [bytes([field << 3 | 2]) + _varint(sum(len(part) for part in content)), *content]


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _joined(parts: Buffers) -> Buffers:
    """Return the same bytes in fewer buffers: small neighbours are put together."""
    joined: Buffers = []
    small: list[bytes] = []
    for part in parts:
        if len(part) < _SMALL:
            small.append(bytes(part))
            continue
        joined += [b"".join(small), part]
        small = []
    return [*joined, b"".join(small)]
