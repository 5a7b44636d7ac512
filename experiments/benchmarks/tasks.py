"""The models and data of the benchmarks, plain and recorded."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import explaind_tf as xtf
from experiments.benchmarks.settings import TaskSpec
from experiments.classifiers import compiled, shuffled
from explaind_tf.datasets import digits, modular_addition
from explaind_tf.models import ModularTransformer, ResNet9

_CLASSES = 10


@dataclass(frozen=True)
class Task:
    """Endless training batches, and held-out inputs.

    Attributes
    ----------
    dataset : tf.data.Dataset
        Shuffled and batched, repeated.
    x, y : np.ndarray
        Held-out inputs and their classes.
    """

    spec: TaskSpec
    dataset: tf.data.Dataset
    x: np.ndarray
    y: np.ndarray

    def model(self, *, is_recorded: bool) -> keras.Model:
        """Return a new model, compiled in graph mode with a path optimizer or with that of Keras."""
        spec = self.spec
        keras.utils.set_random_seed(spec.seed)
        if spec.kind == "transformer":
            model = ModularTransformer(spec.modulus, d_model=spec.depth, d_mlp=spec.hidden)
            settings = {"weight_decay": 1.0, "beta_2": 0.98}
        else:
            shape = (spec.side, spec.side, 3)
            model = ResNet9(_CLASSES, input_shape=shape, width=spec.width, batch_norm=spec.batch_norm)
            settings = {"weight_decay": 0.01}
        optimizer = xtf.PathAdamW if is_recorded else keras.optimizers.AdamW
        return compiled(model, optimizer(1e-3, **settings), jit_compile=False)


def make_task(spec: TaskSpec, inputs: int = 1) -> Task:
    """Return the task with ``inputs`` held-out inputs, repeated from the start if there are too few."""
    if spec.kind == "transformer":
        train, test = modular_addition(spec.modulus, num_train=spec.samples, seed=spec.seed)
    else:
        train, test = digits(size=spec.side, channels=3, num_test=500, seed=spec.seed)
        train = (train[0][: spec.samples], train[1][: spec.samples])
    rows = np.arange(inputs) % len(test[0])
    dataset = shuffled(train, spec.seed).batch(spec.batch).repeat()
    return Task(spec, dataset, test[0][rows], test[1][rows])


def record(spec: TaskSpec, run_dir: Path) -> None:
    """Train for the task's steps and record them."""
    task = make_task(spec)
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = logger.tap(task.dataset)
    fit(task.model(is_recorded=True), dataset, spec.steps, logger)


def fit(
    model: keras.Model, dataset: tf.data.Dataset, steps: int, *callbacks: keras.callbacks.Callback
) -> None:
    """Train for some steps without output."""
    model.fit(
        dataset,
        steps_per_epoch=steps,
        callbacks=list(callbacks),
        verbose=0,
        shuffle=False,  # the dataset is shuffled; Keras warns that it cannot
    )
