"""Frozen weights are recorded once, whatever sets them, and a filter says which weights may move."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf import RefusedError
from tests.helpers import Spy, batches, dense_model, fit

WIDE = 2000


def with_a_frozen_layer() -> keras.Model:
    model = dense_model(keras.layers.Dense(WIDE, "tanh", trainable=False), keras.layers.Dense(2))
    model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
    return model


class Shifts(keras.callbacks.Callback):
    """Moves a frozen bias before the fourth step."""

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.model.optimizer.iterations == 3:
            self.model.layers[0].bias.assign_add(np.full(WIDE, 0.1, np.float32))


def steps_bytes(run_dir: Path) -> int:
    return sum(path.stat().st_size for path in run_dir.glob("steps*"))


def test_frozen_weights_are_recorded_once(run_dir: Path):
    model, spy = with_a_frozen_layer(), Spy()
    logger = xtf.PathLogger(run_dir, verbose=False, retrain=False)
    fit(model, batches(), logger, spy, epochs=2)
    frozen, moving = 4 * 4 * WIDE, 3 * 4 * (2 * WIDE + 2)
    assert steps_bytes(run_dir) < frozen + 7 * (moving + 2000)
    run = xtf.open_run(run_dir)
    for step, state in enumerate(spy.state):
        for found, known in zip(run.step_store.step(step).known.state, state, strict=True):
            np.testing.assert_array_equal(found, known)


def test_frozen_weights_that_a_callback_sets_are_recorded(run_dir: Path):
    model, spy = with_a_frozen_layer(), Spy()
    logger = xtf.PathLogger(run_dir, verbose=False, retrain=False)
    fit(model, batches(), Shifts(), logger, spy, epochs=2)
    run = xtf.open_run(run_dir)
    for step, state in enumerate(spy.state):
        for found, known in zip(run.step_store.step(step).known.state, state, strict=True):
            np.testing.assert_array_equal(found, known)
    x = np.ones((1, 3), "float32")
    ledger = run.attribute(x, axes=("step",), progress=False)
    ledger.explaind.check()
    assert float(np.abs(ledger.state).sum()) > 0


@pytest.mark.parametrize("variables", ["*dense*/bias", ["nothing", "*/bias"], lambda path: "bias" in path])
def test_weights_that_may_not_move_are_refused(run_dir: Path, variables: Any):
    logger = xtf.PathLogger(run_dir, verbose=False, variables=variables)
    with pytest.raises(RefusedError, match=r"leaves out 1 of the 2 trainable variables: .*/kernel"):
        fit(with_a_frozen_layer(), batches(), logger)
    assert not run_dir.exists()


def test_what_a_step_takes_is_said_before_training(run_dir: Path, capsys: pytest.CaptureFixture[str]):
    said: list[str] = []

    class Listens(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            said.append(capsys.readouterr().out)

    logger = xtf.PathLogger(run_dir, variables="*", retrain=False)
    fit(with_a_frozen_layer(), batches(), logger, Listens())
    assert "4,002 weights move, 12 bytes each in a step, 48.0 kB a step, 144.1 kB in 3 steps" in said[0]


def test_variables_must_be_patterns_or_a_function(run_dir: Path):
    with pytest.raises(ValueError, match="variables must be a pattern of paths"):
        xtf.PathLogger(run_dir, variables=[3])  # type: ignore[list-item]
