"""The ledger of a network with ReLUs and pooling, recorded under a schedule, with clipping and ragged batches."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf.sweeps import choose
from tests.nightly import sweep

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("many_at_once")]

TOLERANCE = 1e-4
KINDS = ("plain", "batch_norm")


@pytest.fixture(name="recordings", scope="module")
def _recordings(tmp_path_factory):
    """Return a function that records a model of each kind once."""
    return functools.cache(lambda kind: _record(kind, tmp_path_factory.mktemp("kinks") / "run"))


@pytest.fixture(name="recorded", params=KINDS)
def _recorded(request, recordings):
    return recordings(request.param)


def _record(kind, run_dir):
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(10, 4, 4, 2)).astype("float32")
    y = rng.integers(0, 3, 10)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2D(20, 3, padding="same", activation="relu"),
            *([layers.BatchNormalization(), layers.ReLU()] if kind == "batch_norm" else []),
            layers.MaxPooling2D(2),
            layers.Conv2D(24, 2, padding="same"),
            layers.LeakyReLU(),
            layers.GlobalMaxPooling2D(),
            layers.Dense(3),
        ]
    )
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, 9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(schedule, clipnorm=1.0), loss=loss)
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(10, seed=0).batch(4)
    model.fit(logger.tap(dataset), epochs=3, callbacks=[logger], verbose=0, shuffle=False)
    return run_dir, x[:5]


def _ledger(run_dir, x, axes):
    ledger = xtf.open_run(run_dir).attribute(x, axes=axes, progress=False, tolerance=TOLERANCE)
    ledger.explaind.check()
    return ledger


@pytest.mark.parametrize("recorded", sweep(KINDS, core=("plain",)), indirect=True)
def test_few_nodes_explain_a_step_of_a_model_with_kinks(recorded):
    ledger = _ledger(*recorded, ("step",))
    assert ledger.attrs["quadrature_nodes"] <= 2.5 * ledger.sizes["input"] * ledger.sizes["step"]


# Entries are compared one by one with the oracle, and with an integral in float64, every time.
@pytest.mark.parametrize("recorded", sweep(KINDS), indirect=True)
def test_entries_converge_with_the_tolerance_each_on_its_own(recorded):
    # The tolerance bounds the sum of entries. In the first steps, entries of samples are many times larger and cancel, so
    # each may be off by more. Their own errors must fall with the tolerance, but need not be below it.
    run_dir, x = recorded
    run, axes = xtf.open_run(run_dir), ("sample", "layer")
    rough, finer, fine = (
        run.attribute(x, axes=axes, progress=False, tolerance=t).data for t in (1e-3, 1e-4, 1e-5)
    )
    assert float(abs(finer - fine).max()) < 0.5 * float(abs(rough - fine).max())
    assert float(abs(finer - fine).max()) < 0.02 * float(abs(fine).max())


# test_losses.py compares routes, and test_kinks.py the rules at kinks, every time.
@pytest.mark.parametrize("recorded", sweep(KINDS), indirect=True)
def test_samples_by_rules_by_a_loop_and_by_step_are_the_same(recorded, monkeypatch):
    axes = ("sample", "layer")
    by_rule, by_step = _ledger(*recorded, axes), _ledger(*recorded, ("step",))
    is_coupled = "jvp" in by_rule.attrs["method"]  # BatchNorm
    assert is_coupled or "rules" in by_rule.attrs["method"]
    movement = float(by_rule.movement.max())
    whole = by_rule.data.sum(("sample", "layer"))
    # Both are exact to the tolerance, and they share the path sweep's nodes.
    assert float(abs(whole - by_step.data.sum("step")).max()) < TOLERANCE * movement
    monkeypatch.setattr(choose.trials, "sample_products_hold", lambda *_: False)
    monkeypatch.setattr(choose.trials, "row_rules_hold", lambda *_, **__: False)
    by_loop = _ledger(*recorded, axes)
    assert "rules" not in by_loop.attrs["method"]
    assert is_coupled == ("jvp" in by_loop.attrs["method"])
    np.testing.assert_allclose(by_rule.data, by_loop.data, atol=1e-5 * movement)
