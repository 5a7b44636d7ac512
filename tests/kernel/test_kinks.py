"""Mean slopes of kinks, compared with integrals of many plain nodes, in float64."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Block, PureModel, StepPath
from explaind_tf.kernel.path_integrals import integrate_directions
from explaind_tf.kernel.quadrature.nodes import Quadrature
from tests.nightly import sweep

pytestmark = pytest.mark.slow

SIDE, INPUTS = 4, 5


def _derivatives(function, shapes, inputs):
    return Derivatives(
        PureModel(
            measure=lambda variables, constants, x, targets: function(variables, x[0]),
            losses=None,
            loss_scales=None,
            regularizer=None,
            trained=tuple(tf.TensorSpec(shape, tf.float64) for shape in shapes),
            state=(),
            constants=(),
            inputs=(tf.TensorSpec((None, *inputs), tf.float64),),
            measure_targets=(),
            loss_targets=(),
        )
    )


def _step_path(shapes, rng, step=1.0):
    size = sum(int(np.prod(shape)) for shape in shapes)
    start, displacement = rng.normal(size=size), step * rng.normal(size=size)
    return StepPath(start, start + displacement, displacement, [])


def _one_node(count, piece=(0.0, 1.0)):
    """Return one node in the middle for each input, which stands for a piece."""
    middle = np.full(count, 0.5)
    return Quadrature.of_pairs(np.arange(count), middle, np.ones(count), count, np.tile(piece, (count, 1)))


def _missed(derivatives, path, block, quadrature):
    """Return the part of the measurement's change that a quadrature does not explain, shape (inputs, outputs)."""
    start, end = (
        derivatives.measurement.values(point, [], block).numpy() for point in (path.start, path.end)
    )
    explained = integrate_directions(
        path, path.displacement[None], derivatives.measurement, block, quadrature
    )[0]
    return end - start - explained


def _two_by_two(images):
    return tf.nn.max_pool2d(images, 2, 2, "VALID")


# The input of each operation is linear in the weights, and so in t.
_LINEAR = {
    "relu": lambda v, x: tf.nn.relu(x @ v[0]),
    "relu6": lambda v, x: tf.nn.relu6(3 * x @ v[0]),
    "leaky_relu": lambda v, x: 2 * tf.nn.leaky_relu(x @ v[0], 0.3),
    "two readers": lambda v, x: (lambda y: tf.concat([y, 3 * y[:, :1]], axis=1))(tf.nn.relu(x @ v[0])),
    "maximum of two, one masked": lambda v, x: tf.reduce_max(
        tf.where([True, True, False], tf.reshape(x @ v[0], (-1, 2, 3)), -np.inf), axis=2
    ),
    "maximum of two": lambda v, x: tf.reduce_max(tf.reshape(x @ v[0], (-1, 3, 2)), axis=2),
}


@pytest.mark.parametrize("name", _LINEAR)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_one_node_explains_a_kink_anywhere_in_what_is_linear_along_the_path(name, seed):
    rng = np.random.default_rng(seed)
    shapes = [(SIDE, 6)]
    derivatives = _COMPILED.setdefault(name, _derivatives(_LINEAR[name], shapes, (SIDE,)))
    assert derivatives.measurement.has_kinks
    path, block = _step_path(shapes, rng, 3.0), Block([rng.normal(size=(INPUTS, SIDE))], [])
    if name == "relu6":  # one node does not average two kinks in one piece
        path = _step_path(shapes, rng, 0.1)
    np.testing.assert_allclose(_missed(derivatives, path, block, _one_node(INPUTS)), 0, atol=1e-12)


_COMPILED: dict = {}


