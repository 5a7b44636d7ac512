"""The token axis: the contribution of the loss of each position of a sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import xarray as xr

import explaind_tf as xtf
from tests import oracle
from tests.helpers import double_precision, fit, initialised
from tests.nightly import sweep

pytestmark = pytest.mark.slow

layers = keras.layers

# The same integrals by the same rules, contracted by other routes in float64.
SUMS = 1e-10
# As in test_oracle.py: the tolerance asked for, the error that an entry may have then, and that of the weights.
QUADRATURE, ENTRIES, TRAJECTORY = 1e-10, 3e-9, 1e-12

COUNT, LENGTH, FEATURES, CLASSES = 10, 5, 2, 3
_RNG = np.random.default_rng(8)
SEQUENCES = _RNG.normal(size=(COUNT, LENGTH, FEATURES))
LABELS = _RNG.integers(0, CLASSES, (COUNT, LENGTH))
WEIGHTS = _RNG.uniform(0.2, 2, (COUNT, LENGTH))
# Batches of unequal lengths. Within them some sequences end earlier, and one starts later.
BATCHES = ((range(0, 4), 3), (range(4, 8), 5), (range(8, 10), 2))
MASK = np.arange(LENGTH) < np.array([3, 2, 1, 3, 5, 4, 5, 2, 2, 1])[:, None]
MASK[4, 0] = False


def crossentropy() -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def last(outputs: Any) -> Any:
    """Measure the outputs of the last position."""
    return outputs[:, -1]


# Compared with the oracle, for which a sample with T losses is T samples with one.


def masked_model() -> keras.Model:
    """Return a model whose positions see the one before them. Positions with all features zero are masked."""
    inputs = keras.Input((None, FEATURES))
    masked = layers.Masking()(inputs)
    convolution = layers.Conv1D(3, 2, padding="causal", activation="tanh", name="hidden")
    convolution.supports_masking = True  # it passes the mask on
    return keras.Model(inputs, layers.Dense(CLASSES, name="readout")(convolution(masked)))


def masked_network() -> oracle.Network:
    def forward(values: oracle.Arrays, x: np.ndarray) -> np.ndarray:
        before = np.pad(x, [(0, 0), (1, 0), (0, 0)])[:, :-1]
        kernel, bias = values["hidden/kernel"], values["hidden/bias"]
        hidden = np.tanh(before @ kernel[0] + x @ kernel[1] + bias)
        return hidden @ values["readout/kernel"] + values["readout/bias"]

    hidden = (
        oracle.Variable("hidden", "kernel", (2, FEATURES, 3)),
        oracle.Variable("hidden", "bias", (3,)),
    )
    readout = (
        oracle.Variable("readout", "kernel", (3, CLASSES)),
        oracle.Variable("readout", "bias", (CLASSES,)),
    )
    return oracle.Network((*hidden, *readout), forward)


def loss_of_position(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Loss of one position, the targets being (position, class): shape (batch,)."""
    position, label = targets.T
    return -oracle.log_softmax(outputs)[np.arange(len(outputs)), position, label]


