"""What the ledger could not account for is refused early, with a helpful message, and without touching any data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import PathAdamW, RefusedError
from tests.helpers import (
    CLASSES,
    FEATURES,
    LABELS,
    X,
    Y,
    batches,
    dense_model,
    fit,
)
from tests.recording.fits import compiled, filtered

Dense = keras.layers.Dense


@dataclass(frozen=True)
class Attempt:
    """A training that must be refused, and what the message must say."""

    says: str
    """Regular expression: what was found, what is needed, what to write instead."""
    model: Callable[[], keras.Model] = dense_model
    compile: dict[str, Any] = field(default_factory=dict)
    dataset: Callable[[], tf.data.Dataset] = batches
    tap: dict[str, Any] = field(default_factory=dict)
    fit: dict[str, Any] = field(default_factory=dict)
    policy: str | None = None


class OtherLoss(keras.Sequential):
    def train_step(self, data: Any) -> Any:
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - y) ** 4)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"loss": loss}


class OwnLoss(keras.Sequential):
    def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, **_: Any) -> Any:
        return keras.ops.mean((y - y_pred) ** 2)


class ReadsVariable(keras.layers.Layer):
    """Holds a variable that Keras does not track."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable(2.0)

    def call(self, x: Any) -> Any:
        return x * self.scale


class DrawsNumbers(keras.layers.Layer):
    """Draws random numbers that no seed in the record determines."""

    def call(self, x: Any, training: bool = False) -> Any:
        return x + tf.random.normal(tf.shape(x)) if training else x


def with_nan(row: int) -> tf.data.Dataset:
    x = X.copy()
    x[row, 1] = np.nan
    return batches(x, Y)


