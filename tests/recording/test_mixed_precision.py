"""Training in mixed precision: bits of Keras, skipped steps, and what low precision did to a prediction."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import explaind_tf as xtf
from tests import helpers
from tests.helpers import batches, double_precision, dtype_policy, fit, record
from tests.nightly import sweep

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
# Targets so large that float16 overflows at Keras' first loss scales, and steps are skipped.
Y = (3000 * X[:, :1] + RNG.normal(size=(24, 1))).astype("float32")
# Float16 also skips steps. A single layer is trained in bfloat16 every time.
POLICIES = sweep(("mixed_bfloat16", "mixed_float16"), core=("mixed_float16",))


def trained(
    policy: str, optimizer: type, *, logger: Any = None, own_policy: str | None = None
) -> keras.Model:
    """Return a model that was trained for 24 steps, as Keras trains it or recorded."""
    with dtype_policy(policy):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((6,)),
                layers.Dense(8, dtype=own_policy),
                layers.BatchNormalization(),
                layers.ReLU(),
                layers.Dense(1, dtype="float32"),
            ]
        )
        model.compile(optimizer(0.05), loss="mse", jit_compile=False)
        dataset = batches(X, Y, size=6)
        callbacks = [] if logger is None else [logger]
        fit(model, dataset if logger is None else logger.tap(dataset), *callbacks, epochs=6)
    return model


def recorded(run_dir: Path, policy: str, **options: Any) -> tuple[xtf.Run, keras.Model]:
    own_policy = options.pop("own_policy", None)
    logger = xtf.PathLogger(run_dir, verbose=False, **options)
    model = trained(policy, xtf.PathAdamW, logger=logger, own_policy=own_policy)
    return xtf.open_run(run_dir), model


def skipped(run: xtf.Run) -> list[int]:
    return [int(step) for step in run.steps if run.step_store.transition(int(step)).is_skipped]


@pytest.fixture(scope="module", params=POLICIES)
def run_and_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    run, model = recorded(tmp_path_factory.mktemp("mixed") / "run", request.param)
    return run, model, request.param


def test_the_bits_are_those_of_keras(run_and_model):
    _, model, policy = run_and_model
    plain = trained(policy, keras.optimizers.AdamW)
    for ours, theirs in zip(model.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


def test_every_batch_is_a_step_and_skipped_ones_are_told(run_and_model):
    run, _, policy = run_and_model
    assert len(run.steps) == 24
    assert bool(skipped(run)) == (policy == "mixed_float16")
    run.verify(progress=False)


def test_the_ledger_is_that_of_the_real_model(run_and_model):
    run, model, _ = run_and_model
    whole = run.attribute(X[:3], progress=False)
    np.testing.assert_array_equal(whole.final, model(X[:3], training=False))
    scale = float(whole.movement.max())
    assert 1e-5 * scale < float(np.abs(whole.precision).max()) < 0.1 * scale
    by_layer, by_sample = (
        run.attribute(X[:3], axes=axes, progress=False) for axes in (("layer", "step"), ("sample", "step"))
    )
    for ledger in (by_layer, by_sample):
        ledger.explaind.check()
        for term, found in helpers.totals(ledger).items():
            np.testing.assert_allclose(found, whole[term], atol=1e-6 * scale, err_msg=term)
    assert not by_layer.data.sel(step=skipped(run)).values.any()


def test_the_analysis_is_that_of_the_twin_in_float32(run_and_model):
    run, model, _ = run_and_model
    with dtype_policy("float32"):
        twin = keras.Sequential(
            [keras.Input((6,)), layers.Dense(8), layers.BatchNormalization(), layers.ReLU(), layers.Dense(1)]
        )
    twin.set_weights(model.get_weights())
    ledger = run.attribute(X[:3], axes=("step",), progress=False)
    others = sum(ledger.explaind.total(t) for t in ledger.explaind.terms if t != "precision")
    lost_at_start = ledger.initial - (twin(X[:3], training=False).numpy() - others)
    assert float(np.abs(lost_at_start).max()) < 0.02 * float(ledger.movement.max())


@pytest.mark.nightly
def test_a_skipped_step_is_trained_again_between_keyframes(tmp_path):
    run, model = recorded(tmp_path / "run", "mixed_float16", every=5)
    assert skipped(run)
    ledger = run.attribute(X[:3], axes=("sample",), progress=False)
    ledger.explaind.check()
    np.testing.assert_array_equal(ledger.final, model(X[:3], training=False))


def test_a_single_layer_in_low_precision(tmp_path):
    run, model = recorded(tmp_path / "run", "float32", own_policy="mixed_bfloat16")
    ledger = run.attribute(X[:3], axes=("sample",), progress=False)
    ledger.explaind.check()
    np.testing.assert_array_equal(ledger.final, model(X[:3], training=False))
    assert float(np.abs(ledger.precision).max()) > 0


def test_float64_settles_what_float32_rounds(tmp_path):
    run, _ = recorded(tmp_path / "run", "float32")
    assert "precision" not in run.attribute(X[:3], progress=False)
    ledger = run.attribute(X[:3], dtype="float64", progress=False)
    ledger.explaind.check()
    assert ledger.attrs["precision_of_analysis"] == "float64"
    assert 0 < float(np.abs(ledger.precision).max()) < 1e-5 * float(ledger.movement.max())


def test_an_analysis_is_no_less_precise_than_the_run(tmp_path):
    with double_precision():
        run = record(tmp_path / "run").open()
    with pytest.raises(
        ValueError, match="dtype='float32' is less precise than the run, whose weights are float64"
    ):
        run.attribute(helpers.X[:2].astype("float64"), dtype="float32", progress=False)
