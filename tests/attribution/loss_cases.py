"""Losses of every kind: models, the arguments of their `compile`, and their training data."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

COUNT, LENGTH, FEATURES, CLASSES = 10, 5, 3, 3
_RNG = np.random.default_rng(5)
X = _RNG.normal(size=(COUNT, FEATURES))
SEQUENCES = _RNG.normal(size=(COUNT, LENGTH, FEATURES))
TOKENS = _RNG.integers(0, 4, (COUNT, LENGTH))  # 0 is masked where masks are on
Y = _RNG.normal(size=(COUNT, CLASSES))
LABELS = _RNG.integers(0, CLASSES, COUNT)
TOKEN_LABELS = _RNG.integers(0, CLASSES, (COUNT, LENGTH))
WEIGHTS = _RNG.uniform(0.2, 2, COUNT)
TOKEN_WEIGHTS = _RNG.uniform(0, 2, (COUNT, LENGTH))

Dense = keras.layers.Dense


def crossentropy(**arguments: Any) -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **arguments)


def plain(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** 3, axis=-1)


def with_mask(y_true: Any, y_pred: Any) -> Any:
    """Return losses that carry a mask of their own."""
    values = keras.ops.mean((y_true - y_pred) ** 2, axis=-1)
    values._keras_mask = keras.ops.greater(keras.ops.sum(y_true, axis=-1), 0)
    return values


def one_output(*, units: int = CLASSES) -> keras.Model:
    return keras.Sequential([keras.Input((FEATURES,)), Dense(4, activation="tanh"), Dense(units)])


def several_outputs(nest: Callable[[list[Any]], Any]) -> keras.Model:
    inputs = keras.Input((FEATURES,))
    hidden = Dense(4, activation="tanh")(inputs)
    heads = [Dense(units, name=name)(hidden) for name, units in (("a", CLASSES), ("b", CLASSES), ("c", 1))]
    return keras.Model(inputs, nest(heads))


def as_dict(heads: list[Any]) -> Any:
    return dict(zip("cab", (heads[2], heads[0], heads[1]), strict=True))


def per_position() -> keras.Model:
    return keras.Sequential([keras.Input((LENGTH, FEATURES)), Dense(4, activation="tanh"), Dense(CLASSES)])


def masked(length: int | None = LENGTH) -> keras.Model:
    tokens = keras.Input((length,), dtype="int64")
    states = keras.layers.Embedding(4, 3, mask_zero=True)(tokens)
    return keras.Model(tokens, Dense(CLASSES)(Dense(4, activation="tanh")(states)))


class Nested(keras.Model):
    """Returns a dict of a tuple, with one loss for all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.left, self.right = Dense(4, activation="tanh"), Dense(CLASSES), Dense(CLASSES)

    def call(self, x: Any) -> Any:
        hidden = self.hidden(x)
        return {"pair": (self.left(hidden), self.right(hidden)), "alone": self.right(x[:, :1] * hidden)}


