"""Modules of traced functions, written as SavedModels."""

import warnings

import tensorflow as tf


def save_module(module: tf.Module, path: str) -> None:
    """Write a module as a SavedModel."""
    with warnings.catch_warnings():
        # TensorFlow warns while it copies functions. A user could not change that.
        warnings.simplefilter("ignore")
        # Custom gradients are functions of the module. TensorFlow would register those that it saves.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, path, options=options)
