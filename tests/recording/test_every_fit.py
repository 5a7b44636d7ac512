"""fit() is recorded as it is written: whatever the data are, and without a change of what Keras computes."""

from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import RefusedError
from tests.helpers import CLASSES, FEATURES, LABELS, X, initialised
from tests.nightly import sweep

pytestmark = pytest.mark.filterwarnings(
    "ignore:Your input ran out of data", "ignore:.shuffle=True. was passed"
)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Parts(keras.utils.PyDataset):
    """Batches of four samples; the last has two."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(4 * index, 4 * index + 4)
        return X[part], LABELS[part]


def dataset() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, LABELS)).shuffle(10, seed=3).batch(4)


def generator() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    parts = Parts()
    return (parts[i] for i in range(len(parts)))


ARRAYS = {"x": X, "y": LABELS, "batch_size": 4}
# Arguments of fit(), and the number of steps.
FITS: dict[str, tuple[Callable[[], dict[str, Any]], int]] = {
    "arrays": (lambda: ARRAYS | {"epochs": 2}, 6),
    "float64 and a split for validation": (
        lambda: ARRAYS | {"x": X.astype(float), "validation_split": 0.2},
        2,
    ),
    "class weights": (lambda: ARRAYS | {"class_weight": {0: 1.0, 1: 3.0}}, 3),
    "sample weights": (lambda: ARRAYS | {"sample_weight": np.linspace(0.1, 2, 10)}, 3),
    "PyDataset": (lambda: {"x": Parts(), "epochs": 2}, 6),
    "generator of unknown length": (lambda: {"x": generator()}, 3),
    "dataset of unknown length": (lambda: {"x": dataset().filter(lambda x, y: True), "epochs": 2}, 6),
    "repeat and prefetch": (
        lambda: {"x": dataset().repeat().prefetch(2), "epochs": 2, "steps_per_epoch": 2},
        4,
    ),
    "cache": (lambda: {"x": dataset().cache(), "epochs": 2}, 6),
}
MODES: dict[str, dict[str, Any]] = {
    "graph": {},
    "XLA": {"jit_compile": True},
    "several steps in one execution": {"steps_per_execution": 2},
    "XLA, several steps": {"jit_compile": True, "steps_per_execution": 2},
    "eagerly": {"run_eagerly": True},
}


def compiled(**arguments: Any) -> keras.Model:
    model = initialised(keras.Sequential([keras.Input((FEATURES,)), keras.layers.Dense(CLASSES)]))
    model.compile(xtf.PathAdamW(0.02, weight_decay=0.1), LOSS, **arguments)
    return model


def trained(model: keras.Model, arguments: dict[str, Any], *callbacks: Any) -> list[np.ndarray]:
    keras.utils.set_random_seed(3)
    model.fit(**arguments, verbose=0, callbacks=list(callbacks))
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def is_equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


CASES = {f"{data}, {mode}": (data, mode) for data in FITS for mode in MODES}


@pytest.mark.parametrize("name", sweep(CASES, core=("arrays, graph", "generator of unknown length, graph")))
def test_any_data_are_recorded_and_training_is_that_of_keras(run_dir: Path, name: str):
    data, mode = CASES[name]
    arguments, steps = FITS[data]
    recorded = trained(compiled(**MODES[mode]), arguments(), xtf.PathLogger(run_dir, verbose=False))
    assert is_equal(recorded, trained(compiled(**MODES[mode]), arguments()))
    run = xtf.open_run(run_dir)
    assert run.level == "sample" and len(run.steps) == steps
    run.verify(progress=False)
    ledger = run.attribute(X[:2], axes=("sample",), progress=False)
    ledger.explaind.check(strict=True)
    per_sample = abs(ledger.data).sum(["input", "output"])
    assert ledger.sizes["sample"] == len(run.samples) and bool((per_sample > 0).all())


Pair = namedtuple("Pair", "left right")


class Difference(keras.Model):
    """Takes two inputs, however they are nested."""

    def __init__(self) -> None:
        super().__init__()
        self.readout = keras.layers.Dense(CLASSES, kernel_initializer="ones")

    def call(self, x: Any) -> Any:
        left, right = tf.nest.flatten(x)
        return self.readout(tf.math.real(left) - 0.5 * tf.math.real(right))


@pytest.mark.parametrize(
    "name",
    sweep(
        NESTED := {
            "namedtuple": lambda x: Pair(x, x[::-1]),
            "integer keys": lambda x: {0: x, 1: x[::-1]},
            "complex numbers": lambda x: (x.astype("complex64"), x[::-1]),
        },
        core=("namedtuple",),
    ),
)
def test_inputs_may_be_nested_in_any_way(run_dir: Path, name: str):
    nest = NESTED[name]
    model = Difference()
    model.compile(xtf.PathSGD(0.1), LOSS)
    batches = tf.data.Dataset.from_tensor_slices((nest(X), LABELS)).batch(5)
    model.fit(batches, verbose=0, shuffle=False, callbacks=[xtf.PathLogger(run_dir, verbose=False)])
    ledger = xtf.open_run(run_dir).attribute(nest(X[:2]), axes=("sample",), progress=False)
    ledger.explaind.check()
    np.testing.assert_allclose(ledger.final, model(nest(X[:2])), rtol=1e-5)


def test_ids_under_a_key_label_samples_and_are_hidden_from_the_model(run_dir: Path):
    inputs = keras.Input((FEATURES,), name="x")
    model = initialised(keras.Model({"x": inputs}, keras.layers.Dense(CLASSES)(inputs)))
    model.compile(xtf.PathSGD(0.1), LOSS)
    logger = xtf.PathLogger(run_dir, ids="id", verbose=False)
    model.fit({"x": X, "id": np.arange(100, 110)}, LABELS, verbose=0, callbacks=[logger])
    samples = xtf.open_run(run_dir).samples
    assert sorted(samples.ids) == list(range(100, 110))
    np.testing.assert_array_equal(samples.read(0).inputs[0], X[samples.read(0).id - 100])


class TestEarlierFits:
    """Keras goes on with a training step that it compiled; the recording must train the same."""

    def test_a_fit_after_another_one_is_that_of_keras(self, run_dir: Path):
        models = compiled(), compiled()
        for model in models:
            trained(model, ARRAYS)
        logger = xtf.PathLogger(run_dir, verbose=False)
        assert is_equal(trained(models[0], ARRAYS, logger), trained(models[1], ARRAYS))
        xtf.open_run(run_dir).verify(progress=False)
        assert is_equal(trained(models[0], ARRAYS), trained(models[1], ARRAYS))  # after the recording

    def test_a_layer_frozen_since_is_refused_and_nothing_is_trained(self, run_dir: Path):
        layers = [keras.Input((FEATURES,)), keras.layers.Dense(4), keras.layers.Dense(CLASSES)]
        model = initialised(keras.Sequential(layers))
        model.compile(xtf.PathAdamW(0.02), LOSS)
        model.fit(X, LABELS, verbose=0)
        model.layers[0].trainable = False
        before = [v.numpy() for v in model.variables]
        with pytest.raises(
            RefusedError, match=r"was changed since, such as layer\.trainable.*compile\(\.\.\.\) again"
        ):
            model.fit(X, LABELS, verbose=0, callbacks=[xtf.PathLogger(run_dir, verbose=False)])
        assert is_equal(before, [v.numpy() for v in model.variables]) and not run_dir.exists()

    def test_an_optimizer_of_another_model_is_refused(self, run_dir: Path):
        first, second = compiled(), compiled()
        first.fit(X, LABELS, verbose=0)
        second.compile(first.optimizer, LOSS)
        with pytest.raises(RefusedError, match=r"built before, for other variables.*an optimizer of its own"):
            second.fit(X, LABELS, verbose=0, callbacks=[xtf.PathLogger(run_dir, verbose=False)])

    def test_an_interrupted_recording_notes_no_batches_of_later_fits(self, run_dir: Path):
        """Keras calls no on_train_end then, so the watched step stays in place."""

        class Interrupt(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                raise KeyboardInterrupt

        weights = []
        for recorded in ([xtf.PathLogger(run_dir, verbose=False)], []):
            model = compiled()
            with pytest.raises(KeyboardInterrupt):
                trained(model, ARRAYS, *recorded, Interrupt())
            weights.append(trained(model, ARRAYS | {"epochs": 2}))
            if recorded:
                assert len(recorded[0]._watched._queue) == 1
        assert is_equal(*weights)


def test_the_fitted_model_may_be_named(run_dir: Path):
    model = compiled(steps_per_execution=2)
    model.fit(**ARRAYS, verbose=0, callbacks=[xtf.PathLogger(run_dir, model=model, verbose=False)])
    assert xtf.open_run(run_dir).level == "sample"
