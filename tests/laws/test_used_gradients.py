"""Gradients that are the same up to rounding, and those that are not."""

import numpy as np
import pytest

from explaind_tf.laws import UsedGradient
from explaind_tf.laws.used_gradients import GAMMA, Preparation, find_mismatch, measured_rounding

EPS = float(np.finfo(np.float32).eps)
RNG = np.random.default_rng(0)
PARTS = RNG.normal(size=(64, 6)).astype("float32")
PARTS[:, 1] -= PARTS[:, 1].mean()  # cancels to its rounding


def gradient(of_weights: np.ndarray, of_samples: np.ndarray) -> np.ndarray:
    """Return the sum of the parts of 64 samples, each times its factors."""
    return (PARTS * of_weights.astype("float32") * of_samples.astype("float32")[:, None]).sum(axis=0)


def measured() -> np.ndarray:
    return measured_rounding(gradient, 64, 6, 0, EPS)


def allowed() -> np.ndarray:
    return GAMMA * measured()


def used(values: np.ndarray) -> UsedGradient:
    return UsedGradient(values.astype("float32"), np.zeros(6))


def test_rounding_is_of_the_size_of_the_parts_not_of_their_sum():
    found, size = measured(), np.sqrt(np.square(PARTS).sum(axis=0))
    np.testing.assert_array_less(found, 10 * EPS * size)
    np.testing.assert_array_less(0.2 * EPS * size, found)
    ones = np.ones(6), np.ones(64)
    assert abs(gradient(*ones)[1]) < found[1] * 10


def test_sums_in_another_order_agree():
    expected = gradient(np.ones(6), np.ones(64))
    for seed in range(20):
        again = PARTS[np.random.default_rng(seed).permutation(64)].sum(axis=0)
        assert find_mismatch(used(again), expected, [2, 4], allowed) is None


def test_one_changed_sample_is_told_with_its_variable():
    expected = gradient(np.ones(6), np.ones(64))
    other = expected + np.float32(1e-2) * np.eye(6, dtype="float32")[3] * PARTS[5, 3]
    found = find_mismatch(used(other), expected, [2, 4], allowed)
    assert found is not None and found.variable == 1
    assert found.difference > 10 * found.allowed


def test_numbers_that_are_not_finite_are_no_equality():
    expected = gradient(np.ones(6), np.ones(64))
    assert find_mismatch(used(expected * np.nan), expected, [2, 4], allowed) is not None


def test_random_numbers_are_no_rounding():
    rng = np.random.default_rng(0)
    assert not measured_rounding(lambda w, s: rng.normal(size=6), 64, 6, 0, EPS).any()


@pytest.mark.parametrize(
    ("preparation", "factor"),
    [(Preparation(), 1), (Preparation(accumulates=4), 1 / 4), (Preparation(2, np.full(6, 0.5)), 1 / 4)],
)
def test_gradients_and_their_errors_are_prepared_alike(preparation, factor):
    values = np.arange(6.0)
    np.testing.assert_allclose(preparation(values), factor * values)
    np.testing.assert_allclose(preparation.scaled(values), factor * values)


def test_clipping_by_value_makes_no_error_larger():
    preparation = Preparation(clipvalue=0.5)
    np.testing.assert_allclose(preparation(np.array([-3.0, 0.2])), [-0.5, 0.2])
    np.testing.assert_allclose(preparation.scaled(np.array([1.0, 1.0])), 1)
