"""A ledger, entry by entry, against the float64 oracle in tests/oracle/."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import xarray as xr

import explaind_tf as xtf
from tests import oracle
from tests.attribution.oracle_cases import Case, make_case
from tests.helpers import double_precision

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("many_at_once")]

# Both sides compute the same sums in float64, in different orders. Adam divides gradients by their own size,
# so their relative rounding, some 1e-15, is that of the weights, of order 1. A wrong ε or cast costs 1e-8.
TRAJECTORY = 1e-12
# Outputs of order 1, from equal weights, for models of three layers.
VALUES = 1e-12
# The package is asked for a ledger whose sum is within 1e-10 of the movement. It refines until that holds for the *sum*.
# A single entry points in another direction than its step and may be wrong by some times more (3e-10 of the movement was
# seen). A float32 sum anywhere in between costs 3e-8 of an entry and shows in the residual, however exact the entries are.
QUADRATURE = 1e-10
ENTRIES = 3e-9
# The oracle's own sums: some hundreds of entries of the order of the movement, each exact up to rounding.
ROUNDING = 1e-12

LAW = oracle.AdamW(weight_decay=0.5, beta_1=0.9, beta_2=0.99)


@dataclass(frozen=True)
class Recorded:
    """A recorded run, and the same run trained and accounted for by the oracle."""

    case: Case
    run: Any
    order: list[np.ndarray]
    learning_rates: list[float]
    training: oracle.Training
    both: oracle.Ledger

    def ledger(self, measurement: str) -> oracle.Ledger:
        """Return the oracle's ledger of the test inputs."""
        return self.both.of_outputs({"outputs": slice(0, -1), "log_prob": slice(-1, None)}[measurement])

    def attribute(self, measurement: str, axes: tuple[str, ...], **options: Any) -> xr.Dataset:
        """Return the package's ledger of the test inputs."""
        return self.run.attribute(
            self.case.x_test,
            self.case.measurement(measurement),
            axes=axes,
            tolerance=QUADRATURE,
            progress=False,
            **options,
        )

    @property
    def ids(self) -> list[Any]:
        """The samples' ids in order of first appearance."""
        return list(dict.fromkeys(self.case.ids[row] for rows in self.order for row in rows))

    def by_id(self, data: np.ndarray) -> np.ndarray:
        """Add up the entries of the rows of each id. The sample axis is the third."""
        return np.stack([data[:, :, self.case.ids == sample].sum(axis=2) for sample in self.ids], axis=2)


@pytest.fixture(scope="module")
def float64() -> Iterator[None]:
    with double_precision():
        yield


@pytest.fixture(scope="module")
def recordings(float64: None, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recorded]:
    """Return a function that records each case once, in whatever order tests ask."""
    return functools.cache(lambda name: record(name, tmp_path_factory.mktemp("runs") / name))


# Convolutions are compared with tapes by test_layers.py, and with float64 sums by the contract, every time.
CONVOLUTION = pytest.param("convolution", marks=pytest.mark.nightly)


@pytest.fixture(params=["dense", CONVOLUTION, "attention"])
def recorded(request: pytest.FixtureRequest, recordings: Callable[[str], Recorded]) -> Recorded:
    return recordings(request.param)


def record(name: str, run_dir: Path) -> Recorded:
    """Record the training of a case, and repeat it with the oracle."""
    case = make_case(name)
    rng = np.random.default_rng(case.seed)
    # No bias starts at zero: weight decay would leave it at zero whether it is excluded or not.
    theta = rng.normal(size=case.network.size) * 0.5
    fit(case, theta, run_dir)
    run = xtf.open_run(run_dir)
    order = independent_order(case)
    computed = [oracle.cosine_decay(case.initial_rate, case.steps, 0.1, s) for s in range(case.steps)]
    # The last bit of a float32 cosine depends on the library, so recorded rates are used; a test compares them with the
    # computed ones. Float64 rates are the oracle's.
    recorded_rates = [run.step_store.transition(s).learning_rate for s in range(case.steps)]
    rates = computed if isinstance(case.initial_rate, np.float64) else recorded_rates
    training = oracle.train(
        case.network,
        case.loss,
        LAW,
        theta,
        case.x,
        case.y,
        [oracle.Batch(rows, case.weights[rows]) for rows in order],
        rates,
    )
    led = oracle.ledger(training, len(case.x), case.x_test, case.measure)
    return Recorded(case, run, order, computed, training, led)


