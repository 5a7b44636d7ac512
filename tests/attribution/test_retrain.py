"""A recorded training, trained again, is itself; and with other weights of samples it is what Keras trains with these."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import RefusedError, RunFormatError
from explaind_tf.attribution.retrained_run import weights_of_samples
from explaind_tf.runs.graphs.training_graph import TrainingGraph
from tests.helpers import CLASSES, Recorded, X, Y, batches, dense_model, dtype_policy, fit, flat, flat_theta
from tests.nightly import sweep

pytestmark = pytest.mark.slow

EPOCHS, STEPS = 2, 6
# Of the last batch of an epoch: steps 0 and 1 do not use it.
LATE = 9
SCHEDULE = keras.optimizers.schedules.PolynomialDecay(0.05, 12, 0.01)
RNG = np.random.default_rng(5)
OWN_WEIGHTS = np.linspace(0.5, 2.0, 10).astype("float32")


def norm_model(dropout: float = 0.3) -> keras.Model:
    layers = [keras.layers.Dense(6), keras.layers.BatchNormalization(), keras.layers.Dropout(dropout, seed=1)]
    return dense_model(*(layers if dropout else layers[:2]), keras.layers.Dense(CLASSES))


def sequence_model() -> keras.Model:
    tokens = keras.Input((4,), dtype="int32")
    x = keras.layers.Embedding(5, 3, mask_zero=True)(tokens)
    return keras.Model(tokens, keras.layers.Dense(3)(keras.layers.LSTM(3, return_sequences=True)(x)))


def two_outputs() -> keras.Model:
    x = keras.Input((3,))
    grid = keras.layers.Reshape((2, 2))(keras.layers.Dense(4)(x))
    return keras.Model(x, [keras.layers.Dense(CLASSES)(x), grid])


CASES: dict[str, dict[str, Any]] = {
    "BatchNorm, dropout, clipping": {
        "model": norm_model,
        "optimizer": lambda: xtf.PathAdamW(0.01, weight_decay=0.1, global_clipnorm=0.1),
        "compile": {"metrics": ["mae"], "weighted_metrics": ["mse"]},
    },
    "XLA": {"model": lambda: norm_model(0.0), "compile": {"jit_compile": True}, "size": 5},
    # TensorFlow rounds its training otherwise with weights of 1 than without.
    "gelu": {
        "model": lambda: dense_model(keras.layers.Dense(6, "gelu"), keras.layers.Dense(CLASSES)),
        "y": np.arange(10) % CLASSES,
        "loss": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    },
    "momentum and a schedule": {"optimizer": lambda: xtf.PathSGD(SCHEDULE, momentum=0.9, nesterov=True)},
    "accumulated gradients": {"optimizer": lambda: xtf.PathAdamW(0.01, gradient_accumulation_steps=2)},
    "weights of the data": {"weights": OWN_WEIGHTS},
    "weights of the data, XLA": {"weights": OWN_WEIGHTS, "compile": {"jit_compile": True}, "size": 5},
    "masked sequences": {
        "model": sequence_model,
        "x": RNG.integers(0, 5, (10, 4)).astype("int32"),
        "y": RNG.integers(0, 3, (10, 4)),
        "rank": 2,
        "loss": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    },
    "losses of two ranks": {
        "model": two_outputs,
        "y": (Y, RNG.normal(size=(10, 2, 2)).astype("float32")),
        "rank": 2,
        "loss": lambda: ["mse", "mse"],
        "compile": {"loss_weights": [1.0, 0.5]},
    },
    "a sum": {"loss": lambda: keras.losses.MeanSquaredError(reduction="sum")},
    "several steps an execution": {"compile": {"steps_per_execution": 3}},
    "float64": {"policy": "float64"},
    "mixed float16": {"policy": "mixed_float16"},
}


def train(case: dict[str, Any], weights: Any, *callbacks: Any) -> keras.Model:
    """Train with Keras, from the same start and on the same batches."""
    keras.utils.set_random_seed(0)
    model = case.get(
        "model", lambda: dense_model(keras.layers.Dense(6, "tanh"), keras.layers.Dense(CLASSES))
    )()
    optimizer = case.get("optimizer", lambda: xtf.PathAdamW(0.01, weight_decay=0.1))()
    loss = case.get("loss", lambda: "mse")()
    model.compile(optimizer, loss=loss, **case.get("compile", {}))
    weights = case.get("weights") if weights is None else weights
    arrays = (case.get("x", X), case.get("y", Y), *(() if weights is None else (weights,)))
    fit(model, batches(*arrays, size=case.get("size", 4)), *callbacks, epochs=EPOCHS)
    return model


def record(run_dir: Path, case: dict[str, Any], *callbacks: Any, **options: Any) -> xtf.Run:
    with dtype_policy(case.get("policy", "float32")):
        # After the callbacks that change something before a step.
        train(
            case, None, *callbacks, xtf.PathLogger(run_dir, **{"retrain": True, "verbose": False} | options)
        )
    return xtf.open_run(run_dir)


def train_with(case: dict[str, Any], changed: dict[int, float]) -> keras.Model:
    """Train with other weights of samples than the data have."""
    with dtype_policy(case.get("policy", "float32")):
        weights = np.array(case.get("weights", np.ones(10)), keras.config.floatx())
        for sample, weight in changed.items():
            weights[sample] *= weight
        # One weight for each sample, whatever positions its losses have.
        return train(case, weights.reshape(-1, *[1] * (case.get("rank", 1) - 1)))


def assert_ends_as(run: Any, model: keras.Model) -> None:
    np.testing.assert_array_equal(flat_theta(run, len(run.steps)), flat(model.trainable_variables))
    state = run.step_store.state(len(run.steps))
    for found, variable in zip(state, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(found, variable.numpy(), err_msg=variable.path)


def assert_same_path(found: Any, run: xtf.Run) -> None:
    for place, step in enumerate(found.training_steps.tolist()):
        np.testing.assert_array_equal(flat_theta(found, place), flat_theta(run, step), err_msg=str(step))
        for a, b in zip(found.step_store.state(place), run.step_store.state(step), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], xtf.Run]:
    """Return recorded cases, each recorded once."""
    found: dict[str, Path] = {}

    def run(name: str) -> xtf.Run:
        if name not in found:
            found[name] = tmp_path_factory.mktemp("retrain") / "run"
            record(found[name], CASES[name])
        return xtf.open_run(found[name])

    return run


CORE = ("BatchNorm, dropout, clipping", "XLA")


@pytest.mark.parametrize("name", sweep(CASES, core=CORE))
def test_weights_of_one_give_the_recorded_run(run_of: Callable[[str], xtf.Run], name: str):
    run = run_of(name)
    assert_same_path(run.retrain(every=1), run)
    assert_same_path(run.retrain(np.ones(10)), run)


CHANGED = {"a late one": {LATE: 0.0}, "two": {1: 0.0, 4: 2.5}}


OTHERS = {f"{name}: {which}": (name, CHANGED[which]) for name in CASES for which in CHANGED}


@pytest.mark.parametrize("other", sweep(OTHERS, core=(f"{CORE[0]}: two", "gelu: a late one")))
def test_other_weights_give_what_keras_trains_with_them(run_of: Callable[[str], xtf.Run], other: str):
    name, changed = OTHERS[other]
    run = run_of(name)
    found = run.retrain(changed, progress=False)
    assert_ends_as(found, train_with(CASES[name], changed))
    assert not np.array_equal(flat_theta(found, 1), flat_theta(run, len(run.steps)))


# `test_runs_for_keyframes_alone` trains from keyframes every time.
@pytest.mark.parametrize("name", sweep(CASES))
def test_runs_with_keyframes_are_trained_again_from_them(run_dir: Path, name: str):
    run = record(run_dir, CASES[name], every=4)
    assert_same_path(run.retrain(every=1), run)
    assert_ends_as(run.retrain({LATE: 0}), train_with(CASES[name], {LATE: 0}))


def test_samples_are_named_by_their_ids(small_run: Recorded):
    samples = small_run.open().samples
    found = weights_of_samples(samples, {"sample 3": 0.5, np.str_("sample 0"): 2})
    assert found.tolist() == [2, 1, 1, 0.5, *[1] * 6]
    assert weights_of_samples(samples, found) is found
    with pytest.raises(ValueError, match="'sample 0'"):
        weights_of_samples(samples, {3: 0.5})


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the steps that are trained again, as they are."""
    found: list[int] = []
    train = TrainingGraph.train
    monkeypatch.setattr(TrainingGraph, "train", lambda *a: found.append(a[1].step) or train(*a))
    return found


