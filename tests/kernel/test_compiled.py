"""How often derivatives are traced, and in how many directions they are taken."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel.derivatives import compiled
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.points import Point
from explaind_tf.kernel.quadrature.nodes import Quadrature
from tests.kernel.dense import SIZE, model

pytestmark = pytest.mark.slow


def test_functions_are_traced_once_whatever_the_batch_size(problem):
    path, block, batch, _ = problem
    derivatives = Derivatives(model())
    for size in (5, 3, 1):
        quadrature = Quadrature.same(size, 1)
        part = batch.part(0, size)
        for route in ("rules", "loop", "calls"):
            derivatives.measurement.path_rows(path, quadrature, block.take(slice(0, size)), route=route)
        for by_rule in (False, True):
            derivatives.loss.sample_gradients(path.start, [], part, by_rule=by_rule)
        table, inputs = quadrature.by_node()[0], block.take(slice(0, size))
        derivatives.measurement.path_jvp(path, table, path.displacement[None], inputs)
        derivatives.measurement.path_values(path, table, inputs)
        derivatives.loss.contract(path.start, [], part, path.start[None, :SIZE])
    for attribute in (*vars(derivatives.measurement).values(), *vars(derivatives.loss).values()):
        for function in attribute.values() if isinstance(attribute, dict) else [attribute]:
            if hasattr(function, "experimental_get_tracing_count"):
                assert function.experimental_get_tracing_count() <= 1


def test_many_directions_of_outputs_in_another_precision():
    @tf.function(input_signature=[tf.TensorSpec((2,)), tf.TensorSpec((None, 2))], autograph=False)
    def products(point, directions):
        return compiled.jvp_many(tf.cast(point, tf.float64) ** 2, Point.of(point), directions)

    found = products(tf.constant([1.0, 3.0]), tf.constant([[1.0, 0.0], [0.5, 1.0], [0.0, 2.0]]))
    np.testing.assert_allclose(found, [[2.0, 0.0], [1.0, 6.0], [0.0, 12.0]])


def test_a_derivative_is_traced_once_whatever_the_number_of_directions(problem, monkeypatch):
    path, block, _, _ = problem
    traced, known = [], compiled.gradients
    monkeypatch.setattr(compiled, "gradients", lambda *args: traced.append(args) or known(*args))
    table, derivatives = Quadrature.same(len(block)).by_node()[0], Derivatives(model())
    for count in (1, 3):
        traced.clear()
        derivatives.measurement.path_jvp(path, table, np.stack([path.displacement] * count), block)
        assert len(traced) == 2  # the gradient, and its derivative
