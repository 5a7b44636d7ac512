"""The rows recorded for a step are the batch that the step used, however the data got there, and have its ids."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import RefusedError
from tests.helpers import (
    CLASSES,
    FEATURES,
    LABELS,
    Drawn,
    Spy,
    Watched,
    X,
    Y,
    batches,
    fit,
    flat_theta,
    initialised,
)
from tests.nightly import sweep


def shuffled() -> tf.data.Dataset:
    """Ragged (4 + 4 + 2) and in another order in each epoch."""
    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(10, seed=3).batch(4)


def unchanged(dataset: tf.data.Dataset) -> tf.data.Dataset:
    return dataset


# With a global seed, tf.random.normal would give each epoch the same noise.
NOISE = tf.random.Generator.from_seed(1)


def noisy(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return x + NOISE.normal(tf.shape(x)), y


class StopAt(keras.callbacks.Callback):
    """Stops in mid-epoch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.stop_training = int(self.model.optimizer.iterations) == 4


class EvaluateEachEpoch(keras.callbacks.Callback):
    """Draws from the training data, through the tap, while the iterator of training is still in use."""

    def __init__(self) -> None:
        super().__init__()
        self.dataset: tf.data.Dataset | None = None

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.evaluate(self.dataset, steps=1, verbose=0)


@dataclass(frozen=True)
class Case:
    """A way of giving data to training, and the number of steps that it takes."""

    dataset: Callable[[], tf.data.Dataset]
    steps: int
    after: Callable[[tf.data.Dataset], tf.data.Dataset] = unchanged
    arguments: dict[str, Any] = field(default_factory=dict)
    validation: str | None = None
    callback: Callable[[], keras.callbacks.Callback] | None = None
    run_eagerly: bool = False
    peek: bool = False


CASES = {
    "shuffled, ragged, several epochs": Case(shuffled, 9, arguments={"epochs": 3}),
    "run eagerly": Case(shuffled, 6, arguments={"epochs": 2}, run_eagerly=True),
    "repeat, epochs shorter than the dataset": Case(
        lambda: shuffled().repeat(), 8, arguments={"epochs": 4, "steps_per_epoch": 2}
    ),
    "epochs that share an iterator": Case(
        lambda: batches(X, Y, size=2), 4, arguments={"epochs": 2, "steps_per_epoch": 2}
    ),
    "prefetch before the tap": Case(lambda: shuffled().prefetch(3), 6, arguments={"epochs": 2}),
    "prefetch after the tap": Case(
        lambda: shuffled().repeat(), 6, lambda ds: ds.prefetch(3), {"epochs": 3, "steps_per_epoch": 2}
    ),
    "parallel augmentation": Case(
        lambda: shuffled().map(noisy, num_parallel_calls=2), 6, arguments={"epochs": 2}
    ),
    "known cardinality given to a filter": Case(
        lambda: shuffled().filter(lambda x, y: True).apply(tf.data.experimental.assert_cardinality(3)),
        6,
        arguments={"epochs": 2},
    ),
    "tapped validation data": Case(shuffled, 9, arguments={"epochs": 3}, validation="tapped"),
    "tapped validation data, one iterator of training": Case(
        lambda: shuffled().repeat(),
        6,
        lambda ds: ds.prefetch(2),
        {"epochs": 3, "steps_per_epoch": 2, "validation_steps": 2},
        validation="tapped",
    ),
    "untapped validation data": Case(shuffled, 6, arguments={"epochs": 2}, validation="untapped"),
    "looked into before training": Case(shuffled, 6, arguments={"epochs": 2}, peek=True),
    "stopped in mid-epoch": Case(shuffled, 4, arguments={"epochs": 3}, callback=StopAt),
}


def train(run_dir: Path, case: Case) -> tuple[xtf.Run, Drawn, Spy]:
    drawn, spy = Drawn(), Spy()
    model = initialised(Watched([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)], drawn))
    model.compile(xtf.PathAdamW(0.02), loss="mse", run_eagerly=case.run_eagerly)
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = case.after(logger.tap(case.dataset()))
    validation = {"tapped": dataset, "untapped": batches(X[:5], Y[:5]), None: None}[case.validation]
    if case.peek:
        next(iter(dataset))
    callbacks = [logger, spy]
    if case.callback is not None:
        callbacks.append(case.callback())
        callbacks[-1].dataset = dataset
    fit(model, dataset, *callbacks, validation_data=validation, **case.arguments)
    return xtf.open_run(run_dir), drawn, spy


