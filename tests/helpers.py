"""Small recorded trainings, with a callback that notes what really happened."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xarray as xr

import explaind_tf as xtf
from explaind_tf import constants as names

FEATURES, CLASSES = 3, 2
_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(10, FEATURES)).astype("float32")
Y = _RNG.normal(size=(10, CLASSES)).astype("float32")
LABELS = _RNG.integers(0, CLASSES, 10)


def batches(*arrays: Any, size: int = 4) -> tf.data.Dataset:
    """Return a dataset of the arrays, by default in batches of 4 + 4 + 2 samples."""
    return tf.data.Dataset.from_tensor_slices(arrays or (X, Y)).batch(size)


def dense_model(*layers: keras.layers.Layer) -> keras.Model:
    """Return a built model, with equal weights for equal layers."""
    model = keras.Sequential([keras.Input((FEATURES,)), *(layers or [keras.layers.Dense(CLASSES)])])
    return initialised(model)


def initialised(model: keras.Model) -> keras.Model:
    """Give a built model weights that depend on nothing but their number and shapes."""
    rng = np.random.default_rng(7)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape) / 2)
    return model


class Drawn:
    """The batches that training consumed, flat, as `Watched` saw them. Keras would track a plain list."""

    def __init__(self) -> None:
        self.batches: list[list[np.ndarray]] = []

    def note(self, *arrays: np.ndarray) -> np.int64:
        self.batches.append([np.array(array) for array in arrays])
        return np.int64(0)


class Watched(keras.Sequential):
    """A model that notes each batch within its training step, also in graph mode (not under XLA)."""

    def __init__(self, layers: Sequence[keras.layers.Layer], drawn: Drawn) -> None:
        super().__init__(layers)
        self._drawn = drawn

    def train_step(self, data: Any) -> Any:
        tf.numpy_function(self._drawn.note, tf.nest.flatten(data), tf.int64)
        return super().train_step(data)


class Spy(keras.callbacks.Callback):
    """Notes weights, state and second moment before and after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[np.ndarray] = []
        self.after: list[np.ndarray] = []
        self.second_moment: list[np.ndarray] = []
        self.state: list[list[np.ndarray]] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.before.append(flat(self.model.trainable_variables))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.after.append(flat(self.model.trainable_variables))
        self.second_moment.append(flat(self.model.optimizer._velocities))
        self.state.append([variable.numpy() for variable in self.model.non_trainable_variables])


@dataclass(frozen=True)
class Recorded:
    """A run, and what a `Spy` saw of its training."""

    run_dir: Path
    model: keras.Model
    spy: Spy

    def open(self) -> xtf.Run:
        return xtf.open_run(self.run_dir)


def fit(model: keras.Model, dataset: Any, *callbacks: keras.callbacks.Callback, **arguments: Any) -> None:
    """Train quietly. Without ``shuffle=False``, Keras warns that fit() does not shuffle a dataset."""
    try:
        model.fit(dataset, callbacks=list(callbacks), verbose=0, shuffle=False, **arguments)
    except BaseException:
        for logger in callbacks:
            if isinstance(logger, xtf.PathLogger):
                abandon(logger)
        raise


def record(
    run_dir: Path,
    layers: Sequence[keras.layers.Layer] = (),
    *,
    ids: Sequence[Any] | None = None,
    epochs: int = 2,
) -> Recorded:
    """Record an eager training run: the fastest if the mode of execution does not matter."""
    model = dense_model(*layers)
    model.compile(xtf.PathAdamW(0.01, weight_decay=0.1), loss="mse", run_eagerly=True)
    logger, spy = xtf.PathLogger(run_dir, verbose=False), Spy()
    dataset = batches(X, Y) if ids is None else batches(np.array(ids), (X, Y))
    fit(model, logger.tap(dataset), logger, spy, epochs=epochs)
    return Recorded(run_dir, model, spy)


def totals(ledger: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return the totals of all terms. The data's total holds the rounding, as in a ledger without samples."""
    found = {term: ledger.explaind.total(term) for term in ledger.explaind.terms}
    rounding = found.pop(names.ROUNDING, 0.0)
    return found if names.DATA not in found else found | {names.DATA: found[names.DATA] + rounding}


def flat(variables: Sequence[Any]) -> np.ndarray:
    """Return the variables as one vector."""
    return np.concatenate([variable.numpy().reshape(-1) for variable in variables])


def flat_theta(run: xtf.Run, step: int) -> np.ndarray:
    """Return θ before a step as one vector."""
    return np.concatenate([array.reshape(-1) for array in run.theta(step).values()])


def digest(directory: Path) -> dict[str, str]:
    """Return the SHA-256 of each file under a directory."""
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def abandon(logger: xtf.PathLogger) -> None:
    """Close the files of a training that ended with an exception, as the end of the process would.

    Left to the garbage collector, they raise a ResourceWarning in whatever test is running then.
    """
    logger.close()


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Keras under a dtype policy. Keras keeps the policy, besides floatx, once a layer has asked for it."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64" if name == "float64" else "float32")
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def double_precision() -> contextlib.AbstractContextManager[None]:
    """Keras in float64."""
    return dtype_policy("float64")
