"""TFRecord framing: every change of a file is detected."""

import hashlib
import tempfile
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from explaind_tf import RunFormatError
from explaind_tf.runs.storage import records as records_module
from explaind_tf.runs.storage.records import RecordFile, RecordWriter, file_sha256

RECORDS = [b"first", b"", b"the third \x00\xff"]
FRAME = 16  # bytes around the data: length, its checksum, checksum of the data
SIZE = sum(len(data) + FRAME for data in RECORDS)
ENDS = [sum(len(data) + FRAME for data in RECORDS[:count]) for count in range(len(RECORDS) + 1)]


def write(path: Path, records: list[bytes]) -> RecordWriter:
    writer = RecordWriter(path)
    for data in records:
        writer.write(data)
    writer.close()
    return writer


def read(path: Path, expected: int | None) -> list[bytes]:
    file = RecordFile(path, expected)
    try:
        return [file.read(index) for index in range(len(file))]
    finally:
        file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "records.tfrecord", RECORDS)
    return tmp_path / "records.tfrecord"


class TestFraming:
    def test_tensorflow_reads_what_was_written(self, path: Path):
        assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == RECORDS

    def test_what_tensorflow_wrote_is_read(self, tmp_path: Path):
        path = tmp_path / "tensorflow.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for data in RECORDS:
                writer.write(data)
        assert read(path, len(RECORDS)) == RECORDS
        write(tmp_path / "ours.tfrecord", RECORDS)
        assert (tmp_path / "ours.tfrecord").read_bytes() == path.read_bytes()

    # Each example makes its own directory, since Hypothesis makes fixtures once for all examples.
    @settings(max_examples=50)
    @given(records=st.lists(st.binary(max_size=300), max_size=6))
    def test_round_trip(self, records: list[bytes]):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "records"
            writer = write(path, records)
            assert read(path, len(records)) == records
            assert read(path, None) == records
            assert writer.count == len(records)
            assert writer.size == path.stat().st_size
            assert writer.sha256 == file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()

    def test_records_are_read_in_any_order(self, path: Path):
        file = RecordFile(path, 3)
        assert [file.read(index) for index in (2, 0, 1, 2)] == [RECORDS[i] for i in (2, 0, 1, 2)]


class TestPlaces:
    """Records are located when they are asked for: the last one from the end of the file."""

    @settings(max_examples=40)
    @given(
        records=st.lists(st.binary(max_size=9000), min_size=1, max_size=30),
        order=st.lists(st.integers(-1, 29), max_size=12),
        many=st.sampled_from([0, 3]),
        sizes=st.sampled_from([(2**18, 2**12), (16, 16), (100, 40)]),
    )
    def test_any_record_is_read_first(self, records, order, many, sizes):
        with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
            for name, value in zip(("_MANY", "_SCANNED_BYTES", "_TAIL_BYTES"), (many, *sizes), strict=True):
                patch.setattr(records_module, name, value)
            path = Path(directory) / "records"
            write(path, records)
            file = RecordFile(path, len(records))
            for index in (index % len(records) for index in order):
                assert file.read(index) == records[index]

    def test_the_last_record_of_many_is_found_without_the_others(self, tmp_path: Path, monkeypatch):
        path = tmp_path / "records"
        write(path, [bytes(3000)] * 1500 + [b"last"])
        read_bytes = []
        file = RecordFile(path, 1501)
        whole_read = file._file.read
        monkeypatch.setattr(file._file, "read", lambda at, n: read_bytes.append(n) or whole_read(at, n))
        assert file.read(1500) == b"last"
        assert sum(read_bytes) < 10_000 < path.stat().st_size

    def test_a_last_record_that_is_far_from_the_end_is_found_from_the_start(
        self, tmp_path: Path, monkeypatch
    ):
        monkeypatch.setattr(records_module, "_MOST_TAIL_BYTES", 2**12)
        write(tmp_path / "records", [b""] * 1500 + [bytes(10_000)])
        assert RecordFile(tmp_path / "records", 1501).read(1500) == bytes(10_000)

    def test_data_that_look_like_the_last_record_are_detected(self, tmp_path: Path):
        write(tmp_path / "decoy", [b"decoy"])
        decoy = (tmp_path / "decoy").read_bytes()
        path = tmp_path / "records"
        # The checksum of the record that holds the decoy, at the end of the file, is then that of the decoy, too.
        write(path, [b""] * 1500 + [decoy[:-4]])
        path.write_bytes(path.read_bytes()[:-4] + decoy[-4:])
        for first in (0, 1500):
            file = RecordFile(path, 1501)
            with pytest.raises(RunFormatError, match=r"record 1500, .*(look like the last|checksum)"):
                for index in (first, *range(1501)):
                    file.read(index)

    def test_a_place_takes_few_bytes(self, tmp_path: Path):
        write(tmp_path / "records", [b""] * 10_000)
        file = RecordFile(tmp_path / "records", 10_000)
        assert len(file._offsets) == 0
        file.read(9_000)
        assert file._offsets.itemsize * len(file._offsets) <= 8 * 10_000

    def test_more_records_than_the_bytes_can_hold_are_refused_at_once(self, path: Path):
        with pytest.raises(RunFormatError, match="holds 3 records, but the manifest says 1000000000"):
            RecordFile(path, 10**9)


