"""Functions that a graph calls are expanded into it, within loops and branches too."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel.derivatives.compiled import jvp_many, vjp
from explaind_tf.kernel.points import Point
from explaind_tf.runs.graphs.counted_loops import with_counted_loops
from explaind_tf.runs.graphs.expanded import expanded
from explaind_tf.runs.graphs.graph_nodes import all_nodes
from explaind_tf.runs.graphs.inlined_calls import CALLS
from explaind_tf.runs.graphs.loaded import InlinedFunction
from tests.nightly import sweep

POINT = np.random.default_rng(0).normal(size=(3,))
SPEC = tf.TensorSpec(POINT.shape, tf.float64)


@tf.function
def squashed(x: tf.Tensor, by: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.tanh(x * by), x


@tf.function
def twice(x: tf.Tensor) -> tf.Tensor:
    first, same = squashed(x, tf.constant(0.7, x.dtype))
    second, _ = squashed(first, tf.reduce_sum(same))
    return second


def looped(x: tf.Tensor) -> tf.Tensor:
    return tf.while_loop(lambda i, _: i < 3, lambda i, a: (i + 1, twice(a) + x), (0, x))[1]


def branched(x: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.reduce_sum(x) > 100.0, lambda: x, lambda: twice(x) * x)


def with_effects(x: tf.Tensor) -> tf.Tensor:
    @tf.function
    def checked(value: tf.Tensor) -> tf.Tensor:
        tf.debugging.assert_less(value, tf.constant(1e3, value.dtype))
        return tf.sin(value)

    return tf.while_loop(lambda i, _: i < 2, lambda i, a: (i + 1, checked(a)), (0, x))[1]


CASES = {
    "loop": looped,
    "branch": branched,
    "called loop": tf.function(looped),
    "loop in a loop": lambda x: tf.while_loop(lambda i, _: i < 2, lambda i, a: (i + 1, looped(a)), (0, x))[1],
    "operations that only have an effect": with_effects,
}


def reloaded(function, directory: Path):
    """Return the loaded form of a function: only the graph of the process that traced it knows gradients of calls."""
    module = tf.Module()
    module.function = tf.function(lambda x: [function(x)], input_signature=[SPEC], autograph=False)
    tf.saved_model.save(module, str(directory))
    return tf.saved_model.load(str(directory)).function.concrete_functions[0]


# A loop in a loop is a loop.
@pytest.mark.parametrize("name", sweep(CASES, core=CASES.keys() - {"loop", "called loop"}))
def test_calls_are_differentiated_twice(name, tmp_path):
    concrete = reloaded(CASES[name], tmp_path)
    assert not [node.name for node in all_nodes(expanded(concrete).graph_def) if node.op in CALLS]
    function = InlinedFunction.of(concrete)
    direction = np.array([0.3, -1.0, 0.2])

    @tf.function(autograph=False)
    def products(point, way):
        outputs = function(point)[0]
        return outputs, jvp_many(outputs, Point.of(point), way[None])[0], vjp(outputs, Point.of(point), way)

    value, jvp, back = products(tf.constant(POINT), tf.constant(direction))
    own = CASES[name]
    np.testing.assert_allclose(value, own(tf.constant(POINT)), rtol=1e-12)
    ends = [own(tf.constant(POINT + step * direction)).numpy() for step in (1e-5, -1e-5)]
    np.testing.assert_allclose(jvp, np.subtract(*ends) / 2e-5, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(np.dot(direction, back), np.dot(jvp, direction), rtol=1e-9)


def counted_down(x: tf.Tensor) -> tf.Tensor:
    """A loop with a counter that ends at zero, as TensorFlow's own gradient does not expect."""

    def body(i, a):
        return i - 1, tf.tanh(a) * tf.cast(i, a.dtype)

    specs = [tf.TensorSpec((), tf.int32), SPEC]
    functions = [tf.function(f, input_signature=specs) for f in (lambda i, _: i > 0, body)]
    cond, body = (f.get_concrete_function() for f in functions)
    return tf.raw_ops.While(input=[3, x], cond=cond, body=body)[1]


def counted_down_twice(x: tf.Tensor) -> tf.Tensor:
    return tf.while_loop(lambda i, _: i < 2, lambda i, a: (i + 1, counted_down(a)), (0, x))[1]


@pytest.mark.parametrize(
    "function", [pytest.param(counted_down, marks=pytest.mark.nightly), counted_down_twice]
)
def test_loops_that_count_otherwise_are_differentiated(function, tmp_path):
    concrete, direction = reloaded(function, tmp_path), np.array([0.3, -1.0, 0.2])
    seen = InlinedFunction.of(concrete).seen_through()

    @tf.function(autograph=False)
    def product(point, way):
        outputs = seen(point)[0]
        return outputs, jvp_many(outputs, Point.of(point), way[None])[0]

    value, jvp = product(tf.constant(POINT), tf.constant(direction))
    whole = tf.function(function)
    np.testing.assert_allclose(value, whole(tf.constant(POINT)), rtol=1e-12)
    ends = [whole(tf.constant(POINT + step * direction)).numpy() for step in (1e-5, -1e-5)]
    np.testing.assert_allclose(jvp, np.subtract(*ends) / 2e-5, rtol=1e-6, atol=1e-9)


def test_loops_of_while_loop_stay_as_they_are(tmp_path):
    graph_def = expanded(reloaded(CASES["loop in a loop"], tmp_path)).graph_def
    assert with_counted_loops(graph_def) is graph_def
