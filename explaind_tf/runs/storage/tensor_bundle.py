"""Files of variables as TensorFlow writes them, checked before TensorFlow reads them.

TensorFlow allocates a tensor of the size that ``PREFIX.index`` states, and only then looks whether the file holds as many
bytes. A shape that cannot be ends the process. So everything that the index states is held against the files first.

The index is a sorted table (tensorflow/tsl/lib/io/table_format: blocks of entries, each of which shares the beginning of
its key with the one before). Its values are messages, the first of them a ``BundleHeaderProto`` and the others
``BundleEntryProto`` (tensorflow/core/protobuf/tensor_bundle.proto).
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

from explaind_tf.errors import RunFormatError

_FOOTER_BYTES = 48
_MAGIC = 0xDB4775248B80FB57
# After each block: the kind of its compression, and a checksum, which TensorFlow compares.
_TRAILER_BYTES = 5
_UNCOMPRESSED = 0
# More than the index of any model needs.
_MOST_BYTES = 256 * 2**20
# Keys are names of variables. All of them together have a few times as many bytes as the table, which shares beginnings.
_MOST_KEY_BYTES_A_BYTE = 100
_LITTLE_ENDIAN = 0
_MOST_DIMENSIONS = 254  # of TensorFlow's TensorShape


@dataclass(frozen=True)
class _Handle:
    """Where a block is in the table."""

    offset: int
    size: int


def check_bundle(prefix: Path) -> None:
    """Check what the index of a bundle states against its files.

    Parameters
    ----------
    prefix : Path
        Common prefix of the files: ``PREFIX.index`` and ``PREFIX.data-00000-of-00001``.

    Raises
    ------
    RunFormatError
        If the index cannot be read, or states a tensor that the files do not hold. The message names file and tensor.
    """
    index = prefix.with_name(prefix.name + ".index")
    try:
        if index.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it has {index.stat().st_size:,} bytes, more than the limit of {_MOST_BYTES:,}")
        entries = _entries(index.read_bytes())
        key, value = next(entries, (None, b""))
        if key != b"":
            raise ValueError("it does not begin with the header of a bundle")
        files = _data_files(prefix, BundleHeaderProto.FromString(value))
        for name, message in entries:
            try:
                _check_entry(BundleEntryProto.FromString(message), files)
            except ValueError as error:
                raise ValueError(f"tensor {name.decode(errors='backslashreplace')!r}: {error}") from None
    except OSError as error:
        raise RunFormatError(
            f"{error.filename or index} cannot be read: {error.strerror or error}."
        ) from error
    except (DecodeError, IndexError, ValueError, struct.error) as error:
        raise RunFormatError(
            f"{index} is no index of variables that TensorFlow could read: {error}. Restore it from a copy."
        ) from error


def _data_files(prefix: Path, header: BundleHeaderProto) -> list[Path]:
    if header.endianness != _LITTLE_ENDIAN:
        raise ValueError("its numbers are big-endian; they must be little-endian")
    count = header.num_shards
    paths = sorted(prefix.parent.glob(f"{_literal(prefix.name)}.data-*-of-{count:05d}"))
    expected = [f"{prefix.name}.data-{shard:05d}-of-{count:05d}" for shard in range(min(count, len(paths)))]
    if count < 1 or [path.name for path in paths] != expected or len(paths) != count:
        raise ValueError(f"it names {count} files of data; there are {len(paths)} with such a name")
    return paths


def _literal(name: str) -> str:
    """Return a pattern that matches only a name."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _check_entry(entry: BundleEntryProto, files: list[Path]) -> None:
    shape = [dim.size for dim in entry.shape.dim]
    if entry.shape.unknown_rank or len(shape) > _MOST_DIMENSIONS or any(size < 0 for size in shape):
        raise ValueError(f"its shape {shape[:8]} must be known, with sizes from 0")
    count = math.prod(shape)
    # TensorFlow multiplies the other sizes even if one of them is zero.
    if math.prod(max(1, size) for size in shape) >= 2**63:
        raise ValueError(f"its shape {shape[:8]} has more values than can be counted")
    sizes = [path.stat().st_size for path in files]
    dtype = _dtype(entry.dtype)
    if entry.slices:  # the parts have entries of their own
        if count * max(1, dtype.size) > sum(sizes):
            raise ValueError(f"its shape {shape[:8]} has more values than the files of data hold")
        return
    if not 0 <= entry.shard_id < len(files):
        raise ValueError(f"it is in file {entry.shard_id} of {len(files)}")
    if entry.offset < 0 or entry.size < 0 or entry.offset + entry.size > sizes[entry.shard_id]:
        raise ValueError(
            f"it has {entry.size} bytes from byte {entry.offset}; {files[entry.shard_id].name} has "
            f"{sizes[entry.shard_id]}"
        )
    if dtype == tf.string:
        _check_texts(files[entry.shard_id], entry, count)
    elif entry.size != count * dtype.size:
        raise ValueError(f"it has {entry.size} bytes, which do not fit {dtype.name} of shape {shape[:8]}")