_NETWORKS = {
    "dense": (lambda v, x: tf.nn.relu(tf.reshape(x, (-1, 16)) @ v[0]) @ v[1], [(16, 8), (8, 3)], (16,)),
    "two layers": (
        lambda v, x: tf.nn.relu(tf.nn.relu(x @ v[0]) @ v[1] + x) @ v[2],
        [(8, 8), (8, 8), (8, 3)],
        (8,),
    ),
    "pooled": (
        lambda v, x: tf.reduce_max(tf.nn.relu(tf.nn.conv2d(_two_by_two(
            tf.nn.conv2d(x, v[0], 1, "SAME")), v[1], 1, "SAME")), axis=(1, 2)) @ v[2],
        [(3, 3, 2, 4), (3, 3, 4, 4), (4, 3)],
        (6, 6, 2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", sweep(_NETWORKS, core=("two layers",)))
def test_rows_products_and_derivatives_of_pieces_are_those_of_hundreds_of_nodes(name):
    function, shapes, inputs = _NETWORKS[name]
    rng = np.random.default_rng(1)
    derivatives, path = _derivatives(function, shapes, inputs), _step_path(shapes, rng, 0.03)
    block = Block([rng.normal(size=(INPUTS, *inputs))], [])
    owners = np.repeat(np.arange(INPUTS), 2)
    place = 0.5 - np.sqrt(3) / 6
    halves = Quadrature.of_pairs(
        owners,
        np.tile([place, 1 - place], INPUTS),
        np.full(2 * INPUTS, 0.5),
        INPUTS,
        np.tile([[0.0, 0.5], [0.5, 1.0]], (INPUTS, 1)),
    )
    rows = derivatives.measurement.path_rows(path, halves, block, route="loop").numpy()
    exact = derivatives.measurement.path_rows(path, Quadrature.same(INPUTS, 6), block, route="loop").numpy()
    plain = derivatives.measurement.path_rows(path, Quadrature.same(INPUTS, 1), block, route="loop").numpy()
    # All of Φ is compared. Refinement sees only its product with the displacement.
    assert np.linalg.norm(rows - exact) < 0.2 * np.linalg.norm(plain - exact)
    directions = rng.normal(size=(2, len(path.start)))
    for stacked in (1, 2):
        found = derivatives.measurement.path_rows(path, halves, block, route="rules", stacked=stacked)
        np.testing.assert_allclose(found, rows, atol=1e-12)
        products = derivatives.measurement.path_products(
            path, halves, directions, block, stacked=stacked
        ).numpy()
        expected = np.einsum("boz,kz->bok", rows, directions)
        np.testing.assert_allclose(products.sum(axis=-1), expected, atol=1e-11)
    for count in (2, 5):  # unrolled, and in a loop
        several = rng.normal(size=(count, len(path.start)))
        integrals = integrate_directions(path, several, derivatives.measurement, block, halves)
        np.testing.assert_allclose(integrals, np.einsum("boz,kz->kbo", rows, several), atol=1e-11)


@pytest.mark.parametrize("name", _NETWORKS)
def test_where_no_kink_is_crossed_mean_slopes_are_the_slopes(name):
    function, shapes, inputs = _NETWORKS[name]
    rng = np.random.default_rng(2)
    derivatives, path = _derivatives(function, shapes, inputs), _step_path(shapes, rng, 1e-9)
    block = Block([rng.normal(size=(INPUTS, *inputs))], [])
    plain, mean = (
        derivatives.measurement.path_rows(path, quadrature, block, route="rules").numpy()
        for quadrature in (Quadrature.same(INPUTS), _one_node(INPUTS))
    )
    assert np.abs(plain).max() > 0
    np.testing.assert_array_equal(mean, plain)


def test_a_model_without_kinks_knows_it():
    smooth = _derivatives(lambda v, x: tf.tanh(x @ v[0]), [(SIDE, 3)], (SIDE,))
    counted = _derivatives(
        lambda v, x: (x @ v[0]) * tf.cast(tf.reduce_max(tf.shape(x)), x.dtype), [(SIDE, 3)], (SIDE,)
    )
    stopped = _derivatives(
        lambda v, x: tf.reduce_logsumexp(tf.tanh(x @ v[0]), 1)[:, None], [(SIDE, 3)], (SIDE,)
    )
    of_inputs = _derivatives(lambda v, x: tf.nn.relu(x) @ v[0], [(SIDE, 3)], (SIDE,))
    assert not smooth.measurement.has_kinks
    assert not counted.measurement.has_kinks  # a maximum of whole numbers
    assert not stopped.measurement.has_kinks  # a maximum that only prevents overflow, without a derivative
    assert not of_inputs.measurement.has_kinks  # a ReLU that does not depend on the weights
