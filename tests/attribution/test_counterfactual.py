"""Responses against central differences of retrainings, all in float64."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import xarray as xr

import explaind_tf as xtf
from explaind_tf.errors import RefusedError
from tests.helpers import double_precision
from tests.nightly import sweep

layers = keras.layers
SAMPLES, CLASSES, EPOCHS, BATCH = 24, 3, 3, 6
# Of the weight of a sample. Differences then miss the derivative by 1e-8 to 1e-6 of its size.
STEP = 1e-4
TOLERANCE = 1e-5


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with double_precision():
        yield


def adamw(**arguments: Any) -> Any:
    # An epsilon of this size keeps the third derivative small, by which differences are off.
    return xtf.PathAdamW(0.01, weight_decay=0.1, epsilon=1e-3, **arguments)


def attention() -> list[Any]:
    x = keras.Input((4, 6))
    mixed = layers.LayerNormalization()(layers.MultiHeadAttention(2, 3)(x, x) + x)
    return [x, layers.GlobalAveragePooling1D()(layers.Dense(8, activation="gelu")(mixed))]


def dense(*between: Any) -> list[Any]:
    x = keras.Input((5,))
    last = layers.Dense(8, activation="tanh")(x)
    for layer in between:
        last = layer(last)
    return [x, last]


def convolution() -> list[Any]:
    x = keras.Input((6, 6, 1))
    normal = layers.BatchNormalization(momentum=0.8)(layers.Conv2D(4, 3)(x))
    return [x, layers.GlobalAveragePooling2D()(layers.Activation("swish")(normal))]


def embedding() -> list[Any]:
    x = keras.Input((4,), dtype="int32")
    return [x, layers.GlobalAveragePooling1D()(layers.Embedding(7, 5)(x))]


def recurrent() -> list[Any]:
    x = keras.Input((5, 3))
    return [x, layers.LSTM(4)(x)]


@dataclass(frozen=True)
class Case:
    """A model but for its last layer, its optimizer, and how it is recorded."""

    body: Callable[[], list[Any]]
    optimizer: Callable[[], Any] = adamw
    logger: dict[str, Any] = field(default_factory=dict)
    compiled: dict[str, Any] = field(default_factory=dict)


CASES = {
    "AdamW": Case(dense),
    "AdamW, XLA": Case(dense, compiled={"jit_compile": True}),
    "SGD": Case(dense, lambda: xtf.PathSGD(0.1)),
    "momentum": Case(dense, lambda: xtf.PathSGD(0.05, momentum=0.9, weight_decay=0.01)),
    "Nesterov": Case(dense, lambda: xtf.PathSGD(0.05, momentum=0.9, nesterov=True)),
    "Adam": Case(dense, lambda: xtf.PathAdam(0.01, epsilon=1e-3)),
    "Nadam": Case(dense, lambda: xtf.PathNadam(0.01, epsilon=1e-3)),
    "Adagrad": Case(dense, lambda: xtf.PathAdagrad(0.05)),
    "convolution with BatchNorm": Case(convolution),
    "convolution with BatchNorm, SGD": Case(convolution, lambda: xtf.PathSGD(0.1, momentum=0.5)),
    "attention": Case(attention),
    "attention, SGD": Case(attention, lambda: xtf.PathSGD(0.1)),
    "LSTM": Case(recurrent),
    "embedding": Case(embedding),
    "embedding, clipped": Case(embedding, lambda: adamw(clipnorm=0.05)),
    "dropout": Case(lambda: dense(layers.Dropout(0.3, seed=3))),
    "regulariser": Case(lambda: dense(layers.Dense(4, kernel_regularizer="l2"))),
    "stopped": Case(lambda: dense(layers.LayerNormalization(), layers.GaussianNoise(0.1, seed=2))),
    "clipped by norm": Case(dense, lambda: adamw(clipnorm=0.1)),
    "clipped by global norm": Case(dense, lambda: xtf.PathSGD(0.1, momentum=0.5, global_clipnorm=0.3)),
    "clipped by value": Case(dense, lambda: adamw(clipvalue=0.05)),
    "schedule": Case(
        dense, lambda: xtf.PathAdamW(keras.optimizers.schedules.CosineDecay(0.02, 12), epsilon=1e-3)
    ),
    "accumulated": Case(
        lambda: dense(layers.BatchNormalization(momentum=0.7)), lambda: adamw(gradient_accumulation_steps=2)
    ),
    "average": Case(dense, lambda: adamw(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=5)),
    "average, accumulated": Case(
        dense,
        lambda: xtf.PathSGD(
            0.1, use_ema=True, ema_momentum=0.8, gradient_accumulation_steps=2, ema_overwrite_frequency=3
        ),
    ),
    "keyframes": Case(dense, logger={"every": 5}),
    "keyframes, BatchNorm": Case(convolution, logger={"every": 4}),
}
# `test_the_weight_of_a_token` has an embedding and clipping.
DAILY = ("convolution with BatchNorm",)


def fit(case: Case, run_dir: Path) -> np.ndarray:
    """Record a training, and return its data."""
    keras.utils.set_random_seed(1)
    x, last = case.body()
    model = keras.Model(x, layers.Dense(CLASSES)(last))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(case.optimizer(), loss=loss, **case.compiled)
    rng = np.random.default_rng(0)
    shape = (SAMPLES, *x.shape[1:])
    data = rng.integers(0, 3, shape).astype("int32") if x.dtype == "int32" else rng.normal(size=shape)
    labels = rng.integers(0, CLASSES, SAMPLES)
    model.fit(
        data,
        labels,
        batch_size=BATCH,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[xtf.PathLogger(run_dir, verbose=False, retrain=True, **case.logger)],
    )
    return data


def differences(run: xtf.Run, inputs: np.ndarray, samples: Sequence[int]) -> np.ndarray:
    """Return the derivatives by the weights of samples, by training again, shape (inputs, outputs, samples)."""
    found = []
    for sample in samples:
        up, down = (
            run.retrain({sample: 1 + sign * STEP}, progress=False).measure(inputs).values for sign in (1, -1)
        )
        found.append((up - down) / (2 * STEP))
    return np.stack(found, axis=-1)


def off(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", sweep(CASES, core=DAILY, daily=False))
def test_responses_are_those_of_retraining(run_dir: Path, name: str):
    case = CASES[name]
    data = fit(case, run_dir)
    run, inputs = xtf.open_run(run_dir), data[:2]
    # Of each batch, in two places.
    samples = list(range(0, SAMPLES, 3))
    expected = differences(run, inputs, samples)
    answer = run.counterfactual(inputs, progress=False).sel(sample=samples)
    assert off(answer.response.values, expected) < TOLERANCE


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> tuple[xtf.Run, np.ndarray]:
    """A run of sequences whose data have a weight for each token."""
    with double_precision():
        run_dir, rng = tmp_path_factory.mktemp("sequences") / "run", np.random.default_rng(0)
        x, y = rng.integers(0, 7, (12, 5)).astype("int32"), rng.integers(0, 7, (12, 5))
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((5,), dtype="int32"), layers.Embedding(7, 6), layers.Dense(7, activation="gelu")]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(adamw(clipnorm=0.05), loss=loss)
        logger = xtf.PathLogger(run_dir, verbose=False, retrain=True)
        model.fit(
            x,
            y,
            sample_weight=np.ones((12, 5)),
            batch_size=4,
            epochs=3,
            shuffle=False,
            verbose=0,
            callbacks=[logger],
        )
        return xtf.open_run(run_dir), x[:2]


def last_outputs(outputs: Any) -> Any:
    return outputs[:, -1]


def test_axes_add_up(sequences: tuple[xtf.Run, np.ndarray]):
    run, x = sequences

    def ask(*axes: str, **options: Any) -> xr.DataArray:
        return run.counterfactual(x, last_outputs, axes, progress=False, **options).response

    whole = ask("sample", "token", "layer", "step")
    assert whole.dims == ("input", "output", "sample", "token", "layer", "step")
    by_sample, by_step = ask("sample"), ask("sample", "step")
    for dims, found in (
        (("layer", "step"), ask("sample", "token")),
        (("token", "step"), ask("sample", "layer")),
        (("token", "layer"), by_step),
        (("token", "layer", "step"), by_sample),
    ):
        np.testing.assert_allclose(whole.sum(dims).values, found.values, rtol=1e-9, atol=1e-14)
    groups = np.arange(12) % 3
    of_groups = ask("group", groups=groups)
    expected = by_sample.groupby(xr.DataArray(groups, dims="sample", name="group")).sum()
    np.testing.assert_allclose(
        of_groups.values, expected.transpose("input", "output", "group").values, rtol=1e-9
    )
    later = ask("sample", "step", steps=range(5, 9))
    np.testing.assert_allclose(later.values, by_step.sel(step=range(5, 9)).values, rtol=1e-9)


def test_the_weight_of_a_token(sequences: tuple[xtf.Run, np.ndarray]):
    """The weights of a sample's tokens, all changed alike, are the weight of the sample."""
    run, x = sequences
    answer = run.counterfactual(x, last_outputs, ("sample", "token"), progress=False)
    up, down = (
        run.retrain({3: 1 + sign * STEP}, progress=False).measure(x, last_outputs).values for sign in (1, -1)
    )
    expected = (up - down) / (2 * STEP)
    assert off(answer.response.sel(sample=3).sum("token").values, expected) < TOLERANCE