class TestWriter:
    def test_records_are_readable_before_the_file_is_closed(self, tmp_path: Path):
        writer = RecordWriter(tmp_path / "records")
        for count, data in enumerate(RECORDS, 1):
            writer.write(data)
            assert read(tmp_path / "records", None) == RECORDS[:count]
        writer.close()

    def test_existing_file_is_not_overwritten(self, path: Path):
        before = path.read_bytes()
        with pytest.raises(FileExistsError):
            RecordWriter(path)
        assert path.read_bytes() == before

    def test_closing_twice_is_harmless(self, tmp_path: Path):
        writer = RecordWriter(tmp_path / "records")
        writer.close()
        writer.close()
        assert read(tmp_path / "records", 0) == []


class TestDamage:
    @pytest.mark.parametrize("expected", [3, None], ids=["complete", "open"])
    @pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
    def test_every_flipped_byte_is_detected(self, path: Path, flip: int, expected: int | None):
        whole = path.read_bytes()
        assert len(whole) == SIZE
        for position in range(SIZE):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            with pytest.raises(RunFormatError, match=r"record \d, at byte \d+, is damaged: .*checksum"):
                read(path, expected)

    def test_message_names_file_record_and_offset(self, path: Path):
        damaged = bytearray(path.read_bytes())
        damaged[ENDS[2] + 12] ^= 1
        path.write_bytes(damaged)
        file = RecordFile(path, 3)
        assert file.read(1) == RECORDS[1]
        with pytest.raises(RunFormatError, match=rf"{path}: record 2, at byte {ENDS[2]}, .*from a copy"):
            file.read(2)

    def test_every_truncation_of_a_complete_file_is_detected(self, path: Path):
        whole = path.read_bytes()
        for size in range(SIZE):
            path.write_bytes(whole[:size])
            with pytest.raises(
                RunFormatError, match=r"file ends in it|holds \d records, but the manifest says 3"
            ):
                read(path, 3)

    def test_truncation_of_an_open_file_drops_only_the_partial_record(self, path: Path):
        whole = path.read_bytes()
        for size in range(SIZE + 1):
            path.write_bytes(whole[:size])
            count = sum(end <= size for end in ENDS[1:])
            assert read(path, None) == RECORDS[:count]
            assert RecordFile(path, None).dropped_bytes == size - ENDS[count]

    def test_records_beyond_the_promised_number_are_detected(self, path: Path):
        path.write_bytes(path.read_bytes() * 2)
        with pytest.raises(RunFormatError, match="holds 6 records, but the manifest says 3"):
            read(path, 3)

    def test_bytes_after_the_last_record_are_detected(self, path: Path):
        path.write_bytes(path.read_bytes() + b"\x00")
        with pytest.raises(RunFormatError, match=f"record 3, at byte {SIZE}.*file ends in it"):
            read(path, 3)

    def test_file_cut_while_it_is_open_is_detected(self, path: Path):
        file = RecordFile(path, 3)
        path.write_bytes(path.read_bytes()[: SIZE - 5])
        with pytest.raises(RunFormatError, match="record 2"):
            file.read(2)

    def test_record_that_is_no_example_is_named(self, path: Path):
        with pytest.raises(RunFormatError, match=r"record 0, .*no tf\.train\.Example"):
            RecordFile(path, 3).read_example(0)

    def test_missing_file_is_named(self, tmp_path: Path):
        with pytest.raises(RunFormatError, match=r"nothing cannot be read: No such file"):
            RecordFile(tmp_path / "nothing", None)
