"""Recordings that ended early: they can be continued, lose no step, and allow only one writer."""

import errno
import os
import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf import RefusedError
from explaind_tf.recording.writing.writer import RunWriter
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.storage.records import RecordFile
from tests.helpers import CLASSES, X, Y, batches, dense_model, digest, fit, flat, flat_theta

pytestmark = pytest.mark.slow

STEPS_AN_EPOCH, EPOCHS = 3, 4


class Interrupt(keras.callbacks.Callback):
    """Ends training as Ctrl-C does, after some steps."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.left = after

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def make_model(units: int = 8, **arguments: Any) -> keras.Model:
    """Return a compiled model with random numbers, moving averages and an optimizer with further state."""
    # No bias: normalisation removes it, so its gradient is only rounding, which Adam would amplify to full steps.
    layers = [keras.layers.Dense(units, use_bias=False), keras.layers.BatchNormalization()]
    model = dense_model(*layers, keras.layers.Dropout(0.2, seed=1), keras.layers.Dense(CLASSES))
    schedule = keras.optimizers.schedules.PolynomialDecay(0.05, 10, 0.01)
    optimizer = xtf.PathAdamW(schedule, weight_decay=0.1, amsgrad=True, use_ema=True, **arguments)
    model.compile(optimizer, loss="mse")
    return model


def plain_model(units: int = 4, *, eager: bool = True, **arguments: Any) -> keras.Model:
    """Return a compiled model without random numbers or state, which takes little time to record."""
    model = dense_model(keras.layers.Dense(units), keras.layers.Dense(CLASSES))
    model.compile(xtf.PathAdamW(0.01, **arguments), loss="mse", run_eagerly=eager)
    return model


def train(
    run_dir: Path, *callbacks: keras.callbacks.Callback, model: keras.Model | None = None, **options: Any
) -> keras.Model:
    """Record a training, by default of a plain model. Between keyframes, its steps must be compiled."""
    model = plain_model(eager=options.get("every", 1) == 1) if model is None else model
    epochs, data = options.pop("epochs", EPOCHS), options.pop("data", batches())
    logger = xtf.PathLogger(run_dir, verbose=False, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, logger.tap(data), logger, *callbacks, epochs=epochs)
    return model


def interrupted(run_dir: Path, after: int, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(run_dir, Interrupt(after), **options)


# A run with keyframes goes on in `test_run_goes_on_before_the_steps_whose_samples_were_lost`, every time.
@pytest.mark.parametrize("every", [1, pytest.param(5, marks=pytest.mark.nightly(daily=False))])
def test_training_goes_on_where_it_stopped_and_its_ledger_balances(run_dir: Path, tmp_path: Path, every: int):
    whole = train(tmp_path / "whole", model=make_model())
    interrupted(run_dir, after=2 * STEPS_AN_EPOCH, model=make_model(), every=every)
    keras.utils.clear_session()
    keras.utils.set_random_seed(5)  # nothing is taken from the program
    resumed = train(run_dir, model=make_model(), every=every, resume=True, epochs=EPOCHS - 2)
    np.testing.assert_array_equal(flat(resumed.trainable_variables), flat(whole.trainable_variables))
    run, expected = xtf.open_run(run_dir), xtf.open_run(tmp_path / "whole")
    assert (len(run.steps), len(run.samples), run.is_complete) == (len(expected.steps), 10, True)
    for step in range(len(run.steps) + 1):
        np.testing.assert_array_equal(flat_theta(run, step), flat_theta(expected, step))
    run.verify(progress=False)
    found, wanted = (r.attribute(X, axes=("sample", "step"), progress=False) for r in (run, expected))
    found.explaind.check()
    for name in wanted.data_vars:
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("every", [1, pytest.param(4, marks=pytest.mark.nightly)])
def test_gradient_that_waits_for_an_update_waits_across_the_seam(run_dir: Path, tmp_path: Path, every: int):
    """Interrupted after an odd number of steps: the optimizer must keep half of the next update's gradient."""

    def model() -> keras.Model:
        return plain_model(eager=every == 1, gradient_accumulation_steps=2)

    train(tmp_path / "whole", model=model(), every=every, epochs=2)
    interrupted(run_dir, after=STEPS_AN_EPOCH, model=model(), every=every)
    train(run_dir, model=model(), every=every, resume=True, epochs=1)
    found, wanted = xtf.open_run(run_dir), xtf.open_run(tmp_path / "whole")
    for step in range(2 * STEPS_AN_EPOCH + 1):
        np.testing.assert_array_equal(flat_theta(found, step), flat_theta(wanted, step))
    found.verify(progress=False)
    found.attribute(X, axes=("sample",), progress=False).explaind.check()