class AddsLosses(keras.layers.Layer):
    """Adds a scalar and a vector. Both depend on the batch."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.1 * keras.ops.mean(x**2))
        self.add_loss(0.01 * keras.ops.sum(x**4, axis=-1))
        return x


def penalised() -> keras.Model:
    hidden = Dense(4, activation="tanh", activity_regularizer="l2", kernel_regularizer="l1")
    dropout = keras.layers.Dropout(0.2, seed=1)
    return keras.Sequential([keras.Input((FEATURES,)), hidden, dropout, AddsLosses(), Dense(CLASSES)])


def penalised_and_coupled() -> keras.Model:
    norm = keras.layers.BatchNormalization(momentum=0.5)
    return keras.Sequential(
        [keras.Input((FEATURES,)), Dense(4, use_bias=False), norm, AddsLosses(), Dense(CLASSES)]
    )


class OwnStep(keras.Model):
    """Computes the compiled loss without compute_loss."""

    def train_step(self, data: Any) -> Any:
        x, y, weights = data
        with tf.GradientTape() as tape:
            loss = self._compile_loss(y, self(x, training=True), weights)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


def own_step() -> keras.Model:
    inputs = keras.Input((FEATURES,))
    return OwnStep(inputs, Dense(CLASSES)(Dense(4, activation="tanh")(inputs)))


def lengths() -> tf.data.Dataset:
    """Return batches padded to different lengths, with a weight for each position."""
    parts = [(slice(0, 4), 3), (slice(4, 8), 5), (slice(8, 10), 2)]

    def elements() -> Any:
        for rows, length in parts:
            yield TOKENS[rows, :length], TOKEN_LABELS[rows, :length], TOKEN_WEIGHTS[rows, :length]

    specs = tuple(tf.TensorSpec((None, None), dtype) for dtype in (tf.int64, tf.int64, tf.float64))
    dataset = tf.data.Dataset.from_generator(elements, output_signature=specs)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(parts)))


@dataclass(frozen=True)
class Case:
    """A model, the arguments of its `compile`, and its training data."""

    model: Callable[[], keras.Model]
    compile: dict[str, Any]
    elements: tuple[Any, ...] = ()
    dataset: Callable[[], tf.data.Dataset] | None = None
    tap: dict[str, Any] = field(default_factory=dict)

    def batches(self) -> tf.data.Dataset:
        return self.dataset() if self.dataset else tf.data.Dataset.from_tensor_slices(self.elements).batch(4)

    def inputs(self) -> np.ndarray:
        """Return the first samples."""
        return np.concatenate([np.asarray(element[0]) for element in self.batches().take(1)])


OUTPUTS = {"a": Y, "b": Y[::-1], "c": Y[:, :1]}
HALVES = {"a": WEIGHTS, "b": 2 * WEIGHTS[::-1], "c": np.ones(COUNT)}

CASES = {
    "dict of outputs": lambda: Case(
        lambda: several_outputs(as_dict),
        {"loss": {"a": "mse", "b": plain, "c": "mae"}, "loss_weights": {"a": 0.5, "b": 2.0, "c": 0.1}},
        (X, OUTPUTS),
    ),
    "dict of outputs and weights": lambda: Case(
        lambda: several_outputs(as_dict),
        {
            "loss": {
                "b": keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
                "a": keras.losses.Huber(reduction="sum"),
                "c": "mse",
            }
        },
        (X, OUTPUTS, HALVES),
    ),
    "one weight for all outputs": lambda: Case(
        lambda: several_outputs(as_dict), {"loss": "mse"}, (X, OUTPUTS, WEIGHTS)
    ),
    "list of outputs, some without loss": lambda: Case(
        lambda: several_outputs(list),
        {"loss": ["mse", None, "mae"], "loss_weights": [0.5, None, 3.0]},
        (X, tuple(OUTPUTS.values())),
    ),
    "tuple of outputs by name": lambda: Case(
        lambda: several_outputs(tuple),
        {"loss": {"a": "mse", "b": "mae", "c": "mse"}, "loss_weights": {"a": 1.0, "b": 2.0, "c": 0.5}},
        (X, OUTPUTS),
    ),
    "nested outputs": lambda: Case(
        Nested, {"loss": "mse"}, (X, {"pair": (Y, Y[::-1]), "alone": Y**2}, WEIGHTS)
    ),
    "several losses of one output": lambda: Case(
        # Keras trains on the first of them.
        one_output,
        {"loss": ["mse", "mae"]},
        (X, Y),
    ),
    "loss weight of one output": lambda: Case(one_output, {"loss": "mse", "loss_weights": 0.3}, (X, Y)),
    "crossentropy by name": lambda: Case(
        lambda: keras.Sequential([keras.Input((FEATURES,)), Dense(CLASSES, activation="softmax")]),
        {"loss": "crossentropy"},
        (X, LABELS),
    ),
    "label smoothing": lambda: Case(
        one_output,
        {"loss": keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)},
        (X, np.eye(CLASSES)[LABELS], WEIGHTS[:, None]),
    ),
    "targets without an axis": lambda: Case(
        lambda: one_output(units=1),
        {"loss": keras.losses.BinaryCrossentropy(from_logits=True)},
        (X, LABELS % 2, WEIGHTS),
    ),
    "plain function, whole numbers as weights": lambda: Case(one_output, {"loss": plain}, (X, Y, LABELS)),
    "class weights": lambda: Case(
        one_output, {"loss": crossentropy()}, (X, LABELS), tap={"class_weight": {0: 1.0, 2: 3.0}}
    ),
    "penalties of the batch": lambda: Case(penalised, {"loss": "mse"}, (X, Y, WEIGHTS)),
    "penalties of a coupled batch": lambda: Case(penalised_and_coupled, {"loss": "mse"}, (X, Y)),
    "mean by its other name": lambda: Case(
        masked, {"loss": crossentropy(reduction="mean")}, (TOKENS, TOKEN_LABELS, WEIGHTS[:, None])
    ),
    "mask of the outputs and of the loss": lambda: Case(
        masked, {"loss": with_mask}, (TOKENS, _RNG.normal(size=(COUNT, LENGTH, CLASSES)))
    ),
    "own train step": lambda: Case(own_step, {"loss": "mse"}, (X, Y, WEIGHTS)),
    "masks and weights of unequal lengths": lambda: Case(
        lambda: masked(None), {"loss": crossentropy()}, dataset=lengths
    ),
}
REDUCTIONS = ("sum_over_batch_size", "sum", "mean_with_sample_weight")  # "mean" is another name of the first
for _reduction in REDUCTIONS:
    CASES |= {
        f"positions, {_reduction}": lambda r=_reduction: Case(
            per_position, {"loss": crossentropy(reduction=r)}, (SEQUENCES, TOKEN_LABELS)
        ),
        f"positions, {_reduction}, a weight each": lambda r=_reduction: Case(
            per_position, {"loss": crossentropy(reduction=r)}, (SEQUENCES, TOKEN_LABELS, TOKEN_WEIGHTS)
        ),
        f"positions, {_reduction}, a weight a sample": lambda r=_reduction: Case(
            per_position, {"loss": crossentropy(reduction=r)}, (SEQUENCES, TOKEN_LABELS, WEIGHTS[:, None])
        ),
        f"mask, {_reduction}": lambda r=_reduction: Case(
            masked, {"loss": crossentropy(reduction=r)}, (TOKENS, TOKEN_LABELS)
        ),
        f"mask, {_reduction}, weights": lambda r=_reduction: Case(
            masked, {"loss": crossentropy(reduction=r)}, (TOKENS, TOKEN_LABELS, TOKEN_WEIGHTS)
        ),
    }
