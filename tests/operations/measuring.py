"""Measures derivatives of saved functions against differences: ``python -m tests.operations.measuring DIRECTORY…``.

No code of the models is needed here. Neither can gradients be used that Keras registers where it traces.
"""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.compiled import jvp_many, vjp
from explaind_tf.kernel.points import Point
from explaind_tf.recording.exporting.derivatives_lacking import first_lacking
from explaind_tf.runs.graphs.loaded import InlinedFunction
from explaind_tf.runs.graphs.precision import narrower_than

MEASURED = "measured.json"
# What TensorFlow raises where an operation has no derivative.
_LACKS = (LookupError, NotImplementedError, TypeError, ValueError, RuntimeError, tf.errors.OpError)


class Tolerance(NamedTuple):
    """Largest relative errors of a JVP against differences, and of a VJP against the JVP."""

    of_differences: float
    of_transpose: float
    # Half the distances of the points of central differences.
    distances: tuple[float, ...]


DOUBLE = Tolerance(1e-5, 1e-10, (1e-3, 1e-4, 1e-5, 1e-2, 1e-6))
SINGLE = Tolerance(5e-3, 1e-5, (1e-2, 1e-3, 3e-4))
_DIRECTIONS = 2


def outcome_of(concrete: Any, point: np.ndarray) -> tuple[str, str]:
    """Return the outcome for a loaded function of a flat point, and what there is to say of it.

    What ``fit`` would refuse is not differentiated. What Keras computes in float32 is computed in float64, as the ledgers of
    such a model are. What cannot be is held to the tolerance of float32.
    """
    lacking = first_lacking(concrete, 1)
    if lacking is not None:
        by = f"by {lacking.argument!r} " if lacking.argument else ""
        return "refused", f"{lacking.type} has no derivative {by}in TensorFlow"
    function = InlinedFunction.of(concrete).seen_through()
    if function.computes_in & set(narrower_than(tf.float64)):
        try:
            wider = function.in_precision(tf.float64, slice(None))
            tf.function(lambda z: wider(z)[0], autograph=False)(tf.constant(point))
            function = wider
        except _LACKS:
            pass
    outcome, reason = _measured(function, point, DOUBLE)
    if outcome == "wrong" and _has_single(function):
        outcome, reason = _measured(function, point, SINGLE)
        reason = reason or f"in float32, to {SINGLE.of_differences:.0e}"
    return outcome, reason


def _has_single(function: InlinedFunction) -> bool:
    """Return whether a graph has tensors in float32."""
    graph = function._graph_def
    nodes = [*graph.node, *(node for own in graph.library.function for node in own.node_def)]
    return any(value.type == tf.float32.as_datatype_enum for node in nodes for value in node.attr.values())


def _measured(function: InlinedFunction, point: np.ndarray, tolerance: Tolerance) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(_DIRECTIONS, len(point)))
    products = _products(function, len(point))
    try:
        size = len(products(point, directions[0], None)[0])
        cotangent = rng.normal(size=size)
        jvps = np.array([products(point, way, cotangent)[1] for way in directions])
        back = products(point, directions[0], cotangent)[2]
    except _LACKS as error:
        return "refused", _sentence(error)
    scale = np.abs(jvps).max() or 1.0
    apart = np.abs(jvps @ cotangent - directions @ back).max() / (scale * np.abs(cotangent).sum())

    def value(moved: np.ndarray) -> np.ndarray:
        return products(moved, directions[0], cotangent)[0]

    error = max(_error(value, point, *pair, tolerance) for pair in zip(directions, jvps, strict=True))
    if not error <= tolerance.of_differences:
        return "wrong", f"the JVP is {error:.0e} off differences" + ("" if jvps.any() else ": it is zero")
    if not jvps.any():
        return "no derivative", "it is constant around a point"
    if not apart <= tolerance.of_transpose:
        return "wrong", f"the VJP is {apart:.0e} off the JVP"
    return "exact", ""


def _products(function: InlinedFunction, size: int) -> Callable[..., tuple[np.ndarray, ...]]:
    """Return a function of a point, a direction and a cotangent: the values there, a JVP and a VJP.

    They share one graph, since tracing takes most of the time. Without a cotangent, that of ones is taken.
    """
    spec = tf.TensorSpec((size,), tf.float64)

    @tf.function(input_signature=[spec, spec, tf.TensorSpec((None,), tf.float64)], autograph=False)
    def build(point: tf.Tensor, direction: tf.Tensor, cotangent: tf.Tensor) -> tuple[tf.Tensor, ...]:
        outputs = function(point)[0]
        cotangent = tf.cond(tf.size(cotangent) > 0, lambda: cotangent, lambda: tf.ones_like(outputs))
        return (
            outputs,
            jvp_many(outputs, Point.of(point), direction[None])[0],
            vjp(outputs, Point.of(point), cotangent),
        )

    def products(
        point: np.ndarray, direction: np.ndarray, cotangent: np.ndarray | None
    ) -> tuple[np.ndarray, ...]:
        found = build(point, direction, np.zeros(0) if cotangent is None else cotangent)
        return tuple(tensor.numpy() for tensor in found)

    return products


def _error(value: Any, point: np.ndarray, way: np.ndarray, jvp: np.ndarray, tolerance: Tolerance) -> float:
    """Return how far a JVP is from differences, relative to the larger of both, at the first distance that will do."""
    errors = []
    for distance in tolerance.distances:
        errors.append(_relative(_difference(value, point, way, distance), jvp))
        if errors[-1] <= tolerance.of_differences:
            break
    return min(errors)


def _relative(difference: np.ndarray, jvp: np.ndarray) -> float:
    scale = max(np.abs(difference).max(), np.abs(jvp).max()) or 1.0
    error = np.abs(difference - jvp).max() / scale
    return float(error) if np.isfinite(error) else np.inf


def _difference(value: Any, point: np.ndarray, direction: np.ndarray, distance: float) -> np.ndarray:
    """Return the derivative in a direction by central differences, extrapolated from two distances (Richardson)."""

    def central(h: float) -> np.ndarray:
        ends = (value(point + step * direction) for step in (h, -h))
        return np.subtract(*ends) / (2 * h)

    return (4 * central(distance / 2) - central(distance)) / 3


def _sentence(error: Exception) -> str:
    """Return what an error says of a type of operations; names of single ones differ from process to process."""
    found = re.search(r"op type: (\w+)", str(error))
    if found is not None:
        return f"TensorFlow has no derivative of {found[1]}, an operation of its gradient"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def measure(directory: Path) -> None:
    """Measure all functions of a directory."""
    points = json.loads((directory / "points.json").read_text(encoding="utf-8"))
    module = tf.saved_model.load(str(directory))
    outcomes = {}
    for number, (name, point) in enumerate(points.items()):
        outcomes[name] = outcome_of(getattr(module, f"f{number}"), np.array(point))
    (directory / MEASURED).write_text(json.dumps(outcomes), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        measure(Path(name))
