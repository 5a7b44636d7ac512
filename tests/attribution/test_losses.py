"""Losses of every make: each step follows from the record to rounding, and the samples add up to the data term."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf.replay.recorded import Replay
from explaind_tf.sweeps import routes
from tests.helpers import fit, initialised

# Samples that dropout or BatchNorm tie to their batch leave no choice of route.
COUPLED = ("penalties of the batch", "penalties of a coupled batch")
# The record is replayed in float64 in other orders of summation.
ROUNDING = 1e-12
BALANCE = 1e-8

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
    """Carries a mask of its own."""
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
    """Returns a dict of a tuple; gets one loss for all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.left, self.right = Dense(4, activation="tanh"), Dense(CLASSES), Dense(CLASSES)

    def call(self, x: Any) -> Any:
        hidden = self.hidden(x)
        return {"pair": (self.left(hidden), self.right(hidden)), "alone": self.right(x[:, :1] * hidden)}


class AddsLosses(keras.layers.Layer):
    """Adds a scalar and a vector; both depend on the batch."""

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
    """Batches padded to different lengths, with a weight for each position."""
    parts = [(slice(0, 4), 3), (slice(4, 8), 5), (slice(8, 10), 2)]

    def elements() -> Any:
        for rows, length in parts:
            yield TOKENS[rows, :length], TOKEN_LABELS[rows, :length], TOKEN_WEIGHTS[rows, :length]

    specs = tuple(tf.TensorSpec((None, None), dtype) for dtype in (tf.int64, tf.int64, tf.float64))
    dataset = tf.data.Dataset.from_generator(elements, output_signature=specs)
    return dataset.apply(tf.data.experimental.assert_cardinality(len(parts)))


@dataclass(frozen=True)
class Case:
    """A model, how it is compiled and what it is trained on."""

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


def train(case: Case, run_dir: Path) -> xtf.Run:
    keras.utils.set_random_seed(3)
    model = case.model()
    model(case.inputs())  # subclassed models are built by their first call
    model = initialised(model)
    model.compile(xtf.PathAdamW(0.02, weight_decay=0.1), run_eagerly=True, **case.compile)
    logger = xtf.PathLogger(run_dir, verbose=False)
    fit(model, logger.tap(case.batches(), **case.tap), logger, epochs=2)
    return xtf.open_run(run_dir)


def numbers(outputs: Any) -> tf.Tensor:
    """Measure all outputs, of sequences the first position."""
    flat = [output[:, 0] if output.shape.rank == 3 else output for output in tf.nest.flatten(outputs)]
    return tf.concat(flat, axis=1)


def check_steps(run: xtf.Run) -> None:
    """The causes found by replay add up to the displacement that Keras made, to rounding."""
    run.verify(progress=False)
    replay = Replay(run, run._derivatives(xtf.measurements.outputs()), tolerance=1e-9)
    for step in replay.path_steps(0, len(run.steps)):
        explained = sum(step.causes.values())
        np.testing.assert_allclose(explained, step.path.displacement, rtol=0, atol=ROUNDING)


@pytest.mark.usefixtures("float64")
@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of outputs without a loss
@pytest.mark.parametrize("name", CASES)
def test_steps_follow_from_the_record_and_samples_add_up(
    name: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    case = CASES[name]()
    run = train(case, run_dir)
    check_steps(run)
    inputs = np.concatenate([case.inputs()] * 2)
    arguments = {"axes": ("sample", "step"), "tolerance": BALANCE, "progress": False}
    ledger = run.attribute(inputs, numbers, **arguments)
    ledger.explaind.check()
    movement = float(ledger.movement.max())
    assert movement > 1e-2
    totals = run.attribute(inputs, numbers, tolerance=BALANCE, progress=False)
    np.testing.assert_allclose(
        ledger.data.sum(["sample", "step"]), totals.data, rtol=0, atol=BALANCE * movement
    )
    if name in COUPLED:
        assert "(jvp)" in ledger.attrs["method"]
        return
    # The gradients of single samples one by one, and derivatives of the whole batch, are held against the rules.
    assert "(rules)" in ledger.attrs["method"]
    for route in ("loop", "jvp"):
        monkeypatch.setattr(routes, "_sample_route", lambda *_, route=route: route)
        alone = run.attribute(inputs[:1], numbers, **arguments)
        assert f"({route})" in alone.attrs["method"]
        np.testing.assert_allclose(
            alone.data.isel(input=0), ledger.data.isel(input=0), rtol=0, atol=BALANCE * movement
        )


@pytest.mark.usefixtures("float64")
def test_penalties_of_the_batch_are_booked_as_regulariser(run_dir: Path):
    run = train(CASES["penalties of the batch"](), run_dir)
    ledger = run.attribute(X, axes=("step",), progress=False)
    assert float(np.abs(ledger.regularizer).min("step").max()) > 0
    assert run.manifest.loss["has_regularizer"]


def trained_weights(
    optimizer: Any, *callbacks: Any, tap: Any, model: Any = one_output, y: Any = LABELS, **arguments: Any
) -> list[np.ndarray]:
    keras.utils.set_random_seed(4)
    model = initialised(model())
    model.compile(optimizer, loss="mse" if isinstance(y, dict) else crossentropy())
    dataset = tf.data.Dataset.from_tensor_slices((X.astype("float32"), y)).shuffle(10, seed=1).batch(4)
    fit(model, tap(dataset), *callbacks, epochs=2, **arguments)
    return model.get_weights()


@pytest.mark.parametrize(
    "model", [lambda: several_outputs(as_dict), penalised], ids=["several outputs", "penalties"]
)
def test_recording_does_not_change_training(tmp_path: Path, model: Any):
    y = LABELS if model is penalised else OUTPUTS
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    ours = trained_weights(xtf.PathAdamW(0.01), logger, tap=logger.tap, model=model, y=y)
    theirs = trained_weights(keras.optimizers.AdamW(0.01), tap=lambda dataset: dataset, model=model, y=y)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)
    xtf.open_run(tmp_path / "run").verify(progress=False)


