"""A run in S3: what was announced as kept is there, whatever becomes of the writer or of requests."""

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from upath import UPath

import explaind_tf as xtf
from explaind_tf.errors import OtherWriterError
from explaind_tf.recording.writing import places
from explaind_tf.recording.writing.writer import RunWriter
from explaind_tf.runs.storage import objects as stored
from explaind_tf.runs.storage.lease import Lease
from tests.helpers import Recorded, X, batches, fit, flat_theta
from tests.object_store import ANSWER_SECONDS, LOST, UNAVAILABLE, First, ObjectStore, objects
from tests.recording import remote_writers as writers
from tests.recording.test_remote import STEPS_AN_EPOCH, make_model, train

pytestmark = pytest.mark.slow

KILLS = 10  # of each run
STALLED = 4 * ANSWER_SECONDS  # longer than a request may take with all its repetitions


@pytest.fixture
def _each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload steps one by one."""
    monkeypatch.setattr(places, "UPLOAD_BYTES", 1)


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a request up after some seconds."""
    monkeypatch.setattr(stored, "REQUEST_SECONDS", 3 * ANSWER_SECONDS)


@pytest.mark.usefixtures("_each_step")
def test_run_in_s3_is_the_run_in_a_directory(bucket: UPath, run_dir: Path):
    url, out = bucket / "run", bucket / "ledger.zarr"
    for place in (str(url), run_dir):
        train(place)
    found, wanted = xtf.open_run(str(url)), xtf.open_run(run_dir)
    assert (len(found.steps), found.is_complete) == (STEPS_AN_EPOCH, True)
    for step in range(STEPS_AN_EPOCH + 1):
        np.testing.assert_array_equal(flat_theta(found, step), flat_theta(wanted, step))
    found.verify(progress=False)
    there = found.attribute(X, axes=("sample",), progress=False, out=str(out))
    here = wanted.attribute(X, axes=("sample",), progress=False)
    there.explaind.check()
    for name in here.data_vars:
        np.testing.assert_array_equal(there[name], here[name])
    with pytest.raises(ValueError, match=r"ledger\.zarr holds another attribution"):
        found.attribute(X[:3], axes=("sample",), progress=False, out=str(out))
    assert {path.name for path in bucket.iterdir()} == {"run", "ledger.zarr"}  # no lease is left
    assert "writer.json" not in objects(url)


class TestKilled:
    @pytest.mark.parametrize(
        "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.nightly(daily=False)) for seed in range(2, 12))]
    )
    def test_writer_killed_at_any_moment_kept_what_it_announced_and_another_goes_on_at_once(
        self, bucket: UPath, object_store: ObjectStore, small_run: Recorded, tmp_path: Path, seed: int
    ):
        url, noted, chance = bucket / "run", tmp_path / "noted", random.Random(seed)
        source = writers.opened(small_run.run_dir)
        for _ in range(KILLS):
            announced = writers.kill_one(
                writers.write, object_store.endpoint, url, noted, small_run.run_dir, chance
            )
            run = writers.check(url, announced, source)
        assert announced > 0
        writer = writers.begun(url, source)
        writer.finish({})
        assert len(writers.check(url, len(run.step_store), source).step_store) == len(run.step_store)

    @pytest.mark.parametrize(
        "seed", [0, *(pytest.param(seed, marks=pytest.mark.nightly(daily=False)) for seed in range(1, 6))]
    )
    def test_training_killed_at_any_moment_goes_on(
        self, bucket: UPath, object_store: ObjectStore, tmp_path: Path, seed: int
    ):
        url, noted, chance = bucket / "run", tmp_path / "noted", random.Random(seed)
        announced = writers.kill_one(writers.train, object_store.endpoint, url, noted, tmp_path, chance)
        steps = len(writers.check(url, announced, None).step_store)
        train(url, resume=True)
        run = xtf.open_run(url)
        assert len(run.steps) == steps + STEPS_AN_EPOCH
        run.verify(progress=False)
        run.attribute(X[:2], axes=("step",), progress=False).explaind.check()