class TestPath:
    """The result is a path like that of checkpoints."""

    def test_it_is_attributed_and_measured(self, run_of: Callable[[str], xtf.Run]):
        run = run_of(CORE[0])
        found = run.retrain({1: 0}, every=2)
        assert found.training_steps.tolist() == [0, 2, 4, 6]
        ledger = found.attribute(X[:2], axes=("layer", "step"), progress=False)
        ledger.explaind.check()
        assert ledger.sizes["step"] == len(found.steps) == 3
        np.testing.assert_array_equal(found.measure(X[:2]), ledger.final)
        with pytest.raises(RefusedError, match=r"no 'sample' axis.*repeated from the record"):
            found.attribute(X[:2], axes=("sample",))

    def test_measure_is_the_final_prediction(self, run_of: Callable[[str], xtf.Run]):
        run = run_of(CORE[0])
        named = xtf.measurements.Measurement("both", lambda outputs: outputs, output_names=["a", "b"])
        values = run.measure(X[:3], named)
        assert values.dims == ("input", "output") and values.output.values.tolist() == ["a", "b"]
        np.testing.assert_array_equal(values, run.attribute(X[:3], progress=False).final)

    def test_ends_alone_are_kept_by_default(self, run_of: Callable[[str], xtf.Run]):
        found = run_of(CORE[0]).retrain({1: 0})
        assert found.training_steps.tolist() == [0, STEPS]
        assert "6 steps, 1 of 10 samples" in repr(found)
        assert found.run_id != run_of(CORE[0]).retrain({1: 0.5}).run_id

    def test_the_step_is_loaded_once_and_late_samples_skip_steps(
        self, run_of: Callable[[str], xtf.Run], monkeypatch: pytest.MonkeyPatch, taken: list[int]
    ):
        run, loaded = run_of(CORE[0]), []
        load = TrainingGraph.__init__
        monkeypatch.setattr(TrainingGraph, "__init__", lambda *a, **k: loaded.append(1) or load(*a, **k))
        run.retrain()
        assert taken == [*range(6)]
        for weight in (0.0, 0.5):
            run.retrain({LATE: weight})
        # Once with weights of 1.
        assert taken[6:] == [*range(6), 2, 3, 4, 5, 2, 3, 4, 5] and len(loaded) == 1
        run.retrain({1: 0.0})
        assert taken[20:] == [*range(6)]

    def test_late_samples_skip_no_steps_that_weights_round_otherwise(
        self, run_of: Callable[[str], xtf.Run], taken: list[int]
    ):
        run = run_of("gelu")
        run.retrain({LATE: 0.0})
        ones = taken.index(0, 1)
        # With weights of 1 until a step differs, then as it was.
        assert taken == [*range(ones), *range(6), *range(6)]
        run.retrain({LATE: 0.5})
        assert taken[ones + 12 :] == [*range(6)]


