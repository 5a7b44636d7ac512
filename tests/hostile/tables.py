"""The index of a file of variables, read and written: with checksums that fit, so that only what it states is odd."""

import struct

import google_crc32c

from explaind_tf.runs.storage.tensor_bundle import _entries


def read_table(data: bytes) -> dict[bytes, bytes]:
    return dict(_entries(data))


def written_table(entries: dict[bytes, bytes]) -> bytes:
    """Return a table of one block. Each key is written in full."""
    block = _block(sorted(entries.items()))
    empty = _block([])
    place = len(block) + len(empty)
    index = _block([(b"\xff", _varint(0) + _varint(len(block) - 5))])
    footer = _varint(len(block)) + _varint(len(empty) - 5) + _varint(place) + _varint(len(index) - 5)
    return block + empty + index + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def _block(items: list[tuple[bytes, bytes]]) -> bytes:
    body = b""
    restarts = [0]
    for key, value in items:
        if body:
            restarts.append(len(body))
        body += _varint(0) + _varint(len(key)) + _varint(len(value)) + key + value
    body += struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", len(restarts)) + b"\0"
    crc = google_crc32c.value(body)
    return body + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])
