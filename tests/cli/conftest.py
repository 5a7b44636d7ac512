"""Recorded runs of the smallest size, and files of inputs for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from typer.testing import CliRunner, Result

import explaind_tf as xtf
from explaind_tf.cli import app
from tests.helpers import CLASSES, LABELS, X, batches, dense_model, fit


def record_classifier(run_dir: Path, *, activation: str | None = None) -> Path:
    """Record a classifier that returns logits, or, with a softmax, probabilities."""
    model = dense_model(
        keras.layers.Dense(3, activation="tanh", name="hidden"),
        keras.layers.Dense(CLASSES, activation=activation, name="classes"),
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=activation is None)
    model.compile(xtf.PathAdamW(0.05, weight_decay=0.1), loss=loss, run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    ids = np.array([f"sample {i}" for i in range(len(X))])
    fit(model, logger.tap(batches(ids, (X, LABELS))), logger, epochs=2)
    return run_dir


@pytest.fixture(scope="session")
def logits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_classifier(tmp_path_factory.mktemp("logits") / "run")


@pytest.fixture(scope="session")
def probabilities_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record_classifier(tmp_path_factory.mktemp("probabilities") / "run", activation="softmax")


@pytest.fixture(scope="session")
def smooth_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that can be trained again, and whose first-order answers hold."""
    run_dir = tmp_path_factory.mktemp("smooth") / "run"
    model = dense_model(keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(CLASSES))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(0.005, weight_decay=0.1, epsilon=1e-3), loss=loss)
    logger = xtf.PathLogger(run_dir, verbose=False, retrain=True)
    ids = np.array([f"sample {i}" for i in range(len(X))])
    fit(model, logger.tap(batches(ids, (X, LABELS))), logger, epochs=2)
    return run_dir


@pytest.fixture(scope="session")
def npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten inputs and their labels."""
    path = tmp_path_factory.mktemp("inputs") / "test.npz"
    np.savez(path, x=X, y=LABELS)
    return path


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("COLUMNS", "200")  # wide enough for every message
    monkeypatch.setenv("NO_COLOR", "1")
    return CliRunner()


@pytest.fixture
def call(runner: CliRunner) -> Callable[..., Result]:
    """Call a command with arguments of any kind; only exits are caught, so bugs show."""

    def invoke(*arguments: Any) -> Result:
        return runner.invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)

    return invoke


def error_of(result: Result) -> str:
    """Return the one line on the error stream."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert result.stdout == ""
    return lines[0]


def cut_short(run_dir: Path, copy: Path) -> Path:
    """Return a run that was abandoned by its process after the first steps."""
    model = dense_model()
    model.compile(xtf.PathSGD(0.1), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(copy, verbose=False)

    def stop(batch: int, logs: object) -> None:
        if batch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, logger.tap(batches()), logger, keras.callbacks.LambdaCallback(on_train_batch_end=stop))
    return copy
