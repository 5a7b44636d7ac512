"""The rows of the contract: what Keras users do to a training, each as small as it can be.

A row says how to train, which entries of the ledger it must fill beside that of the data, and how exactly the ledger
must balance; or that the training is refused, and with which words.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import explaind_tf as xtf

layers, losses, schedules = keras.layers, keras.losses, keras.optimizers.schedules

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(10, 3))
Y = _RNG.normal(size=(10, 2))
LABELS = _RNG.integers(0, 2, 10)
WEIGHTS = _RNG.uniform(0.2, 2.0, 10)
IMAGES = _RNG.normal(size=(10, 4, 4, 2))
SEQUENCES = _RNG.normal(size=(10, 4, 3))
TOKENS = _RNG.integers(1, 5, (10, 4)).astype("int32")

DOUBLE, SINGLE = 1e-8, 1e-4


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    family, name : str
        Where it stands.
    model : callable
        Makes the model.
    arrays : callable
        Gives the arrays of the training set.
    optimizer : str
        ``"AdamW"`` or ``"SGD"``.
    options, compile, fit : callable
        Arguments of the optimizer (the learning rate included), of ``compile`` and of ``fit``.
    callbacks : callable
        Gives further callbacks.
    tap : dict
        Arguments of ``tap``.
    terms : frozenset of str
        Entries besides the data's that must not be zero; all others must be.
    policy : str
        Dtype policy.
    refused : str or None
        What the message of the refusal must say; None if the ledger must balance.
    fits : int
        How many times the model is fitted with the same logger.
    between : callable
        What is done to the model between two fits.
    prepare : callable
        What is done to the compiled model before the logger is there.
    loosest : float
        A tolerance above that of the precision, where the outputs have kinks.
    logger_first : bool
        Whether the logger is listed before the other callbacks.
    scope : callable
        Gives the context in which the model is made and compiled.
    logical_devices : int
        CPUs that TensorFlow must have been told to see before it started: more than one needs a process of its own.
    wrap : callable
        What is done to the dataset before it is tapped.
    tokens : int
        Positions of a sample for which the loss has values; 0 if there is no token axis.
    """

    family: str
    name: str
    model: Callable[[], keras.Model]
    arrays: Callable[[], Any] = lambda: (X, Y)
    optimizer: str = "AdamW"
    options: Callable[[], dict[str, Any]] = lambda: {"learning_rate": 0.05}
    compile: Callable[[], dict[str, Any]] = dict
    fit: Callable[[], dict[str, Any]] = dict
    callbacks: Callable[[], list[keras.callbacks.Callback]] = list
    tap: dict[str, Any] = field(default_factory=dict)
    terms: frozenset[str] = frozenset({"weight_decay"})
    policy: str = "float64"
    refused: str | None = None
    fits: int = 1
    between: Callable[[keras.Model], None] = lambda model: None
    prepare: Callable[[keras.Model], None] = lambda model: None
    loosest: float = 0.0
    logger_first: bool = True
    scope: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
    logical_devices: int = 1
    wrap: Callable[[tf.data.Dataset], tf.data.Dataset] = lambda dataset: dataset
    tokens: int = 0

    @property
    def tolerance(self) -> float:
        """To which the ledger must balance, as a share of the movement."""
        return max(self.loosest, DOUBLE if self.policy == "float64" else SINGLE)

    @property
    def outcome(self) -> str:
        """What the table says."""
        return f"exact to {self.tolerance:.0e}" if self.refused is None else "refused"


def dense(*inner: keras.layers.Layer, **last: Any) -> keras.Model:
    """Return a model of X with two outputs."""
    return keras.Sequential(
        [keras.Input((3,)), *(inner or [layers.Dense(4, "tanh")]), layers.Dense(2, **last)]
    )


def over(shape: tuple[int, ...], *inner: keras.layers.Layer, dtype: str | None = None) -> keras.Model:
    """Return some layers over inputs of a shape, with a dense layer of two outputs on top."""
    return keras.Sequential([keras.Input(shape, dtype=dtype), *inner, layers.Flatten(), layers.Dense(2)])


ALL = frozenset({"weight_decay"})
WITH = {name: ALL | {name} for name in ("external", "regularizer", "state", "carryover")}