def unequal_batches() -> tf.data.Dataset:
    def elements() -> Iterator[Any]:
        for rows, length in BATCHES:
            inputs = np.where(MASK[..., None], SEQUENCES, 0)[rows, :length]
            yield inputs, LABELS[rows, :length], WEIGHTS[rows, :length]

    specs = (
        tf.TensorSpec((None, None, FEATURES), tf.float64),
        tf.TensorSpec((None, None), tf.int64),
        tf.TensorSpec((None, None), tf.float64),
    )
    dataset = tf.data.Dataset.from_generator(elements, output_signature=specs)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(BATCHES)))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[xtf.Run, oracle.Ledger]]:
    """Return six steps over batches of unequal lengths, with masks and token weights: recorded, and by the oracle."""
    network = masked_network()
    theta = _RNG.normal(size=network.size) * 0.5
    law = oracle.AdamW(weight_decay=0.5, beta_1=0.9, beta_2=0.99)
    x_test = SEQUENCES[:2, :4] + 0.5
    with double_precision():
        model = masked_model()
        model.set_weights(list(network.unflatten(theta).values()))
        optimizer = xtf.PathAdamW(0.05, weight_decay=0.5, beta_1=0.9, beta_2=0.99)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        model.compile(optimizer, loss=crossentropy(), weighted_metrics=[])
        logger = xtf.PathLogger(tmp_path_factory.mktemp("tokens") / "run", verbose=False)
        fit(model, logger.tap(unequal_batches()), logger, epochs=2)
        run = xtf.open_run(logger.run_dir)
        # Keras divides by the number of unmasked tokens, the oracle by the number of its rows.
        batches = []
        for rows, _ in 2 * BATCHES:
            weights = MASK[rows] * WEIGHTS[rows] * MASK[rows].size / MASK[rows].sum()
            tokens = np.arange(COUNT * LENGTH).reshape(COUNT, LENGTH)[rows]
            batches.append(oracle.Batch(tokens.reshape(-1), weights.reshape(-1)))
        training = oracle.train(
            network,
            loss_of_position,
            law,
            theta,
            np.repeat(np.where(MASK[..., None], SEQUENCES, 0), LENGTH, axis=0),
            np.stack([np.tile(np.arange(LENGTH), COUNT), LABELS.reshape(-1)], axis=1),
            batches,
            [run.step_store.transition(step).learning_rate for step in range(len(run.steps))],
        )
        final = np.concatenate([array.reshape(-1) for array in run.theta(len(run.steps)).values()])
        np.testing.assert_allclose(final, training.theta[-1], rtol=0, atol=TRAJECTORY)
        yield run, oracle.ledger(training, COUNT * LENGTH, x_test, last)


def tokens_of(run: xtf.Run, *axes: str, **options: Any) -> xr.Dataset:
    arguments = {"tolerance": QUADRATURE, "progress": False} | options
    ledger = run.attribute(SEQUENCES[:2, :4] + 0.5, last, axes=("sample", "token", *axes), **arguments)
    assert isinstance(ledger, xr.Dataset)
    return ledger


@pytest.mark.parametrize("step_of", ["use", "effect"])
def test_every_entry(recorded: tuple[xtf.Run, oracle.Ledger], step_of: str):
    run, expected = recorded
    ledger = tokens_of(run, "layer", "step", step_of=step_of)
    ledger.explaind.check()
    assert ledger.data.dims == ("input", "output", "sample", "token", "layer", "step")
    assert list(ledger.token.values) == list(range(LENGTH))
    by_row = expected.data.sum(axis=5 if step_of == "use" else 4)
    by_token = by_row.reshape(*by_row.shape[:2], COUNT, LENGTH, *by_row.shape[3:])
    np.testing.assert_allclose(ledger.data, by_token, rtol=0, atol=ENTRIES * expected.movement)
    # A token on which nothing depends could be swapped with its neighbours unnoticed.
    largest = np.abs(by_token).max(axis=(0, 1, 4, 5))
    assert largest[MASK].min() > 1e-3 * expected.movement


def test_masked_tokens_have_exactly_nothing(recorded: tuple[xtf.Run, oracle.Ledger]):
    entries = tokens_of(recorded[0]).data.values
    assert not entries[:, :, ~MASK].any()  # positions beyond the length of a batch are among them
    assert entries[:, :, MASK].all()


def test_steps_may_be_picked(recorded: tuple[xtf.Run, oracle.Ledger]):
    run, expected = recorded
    ledger = tokens_of(run, steps=range(2, 4))
    by_row = expected.data[..., 2:4].sum(axis=(3, 4, 5))
    by_token = by_row.reshape(*by_row.shape[:2], COUNT, LENGTH)
    np.testing.assert_allclose(ledger.data, by_token, rtol=0, atol=ENTRIES * expected.movement)


def test_samples_are_ranked_as_ever(recorded: tuple[xtf.Run, oracle.Ledger]):
    run, _ = recorded
    samples = run.attribute(SEQUENCES[:2, :4] + 0.5, last, axes=("sample",), progress=False)
    xr.testing.assert_allclose(
        tokens_of(run, tolerance=1e-3).explaind.proponents(3), samples.explaind.proponents(3), rtol=SUMS
    )


