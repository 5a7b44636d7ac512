"""A new law, added as docs/architecture.md says: one class and one line of registration."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import laws
from explaind_tf.laws import StepFactors, decoupled_decay
from explaind_tf.optimizers import PathOptimizer
from tests.helpers import X, batches, dense_model, fit

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class AdagradLaw(laws.Law):
    """Δθ_s = −η_s g_s / √(a_s + ε) with a_s = a_{s−1} + g_s² (keras/src/optimizers/adagrad.py): no momentum."""

    epsilon: float
    weight_decay: float

    name: ClassVar[str] = "Adagrad"
    divides_by_second_moment: ClassVar[bool] = True

    @property
    def memory(self) -> float:
        return 0.0

    @property
    def looks_ahead(self) -> bool:
        return False

    def momentum(self, momentum: tf.Tensor, gradient: tf.Tensor, learning_rate: float) -> tf.Tensor:
        return gradient

    def factors(self, second_moment: tf.Tensor | None, learning_rate: float, iteration: int) -> StepFactors:
        assert second_moment is not None
        rate = tf.cast(learning_rate, second_moment.dtype)
        return StepFactors(1.0, -rate / tf.sqrt(second_moment + self.epsilon), 0.0)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)


class PathAdagrad(PathOptimizer, keras.optimizers.Adagrad):
    """Keras' Adagrad with its law and its moments, which the ledger needs."""

    def law(self) -> AdagradLaw:
        return AdagradLaw(epsilon=float(self.epsilon), weight_decay=float(self.weight_decay or 0.0))

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        variables = self._trainable_variables if variables is None else variables
        return [], [self._accumulators[self._get_variable_index(variable)] for variable in variables]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(laws, "_LAWS", dict(laws._LAWS))
    laws.register(AdagradLaw)
    model = dense_model()
    model.compile(PathAdagrad(0.05, weight_decay=0.1), "mse")
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    fit(model, logger.tap(batches()), logger, epochs=2)
    return xtf.open_run(tmp_path / "run")


def test_a_run_of_a_new_law_balances_by_sample_layer_and_step(run):
    ledger = run.attribute(X[:3], axes=("sample", "layer", "step"))
    ledger.explaind.check()
    whole = run.attribute(X[:3])
    np.testing.assert_allclose(ledger.explaind.total("data"), whole["data"], rtol=1e-4, atol=1e-6)
    assert float(abs(whole["weight_decay"]).max()) > 0
    assert float(abs(whole["external"]).max()) == 0


def test_the_recorded_batches_explain_every_step(run):
    run.verify()


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="AdamW"):
        laws.register(laws.AdamWLaw)
