import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from explaind_tf.kernel.quadrature.nodes import nodes_and_weights
from tests.kernel.integrals import Integrands


class _Family(Integrands):
    """One input per exponent e: f(t, e) and its derivative by t."""

    def __init__(self, function, derivative, exponents):
        super().__init__(len(exponents))
        self._function, self._derivative, self._exponents = function, derivative, np.asarray(exponents)

    def values(self, nodes, owners, pieces):
        return self._derivative(nodes, self._exponents[owners])

    def measure(self, nodes, owners, pieces=None):
        return self._function(nodes, self._exponents[owners])[:, None]


def _exponential(rates):
    return _Family(lambda t, r: np.exp(r * t), lambda t, r: r * np.exp(r * t), rates)


def _kinks(places):
    return _Family(lambda t, p: np.maximum(t - p, 0), lambda t, p: (t > p).astype(float), places)


def test_smooth_integrands_reach_rounding_with_few_nodes():
    quadrature, error = _exponential([0.1, 1.0, 3.0]).integrate(1e-10)
    assert np.abs(error).max() <= 1e-10
    counts = np.diff(quadrature.splits)
    assert counts.max() <= 81
    # The flatter integrand needs fewer nodes: refinement is decided for each input.
    assert counts[0] < counts[2]


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6), st.sampled_from([1e-1, 1e-2, 1e-3, 1e-5]))
def test_kinks_anywhere_are_integrated_to_the_budget(places, budget):
    family = _kinks(places)
    quadrature, error = family.integrate(budget)
    assert np.abs(error).max() <= budget * (1 + 1e-12)  # a kink may miss by the budget to the last bit
    np.testing.assert_array_equal(family.evaluated, np.diff(quadrature.splits))  # nothing is thrown away


def test_a_kink_costs_nodes_where_it_is():
    counts = [np.diff(_kinks([0.37]).integrate(3.0**-k)[0].splits)[0] for k in (3, 6, 9)]
    # The number of nodes grows with the digits asked for: 3⁶ times the accuracy takes at most 30 more nodes.
    assert counts[2] - counts[0] <= 30
    fixed = np.abs(0.63 - np.mean(nodes_and_weights(4, 0)[0] > 0.37))
    quadrature, error = _kinks([0.37]).integrate(fixed / 3)
    assert quadrature.node_count < 3**4 / 2
    assert np.abs(error).max() <= fixed / 3


def test_an_input_within_budget_is_not_evaluated_again():
    family = _kinks([0.0, 0.37])
    quadrature, _ = family.integrate(0.01)
    assert family.evaluated[0] == 1
    assert family.evaluated[1] == np.diff(quadrature.splits)[1] > 1


def test_refinement_ends_at_the_most_nodes_and_shows_what_is_left():
    for most in (1, 2, 3, 11, 50):
        for family in (_kinks([1 / 3 + 1e-9, 0.4]), _exponential([30.0])):
            quadrature, error = family.integrate(1e-16, max_nodes=most, rounding=1e-20)
            assert np.diff(quadrature.splits).max() <= most
            assert np.abs(error).max() > 1e-16


def test_what_rounding_alone_can_explain_is_not_refined():
    quadrature, _ = _kinks([0.37]).integrate(1e-9, rounding=0.5)
    assert quadrature.node_count == 1