# Sums, for any training.


def positionwise(*heads: str) -> keras.Model:
    inputs = keras.Input((LENGTH, FEATURES))
    hidden = layers.Dense(4, activation="tanh")(inputs)
    outputs = [layers.Dense(CLASSES, name=name)(hidden) for name in heads or ("one",)]
    return keras.Model(inputs, outputs if heads else outputs[0])


def coupled(mix: keras.layers.Layer) -> keras.Model:
    """Return a model whose statistics and random masks couple positions, within and between samples."""
    norm = layers.BatchNormalization(momentum=0.5)
    return keras.Sequential(
        [
            keras.Input((LENGTH, FEATURES)),
            mix,
            norm,
            layers.Dropout(0.3, seed=1),
            layers.Dense(CLASSES),
        ]
    )


def images() -> keras.Model:
    return keras.Sequential(
        [keras.Input((3, 2, 1)), layers.Conv2D(2, 2, padding="same", activation="tanh"), layers.Conv2D(1, 1)]
    )


@dataclass(frozen=True)
class Case:
    """A training whose losses have values for positions, and the number of positions."""

    model: Callable[[], keras.Model]
    arrays: tuple[Any, ...]
    loss: Any = field(default_factory=crossentropy)
    optimizer: Callable[[], keras.optimizers.Optimizer] = lambda: xtf.PathAdamW(0.02, weight_decay=0.1)
    compile: dict[str, Any] = field(default_factory=dict)
    tokens: int | None = LENGTH
    dataset: Callable[[], tf.data.Dataset] | None = None

    def train(self, run_dir: Path) -> xtf.Run:
        """Record two epochs of batches of 4 + 4 + 2 samples."""
        keras.utils.set_random_seed(3)
        model = initialised(self.model())
        model.compile(self.optimizer(), loss=self.loss, run_eagerly=True, weighted_metrics=[], **self.compile)
        logger = xtf.PathLogger(run_dir, verbose=False)
        dataset = self.dataset or (lambda: tf.data.Dataset.from_tensor_slices(self.arrays).batch(4))
        fit(model, logger.tap(dataset()), logger, epochs=2)
        return xtf.open_run(run_dir)


PIXELS = _RNG.normal(size=(COUNT, 3, 2, 1))
TWO = (LABELS, LABELS[::-1])
CASES: dict[str, Callable[[], Case]] = {
    "one weight a token": lambda: Case(positionwise, (SEQUENCES, LABELS, WEIGHTS)),
    "one weight a sample": lambda: Case(positionwise, (SEQUENCES, LABELS, WEIGHTS[:, :1])),
    "loss of a sum": lambda: Case(
        positionwise,
        (SEQUENCES, LABELS, WEIGHTS),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
    ),
    "several losses": lambda: Case(
        lambda: positionwise("a", "b"),
        (SEQUENCES, TWO, (WEIGHTS, WEIGHTS[::-1])),
        [crossentropy(), crossentropy()],
        compile={"loss_weights": [0.3, 2.0]},
    ),
    "coupled positions": lambda: Case(
        lambda: coupled(layers.Conv1D(3, 2, padding="causal", activation="tanh")), (SEQUENCES, LABELS)
    ),
    "coupled positions of a recurrent model": lambda: Case(
        lambda: coupled(layers.GRU(3, return_sequences=True)), (SEQUENCES, LABELS)
    ),
    "Nesterov": lambda: Case(
        positionwise,
        (SEQUENCES, LABELS),
        optimizer=lambda: xtf.PathSGD(0.1, momentum=0.9, nesterov=True, clipnorm=0.1),
    ),
    "gradient accumulation": lambda: Case(
        positionwise,
        (SEQUENCES, LABELS),
        optimizer=lambda: xtf.PathAdamW(0.02, gradient_accumulation_steps=2, clipvalue=0.02),
    ),
    "pixels": lambda: Case(images, (PIXELS, PIXELS[::-1]), "mse", tokens=6),
    "unequal lengths": lambda: Case(masked_model, (SEQUENCES,), dataset=unequal_batches, tokens=None),
}


