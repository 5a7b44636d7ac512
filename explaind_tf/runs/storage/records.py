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
import threading
import weakref
from array import array
from collections.abc import Iterable, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.storage.background_hash import BackgroundHash
from explaind_tf.runs.storage.files import AnyPath, OpenFile, open_file
from explaind_tf.runs.storage.messages import message_class
from explaind_tf.runs.storage.tf_example import Buffers

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER = struct.Struct("<QI")
_HEADER_BYTES = _HEADER.size
FRAME_BYTES = _HEADER_BYTES + _CRC.size
_MASK_DELTA = 0xA282EAD8
# Data are written and checksummed in pieces that stay in the processor's cache. Writing the 18 MB of a large model's
# step in one call took several times as long on Linux 6.18.
_PIECE_BYTES = 2**18
_SMALL_BYTES = 2**16
# How much is read at once to find small records.
_SCANNED_BYTES = 2**18
# Past this many records, the last one is searched for from the end of the file, if it is this close to it.
_MANY = 1000
_TAIL_BYTES, _MOST_TAIL_BYTES = 2**12, 2**26


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

    The places of records are found when one of them is first asked for: their headers are read up to that record. Each place
    takes 8 bytes of memory. The last record is found from the end of the file. So a file with a million records is opened in
    no time.

    Parameters
    ----------
    path : Path or UPath
        The file.
    expected : int or None
        Number of records that the manifest states. None for a file that was still being written: all headers are then read
        at once, and reading ends before the first record that is not whole.

    Raises
    ------
    RunFormatError
        If a header is damaged, or the number of records is not the expected one. In a file with an expected number, this is
        found when the last record is asked for at the latest.

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
        self._expected = expected
        self._offsets = array("Q")
        self._stop = 0  # end of the records whose places are known
        self._last_offset: int | None = None  # of the last record, if it was found from the end of the file
        self._scanning = threading.Lock()
        self.dropped_bytes = 0
        self._file = open_file(path)
        # A file with too few bytes for its records is refused here: nothing is to be allocated for records that it lacks.
        if expected is None or expected == 0 or expected * FRAME_BYTES > self._file.size:
            self._scan_all()

    def _scan_all(self) -> None:
        self._scan(self._file.size)
        if self._expected is not None and len(self._offsets) != self._expected:
            raise RunFormatError(
                f"{self.path} holds {len(self._offsets)} records, but the manifest says {self._expected}. The file is not "
                f"the one that was recorded: restore it from a copy."
            )
        if self._last_offset not in (None, *self._offsets[-1:]):
            raise self._damaged(
                len(self) - 1, self._offsets[-1], "other data in it look like the last record"
            )

    def _scan(self, most: int) -> None:
        """Find the places of records, until as many are known, or the file ends."""
        size, offsets, offset = self._file.size, self._offsets, self._stop
        block, block_start, wanted = b"", offset, _HEADER_BYTES
        while offset < size and len(offsets) < most:
            at = offset - block_start
            if at + _HEADER_BYTES > len(block):
                block, block_start, at = self._file.read(offset, wanted), offset, 0
            header = block[at : at + _HEADER_BYTES]
            is_whole = len(header) == _HEADER_BYTES
            length, checksum = _HEADER.unpack(header) if is_whole else (0, 0)
            if is_whole and checksum != _masked_crc(header[: _LENGTH.size]):
                raise self._damaged(len(offsets), offset, "its length does not match its checksum")
            end = offset + FRAME_BYTES + length
            if not is_whole or end > size:
                if self._expected is not None:
                    raise self._damaged(len(offsets), offset, f"the file ends in it, after {size} bytes")
                self.dropped_bytes = size - offset
                return
            offsets.append(offset)
            offset = self._stop = end
            # Of small records, many headers are read at once; of large ones, no more than the header.
            wanted = _SCANNED_BYTES if length < _SMALL_BYTES else _HEADER_BYTES

    def _place(self, index: int) -> tuple[int, int]:
        """Return at which byte record ``index`` begins, and the length of its data."""
        with self._scanning:
            if index >= len(self._offsets):
                if index + 1 == self._expected and index > len(self._offsets) + _MANY:
                    self._last_offset = self._last_offset or _last_offset(self._file)
                    if self._last_offset is not None:
                        return self._last_offset, self._file.size - self._last_offset - FRAME_BYTES
                self._scan(index + 1)
                # Whether there are more records than expected shows when the last one is found.
                if index >= len(self._offsets) or index + 1 == self._expected:
                    self._scan_all()
            offset = self._offsets[index]
            stop = self._offsets[index + 1] if index + 1 < len(self._offsets) else self._stop
        return offset, stop - offset - FRAME_BYTES

    @property
    def size(self) -> int:
        """Bytes of the whole records."""
        return self._stop if self.is_open else self._file.size

    def forget_from(self, index: int) -> None:
        """Ignore record ``index`` of an open file and all later ones. The file on the disk does not change."""
        self._stop = self._offsets[index]
        del self._offsets[index:]

    def _damaged(self, index: int, offset: int, what: str) -> RunFormatError:
        return RunFormatError(
            f"{self.path}: record {index}, at byte {offset}, is damaged: {what}. Restore the file from a copy."
        )

    def __len__(self) -> int:
        return len(self._offsets) if self._expected is None else self._expected

    def bytes_of(self, index: int) -> int:
        """Return the bytes of the data of record ``index``. Only headers are read."""
        return self._place(index)[1]

    def read(self, index: int) -> bytes:
        """Return the data of record ``index``.

        Raises
        ------
        RunFormatError
            If the data do not match their checksum.
        """
        offset, length = self._place(index)
        start = offset + _HEADER_BYTES
        data = self._file.read(start, length)
        stored = self._file.read(start + length, _CRC.size)
        if len(stored) < _CRC.size or _CRC.unpack(stored)[0] != _masked_crc(data):
            raise self._damaged(index, offset, "its data do not match their checksum")
        return data

    def read_example(self, index: int) -> Any:
        """Return record ``index`` as a ``tf.train.Example``."""
        try:
            return message_class("tensorflow.Example").FromString(self.read(index))
        except DecodeError as error:
            raise self._damaged(index, self._place(index)[0], "it is no tf.train.Example") from error

    def close(self) -> None:
        """Close the file. Reading from it is an error from then on."""
        self._file.close()


