"""Refusals of functions that cannot be replayed from the record."""

from typing import Any

import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.runs.graphs.loaded import has_calls


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
    _refuse_calls(name, function)


def _refuse_captured_variables(name: str, function: Any) -> None:
    captured = [t for t in function.get_concrete_function().captured_inputs if t.dtype == tf.resource]
    if captured:
        raise RefusedError(
            f"The model's {name} reads {len(captured)} variable(s) or table(s) that are neither in "
            f"model.trainable_variables nor in model.non_trainable_variables, so the record would not hold "
            f"them. Create variables with self.add_weight(...) in a layer, and give loss weights as numbers."
        )


def _refuse_calls(name: str, function: Any) -> None:
    calls = has_calls(function.get_concrete_function())
    if calls:
        raise RefusedError(
            f"The model's {name} calls functions that are compiled on their own ({', '.join(calls[:3])}), such as a grouped "
            f"convolution or a tf.function with jit_compile=True within a layer. They cannot be differentiated from the "
            f"record. Write a grouped convolution as several convolutions, and set jit_compile=True only in "
            f"model.compile()."
        )
