"""What a ledger that does not balance says about the cause."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import constants as names
from explaind_tf.attribution import diagnosis
from explaind_tf.kernel.operations import mean_slopes, reverse_mode
from tests.helpers import X, batches, dense_model, fit, record

pytestmark = pytest.mark.slow

Dense = keras.layers.Dense


@pytest.fixture(name="softplus", scope="module")
def _softplus(tmp_path_factory):
    layers = [Dense(11, activation="softplus", name="bent"), Dense(2, name="logits")]
    return record(tmp_path_factory.mktemp("runs") / "softplus", layers).open()


def outputs(values):
    """A measurement of this file: no compiled function of it is shared with other tests."""
    return 1.0 * values


def unbalanced(run, inputs=X, measurement=outputs, **options):
    ledger = run.attribute(inputs, measurement, progress=False, **options)
    with pytest.raises(xtf.UnbalancedLedgerError) as caught:
        ledger.explaind.check()
    return str(caught.value)


def test_a_wrong_derivative_is_named_with_its_layer(softplus, monkeypatch):
    def wrong(operation, upstream):
        return [0.7 * upstream * tf.sigmoid(operation.inputs[0])]

    monkeypatch.setitem(reverse_mode._GRADIENTS, "Softplus", wrong)
    message = unbalanced(softplus, max_nodes=9)
    assert f"The likely cause is the operation 'Softplus' of layer {softplus.layers[0]!r}" in message
    assert softplus.layers[0].endswith("/bent")
    assert "differs from differences by 0.3 of its size" in message


def test_a_wrong_mean_slope_is_named(tmp_path, monkeypatch):
    run = record(tmp_path / "run", [Dense(9, activation="relu", name="folded"), Dense(2)]).open()
    right = mean_slopes._MEAN_SLOPES["Relu"]

    class Wrong:
        at_node, over_piece = right.at_node, right.over_piece

        def pull_back(self, operation, slope):
            return right.pull_back(operation, [0.8 * slope[0]])

    monkeypatch.setitem(mean_slopes._MEAN_SLOPES, "Relu", Wrong())
    message = unbalanced(run, max_nodes=9)
    assert f"The likely cause is the operation 'Relu' of layer {run.layers[0]!r} (type Relu)" in message
    assert "by 0.2 of its size" in message


@pytest.fixture(name="deep", scope="module")
def _deep(tmp_path_factory):
    layers = [Dense(16, activation="tanh", name=f"layer_{place}") for place in range(6)]
    model = dense_model(*layers, Dense(2))
    model.compile(xtf.PathSGD(1e-3), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(tmp_path_factory.mktemp("runs") / "deep", verbose=False)
    fit(model, logger.tap(batches()), logger, epochs=1)
    return xtf.open_run(logger.run_dir)


PIXELS = 255 * np.random.default_rng(1).random((4, 3)).astype("float32")


def test_rounding_of_predictions_suggests_float64(deep):
    """Predictions that are large beside their changes lose digits in the difference."""
    message = unbalanced(deep, PIXELS, lambda values: 1000 + values, tolerance=1e-5)
    assert "is rounding in float32, where predictions round by about 0.0001" in message
    assert 'Attribute with dtype="float64"' in message
    assert "likely cause" not in message
    deep.attribute(
        PIXELS, lambda values: 1000 + values, tolerance=1e-4, dtype="float64", progress=False
    ).explaind.check()


def test_rounding_of_weights_cannot_be_helped(deep):
    message = unbalanced(deep, PIXELS, tolerance=1e-7)
    assert "is the rounding of the weights in training" in message
    assert "float64" not in message


def test_too_few_nodes_are_said_to_be_too_few(softplus):
    message = unbalanced(softplus, tolerance=1e-9, max_nodes=1, dtype="float64")
    assert "the integral is not fine enough" in message
    assert "max_nodes is 1" in message
    assert "likely cause" not in message


def test_jumps_are_not_taken_for_rounding(softplus):
    """What jumped in the step is an entry of its own."""
    message = unbalanced(
        softplus,
        measurement=lambda values: tf.sin(9 * values) + tf.round(3 * values),
        tolerance=1e-7,
        max_nodes=9,
    )
    assert "rounding of the weights" not in message
    assert "were not compared: Round" in message


def test_a_failure_to_find_the_cause_does_not_hide_the_residual(softplus, monkeypatch):
    def fails(*_):
        raise LookupError("no such thing")

    monkeypatch.setattr(diagnosis, "derivative_errors", fails)
    message = unbalanced(softplus, tolerance=1e-9, max_nodes=1, dtype="float64")
    assert "does not balance to 1e-09" in message
    assert "could not be found: LookupError: no such thing" in message


def test_the_cause_is_kept_with_the_ledger(softplus, tmp_path):
    balanced = softplus.attribute(X, progress=False)
    assert names.DIAGNOSIS not in balanced.attrs
    asked = {"tolerance": 1e-9, "max_nodes": 1, "dtype": "float64", "progress": False}
    stored = softplus.attribute(X, out=tmp_path / "ledger.zarr", **asked)
    tree = softplus.attribute(X, axes=("parameter",), **asked)
    for ledger in (stored, tree):
        assert "max_nodes is 1" in ledger.attrs[names.DIAGNOSIS]
