"""A model with the data that it is trained on and asked about."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.measurements import Measurement, log_prob

CLASSES = 4
SAMPLES = 16
BATCH = 8
ASKED = 2
IMAGE = (32, 32, 3)
VOCABULARY = 23
LENGTH = 8


@dataclass(frozen=True)
class Example:
    """A model, its data, and a measurement.

    Attributes
    ----------
    model : keras.Model
        Returns logits; not compiled.
    inputs : array or dict of arrays
        One row for each sample.
    targets : np.ndarray
        Classes, shape (samples,), or the next token at each position, shape (samples, positions).
    """

    model: keras.Model
    inputs: Any
    targets: np.ndarray

    @property
    def dataset(self) -> tf.data.Dataset:
        """The batches, without end."""
        return tf.data.Dataset.from_tensor_slices((self.inputs, self.targets)).batch(BATCH).repeat()

    @property
    def asked(self) -> Any:
        """The inputs that are asked about."""
        return tf.nest.map_structure(lambda array: array[:ASKED], self.inputs)

    @property
    def measurement(self) -> Measurement:
        """The log-probability of the class, or of the token after the last position."""
        if self.targets.ndim == 1:
            return log_prob(self.targets[:ASKED])
        return log_prob(self.targets[:ASKED, -1], position=-1)


def images(model: keras.Model, low: float = 0.0, high: float = 255.0) -> Example:
    """Return a classifier of images with random images, whose values are those that it takes."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(low, high, size=(SAMPLES, *IMAGE)).astype("float32")
    return Example(model, pixels, rng.integers(0, CLASSES, SAMPLES))


def random_tokens(seed: int = 0) -> np.ndarray:
    """Return random tokens, shape (samples, positions). 0 is left to padding."""
    return np.random.default_rng(seed).integers(1, VOCABULARY, (SAMPLES, LENGTH)).astype("int32")


def padding_mask() -> np.ndarray:
    """Return the mask of sequences of which every second one is shorter, shape (samples, positions)."""
    mask = np.ones((SAMPLES, LENGTH), "int32")
    mask[1::2, LENGTH - 2 :] = 0
    return mask


def classes() -> np.ndarray:
    """Return random classes, shape (samples,)."""
    return np.random.default_rng(1).integers(0, CLASSES, SAMPLES)
