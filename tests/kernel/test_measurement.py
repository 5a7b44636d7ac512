"""Derivatives of measurements along a path, compared with loops of GradientTape, in float64."""

import numpy as np
import pytest

from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.quadrature.nodes import Quadrature, by_node, nodes_and_weights
from tests.kernel.dense import SIZE, STATE, jacobian_of, measure, model, unpack

pytestmark = pytest.mark.slow


# Few directions have a graph for their number.
@pytest.mark.parametrize("count", [1, pytest.param(4, marks=pytest.mark.nightly), 5])
def test_measures_and_jvps_along_a_path_equal_the_jacobian(problem, count):
    path, block, _, rng = problem
    derivatives = Derivatives(model())

    def jacobian(t):
        point = path.start + t * path.displacement
        return jacobian_of(lambda z: measure(unpack(z), [], block.inputs, []), point)

    nodes, owners = np.array([0.3, 0.8, 0.1, 0.3]), np.array([2, 4, 0, 1])
    table = by_node(nodes, owners)
    assert table.nodes.tolist() == [0.1, 0.3, 0.8]  # inputs 1 and 2 are measured together
    directions = rng.normal(size=(count, SIZE + STATE))
    found = derivatives.measurement.path_jvp(path, table, directions, block)
    expected = np.stack([jacobian(t)[i] @ directions.T for t, i in zip(nodes, owners, strict=True)])
    np.testing.assert_allclose(found, expected[table.order].swapaxes(1, 2), atol=1e-12)
    measured = [
        measure(unpack(path.start + t * path.displacement), [], block.inputs, [])[i]
        for t, i in zip(nodes, owners, strict=True)
    ]
    np.testing.assert_allclose(
        derivatives.measurement.path_values(path, table, block), np.stack(measured)[table.order], atol=1e-12
    )


@pytest.mark.parametrize(
    ("route", "stacked"),
    [
        ("loop", 1),
        ("calls", 1),
        pytest.param("rules", 1, marks=pytest.mark.nightly),
        ("rules", 2),
        pytest.param("rules", 100, marks=pytest.mark.nightly),
    ],
)
def test_rows_of_inputs_with_quadratures_of_their_own_equal_the_jacobian(problem, route, stacked):
    path, block, _, rng = problem
    keys = [(0, 0), (1, 1), (2, 1), (1, 0), (0, 0)]
    pairs = [(np.full(3 ** key[0], i), *nodes_and_weights(*key)) for i, key in enumerate(keys)]
    quadrature = Quadrature.of_pairs(*map(np.concatenate, zip(*reversed(pairs), strict=True)), len(keys))
    derivatives, expected = Derivatives(model()), []
    for i, key in enumerate(keys):
        nodes, weights = nodes_and_weights(*key)
        points = (path.start + t * path.displacement for t in nodes)
        jacobians = (jacobian_of(lambda z: measure(unpack(z), [], block.inputs, []), z)[i] for z in points)
        expected.append(sum(w * jacobian for w, jacobian in zip(weights, jacobians, strict=True)))
    rows = derivatives.measurement.path_rows(path, quadrature, block, route=route, stacked=stacked)
    np.testing.assert_allclose(rows, expected, atol=1e-12)
    if route != "rules":
        return
    directions = rng.normal(size=(2, SIZE + STATE))
    products = derivatives.measurement.path_products(path, quadrature, directions, block, stacked=stacked)
    cuts = np.cumsum(derivatives.model.sizes)[:-1]
    by_variable = [
        np.einsum("boz,kz->bok", e, d)
        for e, d in zip(
            np.split(np.stack(expected), cuts, axis=-1), np.split(directions, cuts, axis=-1), strict=True
        )
    ]
    np.testing.assert_allclose(products, np.stack(by_variable, axis=-1), atol=1e-12)
