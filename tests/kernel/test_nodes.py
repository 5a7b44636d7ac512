import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from explaind_tf.kernel.quadrature.nodes import Quadrature, by_node, nodes_and_weights


@pytest.mark.parametrize("level", range(5))
def test_weights_of_every_order_sum_to_one(level):
    for order in range(level + 1):
        nodes, weights = nodes_and_weights(level, order)
        assert len(nodes) == len(weights) == 3**level
        assert weights.sum() == pytest.approx(1, abs=1e-14)


@pytest.mark.parametrize("level", range(1, 4))
def test_order_j_is_exact_for_polynomials_of_degree_2j_plus_1(level):
    nodes, weights = nodes_and_weights(level, level)
    for degree in range(2 * level + 2):
        assert weights @ nodes**degree == pytest.approx(1 / (degree + 1), abs=1e-13)


def test_nodes_of_a_level_contain_those_of_the_level_below():
    for level in range(1, 5):
        fine, coarse = nodes_and_weights(level, 0)[0], nodes_and_weights(level - 1, 0)[0]
        np.testing.assert_allclose(fine[1::3], coarse, atol=1e-15)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.3, 0.5])), min_size=1))
def test_pairs_are_the_same_in_any_order(pairs):
    owners, nodes = (np.array(column) for column in zip(*pairs, strict=True))
    table = by_node(nodes, owners)
    assert np.all(np.diff(table.nodes) > 0)
    np.testing.assert_array_equal(np.repeat(table.nodes, np.diff(table.splits)), nodes[table.order])
    np.testing.assert_array_equal(table.members, owners[table.order])


def test_parts_of_a_quadrature_are_the_quadratures_of_the_inputs():
    owners, nodes = np.array([2, 0, 2, 1, 2]), np.array([0.5, 0.5, 0.1, 0.2, 0.9])
    quadrature = Quadrature.of_pairs(owners, nodes, nodes * 2, 4)
    assert quadrature.node_count == 5
    np.testing.assert_array_equal(quadrature.owners, [0, 1, 2, 2, 2])
    part = quadrature.part(1, 3)
    np.testing.assert_array_equal(part.nodes, [0.2, 0.1, 0.5, 0.9])
    np.testing.assert_array_equal(part.weights, 2 * part.nodes)
    np.testing.assert_array_equal(part.splits, [0, 1, 4])
    assert quadrature.part(3, 4).node_count == 0


def test_inputs_with_the_same_quadrature_share_their_nodes():
    table, weights = Quadrature.same(4, 2, 1).by_node()
    assert len(table.nodes) == 9
    np.testing.assert_array_equal(np.diff(table.splits), 4)
    np.testing.assert_allclose(weights.reshape(9, 4), nodes_and_weights(2, 1)[1][:, None].repeat(4, 1))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.3, 0.5, 0.9])), min_size=1),
    st.integers(1, 6),
)
def test_parts_of_a_table_are_all_of_it_and_small(pairs, most):
    owners, nodes = (np.array(column) for column in zip(*pairs, strict=True))
    table = by_node(nodes, owners)
    seen = []
    for where, part in table.parts(most):
        assert len(part.nodes) == 1 or len(part.members) <= most
        own = np.repeat(part.nodes, np.diff(part.splits))
        np.testing.assert_array_equal(own, nodes[table.order][where])
        np.testing.assert_array_equal(part.members, table.members[where])
        np.testing.assert_array_equal(part.order, table.order[where])
        seen += range(where.start, where.stop)
    assert seen == list(range(len(pairs)))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(1, 12))
def test_rounds_hold_every_pair_once_and_tables_are_a_third_full(counts, most):
    splits = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    pairs = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
    quadrature = Quadrature.of_pairs(
        pairs, np.linspace(0, 1, splits[-1]), np.arange(splits[-1]) + 1.0, len(splits) - 1
    )
    found = [[] for _ in counts]
    for number, (members, part) in enumerate(quadrature.rounds(most)):
        table, weights = part.by_node()
        places = part.places(table)
        assert number > 0 or len(members) == len(counts)
        assert places.shape[1] <= most
        assert 3 * np.count_nonzero(places < len(weights)) >= places.size
        for member, own in zip(members, places, strict=True):
            found[member] += weights[own[own < len(weights)]].tolist()
    wanted = [quadrature.weights[a:b].tolist() for a, b in itertools.pairwise(splits)]
    assert [sorted(own) for own in found] == wanted


def test_nodes_of_the_table_of_midpoints_stand_for_no_piece():
    nodes, weights = nodes_and_weights(1, 0)
    quadrature = Quadrature.of_pairs(np.zeros(3, int), nodes, weights, 1)
    np.testing.assert_array_equal(quadrature.pieces, np.stack([nodes, nodes], axis=1))
