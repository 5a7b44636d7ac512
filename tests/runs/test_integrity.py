"""Damage and malice: data that differ from the recorded ones are never used, and nothing breaks the reader.

The sweeps flip every byte, and cut every file at every length.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import explaind_tf as xtf
from explaind_tf import RunFormatError
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format.manifest import read_manifest, write_manifest
from explaind_tf.runs.storage.digests import check_tree, describe_tree
from explaind_tf.runs.storage.records import RecordFile, RecordWriter
from explaind_tf.runs.storage.sealed import SEAL, seal
from tests.helpers import Recorded, batches, dense_model, fit, record

STEPS, SAMPLES = "steps-00000.tfrecord", "samples-00000.tfrecord"
EACH = 7  # one of so many bytes is changed every time, and all of them at night


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("tiny") / "run", epochs=1).run_dir


@pytest.fixture
def copied(tiny: Path, run_dir: Path) -> Path:
    shutil.copytree(tiny, run_dir)
    return run_dir


def flips(data: bytes, each: int = 1) -> Iterator[bytes]:
    """Yield the data with one byte changed, by flipping each of the eight bits in turn."""
    for position in range(0, len(data), each):
        yield data[:position] + bytes([data[position] ^ (1 << position % 8)]) + data[position + 1 :]


def some_flips(data: bytes) -> Iterator[bytes]:
    """Yield the data with one byte of every seven changed. Of these, too, each of the eight bits has its turn."""
    yield from flips(data, EACH)


def cuts(data: bytes) -> Iterator[bytes]:
    for size in range(len(data)):
        yield data[:size]


def undetected(path: Path, changed: Iterator[bytes], check: Callable[[], Any]) -> tuple[int, int]:
    """Return how many changes of a file were tried, and how many of them raised no error that names the file."""
    whole, tried, missed = path.read_bytes(), 0, 0
    try:
        for data in changed:
            path.write_bytes(data)
            tried += 1
            try:
                check()
            except RunFormatError as error:
                missed += path.name not in str(error)
            else:
                missed += 1
    finally:
        path.write_bytes(whole)
    return tried, missed


def read_all(run_dir: Path) -> None:
    """Use all recorded data as an attribution does: without SHA-256, with the checks of each record."""
    run = RecordedRun(run_dir)
    for row in range(len(run.samples)):
        run.samples.read(row)
    for step in run.steps:
        run.step_store.transition(int(step))


# Flips and cuts at every byte run at night. test_cut_short.py cuts files where a recording may end.
CHANGES = [some_flips, *(pytest.param(change, marks=pytest.mark.nightly) for change in (flips, cuts))]


def count_of(change: Callable[..., Iterator[bytes]], size: int) -> int:
    """Return how many changes of a file of a size there are."""
    return len(range(0, size, EACH)) if change is some_flips else size


@pytest.mark.slow
class TestSweep:
    @pytest.mark.parametrize("change", [*CHANGES[:2], cuts])
    def test_manifest(self, copied: Path, change: Callable[..., Iterator[bytes]]):
        path = copied / "manifest.json"
        tried, missed = undetected(path, change(path.read_bytes()), lambda: read_manifest(copied))
        print(f"{tried} {change.__name__} of {path.name}")
        assert (tried, missed) == (count_of(change, path.stat().st_size), 0)

    @pytest.mark.parametrize("file", [STEPS, SAMPLES])
    @pytest.mark.parametrize("change", CHANGES)
    def test_records_are_checked_when_they_are_used(
        self, copied: Path, file: str, change: Callable[..., Iterator[bytes]]
    ):
        path = copied / file
        tried, missed = undetected(path, change(path.read_bytes()), lambda: read_all(copied))
        print(f"{tried} {change.__name__} of {path.name}")
        assert (tried, missed) == (count_of(change, path.stat().st_size), 0)

    @pytest.mark.parametrize("change", CHANGES)
    def test_records_between_keyframes(self, run_dir: Path, change: Callable[..., Iterator[bytes]]):
        """Damage is found in the record itself, before anything is trained again from it."""
        model = dense_model()
        model.compile(xtf.PathAdamW(0.01), loss="mse")
        logger = xtf.PathLogger(run_dir, every=2, verbose=False)
        fit(model, logger.tap(batches()), logger)

        def read() -> None:
            run = RecordedRun(run_dir)
            for step in run.steps:
                run.step_store.rows(int(step))

        path = run_dir / STEPS
        tried, missed = undetected(path, change(path.read_bytes()), read)
        assert (tried, missed) == (count_of(change, path.stat().st_size), 0)

    @pytest.mark.parametrize("change", CHANGES)
    def test_graphs(self, copied: Path, change: Callable[..., Iterator[bytes]]):
        graphs = read_manifest(copied).graphs
        total = 0
        for item in graphs:
            path = copied / "graphs" / item.file
            changed = change(path.read_bytes())
            tried, missed = undetected(path, changed, lambda: check_tree(copied / "graphs", graphs))
            assert (tried, missed) == (count_of(change, item.size), 0)
            total += tried
        print(f"{total} {change.__name__} of {len(graphs)} files of graphs")

    def test_damaged_graphs_never_reach_tensorflow(self, copied: Path, monkeypatch: pytest.MonkeyPatch):
        path = copied / "graphs" / "saved_model.pb"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail("TensorFlow was asked"))
        run = RecordedRun(copied)
        with pytest.raises(RunFormatError, match=r"saved_model\.pb is not the file"):
            _ = run.graphs
        with pytest.raises(RunFormatError, match=r"saved_model\.pb is not the file"):
            run.verify_files()

    @pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x01\x12\x00", b"\xff" * 100])
    def test_graphs_that_are_none_with_digests_that_fit(self, copied: Path, content: bytes):
        (copied / "graphs" / "saved_model.pb").write_bytes(content)
        manifest = read_manifest(copied)
        write_manifest(copied, replace(manifest, graphs=describe_tree(copied / "graphs")))
        with pytest.raises(RunFormatError, match=r"saved_model\.pb (cannot be read|is not of the form)"):
            _ = RecordedRun(copied).graphs


def reordered(run_dir: Path, file: str, order: Callable[[list[bytes]], list[bytes]]) -> None:
    """Write records in another order, with a manifest that fits."""
    path = run_dir / file
    old = RecordFile(path, None)
    records = order([old.read(index) for index in range(len(old))])
    path.unlink()
    writer = RecordWriter(path)
    writer.write_all(records)
    writer.close()

    def fit(body: dict[str, Any]) -> None:
        for shard in body["shards"]:
            if shard["file"] == file:
                shard.update(count=writer.count, size=writer.size, sha256=writer.sha256)

    edit(run_dir, fit)


def edit(run_dir: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest and seal it anew, as a hostile program would."""
    body = json.loads((run_dir / "manifest.json").read_text())
    body.pop(SEAL)
    change(body)
    (run_dir / "manifest.json").write_bytes(seal(body))