class Rate(keras.callbacks.Callback):
    """Sets the learning rate of one step."""

    def __init__(self, step: int, rate: float) -> None:
        super().__init__()
        self._step, self._rate, self._seen = step, rate, 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.optimizer.learning_rate.assign(self._rate if self._seen == self._step else 0.01)
        self._seen += 1


@pytest.mark.slow
@pytest.mark.nightly
def test_the_learning_rate_of_a_step_and_weight_decay(run_dir: Path):
    def train(rate: float = 0.01, decay: float = 0.1, *loggers: Any) -> np.ndarray:
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
        model.compile(xtf.PathAdamW(0.01, weight_decay=decay, epsilon=1e-3), loss="mse")
        model.fit(x, y, batch_size=4, epochs=3, shuffle=False, verbose=0, callbacks=[Rate(4, rate), *loggers])
        return model(x[:2]).numpy()

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 5)), rng.normal(size=12)
    train(0.01, 0.1, xtf.PathLogger(run_dir, verbose=False))
    run = xtf.open_run(run_dir)
    by_rate = run.counterfactual(x[:2], axes=("step",), by="learning_rate", progress=False).response
    by_decay = run.counterfactual(x[:2], axes=(), by="weight_decay", progress=False).response
    expected = (train(rate=0.01 + 1e-6) - train(rate=0.01 - 1e-6)) / 2e-6
    assert off(by_rate.sel(step=4).values, expected) < TOLERANCE
    expected = (train(decay=0.11) - train(decay=0.09)) / 0.02
    assert (
        off(by_decay.values, expected) < 1e-3
    )  # Keras casts a decay to float32 first, so a small change is inexact