def whole_mean(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.mean((y_true - y_pred) ** 2)


def scalar_output() -> keras.Model:
    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.readout = Dense(CLASSES)

        def call(self, x: Any) -> Any:
            return {"y": self.readout(x), "norm": keras.ops.sum(x)}

    return Model()


def tokens_of(shape: tuple[int, ...]) -> tf.data.Dataset:
    """A label for each of five positions, and weights of some shape."""
    return batches(np.ones((10, 5, FEATURES), "float32"), np.zeros((10, 5), int), np.ones(shape))


def token_model() -> keras.Model:
    return keras.Sequential([keras.Input((5, FEATURES)), Dense(CLASSES)])


class OwnReduction(keras.losses.Loss):
    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return keras.ops.mean((y_true - y_pred) ** 2)


CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FIRST_STEP = (
    "first step was replayed.*gradient is not the one .*Something that is not recorded changed the step.*"
)

ATTEMPTS = {
    "a convolution of volumes with channels first": Attempt(
        says=r"calls functions that only XLA can compile \(.*\), such as Conv3D with .* Use data_format=\"channels_last\"",
        model=lambda: keras.Sequential(
            [
                keras.Input((FEATURES,)),
                keras.layers.Reshape((1, FEATURES, 1, 1)),
                keras.layers.Conv3D(4, 1, data_format="channels_first"),
                keras.layers.Flatten(),
                Dense(CLASSES),
            ]
        ),
    ),
    "loss without per-sample values": Attempt(
        r"loss 'whole_mean' returns .* shape \(\).*not one for each sample.*axis=-1",
        compile={"loss": whole_mean},
    ),
    "loss without reduction": Attempt(
        r"'mean_squared_error' has reduction=None.*Use one of .*sum_over_batch_size",
        compile={"loss": keras.losses.MeanSquaredError(reduction=None)},
    ),
    "no loss": Attempt(
        r"compiled without a loss.*`loss=` to compile\(\)",
        model=lambda: OwnLoss([keras.Input((FEATURES,)), Dense(CLASSES)]),
        compile={"loss": None},
    ),
    "class weights at the tap and sample weights": Attempt(
        r"given class_weight and a dataset with sample weights.*Multiply them in the dataset",
        dataset=lambda: batches(X, LABELS, np.ones(10)),
        tap={"class_weight": {0: 1.0, 1: 3.0}},
    ),
    "class weights of several targets": Attempt(
        r"class_weight is for one target.*targets are a dict.*sample weights in the dataset",
        dataset=lambda: batches(X, {"a": LABELS, "b": LABELS}),
        tap={"class_weight": {0: 1.0, 1: 3.0}},
    ),
    "class weights by name": Attempt(
        r"class numbers to weights.*'cat'",
        dataset=lambda: batches(X, LABELS),
        tap={"class_weight": {"cat": 1.0}},
    ),
    "class weights of positions": Attempt(
        # Keras takes (batch, positions) of class numbers for one-hot labels.
        r"values .* \(None, 5\) and weights of shape \(None,\).*\(batch, 1\)",
        model=lambda: token_model(),
        compile={"loss": CROSSENTROPY},
        dataset=lambda: batches(np.ones((10, 5, FEATURES), "float32"), np.zeros((10, 5), int)),
        tap={"class_weight": {0: 1.0, 1: 3.0}},
    ),
    "one weight a sample of several positions": Attempt(
        # Keras multiplies (batch, positions) by (batch,): an error, or weights of the wrong things.
        r"values .* \(None, 5\) and weights of shape \(None,\).*\(batch, 1\)",
        model=token_model,
        compile={"loss": CROSSENTROPY},
        dataset=lambda: tokens_of((10,)),
    ),
    "loss with a reduction of its own": Attempt(
        r"own_reduction.*overrides __call__.*Override call\(",
        compile={"loss": OwnReduction},
    ),
    "output without a batch": Attempt(
        r"returns a tensor of shape \(\) among its outputs",
        model=scalar_output,
        compile={"loss": {"y": "mse"}},
        dataset=lambda: batches(X, {"y": Y}),
    ),
    "train_step with another loss": Attempt(
        FIRST_STEP + "a train_step or compute_loss of your own",
        model=lambda: OtherLoss([keras.Input((FEATURES,)), Dense(CLASSES)]),
    ),
    "random numbers without a seed": Attempt(
        FIRST_STEP + r"random numbers that are not from a keras\.random\.SeedGenerator",
        model=lambda: dense_model(DrawsNumbers(), Dense(CLASSES)),
    ),
    "dropout under XLA": Attempt(
        # XLA has its own generators: outside of XLA, the recorded seed gives other numbers.
        r"jit_compile",
        model=lambda: dense_model(Dense(16), keras.layers.Dropout(0.5, seed=1), Dense(CLASSES)),
        compile={"jit_compile": True, "run_eagerly": False},
    ),
    "more steps per execution than are remembered": Attempt(
        "steps_per_execution=65.*at most 64", compile={"steps_per_execution": 65}
    ),
    "variable outside of the model": Attempt(
        r"reads 1 variable\(s\).*neither in model\.trainable_variables.*self\.add_weight\(",
        model=lambda: dense_model(ReadsVariable(), Dense(CLASSES)),
    ),
    "clipvalue of sparse gradients": Attempt(
        "clipvalue.*Embedding.*use clipnorm",
        model=lambda: keras.Sequential(
            [
                keras.Input((2,), dtype="int32"),
                keras.layers.Embedding(3, 2),
                keras.layers.Flatten(),
                Dense(CLASSES),
            ]
        ),
        compile={"optimizer": lambda: xtf.PathAdamW(0.01, clipvalue=1e9)},
        dataset=lambda: batches(np.ones((10, 2), "int32"), Y),
    ),
    "weights in bfloat16": Attempt(
        "dtypes.*bfloat16.*use a policy with float32 weights: mixed_bfloat16 or mixed_float16",
        policy="bfloat16",
    ),
    "steps that may be skipped, several in one execution": Attempt(
        r"steps_per_execution=2 and a LossScaleOptimizer, which may skip steps.*steps_per_execution=1",
        policy="mixed_float16",
        compile={"steps_per_execution": 2},
    ),
    "nothing to train": Attempt(
        "no trainable variables", model=lambda: dense_model(Dense(CLASSES, trainable=False))
    ),
    "NaN in the first batch": Attempt(
        "NaN",
        dataset=lambda: with_nan(1),
    ),
    "infinite learning rate": Attempt(
        "NaN or infinite in step 0",
        compile={"optimizer": lambda: PathAdamW(float("inf"))},
    ),
}


@pytest.fixture
def policy() -> Iterator[Callable[[str | None], None]]:
    before = keras.config.dtype_policy()
    yield lambda name: keras.config.set_dtype_policy(name) if name else None
    keras.config.set_dtype_policy(before)


def attempt_params() -> list[Any]:
    return [pytest.param(attempt, id=name) for name, attempt in ATTEMPTS.items()]


@pytest.mark.parametrize("attempt", attempt_params())
def test_training_that_cannot_be_accounted_for_is_refused(
    attempt: Attempt, run_dir: Path, policy: Callable[[str | None], None]
):
    policy(attempt.policy)
    model = attempt.model()
    arguments = {"loss": "mse", "run_eagerly": True, "optimizer": PathAdamW} | attempt.compile
    # Eagerly where possible: refusals do not depend on the mode of execution.
    arguments["run_eagerly"] &= arguments.get("steps_per_execution", 1) == 1
    model.compile(**arguments | {"optimizer": arguments["optimizer"]()})
    logger = xtf.PathLogger(run_dir, verbose=False)
    with pytest.raises(RefusedError, match=f"(?s){attempt.says}"):
        fit(model, logger.tap(attempt.dataset(), **attempt.tap), logger, **attempt.fit)
    assert not run_dir.exists()


class TestDataOfUnknownLength:
    def test_steps_between_keyframes_are_refused(self, run_dir: Path):
        logger = xtf.PathLogger(run_dir, every=2, verbose=False)
        with pytest.raises(RefusedError, match=r"number of batches .* not known.*steps_per_epoch=n.*every=1"):
            fit(compiled(), filtered(), logger)
        assert not run_dir.exists()

    def test_filter_is_accepted_once_its_cardinality_is_asserted(self, run_dir: Path):
        logger = xtf.PathLogger(run_dir, verbose=False)
        known = filtered().apply(tf.data.experimental.assert_cardinality(3))
        fit(compiled(), logger.tap(known), logger)
        assert len(xtf.open_run(run_dir).steps) == 3

    def test_filter_is_accepted_with_steps_per_epoch(self, run_dir: Path):
        logger = xtf.PathLogger(run_dir, verbose=False)
        fit(compiled(), logger.tap(filtered()), logger, steps_per_epoch=2)
        assert len(xtf.open_run(run_dir).steps) == 2

    def test_steps_of_the_optimizer_outside_of_fit_are_refused(self, run_dir: Path):
        class ExtraStep(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                self.model.optimizer.iterations.assign_add(1)

        logger = xtf.PathLogger(run_dir, verbose=False)
        with pytest.raises(RefusedError, match="received 1 batches and the optimizer counted 2 steps"):
            fit(compiled(), logger.tap(batches()), logger, ExtraStep())
