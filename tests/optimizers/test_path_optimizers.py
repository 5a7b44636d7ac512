"""Path optimizers equal the Keras optimizers bit for bit, and note what each step used."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import PathAdamW, PathSGD
from explaind_tf.optimizers.ring_buffer import SLOTS
from tests.helpers import CLASSES, FEATURES, batches, dense_model, fit

pytestmark = pytest.mark.slow

# Optimizers of each family with every option that changes a step, as (Keras class, ours), arguments.
FAMILIES = {
    name.lower(): (getattr(keras.optimizers, name), getattr(xtf, f"Path{name}"))
    for name in (
        *("AdamW", "SGD", "Adam", "Adagrad", "RMSprop"),
        *("Nadam", "Adamax", "Adadelta", "Lion", "Adafactor"),
    )
}
ADAMW, SGD, RMSPROP = FAMILIES["adamw"], FAMILIES["sgd"], FAMILIES["rmsprop"]
OPTIONS: dict[str, tuple[tuple[type, type], dict[str, Any]]] = {
    "adamw": (ADAMW, {"weight_decay": 0.3, "beta_1": 0.8, "beta_2": 0.98, "epsilon": 1e-6}),
    "amsgrad": (ADAMW, {"amsgrad": True}),
    "no decay": (ADAMW, {"weight_decay": 0.0}),
    "sgd": (SGD, {}),
    "momentum": (SGD, {"momentum": 0.9}),
    "nesterov": (SGD, {"momentum": 0.9, "nesterov": True}),
    "sgd momentum decay": (SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    "adam": (FAMILIES["adam"], {}),
    "adam amsgrad": (FAMILIES["adam"], {"amsgrad": True}),
    "adagrad": (FAMILIES["adagrad"], {}),
    "rmsprop": (RMSPROP, {}),
    "rmsprop momentum": (RMSPROP, {"momentum": 0.9}),
    "rmsprop centered": (RMSPROP, {"centered": True}),
    "rmsprop centered momentum": (RMSPROP, {"centered": True, "momentum": 0.9}),
    "nadam": (FAMILIES["nadam"], {}),
    "adamax": (FAMILIES["adamax"], {}),
    "adadelta": (FAMILIES["adadelta"], {}),
    "lion": (FAMILIES["lion"], {}),
    "adafactor": (FAMILIES["adafactor"], {}),
    "adafactor absolute": (FAMILIES["adafactor"], {"relative_step": False, "clip_threshold": 0.5}),
} | {
    f"{name} {option}": (family, arguments)
    for name, family in FAMILIES.items()
    for option, arguments in {
        "decay": {"weight_decay": 0.1},
        "clipnorm": {"clipnorm": 0.1},
        "global_clipnorm": {"global_clipnorm": 0.1},
        "clipvalue": {"clipvalue": 0.05},
        "accumulation": {"gradient_accumulation_steps": 3},
        "accumulation and clipnorm": {"gradient_accumulation_steps": 3, "clipnorm": 0.1},
        "ema": {"use_ema": True, "ema_momentum": 0.7, "ema_overwrite_frequency": 4},
        "loss scale": {"loss_scale_factor": 8.0},
    }.items()
}
# Those that run every time; the others run at night.
CORE = ("adamw", "nesterov")


def cosine() -> keras.optimizers.schedules.LearningRateSchedule:
    return keras.optimizers.schedules.CosineDecay(0.05, decay_steps=40, warmup_steps=5, warmup_target=0.1)


def train(optimizer: keras.optimizers.Optimizer, *, jit_compile: bool) -> keras.Model:
    """Train for fifty steps: five epochs of ten batches, the last one ragged."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(38, FEATURES)).astype("float32")
    y = rng.integers(0, CLASSES, 38)
    model = dense_model(keras.layers.Dense(5, activation="relu"), keras.layers.Dense(CLASSES))
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=jit_compile)
    fit(model, batches(x, y).shuffle(10, seed=1), epochs=5)
    return model