def test_class_weights_of_fit_are_refused_after_an_earlier_fit_with_them(tmp_path: Path):
    """The training function of that fit exists already, and would not be traced again."""
    model = initialised(one_output())
    model.compile(xtf.PathAdamW(0.01), loss=crossentropy())
    dataset = tf.data.Dataset.from_tensor_slices((X.astype("float32"), LABELS)).batch(5)
    weights = {0: 1.0, 2: 1.0}
    fit(model, dataset, class_weight=weights)
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    with pytest.raises(xtf.RefusedError, match=r"class_weight=\{"):
        fit(model, logger.tap(dataset), logger, class_weight=weights)
    fit(model, dataset, class_weight=weights)  # and the model is as it was
    assert "train_step" not in vars(model)


def test_class_weights_at_the_tap_train_as_those_of_fit(tmp_path: Path):
    weights = {0: 0.5, 2: 3}
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    ours = trained_weights(
        xtf.PathAdamW(0.01), logger, tap=lambda dataset: logger.tap(dataset, class_weight=weights)
    )
    theirs = trained_weights(keras.optimizers.AdamW(0.01), tap=lambda dataset: dataset, class_weight=weights)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.usefixtures("float64")
class TestMeasurementsOfSeveralOutputs:
    @pytest.fixture
    def run(self, run_dir: Path) -> xtf.Run:
        return train(CASES["dict of outputs"](), run_dir)

    def test_outputs_stand_side_by_side_by_sorted_key(self, run: xtf.Run):
        everything = run.attribute(X, progress=False)
        assert everything.sizes["output"] == 2 * CLASSES + 1
        last = run.attribute(X, lambda outputs: outputs["c"], progress=False)
        np.testing.assert_allclose(everything.final[:, -1], last.final[:, 0], rtol=1e-12)

    def test_measurement_of_a_class_takes_one_of_them(self, run: xtf.Run):
        by_name = run.attribute(X, xtf.measurements.log_prob(LABELS, output="b"), progress=False)
        by_place = run.attribute(X, xtf.measurements.log_prob(LABELS, output=1), progress=False)
        np.testing.assert_array_equal(by_name.final, by_place.final)
        logits = run.attribute(X, lambda outputs: outputs["b"], progress=False).final
        expected = tf.nn.log_softmax(logits.values).numpy()[np.arange(COUNT), LABELS]
        np.testing.assert_allclose(by_name.final[:, 0], expected, rtol=1e-12)

    @pytest.mark.parametrize("output", [None, "d", 3])
    def test_other_outputs_are_refused_with_the_choice(self, run: xtf.Run, output: Any):
        for make in (xtf.measurements.log_prob, xtf.measurements.margin):
            with pytest.raises(ValueError, match=r"has 3; .*one of \['a', 'b', 'c'\].*from 0 to 2"):
                run.attribute(X, make(LABELS, output=output), progress=False)

    def test_structure_is_in_the_manifest(self, run: xtf.Run):
        assert {key: leaf.shape for key, leaf in run.manifest.outputs.items()} == {
            "a": (3,),
            "b": (3,),
            "c": (1,),
        }