def optimizers() -> Iterator[Row]:
    """Both optimizers, all that changes their steps, clipping and accumulation."""
    adamw = {
        "defaults": {},
        "amsgrad": {"amsgrad": True},
        "other constants": {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        "loss_scale_factor": {"loss_scale_factor": 8.0},
    }
    for name, options in adamw.items():
        yield Row("optimizers", f"PathAdamW, {name}", dense, options=_options(0.05, **options))
    no_decay = _options(0.05, weight_decay=0.0)
    yield Row("optimizers", "PathAdamW, weight_decay=0 (Adam)", dense, options=no_decay, terms=frozenset())
    excluded = {"prepare": lambda model: model.optimizer.exclude_from_weight_decay(var_names=["bias"])}
    yield Row("optimizers", "PathAdamW, exclude_from_weight_decay", dense, **excluded)
    sgd = {
        "plain": {},
        "momentum": {"momentum": 0.9},
        "Nesterov": {"momentum": 0.9, "nesterov": True},
        "decoupled decay": {"momentum": 0.5, "weight_decay": 0.1},
    }
    for name, options in sgd.items():
        terms = ALL if "weight_decay" in options else frozenset()
        yield Row(
            "optimizers",
            f"PathSGD, {name}",
            dense,
            optimizer="SGD",
            options=_options(0.05, **options),
            terms=terms,
        )
    embedding = {
        "model": lambda: over((4,), layers.Embedding(5, 2), dtype="int32"),
        "arrays": lambda: (TOKENS, Y),
    }
    for option, value in {"clipnorm": 0.05, "global_clipnorm": 0.05, "clipvalue": 0.02}.items():
        clip = {option: value}
        yield Row("clipping", f"PathAdamW, {option}", dense, options=_options(0.05, **clip))
        nesterov = _options(0.1, momentum=0.9, nesterov=True, **clip)
        yield Row(
            "clipping", f"PathSGD, {option}", dense, optimizer="SGD", options=nesterov, terms=frozenset()
        )
        if option != "clipvalue":  # Keras clips each slice by itself: refused, see tests/recording
            yield Row(
                "clipping", f"{option} of sparse gradients", **embedding, options=_options(0.05, **clip)
            )
    accumulate = {"gradient_accumulation_steps": 2}
    yield Row("batches", "gradient accumulation, PathAdamW", dense, options=_options(0.05, **accumulate))
    heavy = _options(0.05, momentum=0.9, clipvalue=0.05, **accumulate)
    yield Row(
        "batches",
        "gradient accumulation, PathSGD, clipvalue",
        dense,
        optimizer="SGD",
        options=heavy,
        terms=frozenset(),
    )


def _options(learning_rate: Any, **options: Any) -> Callable[[], dict[str, Any]]:
    return lambda: {"learning_rate": learning_rate, **options}


class SetsRate(keras.callbacks.Callback):
    """Halves the learning rate after the fourth step, in the middle of an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen += 1
        if self.seen == 4:
            self.model.optimizer.learning_rate.assign(0.01)


def learning_rates() -> Iterator[Row]:
    """Everything that sets a learning rate."""
    rates: dict[str, Any] = {
        "float": lambda: 0.05,
        "CosineDecay": lambda: schedules.CosineDecay(0.05, 9, warmup_steps=2, warmup_target=0.1),
        "CosineDecayRestarts": lambda: schedules.CosineDecayRestarts(0.05, 4),
        "ExponentialDecay": lambda: schedules.ExponentialDecay(0.05, 3, 0.7),
        "InverseTimeDecay": lambda: schedules.InverseTimeDecay(0.05, 3, 0.7),
        "PiecewiseConstantDecay": lambda: schedules.PiecewiseConstantDecay([3, 6], [0.05, 0.02, 0.01]),
        "PolynomialDecay": lambda: schedules.PolynomialDecay(0.05, 9),
        "callable": lambda: lambda: 0.05,
    }
    for name, rate in rates.items():
        yield Row("learning rate", name, dense, options=lambda rate=rate: {"learning_rate": rate()})
    callbacks = {
        "LearningRateScheduler": lambda: [
            keras.callbacks.LearningRateScheduler(lambda epoch: 0.05 / (epoch + 1))
        ],
        "ReduceLROnPlateau": lambda: [keras.callbacks.ReduceLROnPlateau("loss", min_delta=10.0, patience=0)],
        "callback that sets it mid-epoch": lambda: [SetsRate()],
    }
    for name, made in callbacks.items():
        yield Row("learning rate", name, dense, callbacks=made)


def batches() -> Iterator[Row]:
    """How samples come to a step."""
    yield Row("batches", "ragged tail", dense)
    twice = np.array([0, 0, 1, 2, 3, 3, 3, 4, 5, 6])
    yield Row("batches", "repeated sample in a batch", dense, arrays=lambda: (X[twice], Y[twice]))
    yield Row("batches", "sample weights", dense, arrays=lambda: (X, Y, WEIGHTS))
    labelled: dict[str, Any] = {
        "arrays": lambda: (X, LABELS),
        "compile": lambda: {"loss": losses.SparseCategoricalCrossentropy(from_logits=True)},
    }
    weights = {0: 0.5, 1: 3.0}
    yield Row("batches", "class weights, given to tap()", dense, **labelled, tap={"class_weight": weights})
    for count in (1, 4):
        spe = {"compile": lambda count=count: {"loss": "mse", "steps_per_execution": count}}
        yield Row("batches", f"steps_per_execution={count}", dense, **spe)
    repeated = {"wrap": lambda dataset: dataset.repeat(), "fit": lambda: {"steps_per_epoch": 2}}
    yield Row("batches", "steps_per_epoch < epoch", dense, **repeated)


def all_losses() -> Iterator[Row]:
    """Every Keras loss with a value for each sample, each reduction, and what surrounds them."""
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
        yield Row("losses", name, **row, compile=made)
    sparse = {"loss": "sparse_categorical_crossentropy"}
    yield Row(
        "losses",
        "SparseCategoricalCrossentropy",
        lambda: dense(activation="softmax"),
        arrays=lambda: (X, LABELS),
        compile=lambda: dict(sparse),
    )
    for reduction in ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight"):
        made = lambda r=reduction: {"loss": losses.MeanSquaredError(reduction=r)}  # noqa: E731
        yield Row("losses", f"reduction={reduction!r}", dense, arrays=lambda: (X, Y, WEIGHTS), compile=made)
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
    tokens: dict[str, Any] = {
        "model": lambda: keras.Sequential([keras.Input((4, 3)), layers.LSTM(2, return_sequences=True)]),
        "tokens": 4,
    }
    targets = _RNG.normal(size=(10, 4, 2))
    yield Row("losses", "sequence, a value for each token", **tokens, arrays=lambda: (SEQUENCES, targets))
    each = _RNG.uniform(0.2, 2, (10, 4))
    yield Row(
        "losses", "sequence, a weight for each token", **tokens, arrays=lambda: (SEQUENCES, targets, each)
    )
    masked = keras.Sequential
    yield Row(
        "losses",
        "sequence, masked tokens",
        lambda: masked(
            [
                keras.Input((4,), dtype="int32"),
                layers.Embedding(5, 2, mask_zero=True),
                layers.LSTM(2, return_sequences=True),
            ]
        ),
        arrays=lambda: (np.where(np.arange(4) < 3, TOKENS, 0).astype("int32"), targets),
        tokens=4,
    )


def two_outputs() -> keras.Model:
    """Return a model of X with outputs a (2) and b (1)."""
    x = keras.Input((3,))
    hidden = layers.Dense(4, "tanh")(x)
    return keras.Model(x, [layers.Dense(2, name="a")(hidden), layers.Dense(1, name="b")(hidden)])


class AddsLoss(keras.layers.Layer):
    """Passes its inputs on and adds their mean square to the loss."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.1 * keras.ops.mean(x**2))
        return x


def regularisation_and_state() -> Iterator[Row]:
    """Terms besides the data: penalties, constraints, statistics, frozen layers."""
    family = "regularisation"
    penalised = {"terms": WITH["regularizer"]}
    for where in ("kernel", "bias", "activity"):

        def inner(w=where):
            return dense(layers.Dense(4, "tanh", **{f"{w}_regularizer": keras.regularizers.L2(0.1)}))

        yield Row(family, f"{where} regulariser", inner, **penalised)
    yield Row(family, "add_loss", lambda: dense(layers.Dense(4, "tanh"), AddsLoss()), **penalised)
    yield Row(family, "dropout", lambda: dense(layers.Dense(8, "tanh"), layers.Dropout(0.5, seed=1)))
    bounded = lambda: dense(layers.Dense(4, "tanh", kernel_constraint=keras.constraints.MaxNorm(0.5)))  # noqa: E731
    yield Row(family, "constraint (booked as external)", bounded, terms=WITH["external"])
    normalised = lambda: dense(layers.Dense(4), layers.BatchNormalization(), layers.Activation("tanh"))  # noqa: E731
    yield Row("state", "BatchNorm in training mode", normalised, terms=WITH["state"])
    frozen = lambda: dense(layers.Dense(4, "tanh", trainable=False))  # noqa: E731
    yield Row("state", "frozen layers", frozen)

    def together():
        return dense(
            layers.Dense(6),
            layers.BatchNormalization(),
            layers.Activation("tanh"),
            layers.Dropout(0.3, seed=2),
        )

    rate = {"options": lambda: {"learning_rate": schedules.CosineDecay(0.05, 9)}}
    yield Row(
        "state",
        "schedule, ragged batches, dropout and BatchNorm together",
        together,
        **rate,
        terms=WITH["state"],
    )


def freeze(model: keras.Model) -> None:
    """Train, then freeze the first layer and compile again."""
    train_before(model)
    model.layers[0].trainable = False
    model.compile(type(model.optimizer)(0.05), loss="mse")


class Subclassed(keras.Model):
    """A model of its own class, with two uses of one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = layers.Dense(3, "tanh")
        self.readout = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.readout(self.shared(self.shared(x)))


class OwnStep(keras.Sequential):
    """A model with a training step of its own, which computes the compiled loss."""

    def train_step(self, data: Any) -> dict[str, Any]:
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        self.optimizer.apply(tape.gradient(loss, self.trainable_weights), self.trainable_weights)
        return {"loss": loss}


def several_inputs() -> keras.Model:
    """Return a model of a dict of two inputs."""
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    joined = layers.Concatenate()([layers.Dense(2, "tanh")(a), b])
    return keras.Model({"a": a, "b": b}, layers.Dense(2)(joined))


def attention() -> keras.Model:
    """Return a model with multi-head attention under a mask."""
    x = keras.Input((4, 3))
    mask = np.tril(np.ones((1, 4, 4), bool))
    states = layers.MultiHeadAttention(2, 2)(x, x, attention_mask=mask)
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(states)))


def models() -> Iterator[Row]:
    """Ways to write a model, and kinds of layers."""
    yield Row("models", "Sequential", dense)
    both = {"arrays": lambda: ({"a": X, "b": Y}, Y)}
    yield Row("models", "Functional, dict of several inputs", several_inputs, **both)
    yield Row(
        "models", "Functional, several outputs", two_outputs, arrays=lambda: (X, (Y, Y[:, :1])), **_MSE_TWICE
    )
    yield Row("models", "subclassed, shared layer", Subclassed)
    own_step = lambda: OwnStep([keras.Input((3,)), layers.Dense(4, "tanh"), layers.Dense(2)])  # noqa: E731
    yield Row("models", "custom train_step", own_step)
    images = {"arrays": lambda: (IMAGES, Y)}
    on_images: dict[str, Callable[[], list[keras.layers.Layer]]] = {
        "Conv2D, max-pooling": lambda: [layers.Conv2D(2, 3, padding="same"), layers.MaxPooling2D()],
        "Conv2D, average pooling": lambda: [layers.Conv2D(2, 3, padding="same"), layers.AveragePooling2D(2)],
        "Conv2D, global pooling": lambda: [
            layers.Conv2D(2, 3, activation="tanh"),
            layers.GlobalAveragePooling2D(),
        ],
        "DepthwiseConv2D": lambda: [layers.DepthwiseConv2D(3)],
        "SeparableConv2D": lambda: [layers.SeparableConv2D(2, 3)],
        "Conv2DTranspose": lambda: [layers.Conv2DTranspose(2, 3)],
        "LayerNormalization": lambda: [layers.LayerNormalization()],
        "GroupNormalization": lambda: [layers.GroupNormalization(2)],
        "Conv3D": lambda: [layers.Reshape((4, 4, 2, 1)), layers.Conv3D(2, 2)],
    }
    for name, made in on_images.items():
        kinks = {"loosest": 1e-4} if "max" in name else {}
        yield Row("layers", name, lambda made=made: over((4, 4, 2), *made()), **images, **kinks)
    sequences = {"arrays": lambda: (SEQUENCES, Y)}
    on_sequences: dict[str, Callable[[], list[keras.layers.Layer]]] = {
        "Dense": lambda: [layers.Dense(2)],
        "EinsumDense": lambda: [layers.EinsumDense("abc,cd->abd", output_shape=(4, 2))],
        "Conv1D": lambda: [layers.Conv1D(2, 2)],
        "LSTM": lambda: [layers.LSTM(2)],
        "GRU": lambda: [layers.GRU(2)],
        "Bidirectional": lambda: [layers.Bidirectional(layers.GRU(2))],
    }
    for name, made in on_sequences.items():
        yield Row("layers", name, lambda made=made: over((4, 3), *made()), **sequences)
    yield Row("layers", "MultiHeadAttention, attention mask", attention, **sequences)
    embedding = lambda: over((4,), layers.Embedding(5, 2), dtype="int32")  # noqa: E731
    yield Row("layers", "Embedding", embedding, arrays=lambda: (TOKENS, Y))


_MSE_TWICE: dict[str, Any] = {"compile": lambda: {"loss": ["mse", "mse"]}}


class SetsWeights(keras.callbacks.Callback):
    """Scales all weights after the third step."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == 3:
            self.model.set_weights([0.9 * weight for weight in self.model.get_weights()])


def train_before(model: keras.Model) -> None:
    """Take some steps before the logger is there."""
    model.fit(tf.data.Dataset.from_tensor_slices((X, Y)).batch(5), verbose=0, shuffle=False)


def shrink(model: keras.Model) -> None:
    """Set other weights, as loading a file does."""
    model.set_weights([0.9 * weight for weight in model.get_weights()])


def mirrored() -> contextlib.AbstractContextManager[Any]:
    """Return the scope of two replicas."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()


def others_and_devices() -> Iterator[Row]:
    """Weights that something else changes, precision, ways of execution, further fits."""
    family, external = "weights changed by others", {"terms": WITH["external"]}

    def best():
        return [keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9.0, restore_best_weights=True)]

    yield Row(
        family,
        "EarlyStopping(restore_best_weights=True)",
        dense,
        callbacks=best,
        logger_first=False,
        **external,
    )
    average = _options(0.05, use_ema=True, ema_momentum=0.5)
    yield Row(family, "use_ema", dense, options=average, **external)
    swap = lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]  # noqa: E731
    yield Row(family, "SwapEMAWeights", dense, options=average, callbacks=swap, **external)
    overwrite = _options(0.05, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    yield Row(family, "use_ema, ema_overwrite_frequency", dense, options=overwrite, **external)
    yield Row(family, "set_weights in a callback", dense, callbacks=lambda: [SetsWeights()], **external)
    yield Row(family, "weights loaded between two fits", dense, fits=2, between=shrink, **external)
    family = "precision and devices"
    yield Row(family, "float64", dense)
    yield Row(family, "float32", dense, policy="float32")
    yield Row(family, "mixed_bfloat16", dense, policy="mixed_bfloat16", refused="mixed precision")
    yield Row(family, "mixed_float16", dense, policy="mixed_float16", refused="mixed_float16|mixed precision")
    for jit in (True, False, "auto"):
        made = lambda jit=jit: {"loss": "mse", "jit_compile": jit}  # noqa: E731
        yield Row(family, f"jit_compile={jit!r}", dense, compile=made)
    yield Row(
        family,
        "MirroredStrategy on two logical CPUs",
        dense,
        scope=mirrored,
        refused="strategy",
        logical_devices=2,
    )
    yield Row(family, "run_eagerly=True", dense, compile=lambda: {"loss": "mse", "run_eagerly": True})
    family = "continuation"
    yield Row(family, "a second fit continues the run", dense, fits=2)
    yield Row(family, "pre-used optimizer", dense, prepare=train_before, terms=WITH["carryover"])
    yield Row(family, "trainable toggled between two fits", dense, prepare=freeze)


ROWS: tuple[Row, ...] = tuple(
    row
    for rows in (
        optimizers,
        learning_rates,
        batches,
        all_losses,
        regularisation_and_state,
        models,
        others_and_devices,
    )
    for row in rows()
)


def optimizer_class(row: Row, *, recorded: bool) -> type[keras.optimizers.Optimizer]:
    """Return the path optimizer of a row, or the Keras optimizer that it stands for."""
    ours = {"AdamW": xtf.PathAdamW, "SGD": xtf.PathSGD}
    theirs = {"AdamW": keras.optimizers.AdamW, "SGD": keras.optimizers.SGD}
    return (ours if recorded else theirs)[row.optimizer]