def step_once(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> None:
    optimizer.apply([tf.ones(variable.shape)], [variable])


def stepper(
    optimizer: keras.optimizers.Optimizer, variable: keras.Variable, *, graph: bool
) -> Callable[[], None]:
    def step() -> None:
        step_once(optimizer, variable)

    return tf.function(step) if graph else step


def weights() -> keras.Variable:
    return keras.Variable(np.linspace(-1, 1, 4, dtype="float32"), name="weights")


class TestTrajectory:
    @pytest.mark.parametrize(
        ("option", "learning_rate", "jit_compile"),
        [
            *(
                pytest.param(option, cosine, False, marks=() if option in CORE else pytest.mark.nightly)
                for option in OPTIONS
            ),
            pytest.param("adamw", 0.01, False, marks=pytest.mark.nightly),
            ("adamw", cosine, True),
            pytest.param("nesterov", cosine, True, marks=pytest.mark.nightly),
            pytest.param("adamw clipnorm", cosine, True, marks=pytest.mark.nightly),
            *(
                pytest.param(family, cosine, True, marks=pytest.mark.nightly(daily=False))
                for family in FAMILIES
                if family != "adamw"
            ),
        ],
    )
    def test_fifty_steps_give_the_bits_of_keras(self, option: str, learning_rate: Any, jit_compile: bool):
        classes, arguments = OPTIONS[option]
        models = [
            train(
                optimizer(learning_rate() if callable(learning_rate) else learning_rate, **arguments),
                jit_compile=jit_compile,
            )
            for optimizer in classes
        ]
        keras_model, path_model = models
        # Weights first, then counter, learning rate and the optimizer's own variables.
        expected = [*keras_model.variables, *keras_model.optimizer.variables]
        found = [*path_model.variables, *path_model.optimizer.variables]
        assert int(path_model.optimizer._iterations) == 50
        assert len(found) == len(expected)
        for theirs, ours in zip(expected, found, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=theirs.path)

    @pytest.mark.parametrize(
        "option", [name for name in OPTIONS if " " not in name] + ["rmsprop centered momentum"]
    )
    def test_taking_notes_does_not_change_a_step(self, option: str):
        classes, arguments = OPTIONS[option]
        rng = np.random.default_rng(0)
        gradients = rng.normal(size=(12, 3, 4)).astype("float32")  # the warm-up takes five
        pairs = []
        for optimizer_class in classes:
            matrix = keras.Variable(np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4), name="matrix")
            optimizer = optimizer_class(cosine(), **{"weight_decay": 0.1} | arguments)
            optimizer.build([matrix])
            if optimizer_class is classes[1]:
                optimizer.watch([matrix], slots=2)
            for gradient in gradients:
                optimizer.apply([tf.constant(gradient)], [matrix])
            pairs.append([matrix, *optimizer.variables])
        for theirs, ours in zip(*pairs, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=theirs.path)

    def test_excluded_variables_are_masked(self):
        optimizer = PathAdamW(0.01)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        model = dense_model(keras.layers.Dense(4), keras.layers.Dense(2, use_bias=False))
        optimizer.build(model.trainable_variables)
        assert [v.name for v in model.trainable_variables] == ["kernel", "bias", "kernel"]
        assert optimizer.decay_mask() == [True, False, True]


class TestConfig:
    def test_round_trip_keeps_class_and_arguments(self):
        optimizer = PathAdamW(cosine(), weight_decay=0.2, beta_1=0.7, beta_2=0.9, epsilon=1e-5, name="mine")
        config = keras.optimizers.serialize(optimizer)
        assert config["registered_name"] == "explaind_tf>PathAdamW"
        copy = keras.optimizers.deserialize(config)
        assert type(copy) is PathAdamW
        assert copy.get_config() == optimizer.get_config()
        assert copy.law() == optimizer.law()

    def test_takes_the_config_of_keras_adamw(self):
        config = keras.optimizers.AdamW(0.02, weight_decay=0.1, beta_2=0.95).get_config()
        assert PathAdamW.from_config(config).get_config() == config

    def test_defaults_are_those_of_keras_adamw(self):
        ours, theirs = PathAdamW().get_config(), keras.optimizers.AdamW().get_config()
        assert ours | {"name": None} == theirs | {"name": None}