class TestRefusals:
    """Of trainings and questions without a response."""

    @staticmethod
    def recorded(run_dir: Path, optimizer: Any, **dense: Any) -> tuple[xtf.Run, np.ndarray]:
        model, x = keras.Sequential([keras.Input((3,)), layers.Dense(2, **dense)]), np.ones((4, 3))
        model.compile(optimizer, loss="mse")
        model.fit(x, x[:, :2], verbose=0, callbacks=[xtf.PathLogger(run_dir, verbose=False)])
        return xtf.open_run(run_dir), x

    def test_constraints(self, run_dir: Path):
        run, x = self.recorded(run_dir, xtf.PathSGD(0.1), kernel_constraint="unit_norm")
        with pytest.raises(RefusedError, match="set weights in step 0: a callback or a constraint"):
            run.counterfactual(x, progress=False)

    def test_questions(self, sequences: tuple[xtf.Run, np.ndarray]):
        run, x = sequences
        for options, message in (
            ({"by": "loss"}, "by must be one of"),
            ({"at": "quarters"}, "at must be one of"),
            ({"repeats": 0}, "repeats 1 or more"),
            ({"axes": ("sample", "parameter")}, "not split over single weights"),
            ({"axes": ("step",)}, "by the weight of a sample or of a group"),
            ({"by": "learning_rate"}, "is about steps, not about sample"),
        ):
            with pytest.raises(ValueError, match=message):
                run.counterfactual(x, progress=False, **options)


def test_an_answer_on_disk(tmp_path: Path, sequences: tuple[xtf.Run, np.ndarray]):
    run, x = sequences
    asked: dict[str, Any] = {"axes": ("sample", "step"), "progress": False}
    written = run.counterfactual(x, last_outputs, out=tmp_path / "answer.zarr", memory_limit=1, **asked)
    xr.testing.assert_allclose(written.load(), run.counterfactual(x, last_outputs, **asked))
    again = run.counterfactual(x, last_outputs, out=tmp_path / "answer.zarr", memory_limit=1, **asked)
    xr.testing.assert_identical(again.load(), written.load())
    with pytest.raises(ValueError, match="holds another attribution"):
        run.counterfactual(x, last_outputs, ("sample",), out=tmp_path / "answer.zarr", progress=False)


