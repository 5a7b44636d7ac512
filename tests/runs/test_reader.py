"""Opening a run: errors name what is wrong with the directory, with file and step, and nothing is guessed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import RunFormatError
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format.step_records import END, StepRecord, encode_step
from tests.helpers import Recorded, X, Y, flat_theta
from tests.runs.damage import SAMPLES, STEPS, read_records, rewrite


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
        with pytest.raises(
            RunFormatError, match=rf"{SAMPLES} lacks samples that a step names: the files hold 9, .* 10 "
        ):
            RecordedRun(copied)

    def test_samples_that_were_there_after_the_last_step_are_refused(self, copied: Path):
        more = read_records(copied / SAMPLES)
        example = tf.train.Example.FromString(more[0])
        example.features.feature["row"].int64_list.value[:] = [len(more)]
        rewrite(copied, SAMPLES, [*more, example.SerializeToString()])
        with pytest.raises(RunFormatError, match="holds 11 samples, and there were 10"):
            RecordedRun(copied).verify_files()


class TestOrderOfSteps:
    """Whole records that are in the place of another step's record."""

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
