"""Ledgers of all optimizers, entry by entry, against the float64 oracle in tests/oracle/."""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from tests import oracle
from tests.attribution.oracle_cases import Case, make_case
from tests.helpers import double_precision
from tests.nightly import sweep

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("many_at_once")]

# As in test_oracle.py. Optimizers divide by the size of gradients, which amplifies their rounding.
TRAJECTORY = 1e-11
QUADRATURE = 1e-10
ENTRIES = 1e-8

# Each optimizer with its arguments in Keras, and the oracle's.
OPTIMIZERS: dict[str, tuple[type, dict[str, Any], Callable[..., oracle.Steps]]] = {
    "Adam": (xtf.PathAdam, {}, oracle.adam),
    "Adam amsgrad": (xtf.PathAdam, {"amsgrad": True}, functools.partial(oracle.adam, amsgrad=True)),
    "Adagrad": (xtf.PathAdagrad, {}, oracle.adagrad),
    "RMSprop": (xtf.PathRMSprop, {}, oracle.rmsprop),
    "RMSprop momentum": (xtf.PathRMSprop, {"momentum": 0.9}, functools.partial(oracle.rmsprop, momentum=0.9)),
    "RMSprop centered": (
        xtf.PathRMSprop,
        {"centered": True, "momentum": 0.5},
        functools.partial(oracle.rmsprop, centered=True, momentum=0.5),
    ),
    "Nadam": (xtf.PathNadam, {}, oracle.nadam),
    "Adamax": (xtf.PathAdamax, {}, oracle.adamax),
    "Adadelta": (xtf.PathAdadelta, {}, oracle.adadelta),
    "Lion": (xtf.PathLion, {}, oracle.lion),
    "Adafactor": (xtf.PathAdafactor, {}, oracle.adafactor),
}


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    with double_precision():
        yield


def record(name: str, case: Case, theta: np.ndarray, run_dir: Path) -> Any:
    """Train a Keras model from θ on batches in order, and return the recorded run."""
    path_optimizer, arguments, _ = OPTIMIZERS[name]
    model = case.model()
    model.set_weights(list(case.network.unflatten(theta).values()))
    schedule = keras.optimizers.schedules.CosineDecay(rate_of(name), case.steps, alpha=0.1)
    optimizer = path_optimizer(schedule, weight_decay=decay_of(name), **arguments)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, loss=case.keras_loss())
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = tf.data.Dataset.from_tensor_slices((case.x, case.y, case.weights)).batch(case.batch_size)
    model.fit(dataset, epochs=case.epochs, callbacks=[logger], shuffle=False, verbose=0)
    return xtf.open_run(run_dir)


def written_out(name: str, case: Case, theta: np.ndarray) -> oracle.WrittenOut:
    """Return the same training by the oracle."""
    count = len(case.x)
    rows = [range(start, min(start + case.batch_size, count)) for start in range(0, count, case.batch_size)]
    batches = [oracle.Batch(own, case.weights[own]) for own in rows] * case.epochs
    steps = [
        (batch, oracle.cosine_decay(rate_of(name), case.steps, 0.1, step))
        for step, batch in enumerate(batches)
    ]
    optimizer = OPTIMIZERS[name][2]
    return oracle.train_by(optimizer, decay_of(name), case.network, case.loss, theta, (case.x, case.y), steps)


def rate_of(name: str) -> np.float64:
    return np.float64(2.0 if name == "Adadelta" else 0.05)  # Adadelta begins with short steps


def decay_of(name: str) -> float:
    return 0.025 / float(rate_of(name))  # the same share of the weights for all


@pytest.mark.parametrize("name", sweep(OPTIMIZERS, core=["Lion"]))
def test_every_entry(name: str, tmp_path: Path):
    case = make_case("dense")
    theta = np.random.default_rng(case.seed).normal(size=case.network.size) * 0.5
    run, training = record(name, case, theta, tmp_path / "run"), written_out(name, case, theta)
    for step in range(case.steps + 1):
        found = np.concatenate([value.reshape(-1) for value in run.theta(step).values()])
        np.testing.assert_allclose(found, training.theta[step], rtol=0, atol=TRAJECTORY)
    expected = oracle.ledger(training, len(case.x), case.x_test, lambda outputs: outputs)
    allowed = ENTRIES * expected.movement
    for step_of, other in (("use", 5), ("effect", 4)):
        found = run.attribute(
            case.x_test,
            axes=("sample", "layer", "step"),
            step_of=step_of,
            tolerance=QUADRATURE,
            progress=False,
        )
        data = found["data"].transpose("input", "output", "sample", "layer", "step")
        np.testing.assert_allclose(data, expected.data.sum(axis=other), rtol=0, atol=allowed)
        decay = found["weight_decay"].transpose("input", "output", "layer", "step")
        np.testing.assert_allclose(decay, expected.weight_decay, rtol=0, atol=allowed)
        found.explaind.check()
