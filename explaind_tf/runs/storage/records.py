"""TFRecord framing, with what TensorFlow's own reader lacks: offsets, counts and detection of truncation.

A record is ``uint64 length | uint32 masked CRC of length | data | uint32 masked CRC of data``, all
little-endian (TensorFlow, "TFRecord and tf.train.Example": TFRecords format details). If a file was cut at a record
boundary, or within the first 12 bytes of a record, TensorFlow's reader takes this for a clean end. The reader here
counts the records, and reads any of them by its number.
"""

import bisect
import hashlib
import itertools
import os
import struct
import weakref
from collections.abc import Iterable, Sequence
from io import FileIO
from pathlib import Path

import google_crc32c
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.storage.background_hash import BackgroundHash
from explaind_tf.runs.storage.files import AnyPath, open_file
from explaind_tf.runs.storage.tf_example import Buffers

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER_BYTES = _LENGTH.size + _CRC.size
FRAME_BYTES = _HEADER_BYTES + _CRC.size
_MASK_DELTA = 0xA282EAD8
# Data are written and checksummed in pieces that stay in the processor's cache. Writing the 18 MB of a large model's
# step in one call took several times as long on Linux 6.18.
_PIECE_BYTES = 2**18
_SMALL_BYTES = 2**16


def _masked_crc(data: bytes) -> int:
    return _masked(google_crc32c.value(data))


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