class TestVariables:
    @pytest.mark.parametrize(
        ("saved", "loaded"),
        [(keras.optimizers.AdamW, PathAdamW), (PathAdamW, keras.optimizers.AdamW)],
        ids=["from-keras", "to-keras"],
    )
    def test_saved_variables_are_exchangeable_with_keras_adamw(self, saved: Any, loaded: Any):
        source, target = saved(0.02), loaded(0.01)
        variable = weights()
        for _ in range(3):
            step_once(source, variable)
        target.build([variable])
        assert len(target.variables) == len(source.variables)
        store: dict[str, Any] = {}
        source.save_own_variables(store)
        target.load_own_variables(store)
        for theirs, ours in zip(source.variables, target.variables, strict=True):
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
        assert int(target.iterations) == 3
        assert float(target.learning_rate) == pytest.approx(0.02)

    @pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
    def test_callable_learning_rate_is_called_as_often_as_by_keras(self, graph: bool):
        def calls(optimizer_class: type) -> int:
            count = 0

            def learning_rate() -> float:
                nonlocal count
                count += 1
                return 0.01

            variable = weights()
            optimizer = optimizer_class(learning_rate)
            optimizer.build([variable])
            step = stepper(optimizer, variable, graph=graph)
            for _ in range(3):
                step()
            return count

        assert calls(PathAdamW) == calls(keras.optimizers.AdamW)


class TestRecordedStep:
    @pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
    def test_gives_the_learning_rate_of_the_schedule(self, graph: bool):
        schedule, variable = cosine(), weights()
        optimizer = PathAdamW(schedule)
        optimizer.build([variable])
        step = stepper(optimizer, variable, graph=graph)
        for iteration in range(12):
            step()
            recorded = optimizer.recorded_step(iteration)
            # The schedule is evaluated in float32; the record must hold that very float.
            assert recorded.learning_rate == float(schedule(iteration))

    # Keras' own scheduler reads the learning rate in a way that NumPy 2 deprecates.
    @pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
    def test_gives_the_rate_that_a_callback_had_set(self):
        used: list[float] = []

        class Reader(keras.callbacks.Callback):
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                optimizer = self.model.optimizer
                used.append(optimizer.recorded_step(int(optimizer.iterations) - 1).learning_rate)

        model = dense_model()
        model.compile(PathAdamW(0.1), loss="mse", run_eagerly=True)
        scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.1 / (epoch + 1))
        fit(model, batches(), scheduler, Reader(), epochs=3)
        assert used == [float(np.float32(0.1 / (epoch + 1))) for epoch in range(3) for _ in range(3)]

    def test_keeps_the_last_steps_only(self):
        optimizer, variable = PathAdamW(0.01), weights()
        for _ in range(SLOTS + 2):
            step_once(optimizer, variable)
        for iteration in (0, 1):
            with pytest.raises(LookupError, match=rf"iteration {iteration}\..*last {SLOTS} steps"):
                optimizer.recorded_step(iteration)
        for iteration in (2, SLOTS + 1):
            assert optimizer.recorded_step(iteration) is not None

    def test_step_that_was_not_taken_is_a_lookup_error(self):
        optimizer, variable = PathAdamW(0.01), weights()
        with pytest.raises(LookupError, match="taken no step"):
            optimizer.recorded_step(0)
        step_once(optimizer, variable)
        with pytest.raises(LookupError, match=r"no record of iteration 1\."):
            optimizer.recorded_step(1)

    def test_batch_that_only_accumulates_used_nothing(self):
        optimizer, variable = PathAdamW(0.01, gradient_accumulation_steps=2), weights()
        for _ in range(4):
            step_once(optimizer, variable)
        assert [optimizer.recorded_step(i) is None for i in range(4)] == [True, False, True, False]
        assert [optimizer.updates_before(i) for i in range(4)] == [0, 0, 1, 1]

    def test_clip_factor_of_sparse_gradients_is_that_of_their_slices(self):
        """Keras takes the norm of the slices before it adds those of one row."""
        table = keras.Variable(np.zeros((3, 2), "float32"), name="table")
        slices = tf.IndexedSlices(tf.ones((2, 2)), tf.constant([1, 1]), tf.constant([3, 2]))
        optimizer = PathSGD(1.0, clipnorm=1.0)
        optimizer.apply([slices], [table])
        np.testing.assert_allclose(optimizer.recorded_step(0).clip_factors, [0.5])
        np.testing.assert_allclose(table.numpy()[1], [-1.0, -1.0])