def check_alignment(run: xtf.Run, drawn: Drawn, spy: Spy) -> None:
    assert len(run.steps) == len(drawn.batches) == len(spy.after)
    for step, (x, y) in enumerate(drawn.batches):
        recorded_x, recorded_y = run.samples.take(run.step_store.transition(step).rows)
        np.testing.assert_array_equal(recorded_x, x, err_msg=f"step {step}")
        np.testing.assert_array_equal(recorded_y, y, err_msg=f"step {step}")
        np.testing.assert_array_equal(flat_theta(run, step), spy.before[step])
    np.testing.assert_array_equal(flat_theta(run, len(run.steps)), spy.after[-1])


class TestAlignment:
    @pytest.mark.parametrize("name", sweep(CASES, core=("shuffled, ragged, several epochs",)))
    def test_rows_are_the_batches_that_were_drawn(self, run_dir: Path, name: str):
        case = CASES[name]
        run, drawn, spy = train(run_dir, case)
        assert len(run.steps) == case.steps
        check_alignment(run, drawn, spy)

    def test_rows_are_the_batches_that_were_drawn_under_xla(self, tmp_path: Path):
        """A model compiled by XLA cannot note its batches, but an equal dataset is shuffled equally."""
        spy, drawn = Spy(), Drawn()
        model = initialised(keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)]))
        model.compile(xtf.PathAdamW(0.02), loss="mse", jit_compile=True)
        logger = xtf.PathLogger(tmp_path / "run", verbose=False)
        fit(model, logger.tap(shuffled()), logger, spy, epochs=2)
        same = Watched([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)], drawn)
        same.compile(loss="mse", run_eagerly=True)
        fit(same, xtf.PathLogger(tmp_path / "unused").tap(shuffled()), epochs=2)
        check_alignment(xtf.open_run(tmp_path / "run"), drawn, spy)

    def test_unknown_cardinality_with_steps_per_epoch(self, run_dir: Path):
        case = Case(
            lambda: shuffled().repeat().filter(lambda x, y: True),
            4,
            arguments={"epochs": 2, "steps_per_epoch": 2},
        )
        check_alignment(*train(run_dir, case))

    def test_epochs_are_shuffled_as_without_the_tap(self, tmp_path: Path):
        orders = []
        for tap in (unchanged, xtf.PathLogger(tmp_path / "run").tap):
            drawn = Drawn()
            model = Watched([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)], drawn)
            model.compile(loss="mse", run_eagerly=True)
            fit(model, tap(shuffled()), epochs=3)
            orders.append([x for x, _ in drawn.batches])
        for with_tap, without in zip(*orders, strict=True):
            np.testing.assert_array_equal(with_tap, without)

    def test_taps_of_one_logger_may_draw_in_other_orders(self, run_dir: Path):
        """Each tap numbers the samples that it sees from 0."""
        drawn, spy = Drawn(), Spy()
        model = initialised(Watched([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)], drawn))
        model.compile(xtf.PathAdamW(0.02), loss="mse", run_eagerly=True)
        logger = xtf.PathLogger(run_dir, verbose=False)
        for order in (range(10), range(9, -1, -1), [0, 5, 5, 9]):
            dataset = logger.tap(batches(X[list(order)], Y[list(order)], size=4))
            fit(model, dataset, logger, spy, epochs=3)
        run = xtf.open_run(run_dir)
        check_alignment(run, drawn, spy)
        assert len(run.samples) == 10

    def test_sequences_may_be_padded_anew_in_each_batch(self, run_dir: Path):
        """Samples of another length are other samples, and are numbered anew."""
        tokens = np.arange(1, 25, dtype="int32").reshape(6, 4)

        def padded(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return x[:, : 2 + tf.reduce_max(x) % 3], y

        data = tf.data.Dataset.from_tensor_slices((tokens, np.ones((6, 1), "float32")))
        model = initialised(
            keras.Sequential(
                [
                    keras.Input((None,), dtype="int32"),
                    keras.layers.Embedding(25, 2),
                    keras.layers.GlobalAveragePooling1D(),
                ]
            )
        )
        model.compile(xtf.PathAdamW(0.02), loss="mse", run_eagerly=True)
        logger = xtf.PathLogger(run_dir, verbose=False)
        dataset = data.batch(2).map(padded)
        fit(model, logger.tap(dataset), logger, epochs=3)
        run, expected = xtf.open_run(run_dir), [*dataset] * 3
        assert len(run.steps) == len(expected)
        for step, (x, _) in enumerate(expected):
            found = [run.samples.read(int(row)).inputs[0] for row in run.step_store.transition(step).rows]
            np.testing.assert_array_equal(found, x)

    def test_evaluation_through_the_tap_by_a_callback_is_not_taken_for_training(self, run_dir: Path):
        case = Case(
            lambda: shuffled().repeat(),
            6,
            arguments={"epochs": 3, "steps_per_epoch": 2},
            callback=EvaluateEachEpoch,
        )
        check_alignment(*train(run_dir, case))


def sampled(run_dir: Path, dataset: tf.data.Dataset, *, ids: str | None = None, epochs: int = 1) -> xtf.Run:
    """Record a model of one input, or of a dict of two."""
    if isinstance(dataset.element_spec[0], dict):
        inputs = {name: keras.Input((FEATURES,), name=name) for name in ("left", "right")}
        outputs = keras.layers.Dense(CLASSES)(inputs["left"] - inputs["right"])
        model = initialised(keras.Model(inputs, outputs))
    else:
        model = initialised(keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)]))
    model.compile(xtf.PathAdamW(0.02), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    fit(model, logger.tap(dataset, ids=ids), logger, epochs=epochs)
    return xtf.open_run(run_dir)


class TestSamples:
    def test_without_ids_samples_are_numbered_by_first_appearance(self, run_dir: Path):
        order = [3, 1, 2, 3, 0]
        run = sampled(run_dir, batches(X[order], Y[order]), epochs=2)
        # Row 3 appears twice per epoch, everything twice in the run. Each content is stored once.
        assert len(run.samples) == 4
        np.testing.assert_array_equal(run.samples.ids, range(4))
        np.testing.assert_array_equal(run.samples.take(range(4))[0], X[[3, 1, 2, 0]])
        np.testing.assert_array_equal(run.step_store.transition(0).rows, [0, 1, 2, 0])
        np.testing.assert_array_equal(run.step_store.transition(3).rows, [3])

    @pytest.mark.parametrize(
        "ids",
        [np.arange(100, 110), np.arange(-5, 5, dtype="int16"), np.array([f"é{i}" for i in range(10)])],
        ids=["int64", "int16", "str"],
    )
    def test_ids_before_the_element_label_the_samples(self, run_dir: Path, ids: np.ndarray):
        run = sampled(run_dir, batches(ids, (X, Y)))
        np.testing.assert_array_equal(run.samples.ids, ids)
        np.testing.assert_array_equal(run.samples.id_of_row, range(10))
        np.testing.assert_array_equal(run.samples.take(range(10))[0], X)

    def test_ids_under_a_key_are_taken_out_of_the_inputs(self, run_dir: Path):
        ids = np.array([f"s{i}" for i in range(10)])
        run = sampled(run_dir, batches({"tfds_id": ids, "left": X, "right": X[::-1]}, Y), ids="tfds_id")
        np.testing.assert_array_equal(run.samples.ids, ids)
        inputs, _ = run.samples.take([4, 0])
        assert set(inputs) == {"left", "right"}
        np.testing.assert_array_equal(inputs["left"], X[[4, 0]])
        np.testing.assert_array_equal(inputs["right"], X[::-1][[4, 0]])

    def test_ids_come_with_sample_weights(self, run_dir: Path):
        run = sampled(run_dir, batches(np.arange(10), (X, Y, np.linspace(0.5, 1.5, 10))))
        np.testing.assert_array_equal(run.samples.ids, range(10))
        np.testing.assert_array_equal(run.step_store.transition(2).weights, [np.linspace(0.5, 1.5, 10)[8:]])

    def test_targets_and_weights_may_be_nested(self, run_dir: Path):
        inputs = keras.Input((FEATURES,))
        heads = {name: keras.layers.Dense(CLASSES, name=name)(inputs) for name in "ab"}
        model = initialised(keras.Model(inputs, heads))
        model.compile(xtf.PathAdamW(0.02), loss={"a": "mse", "b": "mae"}, run_eagerly=True)
        targets, weights = {"a": Y, "b": -Y}, {"a": np.arange(10), "b": np.ones((10, 1), "float32")}
        logger = xtf.PathLogger(run_dir, verbose=False)
        fit(model, logger.tap(batches(np.arange(10), (X, targets, weights))), logger)
        run = xtf.open_run(run_dir)
        np.testing.assert_array_equal(run.samples.take([9, 3])[1]["b"], -Y[[9, 3]])
        first, second = run.step_store.transition(1).weights
        np.testing.assert_array_equal(first, np.arange(4, 8))
        np.testing.assert_array_equal(second, np.ones((4, 1)))
        assert (first.dtype, second.dtype) == (np.int64, np.float32)

    def test_augmented_views_share_the_id_of_their_sample(self, run_dir: Path):
        def augment(i: tf.Tensor, element: Any) -> Any:
            return i, noisy(*element)

        run = sampled(run_dir, batches(np.arange(10), (X, Y)).map(augment), epochs=3)
        assert len(run.samples) == 30
        np.testing.assert_array_equal(run.samples.ids, range(10))
        np.testing.assert_array_equal(run.samples.id_of_row, np.tile(range(10), 3))

    def test_one_content_under_two_ids_is_two_samples(self, run_dir: Path):
        run = sampled(run_dir, batches(np.array([7, 8]), (X[[0, 0]], Y[[0, 0]])), epochs=2)
        np.testing.assert_array_equal(run.samples.ids, [7, 8])
        np.testing.assert_array_equal(run.step_store.transition(1).rows, [0, 1])

    def test_row_that_does_not_exist_is_an_index_error(self, run_dir: Path):
        run = sampled(run_dir, batches())
        for row in (10, -1):
            with pytest.raises(IndexError, match=rf"Rows \[{row}\] .* 10 samples"):
                run.samples.take([0, row])


class TestRefusedElements:
    @pytest.mark.parametrize(
        ("dataset", "ids", "message"),
        [
            (
                tf.data.Dataset.from_tensor_slices((X, LABEL := np.zeros(10))),
                None,
                r"not look batched.*\.batch\(",
            ),
            (batches(X, np.array(["a"] * 10)), None, r"tf\.string.*: strings cannot be recorded"),
            (batches(Y[:, 0], (X, Y)), None, r"ids must be .*integers or strings.*float32"),
            (batches(X, Y), "id", r"ids='id' must be a key of the dict.*\(id, \(x, y\)\)"),
            (batches({"x": X, "z": X}, Y), "id", r"must be a key .*Found: \['x', 'z'\]"),
            (batches({"id": LABELS}, Y), "id", r"beside the inputs themselves"),
            (batches(np.arange(10), (X, Y)), "id", "already carry ids"),
            pytest.param(
                *(batches(np.arange(10, dtype=np.uint64), (X, Y)), None, "uint64.*int64"),
                # TFRecord features are int64: a hash beyond fails in mid-training with a bare ValueError.
            ),
            (batches({"x": tf.ragged.constant([[1]] * 10)}, Y), None, "only dense tensors"),
        ],
        ids=[
            "unbatched",
            "strings",
            "float ids",
            "key without dict",
            "unknown key",
            "nothing but ids",
            "ids twice",
            "uint64 ids",
            "ragged",
        ],
    )
    def test_tap_says_what_an_element_must_be(self, run_dir: Path, dataset: Any, ids: Any, message: str):
        logger = xtf.PathLogger(run_dir)
        with pytest.raises(RefusedError, match=f"(?s){message}"):
            logger.tap(dataset, ids=ids)
        assert not run_dir.exists()

    def test_tap_of_arrays_says_how_to_make_a_dataset(self, run_dir: Path):
        with pytest.raises(RefusedError, match=r"given a ndarray.*model\.fit\(x, y, callbacks=\[logger\]\)"):
            xtf.PathLogger(run_dir).tap(X)
