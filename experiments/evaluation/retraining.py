"""The trainings of the evaluation: one that is recorded, and others without some of the samples."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import explaind_tf as xtf
from experiments.classifiers import compiled, shuffled
from experiments.evaluation.sizes import Settings
from experiments.evaluation.splits import CLASSES, Labelled, Split
from explaind_tf.demo import record_fit


def record(train: Labelled, settings: Settings, run_dir: Path) -> xtf.Run:
    """Train the model and record it; the id of a sample is its position."""
    seed = settings.seeds[0]
    model = _model(settings, seed)
    ids = np.arange(len(train[1]))
    batches = shuffled((ids, train), seed).batch(settings.batch)
    record_fit(model, xtf.PathLogger(run_dir, verbose=False), batches, steps=settings.steps)
    return xtf.open_run(run_dir)


class Trainer:
    """Trains the model many times; it is compiled once.

    Parameters
    ----------
    settings : Settings
        Of the experiment.
    split : Split
        Data.
    """

    def __init__(self, settings: Settings, split: Split) -> None:
        self._settings, self._split = settings, split
        self._model = _model(settings, 0)
        self._model.optimizer.build(self._model.trainable_variables)
        self._fresh = [variable.numpy() for variable in self._model.optimizer.variables]

    def outcomes(self, subsets: np.ndarray) -> np.ndarray:
        """Return log p(class) of the held-out inputs after training on each subset, shape (repeats, subsets, inputs)."""
        found = [
            # Not the seed of the recorded run, which would give the initial weights that the methods have seen.
            [self._outcome(subset, 1000 + repeat) for subset in subsets]
            for repeat in range(self._settings.repeats)
        ]
        return np.array(found)

    def _outcome(self, subset: np.ndarray, seed: int) -> np.ndarray:
        for variable, value in zip(self._model.optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        self._model.set_weights(_model(self._settings, seed).get_weights())
        chosen = tuple(array[subset] for array in self._split.train)
        dataset = shuffled(chosen, seed).repeat()
        self._model.fit(
            dataset.batch(self._settings.batch),
            steps_per_epoch=self._settings.steps,
            verbose=0,
            shuffle=False,  # the dataset is shuffled; Keras warns that it cannot
        )
        x, y = self._split.test
        logits = self._model(x)
        return tf.nn.log_softmax(logits).numpy()[np.arange(len(y)), y]


def _model(settings: Settings, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Flatten(),
            layers.Dense(settings.units, activation="relu"),
            layers.Dense(CLASSES),
        ]
    )
    return compiled(model, xtf.PathAdamW(5e-3, weight_decay=0.01))
