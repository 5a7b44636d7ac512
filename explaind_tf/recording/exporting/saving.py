"""Modules of traced functions, written as SavedModels."""

import warnings
from pathlib import Path

import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.runs.graphs.checked_load import strip_file
from explaind_tf.runs.graphs.inspection import told


def save_module(module: tf.Module, path: str) -> None:
    """Write a module as a SavedModel, without what a run does not load.

    Raises
    ------
    RefusedError
        If a run with it could not be opened, since it holds what a graph of a run may not hold.
    """
    with warnings.catch_warnings():
        # TensorFlow warns while it copies functions. A user could not change that.
        warnings.simplefilter("ignore")
        # Custom gradients are functions of the module. TensorFlow would register those that it saves.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, path, options=options)
    findings = strip_file(Path(path))
    if findings:
        raise RefusedError(
            f"The graph of the model holds {told(findings)}. Whoever opens a run loads its graphs, so that is not allowed. "
            f"Leave it out of the model."
        )
