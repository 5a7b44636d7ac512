"""Kinks that are averaged over pieces: nodes that stand for a cell, for its halves, and for those of its thirds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel.integrals import Integrands


class _Kink(Integrands):
    """f(t) = Σ_c max(eʳᵗ − c, 0), whose slopes are averaged over pieces. Each input has its own thresholds c."""

    def __init__(self, thresholds, rate=1.0):
        super().__init__(len(thresholds))
        thresholds = np.asarray(thresholds)
        self._thresholds = thresholds[:, None] if thresholds.ndim == 1 else thresholds
        self._rate = rate

    def _read(self, nodes, owners):
        return np.exp(self._rate * nodes)[:, None] - self._thresholds[owners]

    def values(self, nodes, owners, pieces):
        first, last = (self._read(pieces[:, end], owners) for end in (0, 1))
        is_crossed = (first > 0) != (last > 0)
        rise = np.maximum(last, 0) - np.maximum(first, 0)
        slope = np.where(
            is_crossed, rise / np.where(is_crossed, last - first, 1.0), self._read(nodes, owners) > 0
        )
        return slope.sum(axis=1) * self._rate * np.exp(self._rate * nodes)

    def measure(self, nodes, owners, pieces=None):
        return np.maximum(self._read(nodes, owners), 0).sum(axis=1)[:, None]

    def integrate(self, budget, *, has_kinks=True, averaged=None, **limits):
        if has_kinks and averaged is None:
            averaged = np.zeros(self.count, bool)
        return super().integrate(budget, averaged=averaged, **limits)


@settings(deadline=None)
@given(
    st.lists(st.floats(1.01, 2.7), min_size=1, max_size=6),
    st.sampled_from([1e-1, 1e-2, 1e-3, 1e-5, 1e-7]),
)
def test_averaged_kinks_are_integrated_to_the_budget(thresholds, budget):
    quadrature, error = _Kink(thresholds).integrate(budget, has_kinks=True)
    assert np.abs(error).max() <= budget * (1 + 1e-9)
    # The weights of an input cover the step. So do its pieces, if it has any.
    for owner in range(len(thresholds)):
        own = quadrature.owners == owner
        np.testing.assert_allclose(quadrature.weights[own].sum(), 1, atol=1e-12)
        lengths = np.diff(quadrature.pieces[own], axis=1)
        assert lengths.sum() == pytest.approx(1, abs=1e-6) or not lengths.any()


def test_averaged_kinks_take_two_nodes_where_plain_ones_take_many():
    thresholds = np.random.default_rng(0).uniform(1.0, 1.1, (3, 40))
    averaged, plain = (
        _Kink(thresholds, rate=0.1).integrate(1e-3, has_kinks=kinks)[0] for kinks in (True, False)
    )
    assert np.diff(averaged.splits).max() <= 2
    assert np.diff(plain.splits).min() >= 20


def test_an_input_that_one_plain_node_explains_is_not_averaged():
    family = _Kink([0.5, 1.5])
    quadrature, _ = family.integrate(0.08, has_kinks=True)
    assert not np.diff(quadrature.pieces[quadrature.owners == 0], axis=1).any()
    assert np.diff(quadrature.pieces[quadrature.owners == 1], axis=1).all()


def test_inputs_may_be_averaged_from_the_first():
    family = _Kink([0.5, 1.5, 0.6])
    quadrature, _ = family.integrate(0.5, averaged=np.array([False, True, True]))
    np.testing.assert_array_equal(quadrature.is_averaged, [False, True, True])
    assert quadrature.node_count == 3
    quadrature, error = family.integrate(1e-4, averaged=np.array([True, True, False]))
    assert quadrature.is_averaged.all()
    assert np.abs(error).max() <= 1e-4


def test_averaging_ends_at_the_most_nodes_and_at_rounding():
    for most in (1, 2, 5, 6, 20):
        quadrature, _ = _Kink([1.5, 1.7]).integrate(1e-16, has_kinks=True, max_nodes=most, rounding=1e-20)
        assert np.diff(quadrature.splits).max() <= most
    quadrature, _ = _Kink([1.5]).integrate(1e-9, has_kinks=True, rounding=1.0)
    assert quadrature.node_count == 1