class RecordWriter:
    """Appends records to a new file, and keeps track of its size, number of records and SHA-256.

    Parameters
    ----------
    path : Path
        File to create; an existing one is refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.size = 0
        self._small = bytearray()  # small pieces, collected to be written in one call
        # Unbuffered: on a full disk, data in Python's buffer could not be discarded, and might be written later.
        self._file: FileIO = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by close()
        # An interrupted training closes nothing: the file is closed when nothing refers to the writer.
        weakref.finalize(self, self._file.close)
        self._hash = BackgroundHash(self._file.fileno())

    def write(self, data: bytes | Buffers) -> None:
        """Append one record and hand it to the operating system, so that a killed process keeps it."""
        self.write_all([data])

    def write_all(self, records: Iterable[bytes | Buffers]) -> None:
        """Append records, and hand them to the operating system when all are written.

        Raises
        ------
        OSError
            If they cannot all be written (the disk is full). The file is then as it was before.
        """
        self._hash.wait()  # here, since an interrupt at this point leaves nothing written but not hashed
        before = self.count, self.size
        written: Buffers = []
        try:
            for data in records:
                written += self._write_record([data] if isinstance(data, bytes) else data)
                self.count += 1
            self._flush()
        except BaseException:  # an interrupt, too, would leave half a record, with the next record after it
            self.count, self.size = before
            self._small.clear()
            self._file.truncate(self.size)
            self._file.seek(self.size)
            raise
        self._hash.take(written)

    def _write_record(self, parts: Buffers) -> Buffers:
        """Append a record, and return it with its frame."""
        length = _LENGTH.pack(sum(len(part) for part in parts))
        header = length + _CRC.pack(_masked_crc(length))
        self._append(header)
        crc = 0
        for part in parts:
            for start in range(0, len(part), _PIECE_BYTES):
                piece = part[start : start + _PIECE_BYTES]
                crc = google_crc32c.extend(crc, piece)
                self._append(piece)
        footer = _CRC.pack(_masked(crc))
        self._append(footer)
        return [header, *parts, footer]

    def _append(self, piece: bytes | np.ndarray) -> None:
        data = piece.data if isinstance(piece, np.ndarray) else piece
        self.size += len(data)
        if len(data) < _SMALL_BYTES:
            self._small += data
            if len(self._small) >= _PIECE_BYTES:
                self._flush()
            return
        self._flush()
        self._write_out(data)

    def _flush(self) -> None:
        if self._small:
            self._write_out(self._small)
            self._small.clear()

    def _write_out(self, data: bytes | bytearray | memoryview) -> None:
        with memoryview(data) as view:
            written = 0
            while written < len(view):  # a call may write only a part
                written += self._file.write(view[written:])

    @property
    def sha256(self) -> str:
        """SHA-256 of everything written so far, as hexadecimal digits."""
        return self._hash.sha256

    def sync(self) -> None:
        """Force what was written to the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Force the file to the disk and close it."""
        if not self._file.closed:
            self._hash.wait()
            self.sync()
            self._file.close()


class RecordFile:
    """Random access to the records of one file.

    Opening the file reads only the headers (12 bytes per record), so memory does not grow with the size of the
    records.

    Parameters
    ----------
    path : Path or UPath
        The file.
    expected : int or None
        Number of records that the manifest states. None for a file that was still being written: reading then
        ends before the first record that is not whole.

    Raises
    ------
    RunFormatError
        If a header is damaged, or the number of records is not the expected one.

    Attributes
    ----------
    is_open : bool
        Whether the file was still being written.
    dropped_bytes : int
        Bytes of an unfinished record at the end of the file.
    """

    def __init__(self, path: AnyPath, expected: int | None) -> None:
        self.path = path
        self.is_open = expected is None
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self.dropped_bytes = 0
        self._file = open_file(path)
        self._scan(expected)

    def _scan(self, expected: int | None) -> None:
        size = self._file.size
        offset = 0
        while offset < size:
            header = self._file.read(offset, _HEADER_BYTES)
            whole = len(header) == _HEADER_BYTES
            if whole and _CRC.unpack(header[_LENGTH.size :])[0] != _masked_crc(header[: _LENGTH.size]):
                raise self._damaged(len(self), offset, "its length does not match its checksum")
            end = offset + _HEADER_BYTES + (_LENGTH.unpack(header[: _LENGTH.size])[0] if whole else 0)
            end += _CRC.size
            if not whole or end > size:
                if expected is not None:
                    raise self._damaged(len(self), offset, f"the file ends in it, after {size} bytes")
                self.dropped_bytes = size - offset
                break
            self._offsets.append(offset)
            self._lengths.append(end - offset - _HEADER_BYTES - _CRC.size)
            offset = end
        if expected is not None and len(self) != expected:
            raise RunFormatError(
                f"{self.path} holds {len(self)} records, but the manifest says {expected}. The file is not the "
                f"one that was recorded: restore it from a copy."
            )

    @property
    def size(self) -> int:
        """Bytes of the whole records."""
        return self._offsets[-1] + _HEADER_BYTES + self._lengths[-1] + _CRC.size if len(self) else 0

    def forget_from(self, index: int) -> None:
        """Ignore record ``index`` and all later ones. The file on the disk does not change."""
        del self._offsets[index:], self._lengths[index:]

    def _damaged(self, index: int, offset: int, what: str) -> RunFormatError:
        return RunFormatError(
            f"{self.path}: record {index}, at byte {offset}, is damaged: {what}. Restore the file from a copy."
        )

    def __len__(self) -> int:
        return len(self._offsets)

    def bytes_of(self, index: int) -> int:
        """Return the bytes of the data of record ``index``. This reads nothing."""
        return self._lengths[index]

    def read(self, index: int) -> bytes:
        """Return the data of record ``index``.

        Raises
        ------
        RunFormatError
            If the data do not match their checksum.
        """
        start, length = self._offsets[index] + _HEADER_BYTES, self._lengths[index]
        data = self._file.read(start, length)
        stored = self._file.read(start + length, _CRC.size)
        if len(stored) < _CRC.size or _CRC.unpack(stored)[0] != _masked_crc(data):
            raise self._damaged(index, self._offsets[index], "its data do not match their checksum")
        return data

    def read_example(self, index: int) -> tf.train.Example:
        """Return record ``index`` as a ``tf.train.Example``."""
        try:
            return tf.train.Example.FromString(self.read(index))
        except DecodeError as error:
            raise self._damaged(index, self._offsets[index], "it is no tf.train.Example") from error

    def close(self) -> None:
        """Close the file. Reading from it is an error from then on."""
        self._file.close()


class RecordSeries:
    """The records of several files, one after the other.

    Parameters
    ----------
    files : sequence of RecordFile
        The files in order, at least one.
    """

    def __init__(self, files: Sequence[RecordFile]) -> None:
        self.files = list(files)
        self._starts = list(itertools.accumulate((len(file) for file in files), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def size(self) -> int:
        """Bytes of all whole records."""
        return sum(file.size for file in self.files)

    @property
    def dropped_bytes(self) -> int:
        """Bytes of an unfinished record at the end."""
        return sum(file.dropped_bytes for file in self.files)

    def locate(self, index: int) -> tuple[RecordFile, int]:
        """Return the file of a record, and the record's number in it."""
        which = min(bisect.bisect_right(self._starts, index) - 1, len(self.files) - 1)
        return self.files[which], index - self._starts[which]

    def where(self, index: int) -> str:
        """Name the file and the place of a record, for messages."""
        file, local = self.locate(index)
        return f"{file.path}: record {local}"

    def bytes_of(self, index: int) -> int:
        """Return the bytes of the data of a record. This reads nothing."""
        file, local = self.locate(index)
        return file.bytes_of(local)

    def read_example(self, index: int) -> tf.train.Example:
        """Return record ``index`` as a ``tf.train.Example``.

        Raises
        ------
        RunFormatError
            If it is damaged.
        """
        file, local = self.locate(index)
        return file.read_example(local)

    def first_of_files(self) -> list[int]:
        """Return the number of the first record of each file that holds records."""
        return [start for start, stop in itertools.pairwise(self._starts) if stop > start]

    def last_of_files(self) -> list[int]:
        """Return the number of the last record of each file that holds records."""
        return [stop - 1 for start, stop in itertools.pairwise(self._starts) if stop > start]


def file_sha256(path: AnyPath) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
        return digest.hexdigest()
