"""A new law, added as docs/architecture.md says: one class and one line of registration."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import laws
from explaind_tf.laws import Moments, StepFactors, decoupled_decay
from explaind_tf.optimizers import PathOptimizer
from tests.helpers import X, batches, dense_model, fit

pytestmark = pytest.mark.slow


class CubeRoot(keras.optimizers.Adagrad):
    """An optimizer of one's own: as Adagrad, but it divides by the cube root."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        accumulator = self._accumulators[self._get_variable_index(variable)]
        self.assign_add(accumulator, tf.square(gradient))
        self.assign_sub(variable, learning_rate * gradient / (accumulator + self.epsilon) ** (1 / 3))


@dataclass(frozen=True)
class CubeRootLaw(laws.Law):
    """Δθ_s = −η_s g_s / ∛(a_s + ε) with a_s = a_{s−1} + g_s²: no momentum."""

    epsilon: float
    weight_decay: float

    name: ClassVar[str] = "CubeRoot"
    divides_by_second_moment: ClassVar[bool] = True

    @property
    def memory(self) -> float:
        return 0.0

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        sums = tf.constant(after.second_moment)
        return StepFactors(1.0, -tf.cast(learning_rate, sums.dtype) / (sums + self.epsilon) ** (1 / 3), 0.0)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)


class PathCubeRoot(PathOptimizer, CubeRoot):
    """The optimizer with its law and its moments, which the ledger needs."""

    def law(self) -> CubeRootLaw:
        return CubeRootLaw(epsilon=float(self.epsilon), weight_decay=float(self.weight_decay or 0.0))

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        variables = self._trainable_variables if variables is None else variables
        return [], [self._accumulators[self._get_variable_index(variable)] for variable in variables]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(laws, "_LAWS", dict(laws._LAWS))
    laws.register(CubeRootLaw)
    model = dense_model()
    model.compile(PathCubeRoot(0.05, weight_decay=0.1), "mse")
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
