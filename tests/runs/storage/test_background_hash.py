"""What is done about written bytes beside the thread that writes them."""

import hashlib

import numpy as np
import pytest

from explaind_tf.runs.storage.background_hash import _CACHED_BYTES, _SMALL_BYTES, BackgroundHash
from explaind_tf.runs.storage.records import RecordFile, RecordWriter, file_sha256


def test_pieces_of_all_sizes_are_hashed_in_order(tmp_path):
    rng = np.random.default_rng(0)
    pieces = [
        rng.integers(0, 256, size, np.uint8) for size in (3, 2 * _SMALL_BYTES, 0, 100, _CACHED_BYTES, 7)
    ]
    with open(tmp_path / "file", "wb") as file:
        background = BackgroundHash(file.fileno())
        for piece in pieces:
            background.take([piece, piece.tobytes()])
        expected = hashlib.sha256(b"".join(piece.tobytes() * 2 for piece in pieces)).hexdigest()
        assert background.sha256 == expected


# One size that is hashed at once, and one that is hashed in the thread.
@pytest.mark.parametrize("size", [_SMALL_BYTES // 2, 4 * _SMALL_BYTES])
@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt("stopped")])
def test_a_record_that_was_not_written_to_its_end_is_taken_back(tmp_path, monkeypatch, size, error):
    path, large = tmp_path / "records", bytes(size)
    writer = RecordWriter(path)
    writer.write(large)
    with monkeypatch.context() as patch:

        def half(data):
            writer._file.write(data[: len(data) // 2])
            raise error

        patch.setattr(writer, "_write_out", half)
        with pytest.raises(type(error), match=str(error)):
            writer.write(large)
    writer.write(b"after")
    writer.close()
    assert writer.sha256 == file_sha256(path)
    file = RecordFile(path, 2)
    assert [file.read(i) for i in range(2)] == [large, b"after"]


def test_what_left_the_cache_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "records"
    writer = RecordWriter(path)
    records = [np.full(_CACHED_BYTES // 3, i, np.uint8).tobytes() for i in range(7)]
    for record in records:
        writer.write(record)
    assert [RecordFile(path, None).read(i) for i in range(7)] == records  # while it is open
    writer.close()
    assert writer.sha256 == file_sha256(path)