def _last_offset(file: OpenFile) -> int | None:
    """Return at which byte the last record of a file begins, without reading what comes before it; None if none is found.

    The header of the last record is the only place from where a length, with the right checksum, leads to the end of the
    file. For data of a record to look like it, 12 bytes must agree by chance.
    """
    last = file.size - FRAME_BYTES
    stop, count = last + 1, _TAIL_BYTES
    while stop > max(0, last - _MOST_TAIL_BYTES):
        start = max(0, stop - count)
        part = np.frombuffer(file.read(start, stop - start + _HEADER_BYTES), np.uint8)
        # Of the length that leads to the end, most places lack the lowest byte.
        lowest = (last - np.arange(start, stop)).astype(np.uint8)
        for place in np.flatnonzero(part[: stop - start] == lowest).tolist():
            header = part[place : place + _HEADER_BYTES].tobytes()
            length, checksum = _HEADER.unpack(header)
            if length == last - start - place and checksum == _masked_crc(header[: _LENGTH.size]):
                return start + place
        stop, count = start, min(4 * count, _SCANNED_BYTES)
    return None


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

    def read_example(self, index: int) -> Any:
        """Return record ``index`` as a ``tf.train.Example``.

        Raises
        ------
        RunFormatError
            If it is damaged.
        """
        file, local = self.locate(index)
        return file.read_example(local)

    def ranges(self) -> list[range]:
        """Return the numbers of the records of each file that holds records."""
        return [range(start, stop) for start, stop in itertools.pairwise(self._starts) if stop > start]


def file_sha256(path: AnyPath) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
        return digest.hexdigest()