def _dtype(number: int) -> tf.DType:
    try:
        dtype = tf.dtypes.as_dtype(number)
    except TypeError:
        raise ValueError(f"its type of values, number {number}, is unknown") from None
    if dtype in (tf.resource, tf.variant) or dtype._is_ref_dtype:
        raise ValueError(f"it holds {dtype.name}; numbers and texts are read")
    return dtype


def _check_texts(file: Path, entry: BundleEntryProto, count: int) -> None:
    """Check the lengths of texts: all of them, a checksum of four bytes, and the texts."""
    if count > entry.size:
        raise ValueError(f"it has {count} texts in {entry.size} bytes")
    with file.open("rb") as opened:
        opened.seek(entry.offset)
        data = opened.read(min(entry.size, 10 * count))
    place, total = 0, 0
    for _ in range(count):
        length, place = _varint(data, place)
        total += length
    if place + 4 + total != entry.size:
        raise ValueError(
            f"its {count} texts take {total} bytes, which do not fit the {entry.size} that it has"
        )


def _entries(table: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield all keys and values of a table, in order."""
    if len(table) < _FOOTER_BYTES or struct.unpack("<Q", table[-8:])[0] != _MAGIC:
        raise ValueError("it does not end as a table does")
    footer = table[-_FOOTER_BYTES:]
    _, place = _handle(footer, 0)  # of a block that holds nothing
    index, _ = _handle(footer, place)
    left = len(table)
    key_bytes = 0
    for _, value in _block(table, index):
        handle, _ = _handle(value, 0)
        left -= handle.size + _TRAILER_BYTES
        if left < 0:
            raise ValueError("its blocks overlap")
        for key, found in _block(table, handle):
            key_bytes += len(key)
            if key_bytes > _MOST_KEY_BYTES_A_BYTE * len(table):
                raise ValueError("its keys take far more bytes than the table")
            yield key, found


def _block(table: bytes, handle: _Handle) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block.

    TensorFlow may begin to read at any of the block's restart points, so they must be places where an entry begins.
    """
    end = handle.offset + handle.size
    if end + _TRAILER_BYTES > len(table) or handle.size < 4:
        raise ValueError("a block of it ends behind its end")
    if table[end] != _UNCOMPRESSED:
        raise ValueError("it is compressed, which TensorFlow does not do")
    data = table[handle.offset : end]
    count = struct.unpack("<I", data[-4:])[0]
    stop = len(data) - 4 - 4 * count
    if count < 1 or stop < 0:
        raise ValueError(f"a block of it has {count} restart points")
    restarts = set(struct.unpack(f"<{count}I", data[stop:-4]))
    place, key = 0, b""
    while place < stop:
        begin = place
        shared, place = _varint(data, place)
        unshared, place = _varint(data, place)
        length, place = _varint(data, place)
        if shared > len(key) or place + unshared + length > stop or (begin in restarts and shared):
            raise ValueError("an entry of it is longer than its block, or begins as no entry before it")
        key = key[:shared] + data[place : place + unshared]
        place += unshared
        yield key, data[place : place + length]
        place += length
        restarts.discard(begin)
    # An empty block has one restart point all the same.
    if restarts - ({0} if stop == 0 else set()):
        raise ValueError("a restart point of it is no beginning of an entry")


def _handle(data: bytes, place: int) -> tuple[_Handle, int]:
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return _Handle(offset, size), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number at a place, and the place behind it."""
    number = 0
    for shift in range(0, 64, 7):
        byte = data[place]
        place += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, place
    raise ValueError("a number of it has more than 64 bits")