class TestVerdict:
    """Of the answer about sequences, whose training is smooth."""

    def test_it_is_that_of_retraining(self, sequences: tuple[xtf.Run, np.ndarray]):
        run, x = sequences
        answer = run.counterfactual(x, last_outputs, progress=False)
        verdict = answer.explaind.validate(4, share=0.1)
        assert (verdict.retrainings, verdict.left_out, verdict.found.shape) == (4, 1, (4, 2, 7))
        assert answer.attrs["verdict"] == str(verdict)
        assert verdict.correlation.value > 0.8
        assert not verdict.advice
        chosen = np.random.default_rng(0).choice(12, 1, replace=False)
        without = run.retrain({int(chosen[0]): 0}, progress=False).measure(x, last_outputs)
        np.testing.assert_array_equal(verdict.found[0], (without - answer.final).values)
        np.testing.assert_allclose(verdict.foretold[0], answer.explaind.without(chosen).values, rtol=1e-12)

    def test_of_groups(self, sequences: tuple[xtf.Run, np.ndarray]):
        run, x = sequences
        groups = np.arange(12) // 4
        answer = run.counterfactual(x, last_outputs, ("group",), groups=groups, progress=False)
        verdict = answer.explaind.validate(2, share=0.3, seed=1)
        left_out = np.random.default_rng(1).choice(3, 1, replace=False)[0]
        weights = dict.fromkeys(np.flatnonzero(groups == left_out).tolist(), 0.0)
        without = run.retrain(weights, progress=False).measure(x, last_outputs)
        np.testing.assert_array_equal(verdict.found[0], (without - answer.final).values)

    def test_refusals(self, sequences: tuple[xtf.Run, np.ndarray]):
        run, x = sequences
        some = run.counterfactual(x, last_outputs, steps=range(4), progress=False)
        with pytest.raises(ValueError, match="covers steps 0 to 3 only"):
            some.explaind.validate(2)
        whole = run.counterfactual(x, last_outputs, progress=False)
        with pytest.raises(ValueError, match="Only an answer as"):
            whole.isel(input=[0]).explaind.validate(2)
        with pytest.raises(ValueError, match="2 or more retrainings"):
            whole.explaind.validate(1)


def test_smoothness(sequences: tuple[xtf.Run, np.ndarray]):
    run, _ = sequences
    found = run.smoothness(share=0.1, directions=1, progress=False)
    assert found.value > 0.9
    assert list(found.by_layer) == [layer for layer in run.layers if layer in found.by_layer]
    assert str(found).startswith(f"Smoothness {found.value:.2f}; least in ")
    assert run.smoothness(share=0.1, directions=1, progress=False) == found


def scheduled() -> Any:
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 12)
    return xtf.PathAdamW(schedule, weight_decay=0.1, epsilon=1e-3, clipvalue=0.05)


# Steps at halves are trained again from states that are held, not from the keyframes of the run.
HALVES = {
    "dense": Case(dense),
    "BatchNorm after a bias, schedule, clipped by value, keyframes": Case(
        convolution, scheduled, {"every": 4}
    ),
}


@pytest.mark.parametrize("name", sweep(HALVES, core=("dense",), daily=False))
def test_the_mean_at_halves_is_that_of_the_derivatives_there(run_dir: Path, name: str):
    data = fit(HALVES[name], run_dir)
    run, inputs = xtf.open_run(run_dir), data[:1]
    answer = run.counterfactual(inputs, at="halves", repeats=2, seed=3, progress=False)
    rng, found = np.random.default_rng(3), []
    for _ in range(2):
        half = (rng.permutation(SAMPLES) < SAMPLES // 2).astype(float)
        values = []
        for sign in (1, -1):
            weights = half.copy()
            weights[5] += sign * STEP
            values.append(run.retrain(weights, progress=False).measure(inputs).values)
        found.append((values[0] - values[1]) / (2 * STEP))
    assert off(answer.response.sel(sample=5).values, np.mean(found, axis=0)) < TOLERANCE
