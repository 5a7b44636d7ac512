"""The benchmarks' implementation of the paper's procedure agrees with the float64 oracle."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from experiments.benchmarks.paper_procedure import PaperProcedure, completeness_error
from tests import oracle
from tests.helpers import batches, dense_model, double_precision, fit

pytestmark = pytest.mark.slow

SAMPLES, BATCH, EPOCHS, RATE, NODES = 7, 3, 2, np.float64(0.03), 4
LAW = oracle.AdamW(weight_decay=0.5, beta_1=0.9, beta_2=0.99)
# Both sides are the same sums, of order 1, in float64.
ROUNDING = 1e-12


def _midpoint_rows(training, x, measure, step):
    """Return Φ_s by the paper's midpoints, in place of the oracle's own quadrature."""
    start, end = training.theta[step], training.theta[step + 1]
    points = [start + (j + 0.5) / NODES * (end - start) for j in range(NODES)]
    rows = [oracle.derivative(lambda p: measure(training.network.outputs(p, x)), point) for point in points]
    return np.mean(rows, axis=0)


@pytest.fixture(name="case", scope="module")
def _case(tmp_path_factory):
    """Return (run, test inputs, the oracle's training) of a small dense model with ragged batches, in float64."""
    with double_precision():
        return _recorded(tmp_path_factory.mktemp("procedure") / "run")


def _recorded(run_dir):
    rng = np.random.default_rng(5)
    x, y, x_test = rng.normal(size=(SAMPLES, 3)), rng.integers(0, 2, SAMPLES), rng.normal(size=(2, 3))
    network = oracle.dense_network(features=3, hidden=4, outputs=2)
    theta = rng.normal(size=network.size)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="tanh", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="readout")(hidden))
    for variable, value in zip(model.trainable_variables, network.unflatten(theta).values(), strict=True):
        variable.assign(value)
    optimizer = xtf.PathAdamW(RATE, weight_decay=LAW.weight_decay, beta_1=LAW.beta_1, beta_2=LAW.beta_2)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    fit(model, logger.tap(dataset), logger, epochs=EPOCHS)
    rows = [range(first, min(first + BATCH, SAMPLES)) for first in range(0, SAMPLES, BATCH)] * EPOCHS
    training = oracle.train(
        network,
        oracle.crossentropy,
        LAW,
        theta,
        x,
        y,
        [oracle.Batch(part, [1.0] * len(part)) for part in rows],
        [float(RATE)] * len(rows),
    )
    return xtf.open_run(run_dir), x_test, training


@pytest.mark.usefixtures("float64")
def test_influences_are_those_of_the_oracle_with_the_same_nodes(case, monkeypatch):
    run, x_test, training = case
    monkeypatch.setattr(oracle.ledgers, "path_gradient", _midpoint_rows)
    expected = oracle.ledger(training, SAMPLES, x_test, lambda outputs: outputs)
    procedure = PaperProcedure(run, [x_test], NODES)
    for step in run.steps:
        procedure.step(int(step))
    data = expected.data.sum(axis=(3, 4, 5))  # over layers and steps
    np.testing.assert_allclose(procedure.data, data, atol=ROUNDING, rtol=0)
    decay = expected.weight_decay.sum(axis=(2, 3))
    np.testing.assert_allclose(procedure.weight_decay, decay, atol=ROUNDING, rtol=0)
    missing = expected.final - expected.initial - data.sum(axis=2) - decay
    error = completeness_error(run, [x_test], NODES)
    assert error == pytest.approx(np.abs(missing).max(), abs=ROUNDING)


@pytest.mark.usefixtures("float64")
def test_more_nodes_leave_a_smaller_error(case):
    run, x_test, _ = case
    few, many = (completeness_error(run, [x_test], nodes) for nodes in (1, 10))
    # The model is smooth: midpoints converge as 1/n².
    assert many == pytest.approx(few / 100, rel=0.1)


def test_what_the_paper_does_not_treat_is_refused(run_dir):
    model, logger = dense_model(), xtf.PathLogger(run_dir, verbose=False)
    model.compile(xtf.PathSGD(0.01), loss="mse", run_eagerly=True)
    fit(model, logger.tap(batches()), logger, epochs=1)
    with pytest.raises(ValueError, match="AdamW"):
        PaperProcedure(xtf.open_run(run_dir), [np.zeros((1, 3), "float32")], 1)
