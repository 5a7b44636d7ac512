"""What all laws share, and laws of other packages."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from explaind_tf import laws
from explaind_tf.laws import (
    AdadeltaLaw,
    AdafactorLaw,
    AdagradLaw,
    AdamaxLaw,
    AdamWLaw,
    CenteredRMSpropLaw,
    Law,
    LionLaw,
    Moments,
    NadamLaw,
    RMSpropLaw,
    SGDLaw,
    StepFactors,
    clip_ratio,
    law_from_config,
    register,
)


@given(
    memory=st.floats(0, 0.999),
    vectors=st.lists(st.tuples(*[st.floats(-1e3, 1e3)] * 4), min_size=1, max_size=5),
    is_adam=st.booleans(),
)
def test_momentum_is_linear_so_that_causes_add_up(
    memory: float, vectors: list[tuple[float, ...]], is_adam: bool
):
    law = AdamWLaw(memory, 0.99, 1e-7, 0.1) if is_adam else SGDLaw(memory, False, 0.0)
    rate = 0.3
    m_1, m_2, g_1, g_2 = (tf.constant(column, tf.float64) for column in zip(*vectors, strict=True))
    after = Moments(np.zeros(len(vectors)), None, np.ones(len(vectors)))
    gain = law.factors(after, after, rate, 0).gain
    whole = law.momentum(m_1 + m_2, g_1 + g_2, gain)
    parts = law.momentum(m_1, g_1, gain) + law.momentum(m_2, g_2, gain)
    # Sums of at most 8 products of numbers up to 1e3, rounded to 1e-16 each.
    np.testing.assert_allclose(whole, parts, rtol=0, atol=1e-11)
    np.testing.assert_allclose(
        law.momentum(m_1, g_1, gain), law.memory * m_1 + gain * g_1, rtol=0, atol=1e-11
    )


def test_clip_ratio_is_zero_where_the_gradient_is():
    ratio = clip_ratio(tf.constant([-4.0, 0.0, 0.5, 2.0]), 1.0)
    np.testing.assert_array_equal(ratio, [0.25, 0.0, 1.0, 0.5])


@pytest.mark.parametrize("constants", [{}, {"beta_1": 0.9}, {"of": "another law"}, {"beta_1": None}])
def test_constants_that_are_not_the_laws_are_refused(constants: dict):
    with pytest.raises((TypeError, ValueError)):
        law_from_config("AdamW", constants)


MASK = np.array([1.0, 0.0, 1.0])
THETA = np.array([0.5, -2.0, 1.5])
GRADIENT = np.array([0.1, -3.0, 1e-3])
SECOND = np.array([0.2, 0.3, 0.4])
FURTHER = {
    "u_product": np.array(0.45),
    "average_gradient": np.array([0.1, -0.2, 0.3]),
    "accumulated_delta_var": np.array([0.01, 0.02, 0.0]),
    "update_scale": np.array([0.5, 0.5, 2.0]),
}
LAWS: list[Law] = [
    AdadeltaLaw(1e-7, 0.1),
    AdafactorLaw(0.1),
    AdagradLaw(1e-7, 0.1),
    AdamWLaw(0.9, 0.98, 1e-7, 0.1),
    AdamaxLaw(0.9, 1e-7, 0.1),
    CenteredRMSpropLaw(0.9, 1e-7, 0.1),
    LionLaw(0.9, 0.99, 0.1),
    NadamLaw(0.9, 0.98, 1e-7, 0.1),
    RMSpropLaw(0.9, 1e-7, 0.1),
    RMSpropLaw(0.0, 1e-7, 0.1),
    SGDLaw(0.9, True, 0.1),
]


@dataclass(frozen=True)
class ScaledLaw(Law):
    """Keeps no momentum, and divides by the second moment."""

    weight_decay: float

    name: ClassVar[str] = "scaled"
    divides_by_second_moment: ClassVar[bool] = True
    memory: ClassVar[float] = 0.0

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        return StepFactors(1.0, -learning_rate / tf.sqrt(after.second_moment), 0.0)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        return -theta * mask * self.weight_decay * learning_rate


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_law_survives_its_config(law: Law):
    assert law_from_config(law.name, law.to_config()) == law


def before_and_after(law: Law, rate: float) -> tuple[Moments, Moments]:
    """Return weights and moments around an update by a law."""
    has_momentum = law.memory > 0
    start = np.array([1.0, -0.5, 0.0]) if has_momentum else np.zeros(3)
    before = Moments(THETA, start, SECOND, FURTHER)
    gain = law.factors(before, before, rate, 0).gain  # it does not depend on the momentum
    momentum = law.momentum(tf.constant(start), tf.constant(GRADIENT), gain).numpy()
    factors = law.factors(before, replace(before, momentum=momentum), rate, 0)
    decay = law.decay(tf.constant(THETA), tf.constant(MASK), rate).numpy()
    theta = THETA + decay + factors.pull.numpy() * momentum + np.asarray(factors.direct) * GRADIENT
    after = Moments(theta, momentum if has_momentum else None, SECOND, FURTHER)
    return replace(before, momentum=start if has_momentum else None), after


@pytest.mark.parametrize("law", [*LAWS, SGDLaw(0.0, False, 0.1), ScaledLaw(0.1)], ids=repr)
def test_the_gradient_is_recovered_from_what_an_update_led_to(law: Law):
    found = law.used_gradient(*before_and_after(law, 0.3), MASK, 0.3, 0)
    assert found is not None
    own = 8 * np.finfo(float).eps * np.abs(GRADIENT)
    assert (np.abs(found.value - GRADIENT) <= found.rounding + own).all()


def test_lion_moves_every_weight_by_the_learning_rate():
    law = LionLaw(0.9, 0.99, 0.0)
    before, after = before_and_after(law, 0.3)
    assert before.momentum is not None
    expected = -0.3 * np.sign(0.9 * before.momentum + 0.1 * GRADIENT)
    np.testing.assert_allclose(after.theta - before.theta, expected, rtol=1e-12)


def test_lion_does_not_move_a_weight_without_gradients():
    zeros = Moments(THETA, np.zeros(3), None)
    factors = LionLaw(0.9, 0.99, 0.0).factors(zeros, zeros, 0.3, 0)
    np.testing.assert_array_equal(factors.pull, np.zeros(3))
    np.testing.assert_array_equal(factors.direct, np.zeros(3))


@pytest.mark.parametrize("beta_2", [0.0, 1.0])
def test_lion_needs_a_momentum_that_shows_the_gradient(beta_2: float):
    with pytest.raises(ValueError, match=r"beta_2=.*between 0 and 1"):
        LionLaw(0.9, beta_2, 0.0)


def test_further_variables_are_read_by_name():
    """Vectors are one array for each variable of the model, of its shape or with one element."""
    u_product, others = np.array(0.5), [np.zeros(()), np.ones(2)]
    assert NadamLaw(0.9, 0.99, 1e-7, 0.0).further([u_product, *others], [2, 3]) == {"u_product": u_product}
    arrays = [np.array(2.0), np.arange(6.0).reshape(2, 3), *others]
    (found,) = AdafactorLaw(0.0).further(arrays, [2, 6]).values()
    np.testing.assert_array_equal(found, [2.0, 2.0, *range(6)])
    assert AdamWLaw(0.9, 0.98, 1e-7, 0.1).further(others, [2, 3]) == {}


def test_a_learning_rate_of_zero_leaves_nothing_to_recover():
    before = Moments(THETA, np.zeros(3), None)
    assert SGDLaw(0.9, False, 0.0).used_gradient(before, before, MASK, 0.0, 0) is None


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(laws, "_LAWS", dict(laws._LAWS))
    yield


@pytest.mark.usefixtures("registry")
def test_a_law_of_another_package_is_registered_in_one_line():
    register(ScaledLaw)
    assert law_from_config("scaled", ScaledLaw(0.5).to_config()) == ScaledLaw(0.5)
    with pytest.raises(ValueError, match=r"A law named 'scaled' is registered already\."):
        register(ScaledLaw)
