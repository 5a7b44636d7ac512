"""The labels of samples: the user's ids, or numbers."""

from pathlib import Path

import numpy as np
import pytest

from explaind_tf import RefusedError, RunFormatError
from explaind_tf.runs.fingerprints import fingerprint
from explaind_tf.runs.format.structure import Leaf
from explaind_tf.runs.samples import Sample, SampleId, SampleStore, encode_sample
from explaind_tf.runs.storage.records import RecordFile, RecordWriter

RUN = "0" * 32


def store(path: Path, ids: list[SampleId | None], expected: int | None = None) -> SampleStore:
    writer = RecordWriter(path)
    for row, sample_id in enumerate(ids):
        content = [np.array([row], np.float32)]
        writer.write(encode_sample(Sample(fingerprint(content), sample_id, content, []), row, RUN))
    writer.close()
    return SampleStore(
        [RecordFile(path, len(ids) if expected is None else expected)], Leaf("float32", (1,)), (), RUN
    )


@pytest.mark.parametrize("ids", [[7, 3, 7, -1], ["b", "", "b", "é"]], ids=["integers", "texts"])
def test_ids_are_in_order_of_appearance(tmp_path: Path, ids: list[SampleId]):
    samples = store(tmp_path / "samples", ids)
    assert samples.ids.tolist() == [ids[0], ids[1], ids[3]]
    assert samples.id_of_row.tolist() == [0, 1, 0, 2]
    assert samples.row_of_id == {ids[0]: 0, ids[1]: 1, ids[3]: 3}


def test_samples_without_ids_are_numbered_without_reading_them(tmp_path: Path):
    samples = store(tmp_path / "samples", [None] * 1500)
    assert samples.ids.tolist() == samples.id_of_row.tolist() == list(range(1500))
    assert len(samples.records.files[0]._offsets) == 1  # the first one; the last is found from the end


def test_ids_are_the_callers_own(tmp_path: Path):
    samples = store(tmp_path / "samples", [None, None])
    samples.ids[0] = 5
    assert samples.ids.tolist() == [0, 1]


def test_samples_with_and_without_ids_are_refused(tmp_path: Path):
    with pytest.raises(RefusedError, match=r"Sample 1 has no id, .* with ids, or all of them without"):
        _ = store(tmp_path / "samples", [4, None, 5]).ids


@pytest.mark.parametrize("expected", [2, 4])
def test_another_number_of_samples_is_refused(tmp_path: Path, expected: int):
    with pytest.raises(
        RunFormatError, match=f"3 records, but the manifest says {expected}|removed, repeated"
    ):
        _ = store(tmp_path / "samples", [None] * 3, expected).ids
