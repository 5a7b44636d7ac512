"""Losses of every kind: steps follow from the record up to rounding, and samples add up to the data term."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf.kernel.contractions import ROUTES
from explaind_tf.replay.replay import Replay
from explaind_tf.sweeps import choose
from tests.attribution.loss_cases import (
    CASES,
    CLASSES,
    COUNT,
    LABELS,
    OUTPUTS,
    Case,
    X,
    as_dict,
    crossentropy,
    one_output,
    penalised,
    several_outputs,
)
from tests.helpers import double_precision, fit, initialised
from tests.nightly import sweep

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("many_at_once")]

# Samples coupled to their batch by dropout or BatchNorm leave no choice of route.
COUPLED = ("penalties of the batch", "penalties of a coupled batch")
COUPLED_ROUTES = ("jvp", "shares")
# Of masks and unequal lengths, test_tokens.py compares every entry with the oracle.
# The contract balances a penalty, and a batch coupled by BatchNorm, every time.
CORE = ("dict of outputs and weights",)
# The replay sums in float64, in another order than the training.
ROUNDING = 1e-12
BALANCE = 1e-8


def train(case: Case, run_dir: Path) -> xtf.Run:
    keras.utils.set_random_seed(3)
    model = case.model()
    model(case.inputs())  # subclassed models are built by their first call
    model = initialised(model)
    model.compile(xtf.PathAdamW(0.02, weight_decay=0.1), run_eagerly=True, **case.compile)
    logger = xtf.PathLogger(run_dir, verbose=False)
    fit(model, logger.tap(case.batches(), **case.tap), logger, epochs=2)
    return xtf.open_run(run_dir)


def numbers(outputs: Any) -> tf.Tensor:
    """Measure all outputs; of sequences only the first position."""
    flat = [output[:, 0] if output.shape.rank == 3 else output for output in tf.nest.flatten(outputs)]
    return tf.concat(flat, axis=1)


def check_steps(run: xtf.Run) -> None:
    """Check that the replayed causes add up to Keras' displacement, up to rounding."""
    run.verify(progress=False)
    replay = Replay(run, run._precisions(xtf.measurements.outputs()), tolerance=1e-9)
    for step in replay.path_steps(0, len(run.steps)):
        explained = sum(step.causes.values())
        np.testing.assert_allclose(explained, step.path.displacement, rtol=0, atol=ROUNDING)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], xtf.Run]:
    """Return a function that records each case once, in float64."""

    @functools.cache
    def recorded(name: str) -> xtf.Run:
        with double_precision():
            return train(CASES[name](), tmp_path_factory.mktemp("losses") / "run")

    return recorded


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of outputs without a loss
@pytest.mark.parametrize("name", sweep(CASES, core=CORE))
def test_steps_follow_from_the_record_and_samples_add_up(
    name: str, runs: Callable[[str], xtf.Run], monkeypatch: pytest.MonkeyPatch
):
    case, run = CASES[name](), runs(name)
    check_steps(run)
    inputs = np.concatenate([case.inputs()] * 2)
    arguments = {"axes": ("sample", "step"), "tolerance": BALANCE, "progress": False}
    ledger = run.attribute(inputs, numbers, **arguments)
    ledger.explaind.check()
    movement = float(ledger.movement.max())
    assert movement > 1e-2
    totals = run.attribute(inputs, numbers, tolerance=BALANCE, progress=False)
    np.testing.assert_allclose(
        ledger.data.sum(["sample", "step"]), totals.data, rtol=0, atol=BALANCE * movement
    )
    # The rules are compared with gradients of single samples, and all with derivatives of the whole batch.
    assert any(
        f"({route})" in ledger.attrs["method"]
        for route in (COUPLED_ROUTES if name in COUPLED else ("rules",))
    )
    for route in COUPLED_ROUTES if name in COUPLED else ("loop", "jvp"):
        monkeypatch.setattr(choose, "_sample_route", lambda *_, route=route: ROUTES[route])
        alone = run.attribute(inputs[:1], numbers, **arguments)
        assert f"({route})" in alone.attrs["method"]
        np.testing.assert_allclose(
            alone.data.isel(input=0), ledger.data.isel(input=0), rtol=0, atol=BALANCE * movement
        )


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", sweep(COUPLED, core=COUPLED[1:]))
def test_penalties_of_the_batch_are_booked_as_regulariser(name: str, runs: Callable[[str], xtf.Run]):
    run = runs(name)
    ledger = run.attribute(X, axes=("step",), progress=False)
    assert float(np.abs(ledger.regularizer).min("step").max()) > 0
    assert run.manifest.loss["has_regularizer"]