def numbers(outputs: Any) -> Any:
    """Measure the mean outputs over all positions."""
    means = [
        tf.reduce_mean(part, axis=list(range(1, part.shape.rank - 1))) for part in tf.nest.flatten(outputs)
    ]
    return tf.concat(means, axis=1)


@pytest.mark.usefixtures("float64")
# `test_every_entry` compares a model with coupled positions, masks and a weight for each token with the oracle every time.
@pytest.mark.parametrize("name", sweep(CASES, daily=False))
def test_tokens_add_up_to_samples_and_to_the_data_term(name: str, run_dir: Path):
    case = CASES[name]()
    run = case.train(run_dir)
    assert run.graphs.token_count == case.tokens  # if it is known, no sample must be read to find it
    x = case.arrays[0][:2]
    tokens, samples, totals = (
        run.attribute(x, numbers, axes=axes, progress=False)
        for axes in (("sample", "token", "layer", "step"), ("sample", "layer", "step"), ("layer",))
    )
    tokens.explaind.check()
    assert tokens.sizes["token"] == (case.tokens or LENGTH)
    movement = float(totals.movement.max())
    assert movement > 1e-2
    np.testing.assert_allclose(tokens.data.sum("token"), samples.data, rtol=0, atol=SUMS * movement)
    summed = tokens.data.sum(["sample", "token", "step"])
    np.testing.assert_allclose(summed, totals.data, rtol=0, atol=SUMS * movement)
    assert float(np.abs(tokens.data).max(["input", "output", "sample", "layer", "step"]).min()) > 0


# Runs and questions without the axis.


class TestRefusals:
    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, tmp_path_factory: pytest.TempPathFactory) -> xtf.Run:
        case = Case(positionwise, (SEQUENCES.astype("float32"), LABELS))
        return case.train(tmp_path_factory.mktemp("refused") / "run")

    @pytest.mark.parametrize(
        ("axes", "message"),
        [
            (("token",), "'token' without 'sample': tokens are positions within samples. Ask for both"),
            (("token", "step"), "Ask for both"),
            (("sample", "token", "parameter"), "'token' or 'parameter', not both.*'layer' instead"),
            (("sample", "tokens"), r"Unknown axes \['tokens'\].*'token'"),
        ],
    )
    def test_axes_that_do_not_go_together(self, run: xtf.Run, axes: tuple[str, ...], message: str):
        with pytest.raises(ValueError, match=message):
            run.attribute(SEQUENCES[:1].astype("float32"), numbers, axes=axes, progress=False)

    @pytest.mark.parametrize(
        "case",
        [
            Case(
                lambda: keras.Sequential([keras.Input((2,)), layers.Dense(3)]),
                (SEQUENCES[:, 0], LABELS[:, 0]),
            ),
            # Keras gives the losses the shape of the weights.
            Case(
                lambda: keras.Sequential([keras.Input((2,)), layers.Dense(3)]),
                (SEQUENCES[:, 0], LABELS[:, 0], WEIGHTS[:, :1]),
            ),
            Case(
                lambda: two_lengths(LENGTH),
                (SEQUENCES, (SEQUENCES, SEQUENCES[:, 0])),
                ["mse", "mse"],
            ),
        ],
        ids=["a value a sample", "a value and a weight a sample", "losses of different positions"],
    )
    @pytest.mark.usefixtures("float64")
    def test_losses_without_positions(self, case: Case, run_dir: Path):
        run = case.train(run_dir)
        with pytest.raises(
            ValueError, match=r"has no token axis.*several values for a sample.*Ask for 'sample'"
        ):
            run.attribute(case.arrays[0][:1], axes=("sample", "token"), progress=False)
        assert run.graphs.functions.token_losses is None


def two_lengths(length: int) -> keras.Model:
    """Return a model with one output for each position and one for the whole sequence."""
    inputs = keras.Input((length, FEATURES))
    hidden = layers.Dense(3, activation="tanh")(inputs)
    pooled = layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(inputs, [layers.Dense(FEATURES)(hidden), layers.Dense(FEATURES)(pooled)])