@pytest.mark.usefixtures("_each_step")
class TestTwoWriters:
    def begun(self, bucket: UPath, small_run: Recorded) -> tuple[UPath, Any]:
        url, source = bucket / "run", writers.opened(small_run.run_dir)
        writer = writers.begun(url, source)
        writers.write_step(writer, source)
        writer.close()
        return url, source

    def test_second_is_refused(self, bucket: UPath, small_run: Recorded):
        url, source = self.begun(bucket, small_run)
        one, other = (RunWriter.reopen(writers.opened(url)) for _ in range(2))
        one.open_shards()
        with pytest.raises(OtherWriterError, match="is being written to by process"):
            other.open_shards()
        writers.write_step(one, source)
        one.finish({})
        with pytest.raises(OtherWriterError, match="has changed since"):
            other.open_shards()
        assert len(writers.check(url, 2, source).step_store) == 2

    def test_without_a_lease_only_one_commits(
        self, bucket: UPath, small_run: Recorded, monkeypatch: pytest.MonkeyPatch
    ):
        """As if both were between two of their checks: one commits after the other has looked."""
        for name in ("acquire", "require", "release"):
            monkeypatch.setattr(Lease, name, lambda _: None)
        url, source = self.begun(bucket, small_run)
        one, other = (RunWriter.reopen(writers.opened(url)) for _ in range(2))
        for writer in (one, other):
            writer._refuse_changed()
        monkeypatch.setattr(other, "_refuse_changed", lambda: None)
        one.open_shards()
        writers.write_step(one, source)
        before = objects(url)
        with pytest.raises(OtherWriterError, match="Another writer continued the run"):
            other.open_shards()
        assert objects(url) == before

    def test_without_a_lease_shards_are_not_overwritten(
        self, bucket: UPath, small_run: Recorded, monkeypatch: pytest.MonkeyPatch
    ):
        for name in ("acquire", "require", "release"):
            monkeypatch.setattr(Lease, name, lambda _: None)
        url, source = self.begun(bucket, small_run)
        one = RunWriter.reopen(writers.opened(url))
        one.open_shards()
        monkeypatch.setattr(one, "_refuse_changed", lambda: None)
        other = RunWriter.reopen(writers.opened(url))
        other.open_shards()
        for _ in range(2):
            writers.write_step(other, source)
        before = objects(url)
        one.step_count += 1  # another step than that of the other one
        with pytest.raises(OtherWriterError, match="Nothing of the other was overwritten"):
            writers.write_step(one, source)
        assert objects(url) == before
        writers.check(url, 3, source)


@pytest.mark.usefixtures("_each_step", "_short_waits")
class TestFaults:
    @pytest.mark.parametrize(
        "plan",
        [
            First(2, UNAVAILABLE, path="steps-00002"),
            First(1, 1.2 * ANSWER_SECONDS, path="steps-00001"),
            First(1, LOST, path="manifest.json"),
            pytest.param(
                First(1, UNAVAILABLE, path="manifest.json", method="HEAD"), marks=pytest.mark.nightly
            ),
            pytest.param(First(1, LOST, path="steps-00002"), marks=pytest.mark.nightly),
            pytest.param(First(1, LOST, path="writer.json"), marks=pytest.mark.nightly),
        ],
        ids=["refused", "stalled", "lost manifest", "refused read", "lost shard", "lost lease"],
    )
    def test_some_requests_that_fail_or_stall_are_repeated(
        self, bucket: UPath, object_store: ObjectStore, plan: First
    ):
        with object_store.failing(plan):
            train(bucket / "run")
        assert plan.left == 0
        run = xtf.open_run(bucket / "run")
        assert (len(run.steps), run.is_complete) == (STEPS_AN_EPOCH, True)
        run.verify(progress=False)

    @pytest.mark.parametrize(
        ("method", "fault"),
        [
            ("PUT", STALLED),
            ("GET", UNAVAILABLE),
            pytest.param("PUT", UNAVAILABLE, marks=pytest.mark.nightly),
            pytest.param("GET", STALLED, marks=pytest.mark.nightly),
        ],
    )
    def test_store_that_fails_for_long_ends_only_the_recording(
        self, bucket: UPath, object_store: ObjectStore, method: str, fault: str | float
    ):
        """Also while the manifest is read, before the next shard is uploaded."""
        url, model, begun = bucket / "run", make_model(), len(object_store.requests)
        logger = xtf.PathLogger(url, on_error="warn", verbose=False)
        tapped = logger.tap(batches())

        def plan(asked: str, path: str) -> str | float | None:
            uploaded = sum("steps-00002" in path for _, path in object_store.requests[begun:])
            is_meant = (asked != "PUT") == (method != "PUT") and "manifest.json" in path
            return fault if uploaded and is_meant else None

        with (
            object_store.failing(plan),
            pytest.warns(UserWarning, match=r"cannot be written.*Its 1 steps .*Training continues without"),
        ):
            fit(model, tapped, logger, epochs=2)
        assert int(model.optimizer.iterations) == 2 * STEPS_AN_EPOCH
        assert logger.kept_steps == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run = xtf.open_run(url)
        assert len(run.steps) >= logger.kept_steps
        run.verify(progress=False)

    def test_store_that_cannot_be_asked_is_not_said_to_hold_nothing(
        self, bucket: UPath, object_store: ObjectStore
    ):
        train(bucket / "run")
        for name in ("manifest.json", "steps-00000.tfrecord"):
            with (
                object_store.failing(lambda method, path, name=name: UNAVAILABLE if name in path else None),
                pytest.raises(xtf.RunFormatError, match=rf"{name} cannot be read"),
            ):
                xtf.open_run(bucket / "run")