def trained_weights(
    optimizer: Any, *callbacks: Any, tap: Any, model: Any = one_output, y: Any = LABELS, **arguments: Any
) -> list[np.ndarray]:
    keras.utils.set_random_seed(4)
    model = initialised(model())
    model.compile(optimizer, loss="mse" if isinstance(y, dict) else crossentropy())
    dataset = tf.data.Dataset.from_tensor_slices((X.astype("float32"), y)).shuffle(10, seed=1).batch(4)
    fit(model, tap(dataset), *callbacks, epochs=2, **arguments)
    return model.get_weights()


# The contract compares the weights of each of its trainings every time.
@pytest.mark.nightly
@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: several_outputs(as_dict), id="several outputs"),
        pytest.param(penalised, id="penalties"),
    ],
)
def test_recording_does_not_change_training(tmp_path: Path, model: Any):
    y = LABELS if model is penalised else OUTPUTS
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    ours = trained_weights(xtf.PathAdamW(0.01), logger, tap=logger.tap, model=model, y=y)
    theirs = trained_weights(keras.optimizers.AdamW(0.01), tap=lambda dataset: dataset, model=model, y=y)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    xtf.open_run(tmp_path / "run").verify(progress=False)


def test_class_weights_of_fit_are_recorded_after_an_earlier_fit_with_them(tmp_path: Path):
    """The training function of that fit exists already. It is used again after the recording."""
    model = initialised(one_output())
    model.compile(xtf.PathAdamW(0.01), loss=crossentropy())
    dataset = tf.data.Dataset.from_tensor_slices((X.astype("float32"), LABELS)).batch(5)
    weights = {0: 1.0, 2: 3.0}
    fit(model, dataset, class_weight=weights)
    known = model.train_function
    fit(model, dataset, xtf.PathLogger(tmp_path / "run", verbose=False), class_weight=weights)
    run = xtf.open_run(tmp_path / "run")
    expected = np.where(LABELS[:5] == 2, 3.0, 1.0)
    np.testing.assert_array_equal(np.ravel(run.step_store.transition(0).weights[0]), expected)
    run.verify(progress=False)
    assert model.train_function is known and "train_step" not in vars(model)


def test_class_weights_at_the_tap_train_as_those_of_fit(tmp_path: Path):
    weights = {0: 0.5, 2: 3}
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    ours = trained_weights(
        xtf.PathAdamW(0.01), logger, tap=lambda dataset: logger.tap(dataset, class_weight=weights)
    )
    theirs = trained_weights(keras.optimizers.AdamW(0.01), tap=lambda dataset: dataset, class_weight=weights)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("float64")
class TestMeasurementsOfSeveralOutputs:
    @pytest.fixture
    def run(self, runs: Callable[[str], xtf.Run]) -> xtf.Run:
        return runs("dict of outputs and weights")

    def test_outputs_stand_side_by_side_by_sorted_key(self, run: xtf.Run):
        everything = run.attribute(X, progress=False)
        assert everything.sizes["output"] == 2 * CLASSES + 1
        last = run.attribute(X, lambda outputs: outputs["c"], progress=False)
        np.testing.assert_allclose(everything.final[:, -1], last.final[:, 0], rtol=1e-12)

    def test_measurement_of_a_class_takes_one_of_them(self, run: xtf.Run):
        by_name = run.attribute(X, xtf.measurements.log_prob(LABELS, output="b"), progress=False)
        by_place = run.attribute(X, xtf.measurements.log_prob(LABELS, output=1), progress=False)
        np.testing.assert_array_equal(by_name.final, by_place.final)
        logits = run.attribute(X, lambda outputs: outputs["b"], progress=False).final
        expected = tf.nn.log_softmax(logits.values).numpy()[np.arange(COUNT), LABELS]
        np.testing.assert_allclose(by_name.final[:, 0], expected, rtol=1e-12)

    @pytest.mark.parametrize("output", [None, "d", 3])
    def test_other_outputs_are_refused_with_the_choice(self, run: xtf.Run, output: Any):
        for make in (xtf.measurements.log_prob, xtf.measurements.margin):
            with pytest.raises(ValueError, match=r"returns 3\. .*one of \['a', 'b', 'c'\].*from 0 to 2"):
                run.attribute(X, make(LABELS, output=output), progress=False)

    def test_structure_is_in_the_manifest(self, run: xtf.Run):
        assert {key: leaf.shape for key, leaf in run.manifest.outputs.items()} == {
            "a": (3,),
            "b": (3,),
            "c": (1,),
        }
