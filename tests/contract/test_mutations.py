"""Five typical faults of an AdamW ledger are planted on purpose, and each must be found.

A test suite that passes with a wrong law proves nothing. Implementations of the theorem have had these faults. With them
a ledger looks reasonable and is off by per cents.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf.laws import AdamWLaw, Moments, StepFactors
from explaind_tf.replay.replay import Replay
from tests.helpers import batches, dense_model, double_precision, fit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("many_at_once")]

# In float64 the ledger of this run balances to 1e-10. The smallest fault changes it by 1e-5.
TOLERANCE = 1e-8

Patch = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Nine steps, in batches of 4, 4 and 2 samples, with a falling learning rate, strong decay and a large ε."""
    with double_precision():
        rng = np.random.default_rng(2)
        x, y = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
        model = dense_model(keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(2))
        schedule = keras.optimizers.schedules.CosineDecay(0.05, 12)
        model.compile(xtf.PathAdamW(schedule, weight_decay=0.5, epsilon=1e-3), loss="mse")
        logger = xtf.PathLogger(Path(tmp_path_factory.mktemp("mutations")) / "run", verbose=False)
        fit(model, logger.tap(batches(x, y).shuffle(3, seed=0)), logger, epochs=3)
        yield xtf.open_run(logger.run_dir), x[:2]


def wrong_bias_correction(patch: pytest.MonkeyPatch) -> None:
    """Corrects the bias for one step too few, and not at all in the first step."""
    right = AdamWLaw.factors

    def factors(
        self: AdamWLaw, before: Moments, after: Moments, learning_rate: float, iteration: int
    ) -> StepFactors:
        return right(self, before, after, learning_rate, max(iteration - 1, 0))

    patch.setattr(AdamWLaw, "factors", factors)


def epsilon_inside_the_root(patch: pytest.MonkeyPatch) -> None:
    """Divides by √(v + ε) instead of √v + ε."""
    right = AdamWLaw.factors

    def factors(
        self: AdamWLaw, before: Moments, after: Moments, learning_rate: float, iteration: int
    ) -> StepFactors:
        found = right(self, before, after, learning_rate, iteration)
        second_moment = tf.constant(after.second_moment)
        wrong = (tf.sqrt(second_moment) + self.epsilon) / tf.sqrt(second_moment + self.epsilon)
        return StepFactors(found.gain, found.pull * wrong, found.direct)

    patch.setattr(AdamWLaw, "factors", factors)


def decay_after_the_step(patch: pytest.MonkeyPatch) -> None:
    """Decays the weights after the Adam step: −ηλ(θ − P m) instead of −ηλθ."""
    right = AdamWLaw.factors

    def factors(
        self: AdamWLaw, before: Moments, after: Moments, learning_rate: float, iteration: int
    ) -> StepFactors:
        found = right(self, before, after, learning_rate, iteration)
        return StepFactors(found.gain, found.pull * (1 - learning_rate * self.weight_decay), found.direct)

    patch.setattr(AdamWLaw, "factors", factors)


def current_batch_size_on_carried_momentum(patch: pytest.MonkeyPatch) -> None:
    """Sums the momentum over samples, and divides all of it by the size of the current batch."""
    causes_right, coefficients_right = Replay._causes, Replay._coefficients

    def causes(self: Replay, transition: Any, flows: Any) -> Any:
        size = len(transition.rows)
        before = self.run.step_store.rows(transition.step - 1) if transition.step else transition.rows
        ratio = len(before) / size
        for flow in flows.values():
            flow.momentum = flow.momentum * ratio
        return causes_right(self, transition, flows)

    def coefficients(self: Replay, transition: Any, waiting: Any) -> Any:
        found, size = coefficients_right(self, transition, waiting), len(transition.rows)
        return dataclasses.replace(found, pull=found.pull / size, scale=found.scale * size)

    patch.setattr(Replay, "_causes", causes)
    patch.setattr(Replay, "_coefficients", coefficients)


def learning_rate_of_the_step_before(patch: pytest.MonkeyPatch) -> None:
    """Uses the learning rate of the previous step."""
    right = Replay.step

    def step(self: Replay, number: int) -> Any:
        found = right(self, number)
        wrong = self.run.step_store.transition(max(number - 1, 0)).learning_rate
        transition = dataclasses.replace(found.transition, learning_rate=wrong)
        return dataclasses.replace(found, transition=transition)

    patch.setattr(Replay, "step", step)


def account(run: Any) -> None:
    recorded, x = run
    recorded.attribute(x, tolerance=TOLERANCE, progress=False).explaind.check(strict=True)


def account_for_samples(run: Any) -> None:
    recorded, x = run
    recorded.attribute(x, axes=("sample",), tolerance=TOLERANCE, progress=False).explaind.check(strict=True)


def verify(run: Any) -> None:
    recorded, _ = run
    recorded.verify(progress=False)


EVERYWHERE = (account, account_for_samples, verify)
# Without samples the recorded momentum is used, so a fault in carrying momentum has no effect.
FAULTS: dict[Patch, tuple[Callable[[Any], None], ...]] = {
    wrong_bias_correction: EVERYWHERE,
    epsilon_inside_the_root: EVERYWHERE,
    decay_after_the_step: EVERYWHERE,
    current_batch_size_on_carried_momentum: (account_for_samples, verify),
    learning_rate_of_the_step_before: EVERYWHERE,
}


@pytest.mark.parametrize("look", EVERYWHERE, ids=lambda look: look.__name__)
def test_right_law_balances(run: Any, look: Callable[[Any], None]):
    look(run)


@pytest.mark.parametrize(
    ("fault", "look"),
    [
        pytest.param(fault, look, id=f"{fault.__name__}-{look.__name__}")
        for fault, ways in FAULTS.items()
        for look in ways
    ],
)
def test_every_fault_is_found(
    run: Any, fault: Patch, look: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
):
    fault(monkeypatch)
    with pytest.raises(xtf.UnbalancedLedgerError):
        look(run)


class TestSgd:
    """A typical fault with SGD: the learning rate of the effect step is used instead of that of the use step."""

    def test_learning_rate_of_the_effect_step_is_found(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        with double_precision():
            rng = np.random.default_rng(2)
            x, y = rng.normal(size=(10, 3)), rng.normal(size=(10, 2))
            model = dense_model()
            schedule = keras.optimizers.schedules.CosineDecay(0.1, 12)
            model.compile(xtf.PathSGD(schedule, momentum=0.9, nesterov=True), loss="mse")
            logger = xtf.PathLogger(tmp_path / "run", verbose=False)
            fit(model, logger.tap(batches(x, y)), logger, epochs=3)
            recorded = xtf.open_run(logger.run_dir)
            account_for_samples((recorded, x[:2]))
            learning_rate_of_the_step_before(monkeypatch)
            with pytest.raises(xtf.UnbalancedLedgerError):
                account_for_samples((recorded, x[:2]))
