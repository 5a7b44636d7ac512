"""What a law reads besides the moments is in the record, as it was in each step."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from tests.helpers import X, batches, dense_model, fit
from tests.nightly import sweep

pytestmark = pytest.mark.slow

OPTIMIZERS = {
    "Nadam": lambda: xtf.PathNadam(0.05),
    "Adafactor": lambda: xtf.PathAdafactor(0.05),
    "Adadelta": lambda: xtf.PathAdadelta(1.0),
    "RMSprop": lambda: xtf.PathRMSprop(0.05, centered=True, momentum=0.5),
    "Lion": lambda: xtf.PathLion(0.01),
}


def record(name: str, run_dir: Path, *, spe: int = 1, **options: Any) -> Any:
    """Record six steps and return the run."""
    model = dense_model(keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(2))
    model.compile(OPTIMIZERS[name](), "mse", steps_per_execution=spe, jit_compile=False)
    fit(model, batches(), xtf.PathLogger(run_dir, verbose=False, **options), epochs=2)
    return xtf.open_run(run_dir)


@pytest.mark.parametrize("name", sweep(OPTIMIZERS))
def test_steps_between_keyframes_and_of_one_execution_have_it_too(name: str, tmp_path: Path):
    every = record(name, tmp_path / "every")
    others = [record(name, tmp_path / "keyframes", every=4), record(name, tmp_path / "executions", spe=3)]
    for step in reversed(range(6)):
        expected = every.step_store.transition(step)
        for run in others:
            found = run.step_store.transition(step)
            for ours, theirs in zip(found.optimizer, expected.optimizer, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    for run in (every, *others):
        run.attribute(X[:2], axes=("sample", "step"), progress=False).explaind.check()
        run.verify(progress=False)


@pytest.mark.nightly
def test_the_product_of_nadam_is_that_of_its_factors(tmp_path: Path):
    run = record("Nadam", tmp_path / "run")
    factors = 0.9 * (1 - 0.5 * 0.96 ** np.arange(1, 7))
    found = [float(run.step_store.transition(step).optimizer[0]) for step in range(6)]
    np.testing.assert_allclose(found, np.cumprod(factors), rtol=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize("step_of", ["use", "effect"])
def test_a_token_that_lion_saw_long_ago_still_moves_its_row(step_of: str, tmp_path: Path):
    """Lion divides by the momentum, so what is left of an old gradient is not negligible, however small it is."""
    tokens = np.array([[0, 1]] * 2 + [[1, 2]] * 58)
    targets = np.linspace(-1, 1, 60, dtype="float32")[:, None]
    model = keras.Sequential(
        [keras.Input((2,), dtype="int32"), keras.layers.Embedding(3, 2), keras.layers.Flatten()]
    )
    model.add(keras.layers.Dense(1))
    keras.utils.set_random_seed(0)
    model.compile(xtf.PathLion(0.01, beta_1=0.5, beta_2=0.5), "mse")
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    fit(model, batches(tokens, targets, size=2), logger)
    run = xtf.open_run(tmp_path / "run")
    late = run.attribute(
        np.array([[0, 0]]), axes=("sample", "step"), step_of=step_of, steps=range(26, 30), progress=False
    )
    late.explaind.check()
    of_first = late["data"].sel(sample=[0, 1]).sum()
    assert abs(float(of_first)) > 1e-3