@pytest.mark.nightly
@pytest.mark.parametrize("every", [1, 4])
def test_a_run_that_was_continued(run_dir: Path, every: int):
    case = CASES[CORE[0]]
    for epochs in (1, 2):
        keras.utils.set_random_seed(0)
        model = norm_model()
        model.compile(case["optimizer"](), loss="mse", **case["compile"])
        logger = xtf.PathLogger(run_dir, every=every, resume=True, retrain=True, verbose=False)
        fit(model, batches(), logger, epochs=epochs, initial_epoch=epochs - 1)
    run = xtf.open_run(run_dir)
    assert len(run.steps) == STEPS
    assert_same_path(run.retrain(every=1), run)
    assert_ends_as(run.retrain({1: 0}), train_with(case, {1: 0}))


class SetWeights(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            self.model.set_weights([1.1 * weight for weight in self.model.get_weights()])


class SetAtEnd(keras.callbacks.Callback):
    def on_train_end(self, logs: Any = None) -> None:
        self.model.set_weights([1.1 * weight for weight in self.model.get_weights()])


class SetRate(keras.callbacks.Callback):
    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate = 0.01 / (1 + batch)


class SetSeed(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for variable in self.model.non_trainable_variables:
            if "seed" in variable.path:
                variable.assign([7, epoch])


class TestChangesOfSomethingElse:
    def test_weights_that_a_callback_set(self, run_dir: Path):
        run = record(run_dir, {}, SetWeights())
        assert_same_path(run.retrain(every=1), run)
        with pytest.raises(RefusedError, match=r"set the weights before step 1 .*not known"):
            run.retrain({1: 0})
        with pytest.raises(RefusedError, match="before step 4"):
            run.retrain({LATE: 0})

    def test_weights_set_at_the_end(self, run_dir: Path):
        keras.utils.set_random_seed(0)
        model = dense_model()
        model.compile(xtf.PathAdamW(0.01), loss="mse")
        fit(model, batches(), SetAtEnd(), xtf.PathLogger(run_dir, retrain=True, verbose=False), epochs=1)
        run = xtf.open_run(run_dir)
        assert_same_path(run.retrain(), run)
        with pytest.raises(RefusedError, match="set the weights after the last step"):
            run.retrain({1: 0})

    @pytest.mark.parametrize("every", [None, pytest.param(4, marks=pytest.mark.nightly)])
    def test_averages_that_overwrite_the_weights(self, run_dir: Path, every: int | None):
        """Keras overwrites them when fit ends, and every few steps if asked to."""
        case = {
            "optimizer": lambda: xtf.PathAdamW(
                0.01, use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=every
            )
        }
        run = record(run_dir, case)
        assert_same_path(run.retrain(every=1), run)
        assert_ends_as(run.retrain({1: 0}), train_with(case, {1: 0}))

    def test_rates_and_seeds_are_used_as_they_were(self, run_dir: Path):
        case = {"model": norm_model}
        run = record(run_dir, case, SetRate(), SetSeed())
        assert_same_path(run.retrain(every=1), run)
        weights = np.ones(10, "float32")
        weights[1] = 0
        assert_ends_as(run.retrain({1: 0}), train(case, weights, SetRate(), SetSeed()))


class Counting(keras.metrics.Metric):
    """Takes no weights, or looks up a table."""

    def __init__(self, *, has_table: bool) -> None:
        super().__init__(name="counting")
        keys = tf.lookup.KeyValueTensorInitializer([0, 1], [1.0, 2.0], tf.int32, tf.float32)
        self.table = tf.lookup.StaticHashTable(keys, 0.0) if has_table else None
        self.total = self.add_variable((), "zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        if self.table is not None:
            self.total.assign_add(self.table.lookup(tf.constant(1)))
        elif sample_weight is not None:
            raise NotImplementedError("no weights, please")

    def result(self) -> Any:
        return self.total


class OwnStep(keras.Sequential):
    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


class TestRefusals:
    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({10: 0.0}, r"1 samples that the run does not have: \[10\]"),
            (np.ones(9), r"shape \(9,\); the run has 10 samples"),
            ({3: np.nan}, "sample 3 is nan"),
            (np.full(10, np.inf), "must be finite"),
        ],
    )
    def test_weights_that_mean_nothing(self, run_of: Callable[[str], xtf.Run], weights: Any, message: str):
        with pytest.raises(ValueError, match=message):
            run_of(CORE[0]).retrain(weights)

    def test_a_damaged_training_step(self, run_of: Callable[[str], xtf.Run], run_dir: Path):
        shutil.copytree(run_of(CORE[0]).run_dir, run_dir)
        graph = run_dir / "graphs" / "training" / "saved_model.pb"
        content = bytearray(graph.read_bytes())
        content[len(content) // 2] ^= 1
        graph.write_bytes(content)
        run = xtf.open_run(run_dir)
        for ask in (run.retrain, run.verify):
            with pytest.raises(RunFormatError, match=r"saved_model\.pb"):
                ask(progress=False)

    def test_distance_that_means_nothing(self, run_of: Callable[[str], xtf.Run]):
        with pytest.raises(ValueError, match="1 or more, or None; got 0"):
            run_of(CORE[0]).retrain(every=0)

    @pytest.mark.parametrize(
        ("arguments", "options", "message"),
        [
            ({}, {"retrain": False}, r"retrain=False.*retrain=True"),
            ({"run_eagerly": True}, {}, r"compiled with run_eagerly=True"),
        ],
    )
    def test_runs_without_a_training_step(
        self, run_dir: Path, arguments: dict[str, Any], options: dict[str, Any], message: str
    ):
        run = record(run_dir, {"compile": arguments}, **options)
        assert not (run_dir / "graphs" / "training").exists()
        with pytest.raises(RefusedError, match=message):
            run.retrain()

    def test_runs_of_another_level(self, run_dir: Path):
        run = record(run_dir, {"optimizer": lambda: keras.optimizers.Adam(0.01)})
        with pytest.raises(
            RefusedError, match=r"recorded at the level 'path': The model was compiled with keras"
        ):
            run.retrain()

    def test_losses_that_divide_by_the_weights(self, run_dir: Path):
        loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
        run = record(run_dir, {"loss": lambda: loss})
        assert_same_path(run.retrain(), run)
        with pytest.raises(RefusedError, match="divides by the sum of the weights"):
            run.retrain({1: 0})

    def test_a_train_step_of_ones_own(self, run_dir: Path):
        layers = [keras.Input((3,)), keras.layers.Dense(CLASSES)]
        run = record(run_dir, {"model": lambda: OwnStep(layers)})
        assert_same_path(run.retrain(), run)
        with pytest.raises(RefusedError, match="OwnStep has a train_step of its own"):
            run.retrain({1: 0})

    def test_metrics_that_take_no_weights(self, run_dir: Path):
        run = record(run_dir, {"compile": {"weighted_metrics": [Counting(has_table=False)]}})
        assert_same_path(run.retrain(), run)
        with pytest.raises(RefusedError, match=r"fails with weights of samples: .*no weights, please"):
            run.retrain({1: 0})

    def test_metrics_with_a_table(self, run_dir: Path):
        run = record(run_dir, {"compile": {"metrics": [Counting(has_table=True)]}})
        with pytest.raises(RefusedError, match="resources that are not variables, such as tables"):
            run.retrain()

    def test_a_loop_of_ones_own_with_a_train_step_that_is_not_used(self, run_dir: Path):
        class Unused(keras.Sequential):
            def train_step(self, data: Any) -> Any:
                raise NotImplementedError("never called")

        model = Unused([keras.Input((3,)), keras.layers.Dense(CLASSES)])
        model.compile(xtf.PathSGD(0.1), loss="mse")
        with xtf.PathLogger(run_dir, retrain=True, verbose=False, model=model) as logger:
            for _ in range(2):
                with logger.step(X, Y), tf.GradientTape() as tape:
                    loss = tf.reduce_mean((model(X, training=True) - Y) ** 2)
                    model.optimizer.apply(tape.gradient(loss, model.trainable_variables))
        run = xtf.open_run(run_dir)
        assert run.level == "sample"
        with pytest.raises(RefusedError, match=r"cannot be traced.*never called"):
            run.retrain()

    def test_runs_for_keyframes_alone(self, run_dir: Path):
        run = record(run_dir, {}, every=4, retrain=False)
        assert_same_path(run.retrain(), run)
        with pytest.raises(RefusedError, match=r"takes no weights of samples.*retrain=False"):
            run.retrain({1: 0})

    def test_weights_that_are_whole_numbers(self, run_dir: Path):
        run = record(run_dir, {"weights": np.arange(10)})
        without = np.arange(10)
        without[1] = 0
        assert_ends_as(run.retrain({1: 0}), train({}, without))
        with pytest.raises(RefusedError, match=r"dtype int64.*cannot be multiplied"):
            run.retrain({1: 0.5})

    def test_divergence(self, run_of: Callable[[str], xtf.Run]):
        with pytest.raises(RefusedError, match="training diverges"):
            run_of(CORE[0]).retrain({1: np.finfo("float32").max})

    def test_changes_after_the_turn_of_the_logger(self, run_dir: Path):
        logger = xtf.PathLogger(run_dir, retrain=True, verbose=False)
        train({}, None, logger, SetWeights())
        run = xtf.open_run(run_dir)
        for weights in (None, {1: 0}):
            with pytest.raises(
                RunFormatError, match=r"Training the steps of .* again did not.*list the logger after"
            ):
                run.retrain(weights)

    def test_another_machine_is_said(self, run_of: Callable[[str], xtf.Run], monkeypatch: pytest.MonkeyPatch):
        train = TrainingGraph.train

        def rounded(graph: TrainingGraph, *arguments: Any) -> None:
            train(graph, *arguments)
            for variable in graph.variables.parameters:
                variable.assign(variable * (1 + 1e-6))

        monkeypatch.setattr(TrainingGraph, "train", rounded)
        run = run_of(CORE[0])
        with pytest.warns(UserWarning, match=r"rounds otherwise.*Compare with run\.retrain\(\)") as caught:
            run.retrain({1: 0})
        assert caught[0].filename == __file__
        run.retrain({1: 0})
