"""Rows for every Keras loss with a value for each sample, each reduction, custom, several and token losses."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from tests.contract.rows.arrays import (
    LABELS,
    SEQUENCES,
    TOKEN_TARGETS,
    TOKEN_WEIGHTS,
    TOKENS,
    WEIGHTS,
    X,
    Y,
)
from tests.contract.rows.row import Row
from tests.contract.rows.small_models import dense, two_outputs

layers, losses = keras.layers, keras.losses


def keras_losses() -> Iterator[Row]:
    """Every Keras loss, with suitable targets and outputs."""
    probabilities = {"model": lambda: dense(activation="softmax"), "arrays": lambda: (X, np.eye(2)[LABELS])}
    binary = {"model": lambda: dense(activation="sigmoid"), "arrays": lambda: (X, np.eye(2)[LABELS])}
    signs = {"model": dense, "arrays": lambda: (X, 2 * np.eye(2)[LABELS] - 1)}
    positive = {"model": lambda: dense(activation="softplus"), "arrays": lambda: (X, np.abs(Y) + 0.5)}
    real = {"model": dense}
    known: list[tuple[losses.Loss, dict[str, Any]]] = [
        (losses.BinaryCrossentropy(label_smoothing=0.1), binary),
        (losses.BinaryFocalCrossentropy(), binary),
        (losses.CategoricalCrossentropy(label_smoothing=0.1), probabilities),
        (losses.CategoricalFocalCrossentropy(), probabilities),
        (losses.CategoricalHinge(), signs),
        (losses.CosineSimilarity(), real),
        (losses.Dice(axis=-1), binary),
        (losses.Hinge(), signs),
        (losses.Huber(), real),
        (losses.KLDivergence(), probabilities),
        (losses.LogCosh(), real),
        (losses.MeanAbsoluteError(), real),
        (losses.MeanAbsolutePercentageError(), positive),
        (losses.MeanSquaredError(), real),
        (losses.MeanSquaredLogarithmicError(), positive),
        (losses.Poisson(), positive),
        (losses.SquaredHinge(), signs),
        (losses.Tversky(axis=-1), binary),
    ]
    for loss, row in known:
        name = type(loss).__name__ + (", label smoothing" if getattr(loss, "label_smoothing", 0) else "")
        config = keras.losses.serialize(loss)
        made = lambda config=config: {"loss": keras.losses.deserialize(config)}  # noqa: E731
        # The gradients ±1 of absolute errors cancel, and what is left is rounding.
        most = 1e-11 if name == "MeanAbsoluteError" else 1e-12
        yield Row("losses", name, **row, compile=made, most_rounding=most)
    sparse = {"loss": "sparse_categorical_crossentropy"}
    yield Row(
        "losses",
        "SparseCategoricalCrossentropy",
        lambda: dense(activation="softmax"),
        arrays=lambda: (X, LABELS),
        compile=lambda: dict(sparse),
    )


def reductions() -> Iterator[Row]:
    """Reductions of the losses of a batch to one number."""
    for reduction in ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight"):
        made = lambda r=reduction: {"loss": losses.MeanSquaredError(reduction=r)}  # noqa: E731
        yield Row("losses", f"reduction={reduction!r}", dense, arrays=lambda: (X, Y, WEIGHTS), compile=made)


def own_and_several() -> Iterator[Row]:
    """A custom loss, and several outputs with a loss each."""
    own = {"compile": lambda: {"loss": lambda y, p: keras.ops.mean((y - p) ** 4, axis=-1)}}
    yield Row("losses", "custom callable", dense, **own)
    two: dict[str, Any] = {"model": two_outputs}
    weighted = {"compile": lambda: {"loss": ["mse", "mae"], "loss_weights": [0.3, 2.0]}}
    yield Row("losses", "several outputs, loss_weights", **two, **weighted, arrays=lambda: (X, (Y, Y[:, :1])))
    named = {"compile": lambda: {"loss": {"a": "mse", "b": "mae"}}}
    yield Row(
        "losses",
        "several outputs, dict of targets",
        **two,
        **named,
        arrays=lambda: (X, {"a": Y, "b": Y[:, :1]}),
    )


def alignment_losses() -> Iterator[Row]:
    """The loss of a sequence of labels that may stand anywhere in a longer sequence."""
    labels = 1 + np.arange(2 * len(SEQUENCES), dtype="int32").reshape(-1, 2) % 3
    yield Row(
        "losses",
        "CTC",
        lambda: keras.Sequential([keras.Input(SEQUENCES.shape[1:]), layers.LSTM(4, return_sequences=True)]),
        arrays=lambda: (SEQUENCES, labels),
        compile=lambda: {"loss": losses.CTC()},
        policy="float32",
    )


def token_losses() -> Iterator[Row]:
    """Losses with a value for each token of a sequence."""
    tokens: dict[str, Any] = {
        "model": lambda: keras.Sequential([keras.Input((4, 3)), layers.LSTM(2, return_sequences=True)]),
        "tokens": 4,
    }
    yield Row(
        "losses", "sequence, a value for each token", **tokens, arrays=lambda: (SEQUENCES, TOKEN_TARGETS)
    )
    yield Row(
        "losses",
        "sequence, a weight for each token",
        **tokens,
        arrays=lambda: (SEQUENCES, TOKEN_TARGETS, TOKEN_WEIGHTS),
    )
    yield Row(
        "losses",
        "sequence, masked tokens",
        lambda: keras.Sequential(
            [
                keras.Input((4,), dtype="int32"),
                layers.Embedding(5, 2, mask_zero=True),
                layers.LSTM(2, return_sequences=True),
            ]
        ),
        arrays=lambda: (np.where(np.arange(4) < 3, TOKENS, 0).astype("int32"), TOKEN_TARGETS),
        tokens=4,
    )