def fit(case: Case, theta: np.ndarray, run_dir: Path) -> None:
    """Train the Keras model from θ and record the run."""
    model = case.model()
    for variable in model.trainable_variables:
        assert variable.dtype == "float64"
    model.set_weights(list(case.network.unflatten(theta).values()))
    schedule = keras.optimizers.schedules.CosineDecay(case.initial_rate, case.steps, alpha=0.1)
    optimizer = xtf.PathAdamW(
        schedule,
        weight_decay=LAW.weight_decay,
        beta_1=LAW.beta_1,
        beta_2=LAW.beta_2,
        epsilon=LAW.epsilon,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, loss=case.keras_loss())
    logger = xtf.PathLogger(run_dir, verbose=False)
    keras.utils.set_random_seed(case.seed)
    model.fit(logger.tap(case.dataset()), epochs=case.epochs, callbacks=[logger], shuffle=False, verbose=0)


def independent_order(case: Case) -> list[np.ndarray]:
    """Return the training rows of each step, from an untapped dataset with the same seeds."""
    keras.utils.set_random_seed(case.seed)
    rows = tf.data.Dataset.range(len(case.x)).shuffle(
        len(case.x), seed=case.seed, reshuffle_each_iteration=True
    )
    batched = rows.batch(case.batch_size)
    order = []
    for _ in range(case.epochs):
        order += [batch.numpy() for batch in batched]
        # At the end of an epoch Keras makes an iterator that it never uses. The shuffle counts it.
        iter(batched)
    return order


def assert_close(found: Any, expected: np.ndarray, allowed: float) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=allowed)


# The run.


def test_recorded_run_is_the_oracles(recorded: Recorded) -> None:
    run, case, training = recorded.run, recorded.case, recorded.training
    assert [variable.path for variable in run.variables] == [v.path for v in case.network.variables]
    assert [variable.decay for variable in run.variables] == [v.decayed for v in case.network.variables]
    assert list(run.layers) == list(case.network.layers)
    assert len(run.steps) == case.steps
    assert {len(rows) for rows in recorded.order} > {case.batch_size}  # ragged
    shares_ids = len(set(case.ids)) < len(case.ids)
    assert shares_ids == any(len(set(case.ids[rows])) < len(rows) for rows in recorded.order)
    # The last two bits of a float32. A schedule that is one step off is wrong by a tenth.
    precision = 1e-15 if isinstance(case.initial_rate, np.float64) else 2**-22
    for step, rows in enumerate(recorded.order):
        transition = run.step_store.transition(step)
        ids = run.samples.ids[run.samples.id_of_row[transition.rows]]
        assert list(ids) == list(case.ids[rows])
        assert_close(transition.weights[0], case.weights[rows], 0)
        assert transition.learning_rate == pytest.approx(recorded.learning_rates[step], rel=precision)
        assert_close(transition.second_moment, training.second_moment[step], TRAJECTORY)
    for step in range(case.steps + 1):
        theta = np.concatenate([value.reshape(-1) for value in run.theta(step).values()])
        assert_close(theta, training.theta[step], TRAJECTORY)


def test_training_tells_the_terms_apart(recorded: Recorded) -> None:
    """A run in which a term is negligible would not test that term."""
    led = recorded.ledger("outputs")
    assert led.movement > 0.3
    # The largest entries of any sample, layer and step are far above the tolerance of the comparison.
    assert np.abs(led.data).max() > 1e-2 * led.movement
    assert np.abs(led.weight_decay).max() > 1e-2 * led.movement
    effect_only = led.data[..., 0, 1:]  # what the first batch did through momentum alone
    assert np.abs(effect_only).max() > 1e-2 * led.movement


# The oracle by itself.


@pytest.mark.parametrize("measurement", ["outputs", "log_prob"])
def test_oracle_balances(recorded: Recorded, measurement: str) -> None:
    led = recorded.ledger(measurement)
    explained = led.data.sum(axis=(2, 3, 4, 5)) + led.weight_decay.sum(axis=(2, 3))
    assert_close(explained, led.final - led.initial, ROUNDING * led.movement)


def test_oracle_nodes_suffice(recorded: Recorded) -> None:
    training, led = recorded.training, recorded.both
    longest = int(np.argmax(np.linalg.norm(np.diff(training.theta, axis=0), axis=1)))
    fine = oracle.path_gradient(training, recorded.case.x_test, recorded.case.measure, longest, nodes=24)
    assert_close(led.phi[longest], fine, ROUNDING * np.abs(fine).max())


