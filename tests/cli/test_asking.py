"""Outputs of trained models: of models with state, and of models with several outputs."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from typer.testing import Result

import explaind_tf as xtf
from explaind_tf.attribution.predictions import are_probabilities, final_outputs
from tests.helpers import LABELS, X, Y, batches, dense_model, fit

pytestmark = pytest.mark.slow


def test_outputs_of_a_model_with_state(run_dir: Path):
    layers = keras.layers
    model = dense_model(
        layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.2, seed=1), layers.Dense(2)
    )
    model.compile(xtf.PathSGD(0.1), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    fit(model, logger.tap(batches()), logger)
    found = final_outputs(xtf.open_run(run_dir), X)
    np.testing.assert_allclose(
        found, model(X, training=False), rtol=1e-5, atol=1e-6
    )  # float32, another graph


@pytest.fixture(name="two_outputs", scope="module")
def _two_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record a model with two outputs by key: logits, and a regression."""
    x = keras.Input((3,))
    outputs = {"kind": keras.layers.Dense(2)(x), "size": keras.layers.Dense(2)(x)}
    model = keras.Model(x, outputs)
    losses = {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"}
    model.compile(xtf.PathSGD(0.1), loss=losses, run_eagerly=True)
    run_dir = tmp_path_factory.mktemp("two") / "run"
    logger = xtf.PathLogger(run_dir, verbose=False)
    fit(model, logger.tap(batches(X, {"kind": LABELS, "size": Y})), logger)
    return run_dir


@pytest.mark.parametrize("output", ["kind", "0"])
def test_one_of_several_outputs(two_outputs: Path, npz: Path, call: Callable[..., Result], output: str):
    asked = ("attribute", two_outputs, "--inputs", npz, "--measure", "log_prob", "--json")
    found = json.loads(call(*asked, "--output", output).stdout)
    logits = final_outputs(xtf.open_run(two_outputs), X)["kind"]
    expected = keras.ops.log_softmax(logits).numpy()[np.arange(10), LABELS]
    np.testing.assert_allclose([entry["final"] for entry in found["entries"]], expected, rtol=1e-5)
    assert call(*asked).exit_code == 1  # the output is not named


def test_which_loss_is_said_where_there_are_several(
    two_outputs: Path, npz: Path, call: Callable[..., Result]
):
    result = call("attribute", two_outputs, "--inputs", npz, "--measure", "loss", "--output", "kind")
    assert result.exit_code == 1
    assert "2 losses, and one is needed: name it with --loss, one of [" in result.stderr


def test_the_report_takes_one_output(
    two_outputs: Path, npz: Path, call: Callable[..., Result], tmp_path: Path
):
    result = call("report", two_outputs, "--inputs", npz, "--out", tmp_path / "report.html")
    assert result.exit_code == 1
    assert "about classifiers" in result.stderr


def test_one_number_is_not_guessed_to_be_a_logit(run_dir: Path, npz: Path, call: Callable[..., Result]):
    model = dense_model(keras.layers.Dense(1, activation="sigmoid"))
    model.compile(xtf.PathSGD(0.1), loss="binary_crossentropy", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    labels = LABELS[:, None].astype("float32")
    fit(model, logger.tap(batches(X, labels)), logger)
    np.savez(run_dir.parent / "test.npz", x=X, y=labels)
    asked = ("attribute", run_dir, "--inputs", run_dir.parent / "test.npz", "--measure", "loss", "--json")
    result = call(*asked)
    assert result.exit_code == 1
    assert "Say which with --outputs-are" in result.stderr
    result = call(*asked, "--outputs-are", "probabilities")
    p = np.asarray(model(X))[:, 0]
    expected = -np.log(np.where(LABELS == 1, p, 1 - p))
    found = [entry["final"] for entry in json.loads(result.stdout)["entries"]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.25, 0.75], [1.0, 0.0]], True),
        ([[0.25, 0.75], [1.0, 0.1]], False),
        ([[1.25, -0.25]], False),
        ([[1.0]], False),
        ([0.5, 0.5], False),
    ],
)
def test_probabilities(values: list, expected: bool):
    assert are_probabilities(np.array(values)) == expected
