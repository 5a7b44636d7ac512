"""A recorded run holds what an independent callback saw."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from tests.helpers import (
    CLASSES,
    FEATURES,
    LABELS,
    Spy,
    X,
    Y,
    batches,
    dense_model,
    fit,
    flat,
    flat_theta,
    initialised,
    record,
)
from tests.recording.fits import record_model

pytestmark = pytest.mark.slow

SCHEDULE = keras.optimizers.schedules.PolynomialDecay(0.05, 5, 0.01)
WEIGHTS = np.linspace(0.0, 2.0, 10)
IDS = np.array([f"sample {i}" for i in range(10)])


@keras.saving.register_keras_serializable(package="tests")
class TwoInputs(keras.Model):
    """Not built before its first call. It owns moving averages and a random seed."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = keras.layers.Dense(4, name="mix")
        self.norm = keras.layers.BatchNormalization(momentum=0.5, name="norm")
        self.drop = keras.layers.Dropout(0.3, seed=5, name="drop")
        self.readout = keras.layers.Dense(CLASSES, kernel_regularizer="l2", name="readout")

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        states = self.norm(self.mix(inputs["left"] * inputs["right"]), training=training)
        return self.readout(self.drop(states, training=training))


def train_two_inputs(optimizer: keras.optimizers.Optimizer, *callbacks: Any, tap: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = TwoInputs()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    inputs = {"left": X, "right": X[::-1], "id": IDS}
    dataset = tf.data.Dataset.from_tensor_slices((inputs, LABELS, WEIGHTS)).shuffle(10, seed=3).batch(4)
    fit(model, tap(dataset), *callbacks, epochs=2)
    return model


@dataclass(frozen=True)
class Training:
    """One training run with everything that a run may hold, as recorded and as a callback saw it."""

    run: xtf.Run
    model: keras.Model
    spy: Spy


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    run_dir, spy = tmp_path_factory.mktemp("two_inputs") / "run", Spy()
    logger = xtf.PathLogger(run_dir, verbose=False)
    optimizer = xtf.PathAdamW(SCHEDULE, weight_decay=0.2)
    model = train_two_inputs(optimizer, logger, spy, tap=lambda dataset: logger.tap(dataset, ids="id"))
    return Training(xtf.open_run(run_dir), model, spy)


class TestSteps:
    def test_weights_are_those_before_and_after_each_step(self, training: Training):
        run, spy = training.run, training.spy
        np.testing.assert_array_equal(run.steps, range(6))
        for step in run.steps:
            transition = run.step_store.transition(step)
            np.testing.assert_array_equal(transition.theta_start, spy.before[step])
            np.testing.assert_array_equal(transition.theta_stepped, spy.after[step])
            np.testing.assert_array_equal(transition.theta_end, spy.after[step])
            np.testing.assert_array_equal(flat_theta(run, step), spy.before[step])
        np.testing.assert_array_equal(flat_theta(run, 6), flat(training.model.trainable_variables))

    def test_second_moments_are_those_after_each_step(self, training: Training):
        for step, expected in enumerate(training.spy.second_moment):
            np.testing.assert_array_equal(training.run.step_store.transition(step).second_moment, expected)

    def test_learning_rates_are_those_that_were_used(self, training: Training):
        for step in training.run.steps:
            transition = training.run.step_store.transition(step)
            assert transition.iteration == step
            assert transition.learning_rate == float(SCHEDULE(step))

    def test_moving_averages_and_seeds_are_those_around_each_step(self, training: Training):
        store, states = training.run.step_store, training.spy.state
        names = [spec.path.split("/", 1)[1] for spec in training.run.manifest.state]
        assert names[:2] == ["norm/moving_mean", "norm/moving_variance"]
        assert "seed" in names[2]
        for step in training.run.steps:
            transition = store.transition(step)
            for found, expected in zip(transition.state_end, states[step], strict=True):
                np.testing.assert_array_equal(found, expected)
            if step:
                for found, expected in zip(transition.state_start, states[step - 1], strict=True):
                    np.testing.assert_array_equal(found, expected)
        seeds = [int(store.state(step)[2][1]) for step in range(7)]
        assert seeds == sorted(set(seeds)), "the dropout layer draws anew in each step"

    def test_sample_weights_are_those_of_the_rows(self, training: Training):
        run = training.run
        for step in run.steps:
            transition = run.step_store.transition(step)
            positions = [
                int(str(run.samples.ids[run.samples.id_of_row[row]]).split()[1]) for row in transition.rows
            ]
            np.testing.assert_array_equal(transition.weights, [WEIGHTS[positions]])
            inputs, targets = run.samples.take(transition.rows)
            np.testing.assert_array_equal(inputs["left"], X[positions])
            np.testing.assert_array_equal(inputs["right"], X[::-1][positions])
            np.testing.assert_array_equal(targets, LABELS[positions])

    def test_every_step_follows_from_the_record(self, training: Training):
        training.run.verify(progress=False)

    def test_recording_does_not_change_training(self, training: Training, tmp_path: Path):
        """The same batches without logger and path optimizer end in the same bits."""
        plain = train_two_inputs(
            keras.optimizers.AdamW(SCHEDULE, weight_decay=0.2),
            tap=lambda dataset: xtf.PathLogger(tmp_path / "unused").tap(dataset, ids="id"),
        )
        for ours, theirs in zip(training.model.variables, plain.variables, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=theirs.path)


class TestManifest:
    def test_variables_are_the_trainable_ones_in_order(self, training: Training):
        expected = [(v.path, tuple(v.shape), v.dtype) for v in training.model.trainable_variables]
        assert [(v.path, v.shape, v.dtype) for v in training.run.variables] == expected
        assert all(v.decay for v in training.run.variables)

    def test_layers_are_those_with_weights(self, training: Training):
        names = [layer.rsplit("/", 1)[-1] for layer in training.run.layers]
        assert names == ["mix", "norm", "readout"]

    def test_optimizer_and_loss_are_described(self, training: Training):
        manifest = training.run.manifest
        assert asdict(manifest.optimizer) == {
            "law": "AdamW",
            "constants": {"beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "weight_decay": 0.2},
            "second_moment": True,
            "accumulates": 1,
            "clipvalue": None,
            "ema_momentum": None,
        }
        assert manifest.loss == {
            "losses": [{"name": "sparse_categorical_crossentropy", "reduction": "sum_over_batch_size"}],
            "has_regularizer": True,
        }
        assert manifest.environment["keras"] == keras.__version__
        assert manifest.environment["run_eagerly"] is False

    def test_no_temporary_file_is_left(self, training: Training):
        files = sorted(path.name for path in training.run.run_dir.iterdir())
        assert files == ["graphs", "manifest.json", "samples-00000.tfrecord", "steps-00000.tfrecord"]

    def test_excluded_variables_are_not_decayed(self, run_dir: Path):
        model = dense_model()
        optimizer = xtf.PathAdamW(0.01, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        model.compile(optimizer, loss="mse", run_eagerly=True)
        logger = xtf.PathLogger(run_dir, verbose=False)
        fit(model, logger.tap(batches()), logger)
        assert [v.decay for v in xtf.open_run(run_dir).variables] == [True, False]

    def test_layers_of_one_name_get_paths_of_their_own(self, run_dir: Path):
        class Twins(keras.Model):
            def __init__(self) -> None:
                super().__init__(name="model")
                self.first, self.second = (keras.layers.Dense(CLASSES, name="twin") for _ in range(2))

            def call(self, x: Any, training: bool = False) -> Any:
                return self.second(self.first(x))

        run = record_model(run_dir, Twins())
        assert run.layers == ("model/twin", "model/twin~2")
        assert [v.path.rsplit("/", 1)[1] for v in run.variables] == ["kernel", "bias"] * 2


class TestModels:
    def test_subclassed_model_without_training_argument(self, run_dir: Path):
        class Plain(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.readout = keras.layers.Dense(CLASSES)

            def call(self, x: Any) -> Any:
                return self.readout(x)

        record_model(run_dir, Plain()).verify(progress=False)

    def test_model_frozen_before_the_optimizer_was_built(self, run_dir: Path):
        frozen = keras.layers.Dense(4, name="frozen", trainable=False)
        model = dense_model(frozen, keras.layers.Dense(CLASSES, name="readout"))
        run = record_model(run_dir, model)
        run.verify(progress=False)
        assert [v.path.split("/")[-2] for v in run.variables] == ["readout"] * 2
        assert [v.path.split("/")[-2] for v in run.manifest.state] == ["frozen"] * 2

    def test_model_frozen_after_the_optimizer_was_built(self, run_dir: Path):
        """Fine-tuning: the optimizer has moments for layers that are no longer trained."""
        model = dense_model(keras.layers.Dense(4), keras.layers.Dense(CLASSES))
        model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
        fit(model, batches())
        model.layers[0].trainable = False
        record_model(run_dir, model).verify(progress=False)

    @pytest.mark.filterwarnings("ignore:Gradients do not exist")
    def test_variable_without_a_gradient_is_not_decayed(self, run_dir: Path):
        """Keras leaves such a variable out of the step, including its weight decay."""

        class Unused(keras.layers.Layer):
            def build(self, shape: Any) -> None:
                self.unused = self.add_weight(shape=(4, 4), name="unused")

            def call(self, x: Any) -> Any:
                return x

        run = record_model(run_dir, dense_model(keras.layers.Dense(CLASSES), Unused()))
        run.verify(progress=False)

    @pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight"])
    @pytest.mark.parametrize("positions", [False, True], ids=["per sample", "per position"])
    def test_weighted_reductions(self, run_dir: Path, request: Any, reduction: str, positions: bool):
        rng = np.random.default_rng(0)
        shape = (10, 5, FEATURES) if positions else (10, FEATURES)
        x, y = rng.normal(size=shape).astype("float32"), rng.integers(0, CLASSES, shape[:-1])
        model = initialised(keras.Sequential([keras.Input(shape[1:]), keras.layers.Dense(CLASSES)]))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
        model.compile(xtf.PathAdamW(0.01), loss, run_eagerly=True)
        logger = xtf.PathLogger(run_dir, verbose=False)
        fit(model, logger.tap(batches(x, y, np.linspace(1, 2, 10)[:, None])), logger)
        xtf.open_run(run_dir).verify(progress=False)


class TestOptimizerWithAPast:
    def test_momentum_of_before_is_in_the_start_record(self, run_dir: Path):
        model = dense_model()
        model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
        fit(model, batches())
        momentum = flat(model.optimizer.moments()[0])
        run = record_model(run_dir, model)
        assert momentum.any()
        np.testing.assert_array_equal(run.step_store.start.momentum, momentum)
        assert [run.step_store.transition(s).iteration for s in run.steps] == list(range(3, 9))
        run.verify(progress=False)

    def test_momentum_of_a_fresh_optimizer_is_zero(self, training: Training):
        assert not training.run.step_store.start.momentum.any()

    def test_gradients_that_wait_for_an_update_are_in_the_start_record(self, run_dir: Path):
        model = dense_model()
        model.compile(xtf.PathAdamW(0.01, gradient_accumulation_steps=2), loss="mse", run_eagerly=True)
        fit(model, batches())  # three batches: the last one waits
        waiting = flat(model.optimizer.accumulators(model.trainable_variables))
        run = record_model(run_dir, model)
        assert waiting.any()
        np.testing.assert_array_equal(run.step_store.start.accumulated, waiting)
        assert [run.step_store.transition(s).updates for s in run.steps] == [True, False] * 3
        run.verify(progress=False)

    def test_first_batch_without_a_gradient(self, run_dir: Path):
        model = dense_model()
        model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
        fit(model, batches())
        logger = xtf.PathLogger(run_dir, verbose=False)
        weights = np.array([0.0] * 4 + [1.0] * 6)
        fit(model, logger.tap(batches(X, Y, weights)), logger)
        xtf.open_run(run_dir).verify(progress=False)


class TestMessages:
    def test_logger_says_what_it_wrote(self, run_dir: Path, capsys: pytest.CaptureFixture[str]):
        model = dense_model()
        model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
        logger = xtf.PathLogger(run_dir)
        fit(model, logger.tap(batches()), logger)
        assert f"wrote 3 steps and 10 distinct samples (0.0 MB) to {run_dir}" in capsys.readouterr().out

    def test_fit_without_a_step_writes_nothing(self, run_dir: Path, capsys: pytest.CaptureFixture[str]):
        model = dense_model()
        model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
        logger = xtf.PathLogger(run_dir)
        fit(model, logger.tap(batches()), logger, epochs=0)
        assert "no step was taken" in capsys.readouterr().out
        assert not run_dir.exists()

    def test_silent_logger_is_silent(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
        record(tmp_path / "run")
        assert capsys.readouterr().out == ""