def test_run_goes_on_before_the_steps_whose_samples_were_lost(run_dir: Path, tmp_path: Path):
    """The state after a power cut: five steps on the disk, and only the samples of the first two."""
    train(tmp_path / "whole", epochs=2)
    interrupted(run_dir, after=5, every=5)
    samples = run_dir / "samples-00000.tfrecord.tmp"
    os.truncate(samples, RecordFile(samples, None)._offsets[8])
    third = batches().skip(2)
    train(run_dir, every=5, resume=True, epochs=1, data=third.concatenate(batches()))
    run, expected = xtf.open_run(run_dir), xtf.open_run(tmp_path / "whole")
    assert (len(run.steps), len(run.samples), run.is_complete) == (2 * STEPS_AN_EPOCH, 10, True)
    for step in range(len(run.steps) + 1):
        np.testing.assert_array_equal(flat_theta(run, step), flat_theta(expected, step))
    run.verify(progress=False)
    run.attribute(X, axes=("sample", "step"), progress=False).explaind.check()


def test_run_goes_on_in_shards_of_its_own(run_dir: Path):
    for _ in range(2):
        interrupted(run_dir, after=2, resume=True)
    train(run_dir, resume=True, epochs=1)
    run = xtf.open_run(run_dir)
    files = [shard.file for shard in run.manifest.shards_of("steps")]
    assert files == ["steps-00000.tfrecord", "steps-00001.tfrecord", "steps-00002.tfrecord"]
    assert len(run.steps) == 2 + 2 + STEPS_AN_EPOCH
    run.verify(progress=False)


def test_complete_run_goes_on_too(run_dir: Path):
    train(run_dir, epochs=1)
    train(run_dir, epochs=1, resume=True)
    run = xtf.open_run(run_dir)
    assert len(run.steps) == 2 * STEPS_AN_EPOCH
    run.verify(progress=False)


def test_run_goes_on_after_a_fit_that_was_killed_before_it_was_named(run_dir: Path):
    train(run_dir, epochs=1)
    (run_dir / "steps-00001.tfrecord.tmp").write_bytes(b"part")
    train(run_dir, epochs=1, resume=True)
    run = xtf.open_run(run_dir)
    assert len(run.steps) == 2 * STEPS_AN_EPOCH
    run.verify_files()


