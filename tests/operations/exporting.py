"""Saves functions of Keras for another process: ``python -m tests.operations.exporting DIRECTORY NAME…``."""

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from explaind_tf.runs.graphs.inspection import in_graph, told
from tests.operations.names import public_names
from tests.operations.synthesis import Found, NotFound, synthesised

POINTS, SETTLED = "points.json", "settled.json"


def export_functions(
    directory: Path, functions: Mapping[str, Found], others: Mapping[str, NotFound] | None = None
) -> None:
    """Save functions as one SavedModel, and beside it their points and what there is to say of other names."""
    module = tf.Module()
    for number, found in enumerate(functions.values()):
        setattr(module, f"f{number}", found.function)
        setattr(module, f"variables{number}", list(found.function.graph.variables))
    tf.saved_model.save(module, str(directory))
    points = {name: found.point.tolist() for name, found in functions.items()}
    settled = {name: (other.outcome, other.reason) for name, other in (others or {}).items()}
    (directory / POINTS).write_text(json.dumps(points), encoding="utf-8")
    (directory / SETTLED).write_text(json.dumps(settled), encoding="utf-8")


def export(directory: Path, values: Mapping[str, Any]) -> None:
    """Save a function for each public name."""
    keras.config.disable_traceback_filtering()  # most of what is tried fails
    results = {name: synthesised(name, value) for name, value in values.items()}
    results |= {name: _refused(result) for name, result in results.items() if isinstance(result, Found)}
    functions = {name: result for name, result in results.items() if isinstance(result, Found)}
    others = {name: result for name, result in results.items() if isinstance(result, NotFound)}
    export_functions(directory, functions, others)


def _refused(found: Found) -> Found | NotFound:
    """Return the function, or that a graph of a run may not hold what it holds."""
    findings = in_graph(found.function.graph.as_graph_def())
    return NotFound("refused", f"a run may not hold {told(findings)}") if findings else found


def main(directory: str, names: Sequence[str]) -> None:
    """Export public names."""
    warnings.simplefilter("ignore")
    tf.get_logger().setLevel("ERROR")
    export(Path(directory), {name: public_names()[name] for name in names})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
