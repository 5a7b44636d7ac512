"""A run at a URL: recorded in whole objects, which the manifest names after their upload."""

import errno
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

import explaind_tf as xtf
from explaind_tf import RefusedError, RunFormatError
from explaind_tf.errors import OtherWriterError
from explaind_tf.recording.writing import places
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format.manifest import read_manifest
from explaind_tf.runs.storage import files, lease
from explaind_tf.runs.storage.files import remove_tree
from tests.helpers import Recorded, Spy, X, batches, dense_model, fit, flat_theta
from tests.recording.test_resume import Interrupt

pytestmark = pytest.mark.slow

STEPS_AN_EPOCH = 3
Objects = dict[str, bytes]


@pytest.fixture
def url() -> Iterator[UPath]:
    """A directory in memory that a logger may create."""
    path = UPath(f"memory://{uuid.uuid4().hex}/run")
    yield path
    if path.parent.exists():
        remove_tree(path.parent)


@pytest.fixture
def _each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload steps one by one."""
    monkeypatch.setattr(places, "UPLOAD_BYTES", 1)


@pytest.fixture
def _at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload steps when training ends, however long it takes."""
    monkeypatch.setattr(places, "UPLOAD_SECONDS", float("inf"))


def make_model() -> keras.Model:
    model = dense_model()
    model.compile(xtf.PathAdamW(0.01, weight_decay=0.1), loss="mse", run_eagerly=True)
    return model


def train(run_dir: Any, *callbacks: keras.callbacks.Callback, epochs: int = 1, **options: Any) -> Spy:
    model, spy = make_model(), Spy()
    logger = xtf.PathLogger(run_dir, verbose=False, **options)
    fit(model, logger.tap(batches()), logger, spy, *callbacks, epochs=epochs)
    return spy


def open_cut_short(url: UPath) -> xtf.Run:
    with pytest.warns(UserWarning, match="cut short"):
        return xtf.open_run(url)


def objects(url: UPath) -> Objects:
    """Return the objects under a URL, by their name relative to it."""
    found = url.fs.find(url.path) if url.exists() else []
    return {name.removeprefix(f"{url.path}/"): url.fs.cat_file(name) for name in found}


def put(url: UPath, content: Objects) -> UPath:
    for name, data in content.items():
        url.fs.pipe_file(f"{url.path}/{name}", data)
    return url


def count_steps(content: Objects, scratch: Path) -> int:
    """Return the number of steps that a manifest commits: the records of its shards, without the start record."""
    (scratch / "manifest.json").write_bytes(content["manifest.json"])
    return sum(shard.count or 0 for shard in read_manifest(scratch).shards_of("steps")) - 1


@pytest.mark.usefixtures("_each_step")
def test_run_at_a_url_is_the_run_in_a_directory(url: UPath, run_dir: Path):
    """With keyframes, so the training step is also read from the URL."""
    for place in (str(url), run_dir):
        model = dense_model()
        model.compile(xtf.PathAdamW(0.01), loss="mse")
        logger = xtf.PathLogger(place, every=2, verbose=False)
        fit(model, logger.tap(batches()), logger, epochs=2)
    found, wanted = xtf.open_run(str(url)), xtf.open_run(run_dir)
    assert (len(found.steps), len(found.samples), found.is_complete) == (2 * STEPS_AN_EPOCH, 10, True)
    assert len(found.manifest.shards_of("steps")) == 1 + 2 * STEPS_AN_EPOCH
    assert (
        len(found.manifest.shards_of("samples")) == 1 + STEPS_AN_EPOCH
    )  # one that is empty, none in the 2nd epoch
    for step in range(len(wanted.steps) + 1):
        np.testing.assert_array_equal(flat_theta(found, step), flat_theta(wanted, step))
    found.verify(progress=False)
    store = url.parent / "ledger.zarr"
    ledgers = [run.attribute(X, axes=("sample",), progress=False) for run in (found, wanted)]
    ledgers.append(found.attribute(X, axes=("sample",), progress=False, out=store))
    for ledger in ledgers:
        ledger.explaind.check()
        for name in ledgers[0].data_vars:
            np.testing.assert_array_equal(ledger[name], ledgers[0][name])
    with pytest.raises(ValueError, match=r"ledger\.zarr holds another attribution"):
        found.attribute(X[:3], axes=("sample",), progress=False, out=str(store))


