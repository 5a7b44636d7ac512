"""Trainings of which it is not known how they depend on the weights of samples: they are refused, not answered."""

from pathlib import Path
from typing import Any

import keras
import pytest

import explaind_tf as xtf
from tests.helpers import X, Y, batches, dense_model, fit

pytestmark = pytest.mark.slow


class Setting(keras.callbacks.Callback):
    """Sets a weight after each epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.trainable_variables[-1].assign([0.5, -0.5])


@pytest.mark.parametrize(
    ("optimizer", "callbacks", "message"),
    [
        (lambda: xtf.PathAdam(0.01, amsgrad=True), [], "Train with amsgrad=False"),
        (lambda: xtf.PathRMSprop(0.01), [], "is not known for RMSprop"),
        (lambda: xtf.PathAdam(0.01), [Setting()], "Something other than the optimizer's step set weights"),
    ],
    ids=["amsgrad", "no update", "a callback"],
)
def test_it_is_refused(run_dir: Path, optimizer: Any, callbacks: list[Any], message: str):
    model = dense_model()
    model.compile(optimizer(), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    fit(model, logger.tap(batches(X, Y)), *callbacks, logger, epochs=2)
    with pytest.raises(xtf.RefusedError, match=message):
        xtf.open_run(run_dir).counterfactual(X[:1], progress=False)
