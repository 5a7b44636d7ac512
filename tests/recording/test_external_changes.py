"""Changes of weights and state by something other than the optimizer are kept separate from its steps."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from tests.helpers import (
    CLASSES,
    dense_model,
    flat,
    flat_theta,
)
from tests.recording.fits import record_model

pytestmark = pytest.mark.slow


class Meddler(keras.callbacks.Callback):
    """Sets the weights at one moment of training."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when
        self.left, self.found = [], []

    def meddle(self, when: str, number: int) -> None:
        if when == self.when and number == 1:
            self.found.append(flat(self.model.trainable_variables))
            self.model.set_weights([1.5 * weight for weight in self.model.get_weights()])
            self.left.append(flat(self.model.trainable_variables))

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.meddle("batch begin", batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.meddle("batch end", batch)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.meddle("epoch begin", epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.meddle("epoch end", epoch)

    def on_train_end(self, logs: Any = None) -> None:
        self.meddle("train end", 1)


class TestWeightsSetByOthers:
    @pytest.mark.parametrize(
        ("when", "step", "order"),
        [
            ("batch end", 1, "logger first"),
            ("batch begin", 0, "logger last"),
            ("epoch begin", 2, "logger first"),
            ("train end", 5, "logger last"),
            pytest.param("epoch begin", 2, "logger last", marks=pytest.mark.nightly),
            pytest.param("epoch end", 5, "logger first", marks=pytest.mark.nightly),
            pytest.param("epoch end", 5, "logger last", marks=pytest.mark.nightly),
        ],
    )
    def test_change_is_told_apart_from_the_step(self, run_dir: Path, when: str, step: int, order: str):
        meddler = Meddler(when)
        callbacks = ("logger", meddler) if order == "logger first" else (meddler, "logger")
        run = record_model(run_dir, dense_model(), *callbacks)
        transition = run.step_store.transition(step)
        np.testing.assert_array_equal(transition.theta_stepped, meddler.found[0])
        np.testing.assert_array_equal(transition.theta_end, meddler.left[0])
        # The next step starts from the weights that the callback left.
        np.testing.assert_array_equal(flat_theta(run, step + 1), meddler.left[0])
        assert len(run.steps) == 6
        run.verify(progress=False)

    @pytest.mark.parametrize(
        ("when", "order"), [("batch end", "logger last"), ("batch begin", "logger first")]
    )
    def test_change_on_the_far_side_of_the_logger_is_noticed_by_verify(
        self, run_dir: Path, when: str, order: str
    ):
        """The logger reads the weights too late, or too early, to separate such a change from the step."""
        meddler = Meddler(when)
        callbacks = ("logger", meddler) if order == "logger first" else (meddler, "logger")
        run = record_model(run_dir, dense_model(), *callbacks)
        with pytest.raises(xtf.UnbalancedLedgerError, match=r"Step 1 .*callback that sets weights"):
            run.verify(progress=False)

    def test_state_set_between_steps_is_recorded(self, run_dir: Path):
        class Reset(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                if batch == 1:
                    self.model.layers[1].moving_mean.assign([9.0, 9.0])

        model = dense_model(
            keras.layers.Dense(2), keras.layers.BatchNormalization(), keras.layers.Dense(CLASSES)
        )
        run = record_model(run_dir, model, "logger", Reset(), epochs=1)
        np.testing.assert_array_equal(run.step_store.transition(1).state_end[0], [9.0, 9.0])
        np.testing.assert_array_equal(run.step_store.transition(2).state_start[0], [9.0, 9.0])
