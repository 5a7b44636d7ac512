"""A run with keyframes, trained again between them, equals the run that holds every step, bit for bit."""

import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import RefusedError, RunFormatError
from explaind_tf.runs.format.step_records import Snapshot
from explaind_tf.runs.graphs.training_graph import TrainingGraph
from explaind_tf.runs.keyframes import KeyframeReplay
from tests.helpers import CLASSES, LABELS, X, Y, batches, dense_model, dtype_policy, fit, flat_theta
from tests.nightly import sweep

pytestmark = pytest.mark.slow

EVERY, STEPS = 4, 15
RANDOM = np.random.default_rng(0).permutation(STEPS)
ORDERS = {"forwards": range(STEPS), "backwards": range(STEPS - 1, -1, -1), "at random": RANDOM}
SCHEDULE = keras.optimizers.schedules.PolynomialDecay(0.05, 12, 0.01)


class SetRate(keras.callbacks.Callback):
    """Sets the learning rate between steps, as ReduceLROnPlateau does."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = 0.01 / (1 + batch)


class Nudge(keras.callbacks.Callback):
    """Sets weights and state between two steps that are not keyframes, and after the last step."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            self.model.set_weights([1.1 * weight for weight in self.model.get_weights()])

    def on_train_end(self, logs: Any = None) -> None:
        self.model.set_weights([1.1 * weight for weight in self.model.get_weights()])


def attention_model() -> keras.Model:
    tokens = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(9, 8)(tokens)
    x = x + keras.layers.MultiHeadAttention(2, 4, dropout=0.1, seed=3)(x, x)
    x = x + keras.layers.Dense(8)(keras.layers.Dense(16, activation="gelu")(x))
    return keras.Model(tokens, keras.layers.Dense(CLASSES)(keras.layers.LayerNormalization()(x)[:, -1]))


class Mix(keras.layers.Layer):
    """Rank 3 by rank 2, which TensorFlow broadcasts."""

    def build(self, shape: Any) -> None:
        self.mix = self.add_weight(shape=(1, 4), name="mix")

    def call(self, x: Any) -> Any:
        return tf.reduce_sum(tf.sin(tf.matmul(x[:, :, None], self.mix)), axis=1)


def sequence_model() -> keras.Model:
    inputs = keras.Input((None, 3))
    return keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.LSTM(4)(inputs)))


def norm_layers(dropout: float = 0.0) -> list[keras.layers.Layer]:
    layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(CLASSES)]
    return [*layers[:2], keras.layers.Dropout(dropout, seed=1), *layers[2:]] if dropout else layers


def dense() -> keras.Model:
    return dense_model(keras.layers.Dense(8, "tanh"), keras.layers.Dense(CLASSES))


CASES: dict[str, dict[str, Any]] = {
    "BatchNorm and dropout": {"model": lambda: dense_model(*norm_layers(0.3)), "metrics": ["mae"]},
    # XLA compiles for each size of a batch.
    "BatchNorm, XLA": {
        "model": lambda: dense_model(*norm_layers()),
        "compile": {"jit_compile": True},
        "data": "even",
    },
    "BatchNorm, XLA, ragged batches": {
        "model": lambda: dense_model(*norm_layers()),
        "compile": {"jit_compile": True},
    },
    "attention and dropout": {"model": attention_model, "data": "tokens"},
    "amsgrad and clipping": {"optimizer": lambda: xtf.PathAdamW(0.01, amsgrad=True, global_clipnorm=0.1)},
    "SGD": {"optimizer": lambda: xtf.PathSGD(SCHEDULE, momentum=0.9, nesterov=True, weight_decay=0.1)},
    "plain SGD": {"optimizer": lambda: xtf.PathSGD(0.1)},
    "schedule": {"optimizer": lambda: xtf.PathAdamW(SCHEDULE)},
    "rate set by a callback": {"callbacks": [SetRate]},
    "weights set by a callback": {"callbacks": [Nudge]},
    "accumulated gradients": {"optimizer": lambda: xtf.PathAdamW(0.01, gradient_accumulation_steps=2)},
    "averages that overwrite": {
        "optimizer": lambda: xtf.PathAdamW(0.01, use_ema=True, ema_overwrite_frequency=3)
    },
    "constraint": {"model": lambda: dense_model(keras.layers.Dense(CLASSES, kernel_constraint="unit_norm"))},
    "several steps an execution": {"compile": {"steps_per_execution": 3}},
    "sample weights": {"data": "weights"},
    "sequences padded batch by batch": {"model": lambda: sequence_model(), "data": "padded"},
    "layer of one's own with a plain matmul": {
        "model": lambda: dense_model(Mix(), keras.layers.Dense(CLASSES))
    },
    "float64": {"policy": "float64"},
}


