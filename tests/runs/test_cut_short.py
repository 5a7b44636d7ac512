"""A run whose training was killed is opened up to its last whole step."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf import RunFormatError
from tests.helpers import Recorded, flat_theta
from tests.runs.damage import (
    SAMPLES,
    STEPS,
    cut_short,
    edit_manifest,
    read_records,
    record_ends,
    rewrite,
    shard_of,
)

pytestmark = pytest.mark.slow


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
        """After a power cut each file may end anywhere: steps may have reached the disk before their samples."""
        weights = [small_run.spy.before[0], *small_run.spy.after]
        steps, samples = (copied / f"{file}.tmp" for file in (STEPS, SAMPLES))
        ends = {steps: record_ends(copied / STEPS), samples: record_ends(copied / SAMPLES)}
        cut_short(copied)
        whole = {path: path.read_bytes() for path in ends}
        for on_disk in range(7):
            for stored in range(11):
                steps.write_bytes(whole[steps][: ends[steps][on_disk] + more])
                samples.write_bytes(whole[samples][: ends[samples][stored - 1] + more if stored else more])
                # The second epoch has no new samples: its steps are kept if all steps before them are.
                kept = sum(needed <= stored for needed in [4, 8, 10, 10, 10, 10][:on_disk])
                with pytest.warns(UserWarning, match=f"last whole step: {kept} steps") as caught:
                    run = xtf.open_run(copied)
                lost = f" {on_disk - kept} steps after it were left out: their samples never reached the disk"
                assert (lost in str(caught[0].message)) == (on_disk > kept)
                np.testing.assert_array_equal(flat_theta(run, kept), weights[kept])
                assert (len(run.steps), len(run.samples)) == (kept, stored)
                run.verify_files()

    def test_committed_samples_that_are_missing_are_no_cut(self, copied: Path):
        """Not even if steps were still being written, since a shard's samples are committed with its steps."""
        rewrite(copied, SAMPLES, read_records(copied / SAMPLES)[:7])

        def reopen(body: dict[str, Any]) -> None:
            body["status"] = "recording"
            shard_of(body, STEPS).update(count=None, size=None, sha256=None)

        edit_manifest(copied, reopen)
        with pytest.raises(
            RunFormatError, match=rf"{SAMPLES} lacks samples that a step names: the files hold 7, .* 10"
        ):
            xtf.open_run(copied)


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


@pytest.mark.nightly  # tests/recording/test_kills.py kills a training every day
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