@pytest.mark.usefixtures("_at_the_end")
def test_local_url_is_a_local_directory(run_dir: Path):
    train(run_dir.as_uri())
    assert xtf.open_run(run_dir.as_uri()).run_dir == run_dir
    assert len(xtf.open_run(run_dir).manifest.shards) == 2


class TestInterrupted:
    @pytest.mark.usefixtures("_each_step")
    def test_between_any_two_writes_every_committed_step_is_there(
        self, url: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        """Record two fits, and look at the URL before and after each write of an object."""
        states: list[Objects] = []

        def watch(name: str) -> None:
            plain = getattr(MemoryFileSystem, name)

            def watched(self: Any, *arguments: Any, **options: Any) -> None:
                states.append(objects(url))
                plain(self, *arguments, **options)
                states.append(objects(url))

            monkeypatch.setattr(MemoryFileSystem, name, watched)

        watch("put_file")
        watch("pipe_file")
        model, spy = make_model(), Spy()
        logger = xtf.PathLogger(url, verbose=False)
        for _ in range(2):
            fit(model, logger.tap(batches()), logger, spy)
        monkeypatch.undo()
        weights = [spy.before[0], *spy.after]
        different = [state for i, state in enumerate(states) if state != states[i - 1]]
        seen = []
        for i, state in enumerate(different):
            copy = put(url.parent / f"state-{i}", state)
            if "manifest.json" not in state:
                with pytest.raises(RunFormatError, match="is not a recorded run"):
                    xtf.open_run(copy)
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run = xtf.open_run(copy)
            assert len(run.steps) == count_steps(state, tmp_path)
            for step in range(len(run.steps) + 1):
                np.testing.assert_array_equal(flat_theta(run, step), weights[step])
            run.verify_files()
            seen.append(len(run.steps))
        assert seen == sorted(seen)
        assert set(seen) == set(range(2 * STEPS_AN_EPOCH + 1))

    @pytest.mark.usefixtures("_each_step")
    @pytest.mark.parametrize("writes", [3, 7, 10])  # within the graphs, before a shard, before a manifest
    def test_it_goes_on_where_it_was_committed(
        self, url: UPath, writes: int, monkeypatch: pytest.MonkeyPatch
    ):
        """Like a kill of the process before some write: nothing is closed, and uploaded objects are left behind."""
        with monkeypatch.context() as patched:
            left = iter(range(writes))

            def dying(plain: Any) -> Any:
                def write(self: Any, *arguments: Any, **options: Any) -> None:
                    if next(left, None) is None:
                        raise KeyboardInterrupt
                    plain(self, *arguments, **options)

                return write

            for name in ("put_file", "pipe_file"):
                patched.setattr(MemoryFileSystem, name, dying(getattr(MemoryFileSystem, name)))
            with pytest.raises(KeyboardInterrupt):
                train(url)
        committed = 0
        if "manifest.json" in objects(url):
            committed = len(open_cut_short(url).steps)
        train(url, resume=True)
        run = xtf.open_run(url)
        assert len(run.steps) == committed + STEPS_AN_EPOCH
        run.verify_files()
        if committed:
            run.verify(progress=False)
            run.attribute(X, axes=("step", "sample"), progress=False).explaind.check()

    @pytest.mark.usefixtures("_at_the_end")
    def test_what_was_not_uploaded_is_lost_unless_the_logger_is_closed(self, url: UPath):
        model, logger = make_model(), xtf.PathLogger(url, verbose=False)
        with pytest.raises(KeyboardInterrupt):
            model.fit(logger.tap(batches()), callbacks=[logger, Interrupt(2)], verbose=0, shuffle=False)
        assert len(open_cut_short(url).steps) == 0
        logger.close()
        assert len(open_cut_short(url).steps) == 2
        train(url, resume=True)
        assert len(xtf.open_run(url).steps) == 2 + STEPS_AN_EPOCH

    @pytest.mark.usefixtures("_each_step")
    @pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Forbidden"), RuntimeError("503")])
    def test_upload_that_fails_ends_training_with_what_is_kept(
        self, url: UPath, error: Exception, monkeypatch: pytest.MonkeyPatch
    ):
        plain = MemoryFileSystem.put_file

        def refuse(self: Any, source: str, target: str, **options: Any) -> None:
            if "steps-00002" in target:
                raise error
            plain(self, source, target, **options)

        monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
        kept = r"1 steps before this one are kept, but the 1 after them were not uploaded.*resume=True"
        with pytest.raises(OSError, match=f"({'|'.join(map(str, error.args))}).*{kept}"):
            train(url)
        assert len(open_cut_short(url).steps) == 1
        monkeypatch.undo()
        train(url, resume=True)
        assert len(xtf.open_run(url).steps) == 1 + STEPS_AN_EPOCH

    def test_temporary_files_go_with_the_logger(
        self, url: UPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(places.tempfile, "tempdir", str(tmp_path))
        train(url)
        assert xtf.open_run(url).graphs.functions.forward
        assert list(tmp_path.iterdir()) == []


class TestRefusals:
    @pytest.mark.usefixtures("_each_step")
    def test_second_writer_is_refused(self, url: UPath):
        class Other(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if batch == 1:
                    before = objects(url)
                    with pytest.raises(OtherWriterError, match="is being written to by process"):
                        train(url, resume=True)
                    assert objects(url) == before

        train(url, Other())
        run = xtf.open_run(url)
        assert len(run.steps) == STEPS_AN_EPOCH
        run.verify(progress=False)
        assert "writer.json" not in objects(url)

    @pytest.mark.usefixtures("_each_step")
    @pytest.mark.parametrize("on_error", ["raise", "warn"])
    def test_writer_that_was_taken_for_ended_gives_way(
        self, url: UPath, on_error: Any, monkeypatch: pytest.MonkeyPatch
    ):
        model, first = make_model(), xtf.PathLogger(url, on_error=on_error, verbose=False)
        tapped = first.tap(batches())

        class Other(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if batch == 1:
                    with monkeypatch.context() as patched:
                        patched.setattr(lease, "STALE_SECONDS", -1.0)
                        train(url, resume=True)

        says = pytest.raises if on_error == "raise" else pytest.warns
        with says(
            OtherWriterError if on_error == "raise" else UserWarning, match="taken over by another writer"
        ):
            fit(model, tapped, first, Other())
        assert first.kept_steps == 2
        run = xtf.open_run(url)
        assert len(run.steps) == 2 + STEPS_AN_EPOCH
        run.verify(progress=False)

    def test_used_directory_is_left_alone(self, url: UPath):
        put(url, {"notes.txt": b"mine", "graphs/x": b"mine, too"})
        with pytest.raises(FileExistsError, match="is not empty"):
            xtf.PathLogger(url)
        with pytest.raises(FileExistsError, match="is not empty"):
            train(url, resume=True)
        assert objects(url) == {"notes.txt": b"mine", "graphs/x": b"mine, too"}

    def test_files_that_are_not_replaced_as_a_whole(self, url: UPath, monkeypatch: pytest.MonkeyPatch):
        train(url)
        monkeypatch.setattr(files, "_OBJECT_STORES", ())
        assert len(xtf.open_run(url).steps) == STEPS_AN_EPOCH  # reading still works
        with pytest.raises(RefusedError, match=r"other cannot be written to.*local directory"):
            train(url.parent / "other")
        assert objects(url.parent / "other") == {}

    def test_unknown_space_needs_a_budget(self, url: UPath):
        model = dense_model()
        model.compile(xtf.PathAdamW(0.01), loss="mse")
        for budget, message in ((None, "needs disk_budget="), (1000, "larger disk_budget")):
            logger = xtf.PathLogger(url, every="auto", disk_budget=budget, verbose=False)
            with pytest.raises(RefusedError, match=message):
                fit(model, logger.tap(batches()), logger)
        assert objects(url) == {}

    def test_copy_of_a_run_that_was_being_recorded_locally(self, url: UPath, run_dir: Path):
        with pytest.raises(KeyboardInterrupt):
            train(run_dir, Interrupt(2))
        content = {
            p.relative_to(run_dir).as_posix(): p.read_bytes() for p in run_dir.rglob("*") if p.is_file()
        }
        put(url, content)
        run = open_cut_short(url)
        assert len(run.steps) == 2
        run.verify(progress=False)
        with pytest.raises(RefusedError, match="in a local directory only"):
            train(url, resume=True)
        assert objects(url) == content


@pytest.mark.usefixtures("_each_step")
def test_copy_of_an_interrupted_run_goes_on_in_a_local_directory(
    url: UPath, run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    """Objects that were uploaded and not committed are not taken for records of the next shard."""
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        manifests = iter(range(2))
        plain = MemoryFileSystem.pipe_file

        def write(self: Any, target: str, *arguments: Any, **options: Any) -> None:
            if "manifest" in target and next(manifests, None) is None:
                raise OSError(errno.ENOSPC, "No space")
            plain(self, target, *arguments, **options)

        patched.setattr(MemoryFileSystem, "pipe_file", write)
        train(url)
    for name, data in objects(url).items():
        (run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (run_dir / name).write_bytes(data)
    with pytest.warns(
        UserWarning, match=r"1 steps.* steps-00002\.tfrecord .*were uploaded and not committed"
    ):
        xtf.open_run(run_dir)
    with pytest.raises(KeyboardInterrupt):
        train(run_dir, Interrupt(2), resume=True)
    with pytest.warns(UserWarning, match="cut short.*3 steps"):
        xtf.open_run(run_dir).verify(progress=False)


class TestDamage:
    @pytest.fixture
    def copied(self, small_run: Recorded, url: UPath) -> UPath:
        paths = [path for path in small_run.run_dir.rglob("*") if path.is_file()]
        return put(url, {p.relative_to(small_run.run_dir).as_posix(): p.read_bytes() for p in paths})

    def test_there_is_none(self, copied: UPath, small_run: Recorded):
        run = RecordedRun(copied)
        run.verify_files()
        np.testing.assert_array_equal(flat_theta(run, 6), small_run.spy.after[-1])

    @pytest.mark.parametrize(
        "name", ["manifest.json", "steps-00000.tfrecord", "samples-00000.tfrecord", "graphs/saved_model.pb"]
    )
    def test_is_found_in_every_file(self, copied: UPath, name: str):
        whole = (copied / name).read_bytes()
        changed = bytes([*whole[:99], whole[99] ^ 1, *whole[100:]])
        for data in (changed, whole[:-1], whole + b"\0", None):
            if data is None:
                (copied / name).unlink()
            else:
                (copied / name).write_bytes(data)
            with pytest.raises(
                RunFormatError, match=rf"{copied}.*{'recorded run' if data is None else name}|missing"
            ):
                RecordedRun(copied).verify_files()

    @pytest.mark.parametrize("name", ["graphs/more.pb", "steps-00001.tfrecord", "samples-00007.tfrecord"])
    def test_foreign_files(self, copied: UPath, name: str):
        (copied / name).write_bytes(b"")
        with pytest.raises(RunFormatError, match=f"{copied / name} does not belong to the run"):
            RecordedRun(copied).verify_files()