class TestForeignFiles:
    @pytest.mark.parametrize(
        ("order", "message"),
        [
            (lambda r: [r[1], r[0], *r[2:]], r": record \d \(sample \d\).*sample \[1\].*reordered"),
            (lambda r: [r[0], r[0], *r[2:]], r": record \d \(sample \d\).*sample \[0\].*repeated"),
            (lambda r: [*r[1:], r[0]], r": record \d \(sample \d\).*sample \[1\].*removed"),
        ],
        ids=["swapped", "repeated", "removed"],
    )
    def test_samples_know_their_row(self, copied: Path, order: Any, message: str):
        reordered(copied, SAMPLES, order)
        with pytest.raises(RunFormatError, match=SAMPLES + message):
            read_all(copied)

    @pytest.mark.parametrize("file", [STEPS, SAMPLES])
    def test_records_of_another_run_are_told(self, copied: Path, tmp_path: Path, file: str):
        other = record(tmp_path / "other", epochs=1).run_dir
        assert (other / file).stat().st_size == (copied / file).stat().st_size
        shutil.copy(other / file, copied / file)
        with pytest.raises(RunFormatError, match=rf"{file}.*belongs to the run"):
            read_all(copied)

    def test_records_that_the_manifest_does_not_name(self, copied: Path):
        shutil.copy(copied / STEPS, copied / "steps-00001.tfrecord")
        with pytest.raises(RunFormatError, match=r"steps-00001\.tfrecord does not belong to the run"):
            RecordedRun(copied)

    def test_other_files_are_none_of_its_business(self, copied: Path):
        (copied / "notes.txt").write_text("mine")
        (copied / "steps-00001.tfrecord.tmp").touch()  # a fit that was killed before it began
        RecordedRun(copied).verify_files()

    @pytest.mark.parametrize("file", ["more.pb", "variables/variables.data-00001-of-00002", "assets/x"])
    def test_graphs_hold_no_other_files(self, copied: Path, file: str):
        (copied / "graphs" / file).parent.mkdir(exist_ok=True)
        (copied / "graphs" / file).write_bytes(b"")
        with pytest.raises(RunFormatError, match=f"{file} does not belong to the run"):
            _ = RecordedRun(copied).graphs

    @pytest.mark.parametrize("file", ["manifest.json", STEPS, SAMPLES, "graphs/saved_model.pb", "graphs"])
    def test_links_out_of_the_directory(self, copied: Path, tmp_path: Path, file: str):
        (copied / file).rename(tmp_path / "outside")
        (copied / file).symlink_to(tmp_path / "outside")
        with pytest.raises(RunFormatError, match=rf"{Path(file).name}.*symbolic link"):
            RecordedRun(copied).verify_files()


