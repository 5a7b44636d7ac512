"""The data of the evaluation, and its trainings: recorded, and again without some of the samples."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf.datasets import digits
from explaind_tf.demo import record_fit

if TYPE_CHECKING:
    from experiments.evaluation.__main__ import Settings

Labelled = tuple[np.ndarray, np.ndarray]
_CLASSES = 10


@dataclass(frozen=True)
class Split:
    """Training samples, and held-out inputs, with their classes."""

    train: Labelled
    test: Labelled

    @classmethod
    def of(cls, settings: "Settings", seed: int) -> "Split":
        """Return digits."""
        train, test = digits(num_test=settings.inputs, seed=seed)
        return cls(tuple(array[: settings.samples] for array in train), test)

    def without_groups(self, count: int) -> np.ndarray:
        """Return which samples remain without each group, samples of one class, shape (groups, samples)."""
        labels = self.train[1]
        groups = np.zeros(len(labels), int)
        parts = max(1, count // _CLASSES)
        for label in range(_CLASSES):
            rows = np.flatnonzero(labels == label)
            groups[rows] = label * parts + np.arange(len(rows)) % parts
        return np.stack([groups != group for group in np.unique(groups)[:count]])

    def halves(self, count: int, seed: int) -> np.ndarray:
        """Return random halves of the samples, shape (count, samples)."""
        ranks = np.random.default_rng(seed).random((count, len(self.train[1]))).argsort(axis=1)
        return ranks < len(self.train[1]) // 2


def flipped(train: Labelled, share: float, seed: int) -> tuple[Labelled, np.ndarray]:
    """Return the samples with some labels set to another class, and which ones."""
    rng = np.random.default_rng(seed)
    x, y = train
    is_wrong = np.zeros(len(y), bool)
    is_wrong[rng.permutation(len(y))[: round(share * len(y))]] = True
    others = (y + rng.integers(1, _CLASSES, len(y))) % _CLASSES
    return (x, np.where(is_wrong, others, y).astype(y.dtype)), is_wrong


def with_shortcut(train: Labelled, *, of_class: int, share: float, seed: int) -> tuple[Labelled, np.ndarray]:
    """Return the samples with a white corner on some of one class, and which ones."""
    x, y = train
    members = np.random.default_rng(seed).permutation(np.flatnonzero(y == of_class))
    is_marked = np.zeros(len(y), bool)
    is_marked[members[: max(1, round(share * len(members)))]] = True
    return (marked(x, is_marked), y), is_marked


def marked(x: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return images with a white corner of 2 × 2 pixels on some of them."""
    found = x.copy()
    found[which, :2, :2] = 1
    return found


def record(train: Labelled, settings: "Settings", run_dir: Path) -> xtf.Run:
    """Train the model, recorded; the id of a sample is its position."""
    seed = settings.seeds[0]
    model = _model(settings, seed)
    ids = np.arange(len(train[1]))
    dataset = tf.data.Dataset.from_tensor_slices((ids, train)).shuffle(len(ids), seed=seed)
    record_fit(
        model, xtf.PathLogger(run_dir, verbose=False), dataset.batch(settings.batch), steps=settings.steps
    )
    return xtf.open_run(run_dir)


class Trainer:
    """Trains the model again and again; it is compiled once.

    Parameters
    ----------
    settings : Settings
        Of the experiment.
    split : Split
        Data.
    """

    def __init__(self, settings: "Settings", split: Split) -> None:
        self._settings, self._split = settings, split
        self._model = _model(settings, 0)
        self._model.optimizer.build(self._model.trainable_variables)
        self._fresh = [variable.numpy() for variable in self._model.optimizer.variables]

    def outcomes(self, subsets: np.ndarray) -> np.ndarray:
        """Return log p(class) of the held-out inputs after training on each subset, shape (repeats, subsets, inputs)."""
        found = [
            # Not the seed of the recorded run: that would be a training of which half is known.
            [self._outcome(subset, 1000 + repeat) for subset in subsets]
            for repeat in range(self._settings.repeats)
        ]
        return np.array(found)

    def _outcome(self, subset: np.ndarray, seed: int) -> np.ndarray:
        for variable, value in zip(self._model.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        self._model.set_weights(_model(self._settings, seed).get_weights())
        x, y = (array[subset] for array in self._split.train)
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(y), seed=seed).repeat()
        self._model.fit(
            dataset.batch(self._settings.batch),
            steps_per_epoch=self._settings.steps,
            verbose=0,
            shuffle=False,  # the dataset is shuffled; Keras warns that it cannot
        )
        x, y = self._split.test
        logits = self._model(x)
        return tf.nn.log_softmax(logits).numpy()[np.arange(len(y)), y]


def _model(settings: "Settings", seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(settings.units, activation="relu"),
            layers.Dense(_CLASSES),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(5e-3, weight_decay=0.01), loss=loss)
    return model
