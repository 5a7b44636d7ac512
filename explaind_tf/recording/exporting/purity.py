"""Refusals of functions that cannot be replayed from the record."""

from typing import Any

import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.recording.exporting.derivatives_lacking import Lacking, first_lacking
from explaind_tf.recording.exporting.pruned import operations_behind
from explaind_tf.runs.graphs.expanded import has_calls
from explaind_tf.runs.graphs.inspection import in_graph, told

# Name scope of the values of metrics that layers hold.
LAYER_METRICS = "metrics_of_layers"


def refuse_impure(name: str, function: Any) -> None:
    """Refuse a function that depends on more than its arguments, or cannot be differentiated.

    Parameters
    ----------
    name : str
        What the function is of the model.
    function : tf.function
        A function of one signature.

    Raises
    ------
    RefusedError
        If it is one.
    """
    _refuse_captured_variables(name, function)
    _refuse_metrics(name, function)
    _refuse_calls(name, function)


def refuse_unlisted(what: str, concrete: Any) -> None:
    """Refuse a function with operations that a graph of a run may not hold.

    Parameters
    ----------
    what : str
        What the function is, at the start of a sentence.
    concrete : tf.types.experimental.ConcreteFunction
        The function.

    Raises
    ------
    RefusedError
        If it has one. The message names it, and where it is.
    """
    findings = in_graph(concrete.graph.as_graph_def())
    if findings:
        raise RefusedError(
            f"{what} holds {told(findings)}. Whoever opens a run loads its graphs, so they may compute, and may not touch "
            f"files, the network, Python or the process. Leave it out, or do it in the input pipeline or a callback. What "
            f"is allowed stands in explaind_tf/runs/graphs/allowed_operations.py."
        )


def _refuse_captured_variables(name: str, function: Any) -> None:
    captured = [t for t in function.get_concrete_function().captured_inputs if t.dtype == tf.resource]
    if captured:
        raise RefusedError(
            f"The model's {name} reads {len(captured)} variable(s) or table(s) that are neither in "
            f"model.trainable_variables nor in model.non_trainable_variables, so the record would not hold "
            f"them. Create variables with "
            f"self.add_weight(..., trainable=False) in a layer, or give loss weights as numbers."
        )


def _refuse_metrics(name: str, function: Any) -> None:
    if any(
        LAYER_METRICS in operation
        for operation in operations_behind(function.get_concrete_function().outputs[:1])
    ):
        raise RefusedError(
            f"The model's {name} depends on a metric within a layer, and the record does not hold metrics. Keep what the "
            f"loss needs in a variable of the layer: self.add_weight(..., trainable=False)."
        )


def _refuse_calls(name: str, function: Any) -> None:
    calls = has_calls(function.get_concrete_function())
    if calls:
        raise RefusedError(
            f"The model's {name} calls functions that only XLA can compile ({', '.join(calls[:3])}), such as Conv3D with "
            f'data_format="channels_first". They cannot be differentiated from the record. Use data_format="channels_last", '
            f"and set jit_compile=True only in model.compile()."
        )


def refuse_without_derivative(function: Any, variables: int) -> None:
    """Refuse a forward pass that weights move through an operation whose derivative is unknown.

    Parameters
    ----------
    function : tf.function
        A function of one signature.
    variables : int
        How many of its first arguments are values of variables.

    Raises
    ------
    RefusedError
        If there is such an operation. The message names it, and its layer.
    """
    lacking = first_lacking(function.get_concrete_function(), variables)
    if lacking is not None:
        raise RefusedError(f"The model's prediction goes through {_told(lacking)}")


def _told(lacking: Lacking) -> str:
    where = f" within {lacking.within!r}" if lacking.within else ""
    if lacking.argument is None:
        reason = "TensorFlow has no derivative of it"
    else:
        reason = f"TensorFlow takes its derivative by its argument {lacking.argument!r} to be zero, which it is not"
    return (
        f"{lacking.name!r}{where}, an operation of the type {lacking.type}. {reason}, so how the weights moved the "
        f"prediction could not be told. Replace it by operations that have a derivative (docs/operations.md lists them), or "
        f"apply it to the inputs before the model."
    )