def data(kind: str) -> tf.data.Dataset:
    if kind == "tokens":
        return batches(np.random.default_rng(0).integers(0, 9, (10, 4)).astype("int32"), Y)
    if kind == "even":
        return batches(X[:9], Y[:9], size=3)
    if kind == "padded":
        lengths = [2, 5, 3, 4, 2, 2, 3, 6, 1, 4]
        each = tf.data.Dataset.from_generator(
            lambda: ((np.full((n, 3), i, "float32"), Y[i]) for i, n in enumerate(lengths)),
            output_signature=(tf.TensorSpec((None, 3)), tf.TensorSpec((CLASSES,))),
        )
        return each.padded_batch(4).apply(tf.data.experimental.assert_cardinality(3))
    return batches(X, Y, np.linspace(0.0, 2.0, 10)) if kind == "weights" else batches()


def record(run_dir: Path, case: dict[str, Any], every: Any, **options: Any) -> xtf.Run:
    """Record five epochs of three steps."""
    with dtype_policy(case.get("policy", "float32")):
        return record_in_policy(run_dir, case, every, **options)


def record_in_policy(run_dir: Path, case: dict[str, Any], every: Any, **options: Any) -> xtf.Run:
    keras.utils.set_random_seed(0)
    model = case.get("model", dense)()
    optimizer = case.get("optimizer", lambda: xtf.PathAdamW(0.01, weight_decay=0.1))()
    model.compile(optimizer, loss="mse", metrics=case.get("metrics"), **case.get("compile", {}))
    logger = xtf.PathLogger(run_dir, every=every, verbose=False, **options)
    callbacks = [callback() for callback in case.get("callbacks", [])]
    fit(model, logger.tap(data(case.get("data", ""))), *callbacks, logger, epochs=STEPS // 3)
    return xtf.open_run(run_dir)


@pytest.fixture(scope="module")
def plain_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run with keyframes, to be read only."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    record(run_dir, {}, EVERY)
    return run_dir


@pytest.fixture
def plain_run(plain_dir: Path) -> xtf.Run:
    """A run in which nothing has been trained again yet."""
    return xtf.open_run(plain_dir)


def parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def assert_same_steps(run: xtf.Run, expected: xtf.Run, order: Sequence[int]) -> None:
    for step in map(int, order):
        found, wanted = run.step_store.transition(step), expected.step_store.transition(step)
        for name, value in vars(wanted).items():
            for a, b in zip(parts(getattr(found, name)), parts(value), strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{name} of step {step}", strict=True)


Pairs = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Return a function that records a case with keyframes and with every step, once."""

    @functools.cache
    def recorded(name: str) -> tuple[Path, Path]:
        sparse, full = (tmp_path_factory.mktemp("pair") / "run" for _ in range(2))
        record(sparse, CASES[name], EVERY)
        record(full, CASES[name], 1)
        return sparse, full

    return recorded


# Under XLA, tests/attribution/test_retrain.py compares the same training step with what was recorded every time.
@pytest.mark.parametrize("name", sweep(CASES, core=("BatchNorm and dropout",)))
def test_steps_trained_again_are_those_that_were_taken(pairs: Pairs, name: str):
    sparse, full = map(xtf.open_run, pairs(name))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none drifts
        for order in ORDERS.values():
            assert_same_steps(sparse, full, order)
        sparse.verify(progress=False)
    assert sparse.step_store.replay.drift == 0
    np.testing.assert_array_equal(flat_theta(sparse, STEPS), flat_theta(full, STEPS))


# The steps are compared bit for bit above, and test_resume.py asks about a run with keyframes every time.
@pytest.mark.parametrize("name", sweep(("BatchNorm, XLA", "BatchNorm and dropout")))
def test_ledger_is_that_of_the_run_that_holds_every_step(pairs: Pairs, name: str):
    sparse, full = map(xtf.open_run, pairs(name))
    for axes in (("step", "layer"), ("sample", "step")):
        ledgers = [run.attribute(X[:3], axes=axes, progress=False) for run in (sparse, full)]
        # Not bit for bit: the routes to a product are chosen by their measured time, and each rounds differently.
        limit = 1e-6 * float(np.abs(ledgers[1].movement).max())
        for name in ledgers[1].data_vars:
            np.testing.assert_allclose(ledgers[0][name], ledgers[1][name], rtol=0, atol=limit)


def test_only_keyframes_hold_the_weights(plain_run: xtf.Run):
    held = [plain_run.step_store._read(position).snapshot is not None for position in range(STEPS + 2)]
    # Before training, after every fourth step, and after the last step.
    assert [position for position, is_held in enumerate(held) if is_held] == [0, 4, 8, 12, STEPS + 1]


def test_gaps_are_trained_once_and_let_go(plain_run: xtf.Run, monkeypatch: pytest.MonkeyPatch):
    run, trained = plain_run, []
    original = TrainingGraph.step

    def step(graph: TrainingGraph, record: Any, batch: Any) -> Any:
        trained.append(record.step)
        return original(graph, record, batch)

    monkeypatch.setattr(TrainingGraph, "step", step)
    for number in run.steps:
        run.step_store.transition(int(number))
    assert trained == [step for step in range(STEPS) if (step + 1) % EVERY]
    assert len(run.step_store.replay._gap.records) < EVERY


def test_further_fits_go_on_between_keyframes(run_dir: Path):
    model = dense()
    model.compile(xtf.PathAdamW(0.01), loss="mse")
    logger = xtf.PathLogger(run_dir, every=EVERY, verbose=False)
    tapped, seen = logger.tap(batches()), []
    spy = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, **__: seen.append(model.get_weights()))
    for _ in range(3):
        fit(model, tapped, spy, logger)
    run = xtf.open_run(run_dir)
    run.verify(progress=False)
    assert len(run.steps) == 9
    for step, weights in enumerate(seen):
        for found, wanted in zip(run.theta(step + 1).values(), weights, strict=True):
            np.testing.assert_array_equal(found, wanted)


class TestDrift:
    """If training again rounds differently, the next keyframe shows how far the weights are off."""

    @pytest.fixture
    def drifting(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
        def drift_by(share: float) -> None:
            original = TrainingGraph.step

            def step(graph: TrainingGraph, record: Any, batch: Any) -> tuple[Snapshot, Any]:
                original(graph, record, batch)
                for variable in graph.variables.parameters:
                    variable.assign(variable * (1 + share))
                return graph.variables.snapshot(), None

            monkeypatch.setattr(TrainingGraph, "step", step)

        return drift_by

    def test_rounding_is_said_and_ends_in_the_residual(
        self, plain_run: xtf.Run, drifting: Callable[[float], None]
    ):
        run = plain_run
        drifting(1e-6)
        with pytest.warns(UserWarning, match=r"off by .* of the distance.*add it to the residual"):
            ledger = run.attribute(X, axes=("step",), tolerance=1e-2, progress=False)
        assert 0 < run.step_store.replay.drift < 1e-3
        ledger.explaind.check(tolerance=1e-2)
        assert float(np.abs(ledger.explaind.total("external")).max()) == 0

    def test_state_that_drifts_alone_is_refused_too(self, run_dir: Path, monkeypatch: pytest.MonkeyPatch):
        run = record(run_dir, {"model": lambda: dense_model(*norm_layers())}, EVERY)
        original = TrainingGraph.step

        def step(graph: TrainingGraph, record: Any, batch: Any) -> tuple[Snapshot, Any]:
            original(graph, record, batch)
            for variable in graph.variables.state:
                variable.assign(variable * 1.1)
            return graph.variables.snapshot(), None

        monkeypatch.setattr(TrainingGraph, "step", step)
        with pytest.raises(RunFormatError, match=r"more than the 0\.01 that rounding explains"):
            run.step_store.transition(1)

    def test_more_than_rounding_is_refused(self, plain_run: xtf.Run, drifting: Callable[[float], None]):
        drifting(1e-2)
        with pytest.raises(
            RunFormatError, match=r"from step 0 on.*more than the 0.01 that rounding explains"
        ):
            plain_run.attribute(X, axes=("step",), progress=False)

    def test_drift_behind_the_last_keyframe_cannot_be_told(
        self, run_dir: Path, drifting: Callable[[float], None]
    ):
        record(run_dir, {"callbacks": [Nudge]}, EVERY)  # the end is not where the last step led
        run = xtf.open_run(run_dir)
        drifting(1e-6)
        with pytest.raises(RunFormatError, match="no keyframe follows"):
            run.step_store.transition(STEPS - 1)


class TestRefusals:
    def test_eager_training(self, run_dir: Path):
        with pytest.raises(RefusedError, match=r"run_eagerly=True.*every=1"):
            record(run_dir, {"compile": {"run_eagerly": True}}, EVERY)
        assert not run_dir.exists()

    def test_python_in_the_training_step(self, run_dir: Path):
        class Noting(keras.Sequential):
            def train_step(self, element: Any) -> Any:
                tf.numpy_function(lambda x: x, [element[0]], tf.float32)
                return super().train_step(element)

        layers = [keras.Input((3,)), keras.layers.Dense(CLASSES)]
        with pytest.raises(RefusedError, match="training step holds PyFunc"):
            record(run_dir, {"model": lambda: Noting(layers)}, EVERY)
        assert not run_dir.exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"every": 0}, "1 or more"),
            ({"every": 2.0}, "1 or more"),
            ({"every": True}, "1 or more"),
            ({"every": 2, "disk_budget": 5}, 'every="auto"'),
            ({"every": "auto", "disk_budget": 0}, "positive"),
            ({"on_error": "ignore"}, '"raise" or "warn"'),
        ],
    )
    def test_arguments_that_mean_nothing(self, run_dir: Path, options: dict[str, Any], message: str):
        with pytest.raises(ValueError, match=message):
            xtf.PathLogger(run_dir, **options)

    def test_record_without_weights_in_a_run_without_a_training_step(self, plain_run: xtf.Run):
        run = plain_run
        run.step_store.replay = None
        with pytest.raises(RunFormatError, match=r"step 1\) lacks the weights"):
            run.step_store.transition(1)


def test_replay_of_another_batch_is_noticed(plain_run: xtf.Run, monkeypatch: pytest.MonkeyPatch):
    """The purpose of the digests: the same steps with other samples are not taken for drift."""
    run = plain_run
    original = KeyframeReplay._train

    def train(replay: KeyframeReplay, record: Any) -> Any:
        record.rows[:] = record.rows[::-1] if record.step else (record.rows + 1) % 10
        return original(replay, record)

    monkeypatch.setattr(KeyframeReplay, "_train", train)
    with pytest.raises(RunFormatError, match="from step 0 on"):
        run.step_store.transition(1)


def test_labels_are_not_needed(run_dir: Path):
    """Integer targets pass through the record and the training step unchanged."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = dense()
    model.compile(xtf.PathAdamW(0.01), loss=loss)
    logger = xtf.PathLogger(run_dir, every=3, verbose=False)
    fit(model, logger.tap(batches(X, LABELS)), logger, epochs=2)
    xtf.open_run(run_dir).verify(progress=False)
