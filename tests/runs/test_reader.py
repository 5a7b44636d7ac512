"""Opening a run: whatever is wrong with the directory is said, with file and step, and nothing is guessed."""

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf import RunFormatError
from explaind_tf.constants import FORMAT_VERSION
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format.step_records import END, StepRecord, encode_step
from explaind_tf.runs.storage.records import RecordFile, RecordWriter, file_sha256
from explaind_tf.runs.storage.sealed import SEAL, seal
from tests.helpers import Recorded, X, Y, flat_theta

STEPS, SAMPLES = "steps-00000.tfrecord", "samples-00000.tfrecord"


@pytest.fixture
def copied(small_run: Recorded, run_dir: Path) -> Path:
    """A complete run that may be damaged."""
    shutil.copytree(small_run.run_dir, run_dir)
    return run_dir


def edit_manifest(run_dir: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest and seal it anew: as a faulty or hostile program would, not a faulty disk."""
    path = run_dir / "manifest.json"
    body = json.loads(path.read_text())
    body.pop(SEAL)
    edit(body)
    path.write_bytes(seal(body))


def shard_of(body: dict[str, Any], file: str) -> dict[str, Any]:
    return next(shard for shard in body["shards"] if shard["file"] == file)


def read_records(path: Path) -> list[bytes]:
    file = RecordFile(path, None)
    return [file.read(index) for index in range(len(file))]


def rewrite(run_dir: Path, file: str, records: list[bytes]) -> None:
    """Write a shard anew, with a manifest that fits: as a faulty program would, not a faulty disk."""
    path = run_dir / file
    path.unlink()
    writer = RecordWriter(path)
    for data in records:
        writer.write(data)
    writer.close()
    edit_manifest(
        run_dir,
        lambda body: shard_of(body, file).update(count=writer.count, size=writer.size, sha256=writer.sha256),
    )


def cut_short(run_dir: Path) -> None:
    """Turn a complete run into one whose training was killed."""

    def reopen(body: dict[str, Any]) -> None:
        body["status"] = "recording"
        for shard in body["shards"]:
            shard.update(count=None, size=None, sha256=None)

    edit_manifest(run_dir, reopen)
    for file in (STEPS, SAMPLES):
        (run_dir / file).rename(run_dir / f"{file}.tmp")


def record_ends(path: Path) -> list[int]:
    """Return where each record ends, in bytes: 16 around the data of each."""
    return np.cumsum([16 + len(data) for data in read_records(path)]).tolist()


class TestCompleteRun:
    def test_weights_are_read_without_the_graphs(self, copied: Path, small_run: Recorded):
        shutil.rmtree(copied / "graphs")
        run = RecordedRun(copied)
        assert run.is_complete
        np.testing.assert_array_equal(run.steps, range(6))
        for step in run.steps:
            np.testing.assert_array_equal(flat_theta(run, step), small_run.spy.before[step])
        with pytest.raises(RunFormatError, match="graphs is missing"):
            run.verify_files()

    def test_theta_has_names_and_shapes(self, copied: Path):
        theta = RecordedRun(copied).theta(0)
        assert [(path.split("/")[-1], array.shape) for path, array in theta.items()] == [
            ("kernel", (3, 3)),
            ("bias", (3,)),
            ("kernel", (3, 2)),
            ("bias", (2,)),
        ]

    @pytest.mark.parametrize("step", [-1, 7])
    def test_step_that_does_not_exist_is_an_index_error(self, copied: Path, step: int):
        with pytest.raises(IndexError, match=rf"step must be in 0 … 6 .*got {step}"):
            RecordedRun(copied).theta(step)

    def test_steps_are_read_in_any_order(self, copied: Path, small_run: Recorded):
        run = RecordedRun(copied)
        for step in (5, 0, 3, 4, 1, 5, 2):
            transition = run.step_store.transition(step)
            np.testing.assert_array_equal(transition.theta_start, small_run.spy.before[step])
            np.testing.assert_array_equal(transition.theta_end, small_run.spy.after[step])

    def test_recorded_arrays_cannot_be_changed_by_accident(self, copied: Path):
        array = next(iter(RecordedRun(copied).theta(0).values()))
        with pytest.raises(ValueError, match="read-only"):
            array += 1


class TestForeignDirectory:
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda path: None, "is not a directory"),
            (lambda path: path.write_text("file"), "is not a directory"),
            (lambda path: path.mkdir(), r"has no manifest\.json"),
        ],
        ids=["missing", "file", "empty"],
    )
    def test_is_told_from_a_run(self, run_dir: Path, make: Callable[[Path], None], message: str):
        make(run_dir)
        with pytest.raises(
            RunFormatError, match=rf"{run_dir} is not a recorded run: it {message}.*PathLogger"
        ):
            xtf.open_run(run_dir)

    def test_run_without_its_manifest_is_refused(self, copied: Path):
        (copied / "manifest.json").unlink()
        with pytest.raises(RunFormatError, match=r"has no manifest\.json"):
            xtf.open_run(copied)

    def test_graphs_that_are_missing_are_named(self, copied: Path):
        shutil.rmtree(copied / "graphs")
        with pytest.raises(RunFormatError, match=r"graphs is missing"):
            _ = RecordedRun(copied).graphs


class TestManifest:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            "null",
            "\x00",
            '{"format_version": 2',
            '{"format_version": 2}',
            pytest.param(
                "[" * 100_000,
            ),
        ],
    )
    def test_damaged_json_is_refused(self, copied: Path, text: str):
        (copied / "manifest.json").write_text(text)
        with pytest.raises(RunFormatError, match=r"manifest\.json"):
            xtf.open_run(copied)

    def test_every_truncation_is_refused(self, copied: Path):
        path = copied / "manifest.json"
        whole = path.read_bytes().rstrip()
        for size in range(0, len(whole), 41):
            path.write_bytes(whole[:size])
            with pytest.raises(RunFormatError, match=r"manifest\.json is damaged"):
                xtf.open_run(copied)

    def test_text_that_is_not_utf8_is_refused(self, copied: Path):
        (copied / "manifest.json").write_bytes(b'{"\xff": 1}')
        with pytest.raises(RunFormatError, match=r"manifest\.json is damaged"):
            xtf.open_run(copied)

    @pytest.mark.parametrize("version", [0, 2, 3, True, FORMAT_VERSION + 1, "1", None])
    def test_other_format_version_is_refused(self, copied: Path, version: Any):
        edit_manifest(copied, lambda body: body.update(format_version=version))
        with pytest.raises(
            RunFormatError,
            match=rf"version {version!r} was written by another.*reads version {FORMAT_VERSION}",
        ):
            xtf.open_run(copied)

    @pytest.mark.parametrize(
        "key",
        ["run_id", "status", "variables", "state", "optimizer", "loss", "inputs", "targets", "shards"],
    )
    def test_missing_field_is_named(self, copied: Path, key: str):
        edit_manifest(copied, lambda body: body.pop(key))
        with pytest.raises(RunFormatError, match=f"manifest.json is damaged.*{key}"):
            xtf.open_run(copied)

    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda body: body.update(status="done"), "unknown status 'done'"),
            (lambda body: body.update(variables={}), "variables must be a list"),
            (lambda body: body.update(optimizer=[]), "optimizer must be an object"),
            (lambda body: body.update(variables=[3]), "damaged"),
            (lambda body: body.update(variables=[]), "no trainable variables"),
            (lambda body: body["variables"][0].update(shape=[None]), "unknown size"),
            (lambda body: body["variables"][0].update(dtype="object"), "dtype 'object'"),
            (lambda body: body["variables"][0].update(shape=[4, 3]), "record 0 .*is damaged: field 'theta'"),
            (lambda body: body["state"].pop(), "record 0 .*is damaged: field 'state'"),
            (lambda body: body["shards"].pop(0), "names no steps file"),
            (lambda body: body["shards"].append(body["shards"][0]), "names a shard twice"),
            (lambda body: body["shards"][0].update(count=-1), "count=-1"),
            (lambda body: body["shards"][0].update(size="9"), "size='9'"),
            (lambda body: body["inputs"].update(more=1), "does not know"),
            pytest.param(
                lambda body: body["shards"][0].update(count=None, size=None, sha256=None),
                "complete",
            ),
            pytest.param(
                lambda body: [variable.update(dtype="int32") for variable in body["variables"]],
                "float",
            ),
        ],
    )
    def test_wrong_value_is_refused(self, copied: Path, edit: Callable[[Any], Any], message: str):
        edit_manifest(copied, edit)
        with pytest.raises(RunFormatError, match=message):
            xtf.open_run(copied)

    @pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", ".", "", 3, None])
    def test_shard_outside_of_the_directory_is_refused(self, copied: Path, name: Any):
        (copied.parent / "x").write_bytes((copied / STEPS).read_bytes())
        edit_manifest(copied, lambda body: shard_of(body, STEPS).update(file=name))
        with pytest.raises(RunFormatError, match="must be a file in the run directory itself"):
            xtf.open_run(copied)


class TestShards:
    @pytest.mark.parametrize("file", [STEPS, SAMPLES])
    def test_missing_shard_is_named(self, copied: Path, file: str):
        (copied / file).unlink()
        with pytest.raises(RunFormatError, match=f"{file} is missing: the manifest names it"):
            xtf.open_run(copied)

    @pytest.mark.parametrize("file", [STEPS, SAMPLES])
    @pytest.mark.parametrize("change", [-1, 1])
    def test_other_size_is_refused(self, copied: Path, file: str, change: int):
        data = (copied / file).read_bytes()
        (copied / file).write_bytes((data + b"\x00")[: len(data) + change])
        with pytest.raises(RunFormatError, match=rf"{file} has {len(data) + change} bytes.*says {len(data)}"):
            xtf.open_run(copied)

    @pytest.mark.parametrize("file", [STEPS, SAMPLES])
    def test_verify_files_detects_a_flipped_byte_anywhere(self, copied: Path, file: str):
        path = copied / file
        whole = path.read_bytes()
        for position in range(0, len(whole), len(whole) // 20):
            damaged = bytearray(whole)
            damaged[position] ^= 0x10
            path.write_bytes(damaged)
            with pytest.raises(RunFormatError, match=file):
                RecordedRun(copied).verify_files()

    def test_sample_that_is_not_what_its_fingerprint_says_is_refused(self, copied: Path):
        records = read_records(copied / SAMPLES)
        content = X[0].tobytes()
        assert content in records[0]
        rewrite(copied, SAMPLES, [records[0].replace(content, X[1].tobytes()), *records[1:]])
        run = RecordedRun(copied)
        with pytest.raises(
            RunFormatError, match=rf"{SAMPLES}: record 0 \(sample 0\) does not match its fingerprint"
        ):
            run.samples.take([0])
        np.testing.assert_array_equal(run.samples.take([1])[1], Y[[1]])

    @pytest.mark.parametrize("file", [STEPS, SAMPLES])
    def test_record_of_another_kind_is_named(self, copied: Path, file: str):
        rewrite(copied, file, [b"\xff\xff", *read_records(copied / file)[1:]])
        with pytest.raises(RunFormatError, match=rf"{file}: record 0, .*no tf\.train\.Example"):
            RecordedRun(copied).verify_files()

    def test_step_with_rows_that_were_never_stored_is_refused(self, copied: Path):
        rewrite(copied, SAMPLES, read_records(copied / SAMPLES)[:-1])
        with pytest.raises(RunFormatError, match=r"step 2 names samples .*\(9 rows\)"):
            RecordedRun(copied).verify_files()


class TestOrderOfSteps:
    """Records that are whole, but not those of the steps that they are taken for."""

    @pytest.mark.parametrize(
        ("order", "step", "found"),
        [
            ([0, 1, 3, 2, 4, 5, 6], 1, "'step' 2"),
            ([0, 1, 2, 2, 4, 5, 6], 2, "'step' 1"),
            ([0, 1, 2, 0, 4, 5, 6], 2, "'start' -1"),
        ],
        ids=["reordered", "repeated", "second start"],
    )
    def test_wrong_record_is_refused_with_the_step(
        self, copied: Path, order: list[int], step: int, found: str
    ):
        records = read_records(copied / STEPS)
        rewrite(copied, STEPS, [records[index] for index in order])
        message = rf"{STEPS}: record {step + 1} should be step {step}; found {found}.*repeated or reordered"
        run = RecordedRun(copied)
        with pytest.raises(RunFormatError, match=message):
            run.verify_files()
        with pytest.raises(RunFormatError, match=message):
            run.theta(step + 1)
        run.theta(0)

    @pytest.mark.parametrize(
        ("order", "message"),
        [
            ([0, 1, 1, 2, 3, 4, 5, 6], r"record 7 should be step 6; found 'step' 5"),
            ([0, 1, 2, 4, 5, 6], r"record 5 should be step 4; found 'step' 5"),
            ([0, 2, 3, 4, 5, 6], r"record 5 should be step 4; found 'step' 5"),
        ],
        ids=["inserted", "removed", "first removed"],
    )
    def test_missing_or_surplus_record_is_refused_when_the_run_is_opened(
        self, copied: Path, order: list[int], message: str
    ):
        records = read_records(copied / STEPS)
        rewrite(copied, STEPS, [records[index] for index in order])
        with pytest.raises(RunFormatError, match=f"{message}.*Steps must follow each other without a gap"):
            RecordedRun(copied)

    def test_record_of_the_end_holds_what_others_changed_after_the_last_step(
        self, copied: Path, small_run: Recorded
    ):
        last = small_run.spy.after[-1]
        run = RecordedRun(copied)
        end = StepRecord(END, 6, replace(run.step_store.last(), theta=2 * last), theta_before=2 * last)
        rewrite(copied, STEPS, [*read_records(copied / STEPS), encode_step(end, run.run_id)])
        run = RecordedRun(copied)
        assert len(run.steps) == 6
        np.testing.assert_array_equal(flat_theta(run, 6), 2 * last)
        np.testing.assert_array_equal(run.step_store.transition(5).theta_stepped, last)
        np.testing.assert_array_equal(run.step_store.transition(5).theta_end, 2 * last)

    @pytest.mark.parametrize("order", [[1, 2, 3], [1, 0, 2], []], ids=["no start", "late start", "empty"])
    def test_run_without_a_start_is_refused_when_it_is_opened(self, copied: Path, order: list[int]):
        records = read_records(copied / STEPS)
        rewrite(copied, STEPS, [records[index] for index in order])
        with pytest.raises(RunFormatError, match=r"should be step -1; found 'step' 0|holds no record"):
            RecordedRun(copied)


class TestRunCutShort:
    @pytest.mark.parametrize("whole_steps", [0, 1, 3, 5, 6])
    @pytest.mark.parametrize("more", [0, 1, 11, 12, 30, -1])
    def test_opens_up_to_the_last_whole_step(
        self, copied: Path, small_run: Recorded, whole_steps: int, more: int
    ):
        ends = record_ends(copied / STEPS)
        cut_short(copied)
        path = copied / f"{STEPS}.tmp"
        data = path.read_bytes()
        if more == -1 and whole_steps < 6:
            more = ends[whole_steps + 1] - ends[whole_steps] - 1  # all but one byte of the next record
        more = 0 if whole_steps == 6 else more
        path.write_bytes(data[: ends[whole_steps] + more])
        with pytest.warns(UserWarning, match=rf"cut short.*last whole step: {whole_steps} steps") as caught:
            run = xtf.open_run(copied)
        assert len(caught) == 1
        left_out = f"The {more} bytes of an unfinished step were left out"
        assert (left_out in str(caught[0].message)) == (more > 0)
        assert not run.is_complete
        assert len(run.steps) == whole_steps
        weights = [small_run.spy.before[0], *small_run.spy.after]
        for step in range(whole_steps + 1):
            np.testing.assert_array_equal(flat_theta(run, step), weights[step])
        run.verify_files()

    def test_warning_points_at_the_line_that_opened_the_run(self, copied: Path):
        cut_short(copied)
        with pytest.warns(UserWarning, match="cut short") as caught:
            xtf.open_run(copied)
        assert caught[0].filename == __file__

    def test_without_a_whole_start_record_there_is_no_run(self, copied: Path):
        cut_short(copied)
        path = copied / f"{STEPS}.tmp"
        path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(RunFormatError, match="cut short before its first step"):
            xtf.open_run(copied)

    def test_damage_is_not_taken_for_a_cut(self, copied: Path):
        ends = record_ends(copied / STEPS)
        cut_short(copied)
        path = copied / f"{STEPS}.tmp"
        damaged = bytearray(path.read_bytes())
        damaged[ends[2]] ^= 1  # the length of a record in the middle
        path.write_bytes(damaged)
        with pytest.raises(RunFormatError, match=r"record 3, .*length does not match its checksum"):
            xtf.open_run(copied)

    @pytest.mark.parametrize("committed", [[STEPS], [STEPS, SAMPLES]])
    def test_killed_between_naming_the_files_and_the_manifest(self, copied: Path, committed: list[str]):
        cut_short(copied)
        for file in committed:
            (copied / f"{file}.tmp").rename(copied / file)
        with pytest.warns(UserWarning, match="cut short.*6 steps"):
            run = xtf.open_run(copied)
        run.verify_files()

    @pytest.mark.parametrize("more", [0, 5])
    def test_steps_whose_samples_were_lost_are_left_out(self, copied: Path, small_run: Recorded, more: int):
        """After a power cut each file ends anywhere: steps may have reached the disk before their samples."""
        weights = [small_run.spy.before[0], *small_run.spy.after]
        steps, samples = (copied / f"{file}.tmp" for file in (STEPS, SAMPLES))
        ends = {steps: record_ends(copied / STEPS), samples: record_ends(copied / SAMPLES)}
        cut_short(copied)
        whole = {path: path.read_bytes() for path in ends}
        for on_disk in range(7):
            for stored in range(11):
                steps.write_bytes(whole[steps][: ends[steps][on_disk] + more])
                samples.write_bytes(whole[samples][: ends[samples][stored - 1] + more if stored else more])
                # The second epoch has no samples of its own: its steps go with those that they follow.
                kept = sum(needed <= stored for needed in [4, 8, 10, 10, 10, 10][:on_disk])
                with pytest.warns(UserWarning, match=f"last whole step: {kept} steps") as caught:
                    run = xtf.open_run(copied)
                lost = f" {on_disk - kept} steps after it were left out: their samples never reached the disk"
                assert (lost in str(caught[0].message)) == (on_disk > kept)
                np.testing.assert_array_equal(flat_theta(run, kept), weights[kept])
                assert (len(run.steps), len(run.samples)) == (kept, stored)
                run.verify_files()

    def test_committed_samples_that_are_missing_are_no_cut(self, copied: Path):
        """Not even where steps were still being written: samples of one shard are committed with its steps."""
        rewrite(copied, SAMPLES, read_records(copied / SAMPLES)[:7])

        def reopen(body: dict[str, Any]) -> None:
            body["status"] = "recording"
            shard_of(body, STEPS).update(count=None, size=None, sha256=None)

        edit_manifest(copied, reopen)
        with pytest.warns(UserWarning, match="cut short.*6 steps"):
            run = xtf.open_run(copied)
        with pytest.raises(RunFormatError, match=rf"{SAMPLES} lacks the samples .* that a step names"):
            run.samples.take_flat(run.step_store.transition(2).rows)


KILLED = """
import os, signal, sys
import keras, numpy as np
import explaind_tf as xtf
from tests.helpers import batches, dense_model, fit, flat

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 5:
            np.save(sys.argv[2], flat(self.model.trainable_variables))
            os.kill(os.getpid(), signal.SIGKILL)

model = dense_model()
model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
logger = xtf.PathLogger(sys.argv[1])
fit(model, logger.tap(batches()), logger, Kill(), epochs=100)
"""


def test_training_killed_with_signal_9_keeps_every_step(run_dir: Path, tmp_path: Path):
    root = Path(__file__).parents[2]
    weights = tmp_path / "weights.npy"
    environment = os.environ | {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(run_dir), str(weights)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    with pytest.warns(UserWarning, match=r"interrupted or killed.*5 steps\.$"):
        run = xtf.open_run(run_dir)
    assert len(run.samples) == 10
    np.testing.assert_array_equal(flat_theta(run, 5), np.load(weights))
    run.verify(progress=False)


class TestTrust:
    """A run directory may come from anyone: reading it must not execute what it says."""

    SOURCES = sorted((Path(xtf.__file__).parent).rglob("*.py"))

    def test_nothing_imports_a_module_that_executes_data(self):
        forbidden = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
        assert len(self.SOURCES) > 20
        for path in self.SOURCES:
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or "", *(alias.name for alias in node.names)]
                found = {part for name in names for part in name.split(".")} & forbidden
                assert not found, f"{path}, line {node.lineno}, imports {found}"

    def test_nothing_evaluates_text_or_allows_pickles(self):
        for path in self.SOURCES:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    name = getattr(node.func, "id", None)
                    assert name not in ("eval", "exec", "compile", "__import__"), f"{path}: {node.lineno}"
                    assert all(k.arg != "allow_pickle" for k in node.keywords), f"{path}: {node.lineno}"

    def test_the_format_does_not_know_keras(self):
        """No Keras config is deserialised from a run: the room that reads it does not even import Keras."""
        for path in (Path(xtf.__file__).parent / "runs").glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    names = [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
                    assert not any(name.split(".")[0] == "keras" for name in names), path

    def test_manifest_is_plain_json(self, small_run: Recorded):
        body = json.loads((small_run.run_dir / "manifest.json").read_text())
        assert body["format_version"] == FORMAT_VERSION
        for shard in body["shards"]:
            path = small_run.run_dir / shard["file"]
            assert shard["size"] == path.stat().st_size
            assert shard["sha256"] == file_sha256(path)
            assert shard["count"] == len(RecordFile(path, None))
