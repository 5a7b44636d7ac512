"""What a response needs of every public name of Keras: the derivative of a gradient, which TensorFlow may have wrong.

Some gradients of TensorFlow have none by what they read, and are then taken to be constant, without an error.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel.operations.reverse_mode import differentiate_as_computed, gradients
from explaind_tf.recording.exporting.derivatives_lacking import first_lacking
from explaind_tf.runs.graphs.loaded import InlinedFunction
from explaind_tf.runs.graphs.precision import narrower_than
from tests.operations.exporting import SETTLED
from tests.operations.names import distinct_names
from tests.operations.outcomes import run_module

TOLERANCE = 1e-3
DISTANCES = (1e-4, 1e-5, 1e-3, 1e-6)
# A stop within a loop cannot be passed, so responses are refused.
REFUSED = {"keras.losses.CTC", "keras.losses.ctc", "keras.ops.ctc_loss"}
PARTS = 10


def in_double(function: InlinedFunction, point: np.ndarray) -> InlinedFunction:
    """Return a function in float64, where it can be computed so."""
    if not function.computes_in & set(narrower_than(tf.float64)):
        return function
    wider = function.in_precision(tf.float64, slice(None))
    try:
        tf.function(lambda z: wider(z)[0], autograph=False)(tf.constant(point))
    except (TypeError, ValueError, tf.errors.OpError):
        return function
    return wider


def error_of(concrete: Any, point: np.ndarray) -> float:
    """Return how far the derivative of a gradient is from differences of it, relative to the larger of both."""
    function, rng = in_double(InlinedFunction.of(concrete), point), np.random.default_rng(0)
    cotangent, way = rng.normal(size=(2, len(point)))
    spec = tf.TensorSpec(point.shape, tf.float64)

    @tf.function(input_signature=[spec], autograph=False)
    def both(z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        values = tf.reshape(function(z)[0], [-1])
        weights = tf.cast(tf.cos(1.7 * tf.range(tf.size(values), dtype=tf.float64)), values.dtype)
        (gradient,) = gradients(tf.reduce_sum(values * weights), [z])
        gradient = tf.zeros_like(z) if gradient is None else gradient
        differentiate_as_computed(z.graph)
        (second,) = gradients(gradient, [z], tf.constant(cotangent))
        return gradient, tf.zeros_like(z) if second is None else second

    def first(step: float) -> float:
        return float(both(point + step * way)[0].numpy() @ cotangent)

    found, errors = float(both(point)[1].numpy() @ way), []
    for h in DISTANCES:
        halved, whole = (first(h / 2) - first(-h / 2)) / h, (first(h) - first(-h)) / (2 * h)
        expected = (4 * halved - whole) / 3
        errors.append(abs(found - expected) / max(abs(found), abs(expected), 1e-12))
        if errors[-1] < TOLERANCE:
            break
    return min(errors)


@pytest.mark.nightly(daily=False)
@pytest.mark.parametrize("part", range(PARTS))
def test_derivatives_of_gradients_are_right_or_refused(tmp_path: Path, part: int):
    names = distinct_names()[part::PARTS]
    run_module("tests.operations.exporting", str(tmp_path), *names)
    assert (tmp_path / SETTLED).exists()
    points = json.loads((tmp_path / "points.json").read_text(encoding="utf-8"))
    module = tf.saved_model.load(str(tmp_path))
    wrong, refused = {}, set()
    for number, (name, point) in enumerate(points.items()):
        concrete = getattr(module, f"f{number}")
        if first_lacking(concrete, 1) is not None:
            continue
        try:
            error = error_of(concrete, np.array(point))
        except LookupError:
            refused.add(name)
            continue
        if not error < TOLERANCE:
            wrong[name] = error
    assert not wrong
    assert refused == REFUSED & set(names)