class TestHostileManifest:
    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            (b'"decay": true', b'"decay": NaN', "NaN is no number"),
            (b'"decay": true', b'"decay": -Infinity', "Infinity is no number"),
            (b'"decay": true', b'"decay": 1e999', "too large"),
            (b'"decay": true', b'"decay": 1' + b"0" * 5000, "damaged"),
            (b'"decay": true', b'"decay": ' + b"[" * 300 + b"]" * 300, "nested more than"),
            (b'"decay": true', b'"decay": true, "decay": true', "key 'decay' occurs twice"),
            (b'"decay": true', b'"decay": "\\ud800"', "surrogates"),
            (b'"decay": true', b'"decay": "\xff"', "utf-8"),
        ],
    )
    def test_text_that_is_no_json(self, copied: Path, old: bytes, new: bytes, message: str):
        path = copied / "manifest.json"
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new, 1))
        with pytest.raises(RunFormatError, match=rf"manifest\.json.*{message}"):
            RecordedRun(copied)

    @pytest.mark.parametrize("shape", [[10**12], [10**6] * 5, [10**30], [0, 10**30], [1] * 65])
    @pytest.mark.parametrize("where", ["variables", "state", "inputs"])
    def test_sizes_are_checked_before_memory_is_taken(self, copied: Path, shape: list[int], where: str):
        def claim(body: dict[str, Any]) -> None:
            if where == "inputs":
                body["inputs"]["leaf"]["shape"] = shape
            else:
                body[where] = [{"path": "a/b", "shape": shape, "dtype": "float32", "decay": True}]

        edit(copied, claim)
        with pytest.raises(RunFormatError, match="no sample or variable is that large"):
            RecordedRun(copied)

    def test_size_that_the_records_do_not_have(self, copied: Path):
        edit(copied, lambda body: body["variables"][0].update(shape=[2**30]))
        with pytest.raises(RunFormatError, match="field 'theta'"):
            RecordedRun(copied)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(), parts, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value within nested JSON."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


@pytest.mark.slow
class TestFuzz:
    @settings(max_examples=300, derandomize=True)
    @given(data=st.data())
    def test_any_value_anywhere_in_a_sealed_manifest(self, tiny: Path, data: st.DataObject):
        """It raises the project's own error, or makes no difference to what is read."""
        body = json.loads((tiny / "manifest.json").read_text())
        body.pop(SEAL)
        *parents, last = data.draw(st.sampled_from(list(places(body))))
        parent = body
        for key in parents:
            parent = parent[key]
        parent[last] = data.draw(JSON)
        with tempfile.TemporaryDirectory() as directory:
            for file in (STEPS, SAMPLES):
                os.link(tiny / file, Path(directory) / file)
            (Path(directory) / "manifest.json").write_bytes(seal(body))
            try:
                read_all(Path(directory))
            except RunFormatError as error:
                str(error).encode()

    @settings(max_examples=200, derandomize=True)
    @given(blob=st.binary(max_size=400))
    def test_any_bytes_as_manifest(self, blob: bytes):
        with tempfile.TemporaryDirectory() as directory:
            (Path(directory) / "manifest.json").write_bytes(blob)
            with pytest.raises(RunFormatError):
                RecordedRun(directory)

    @settings(max_examples=300, derandomize=True)
    @given(data=st.data(), file=st.sampled_from([STEPS, SAMPLES]))
    def test_any_field_of_a_record_with_fitting_checksums(self, tiny: Path, data: st.DataObject, file: str):
        with tempfile.TemporaryDirectory() as directory:
            run_dir = Path(directory)
            for name in ("manifest.json", STEPS, SAMPLES):
                shutil.copy(tiny / name, run_dir / name)

            def change(records: list[bytes]) -> list[bytes]:
                which = data.draw(st.integers(0, len(records) - 1))
                example = tf.train.Example.FromString(records[which])
                feature = example.features.feature[
                    data.draw(st.sampled_from(sorted(example.features.feature)))
                ]
                kind = data.draw(st.sampled_from(["bytes", "integers", "none", "raw"]))
                feature.Clear()
                if kind == "bytes":
                    feature.bytes_list.value.extend(data.draw(st.lists(st.binary(max_size=50), max_size=3)))
                elif kind == "integers":
                    numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 12)
                    feature.int64_list.value.extend(data.draw(st.lists(numbers, max_size=4)))
                raw = data.draw(st.binary(max_size=40)) if kind == "raw" else example.SerializeToString()
                return [*records[:which], raw, *records[which + 1 :]]

            reordered(run_dir, file, change)
            try:
                read_all(run_dir)
            except RunFormatError as error:
                str(error).encode()


def test_manifest_is_written_and_read_back(small_run: Recorded, tmp_path: Path):
    manifest = read_manifest(small_run.run_dir)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert {item.file for item in manifest.graphs} >= {"saved_model.pb", "variables/variables.index"}
    assert np.sum([item.size for item in manifest.graphs]) > 0