def test_oracle_meets_momentum_and_recursion(recorded: Recorded) -> None:
    """Effect steps use the optimizer's momentum, use steps the recursion of Ψ. Neither sums over pairs."""
    led, training = recorded.ledger("outputs"), recorded.training
    memory, gain = training.law.beta_1, 1 - training.law.beta_1
    psi = np.zeros(led.phi.shape[1:])
    for step in reversed(range(len(training))):
        pushed = led.phi[step] * training.preconditioner[step]
        by_momentum = -pushed @ training.momentum[step]
        assert_close(led.data[..., step].sum(axis=(2, 3, 4)), by_momentum, ROUNDING * led.movement)
        psi = memory * psi + gain * pushed
        by_recursion = -psi @ training.gradients[step].sum(axis=0)
        found = led.data[..., step, :].sum(axis=(2, 3, 4))
        assert_close(found, by_recursion, ROUNDING * led.movement)


# The package.


@pytest.mark.parametrize("step_of", ["use", "effect"])
@pytest.mark.parametrize(
    ("recorded", "measurement"),
    [
        ("dense", "outputs"),
        ("dense", "log_prob"),
        pytest.param("convolution", "outputs", marks=pytest.mark.nightly),
        # How a measurement is differentiated does not depend on what is before the outputs.
        pytest.param("convolution", "log_prob", marks=pytest.mark.nightly),
        ("attention", "outputs"),
        pytest.param("attention", "log_prob", marks=pytest.mark.nightly),
    ],
    indirect=["recorded"],
)
def test_every_entry(recorded: Recorded, measurement: str, step_of: str) -> None:
    expected = recorded.ledger(measurement)
    led = recorded.attribute(measurement, ("sample", "layer", "step"), step_of=step_of)
    assert set(led.data_vars) == {
        *(
            "initial",
            "final",
            "data",
            "rounding",
            "weight_decay",
            "regularizer",
            "carryover",
            "external",
            "state",
        ),
        "residual",
    }
    assert list(led["sample"].values) == recorded.ids
    assert list(led["layer"].values) == list(recorded.case.network.layers)
    assert list(led["step"].values) == list(range(recorded.case.steps))
    data = led["data"].transpose("input", "output", "sample", "layer", "step")
    over_the_other_step = expected.data.sum(axis=5 if step_of == "use" else 4)
    allowed = ENTRIES * expected.movement
    assert_close(data, recorded.by_id(over_the_other_step), allowed)
    assert_close(
        led["weight_decay"].transpose("input", "output", "layer", "step"), expected.weight_decay, allowed
    )
    assert_ends_and_residual(led, expected)


MARGINALS = (("layer",), ("sample",), ("step",), ())


@pytest.mark.parametrize(
    ("recorded", "axes"),
    [
        *(pytest.param("dense", axes, id="+".join(("dense", *axes))) for axes in MARGINALS),
        # Every entry by sample, layer and step is compared for attention, too.
        *(
            pytest.param(
                name,
                axes,
                id="+".join((name, *axes)),
                marks=() if (name, axes) == ("attention", ("sample",)) else pytest.mark.nightly,
            )
            for name in ("convolution", "attention")
            for axes in MARGINALS
        ),
    ],
    indirect=["recorded"],
)
def test_marginals(recorded: Recorded, axes: tuple[str, ...]) -> None:
    expected = recorded.ledger("outputs")
    # Blocks of two inputs and one shorter block: a ledger does not depend on how inputs are batched.
    led = recorded.attribute("outputs", axes, batch_size=2)
    data, weight_decay = recorded.by_id(expected.data), expected.weight_decay
    # Without samples, steps are effect steps.
    marginals = {
        (): (data.sum(axis=(2, 3, 4, 5)), weight_decay.sum(axis=(2, 3))),
        ("sample",): (data.sum(axis=(3, 4, 5)), weight_decay.sum(axis=(2, 3))),
        ("layer",): (data.sum(axis=(2, 4, 5)), weight_decay.sum(axis=3)),
        ("step",): (data.sum(axis=(2, 3, 4)), weight_decay.sum(axis=2)),
    }
    kept = [axis for axis in axes if axis != "sample"]
    allowed = ENTRIES * expected.movement
    assert_close(led["data"].transpose("input", "output", *axes), marginals[axes][0], allowed)
    assert_close(led["weight_decay"].transpose("input", "output", *kept), marginals[axes][1], allowed)
    assert_ends_and_residual(led, expected)


def assert_ends_and_residual(led: xr.Dataset, expected: oracle.Ledger) -> None:
    assert_close(led["initial"].transpose("input", "output"), expected.initial, VALUES)
    assert_close(led["final"].transpose("input", "output"), expected.final, VALUES)
    residual = led["residual"].sum([dim for dim in led["residual"].dims if dim not in ("input", "output")])
    assert_close(residual, np.zeros_like(expected.final), QUADRATURE * expected.movement)
    for absent in ("regularizer", "carryover", "external", "state"):
        assert float(np.abs(led[absent]).max()) == 0
    led.explaind.check()
