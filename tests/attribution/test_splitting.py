"""The reverse sweep splits steps into the same causes as the path sweep, by layer and by step."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf import constants as names
from tests.helpers import CLASSES, X, batches, dense_model, double_precision, fit
from tests.nightly import sweep

pytestmark = pytest.mark.slow

SCHEDULE = keras.optimizers.schedules.PolynomialDecay(0.05, 9, 0.01)
OPTIMIZERS = {
    "AdamW": lambda: xtf.PathAdamW(SCHEDULE, weight_decay=0.1),
    "Nesterov": lambda: xtf.PathSGD(SCHEDULE, momentum=0.9, nesterov=True, weight_decay=0.1),
}


class Nudge(keras.callbacks.Callback):
    """Sets weights and moving averages between two steps."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 1:
            self.model.set_weights([1.01 * weight for weight in self.model.get_weights()])


# By day, test_oracle.py compares the entries of both sweeps with the oracle, and test_run.py their totals, for all causes.
@pytest.mark.parametrize("name", sweep(OPTIMIZERS, daily=False))
def test_causes_are_those_of_the_path_sweep(run_dir: Path, name: str):
    # Batches of 4 + 4 + 2, a schedule, decay, state that drifts, and weights that are set from outside.
    with double_precision():
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(CLASSES)]
        model = dense_model(*layers)
        model.compile(OPTIMIZERS[name](), loss="mse", run_eagerly=True)
        logger = xtf.PathLogger(run_dir, verbose=False)
        fit(model, logger.tap(batches()), Nudge(), logger, epochs=3)
        run = xtf.open_run(run_dir)
    options = {"steps": range(2, 9), "tolerance": 1e-6, "progress": False}
    forwards = run.attribute(X[:3], axes=("layer", "step"), **options)
    backwards = run.attribute(X[:3], axes=("sample", "layer", "step"), step_of="effect", **options)
    assert "parts" in forwards.attrs["method"] and "parts" not in backwards.attrs["method"]
    atol = 1e-10 * float(forwards.movement.max())
    for term in forwards.explaind.terms:
        found = backwards.data.sum(names.SAMPLE) if term == names.DATA else backwards[term]
        wanted = forwards[term].transpose(*found.dims)
        if term != names.RESIDUAL:
            assert float(np.abs(wanted).max()) > 0 or term in (names.REGULARIZER, names.CARRYOVER)
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol, err_msg=term)