def test_what_others_changed_at_the_end_is_external_in_a_run_that_goes_on(run_dir: Path):
    class Average(keras.callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            self.model.set_weights([1.5 * weight for weight in self.model.get_weights()])

    model, logger = plain_model(eager=False), xtf.PathLogger(run_dir, every=2, verbose=False)
    fit(model, logger.tap(batches()), Average(), logger)
    left = flat(model.trainable_variables)
    train(run_dir, every=2, resume=True, epochs=1)
    run = xtf.open_run(run_dir)
    transition = run.step_store.transition(STEPS_AN_EPOCH - 1)
    np.testing.assert_array_equal(transition.theta_end, left)
    assert not np.array_equal(transition.theta_stepped, left)
    run.verify(progress=False)


def test_without_a_run_it_begins_one(run_dir: Path):
    train(run_dir, resume=True, epochs=1)
    assert len(xtf.open_run(run_dir).steps) == STEPS_AN_EPOCH


def test_samples_with_ids_are_not_written_again(run_dir: Path):
    for _ in range(2):
        model, logger = plain_model(), xtf.PathLogger(run_dir, verbose=False, resume=True)
        ids = np.array([f"sample {i}" for i in range(10)])
        fit(model, logger.tap(batches(ids, (X, Y))), logger)
    run = xtf.open_run(run_dir)
    assert len(run.samples) == 10
    np.testing.assert_array_equal(run.step_store.transition(3).rows, run.step_store.transition(0).rows)


def test_logger_says_where_it_goes_on(run_dir: Path, capsys: pytest.CaptureFixture[str]):
    train(run_dir, epochs=1)
    model, logger = plain_model(), xtf.PathLogger(run_dir, resume=True)
    fit(model, logger.tap(batches()), logger)
    assert f"continues {run_dir} after its 3 steps" in capsys.readouterr().out


class TestRefusals:
    @pytest.fixture(scope="class")
    @classmethod
    def of_one_epoch(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A run with keyframes. Every refusal must leave it as it is."""
        run_dir = tmp_path_factory.mktemp("refused") / "run"
        train(run_dir, model=make_model(), every=2, epochs=1)
        return run_dir

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"model": lambda: make_model(units=4)}, "differ in variables, state"),
            ({"model": lambda: make_model(clipvalue=1.0)}, "differ in optimizer"),
            ({"every": 3}, "every=2, not 3"),
            ({"data": batches(X.astype("float64"), Y)}, "differ in inputs"),
        ],
    )
    def test_another_training_is_refused(self, of_one_epoch: Path, options: dict[str, Any], message: str):
        run_dir, before = of_one_epoch, digest(of_one_epoch)
        model = options.pop("model", make_model)()
        logger = xtf.PathLogger(run_dir, every=options.get("every", 2), verbose=False, resume=True)
        with pytest.raises(RefusedError, match=message):
            fit(model, logger.tap(options.get("data", batches())), logger)
        assert digest(run_dir) == before

    def test_model_of_the_same_variables_and_another_function_is_refused(self, run_dir: Path):
        def model(activation: str) -> keras.Model:
            made = dense_model(keras.layers.Dense(8, activation), keras.layers.Dense(CLASSES))
            made.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
            return made

        train(run_dir, model=model("tanh"), epochs=1)
        with pytest.raises(RefusedError, match="first step was replayed from the record"):
            train(run_dir, model=model("relu"), epochs=1, resume=True)
        assert len(xtf.open_run(run_dir).steps) == STEPS_AN_EPOCH

    def test_second_writer_is_refused_until_the_first_lets_go(self, run_dir: Path):
        model, first = plain_model(), xtf.PathLogger(run_dir, verbose=False)
        with pytest.raises(KeyboardInterrupt):
            model.fit(first.tap(batches()), callbacks=[first, Interrupt(2)], verbose=0, shuffle=False)
        with pytest.raises(
            RefusedError, match=r"being written to by another program or PathLogger.*close\(\)"
        ):
            train(run_dir, resume=True, epochs=1)
        first.close()
        train(run_dir, resume=True, epochs=1)
        assert len(xtf.open_run(run_dir).steps) == 2 + STEPS_AN_EPOCH

    def test_run_that_another_one_continued_since_it_was_opened_is_not_written_over(self, run_dir: Path):
        interrupted(run_dir, after=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = RecordedRun(run_dir)
        train(run_dir, resume=True, epochs=1)
        before = digest(run_dir)
        with pytest.raises(RefusedError, match="another writer continued the run"):
            RunWriter.reopen(opened)
        assert digest(run_dir) == before

    def test_model_is_left_alone_where_the_directory_is_taken(self, run_dir: Path):
        first = xtf.PathLogger(run_dir, verbose=False)
        with pytest.raises(KeyboardInterrupt):
            plain_model().fit(first.tap(batches()), callbacks=[first, Interrupt(2)], verbose=0, shuffle=False)
        model = plain_model()
        before = flat(model.trainable_variables)
        with pytest.raises(RefusedError, match="being written to"):
            train(run_dir, model=model, resume=True)
        np.testing.assert_array_equal(flat(model.trainable_variables), before)
        first.close()

    def test_logger_does_not_go_on_with_what_another_one_continued(self, run_dir: Path):
        model, first = plain_model(), xtf.PathLogger(run_dir, verbose=False)
        tapped = first.tap(batches())
        fit(model, tapped, first)
        train(run_dir, resume=True, epochs=1)
        with pytest.raises(RefusedError, match="another writer continued the run"):
            fit(model, tapped, first)
        assert len(xtf.open_run(run_dir).steps) == 2 * STEPS_AN_EPOCH


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Let the operating system refuse to write beyond a size, as a full disk does, in the middle of a record."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


UNITS = 2000  # makes steps larger than the graphs


@pytest.fixture(scope="module")
def limit(tmp_path_factory: pytest.TempPathFactory) -> int:
    """A file size that ends in the middle of the record of step 4."""
    run_dir = tmp_path_factory.mktemp("measured") / "run"
    train(run_dir, model=plain_model(UNITS))
    offsets = RecordFile(run_dir / "steps-00000.tfrecord", None)._offsets
    return (offsets[5] + offsets[6]) // 2


class TestFullDisk:
    def test_training_ends_with_an_error_and_can_go_on(self, run_dir: Path, limit: int):
        with (
            files_no_larger_than(limit),
            pytest.raises(
                OSError, match=r"cannot be written: .*4 steps before this one.*resume=True"
            ) as error,
        ):
            train(run_dir, model=plain_model(UNITS))
        assert error.value.errno == errno.EFBIG
        with pytest.warns(UserWarning, match=r"cut short.*4 steps"):
            RecordedRun(run_dir).verify_files()
        train(run_dir, model=plain_model(UNITS), resume=True, epochs=1)
        run = xtf.open_run(run_dir)
        assert len(run.steps) == 4 + STEPS_AN_EPOCH
        run.verify(progress=False)

    def test_training_goes_on_without_a_record_if_the_user_said_so(
        self, run_dir: Path, tmp_path: Path, limit: int
    ):
        model, logger = plain_model(UNITS), xtf.PathLogger(run_dir, verbose=False, on_error="warn")
        with files_no_larger_than(limit), pytest.warns(UserWarning, match="continues without being recorded"):
            fit(model, logger.tap(batches()), logger, epochs=EPOCHS)
        whole = train(tmp_path / "whole", model=plain_model(UNITS))
        np.testing.assert_array_equal(flat(model.trainable_variables), flat(whole.trainable_variables))
        with pytest.warns(UserWarning, match=r"cut short.*4 steps"):
            assert len(xtf.open_run(run_dir).steps) == 4
        # A further fit warns, too, that it is not recorded.
        with pytest.warns(UserWarning, match="records no more"):
            fit(model, logger.tap(batches()), logger)

    def test_further_fit_of_a_logger_that_failed_is_refused(self, run_dir: Path, limit: int):
        model, logger = plain_model(UNITS), xtf.PathLogger(run_dir, verbose=False)
        with files_no_larger_than(limit), pytest.raises(OSError, match="cannot be written"):
            fit(model, logger.tap(batches()), logger, epochs=EPOCHS)
        with pytest.raises(RefusedError, match=r"records no more.*resume=True"):
            fit(model, logger.tap(batches()), logger)

    def test_disk_without_room_for_the_graphs(self, run_dir: Path):
        """TensorFlow raises its own errors. Keras takes one of them for the end of the data."""
        with files_no_larger_than(5000), pytest.raises(OSError, match=r"cannot be written.*0 steps"):
            train(run_dir)
        train(run_dir, resume=True, epochs=1)
        assert len(xtf.open_run(run_dir).steps) == STEPS_AN_EPOCH


def test_begun_directory_of_other_content_is_left_alone(run_dir: Path):
    (run_dir / "graphs").mkdir(parents=True)
    (run_dir / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        train(run_dir, resume=True)
    assert (run_dir / "notes.txt").read_text() == "mine"
