"""Checkpoints: saved weights of an ordinary Keras model, opened as a run with step and layer axes."""

from explaind_tf.checkpoints.opening import open_checkpoints

__all__ = ["open_checkpoints"]
