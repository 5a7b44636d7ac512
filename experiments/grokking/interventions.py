"""The paper's two interventions: exchange of layers, and training around frozen layers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from experiments.grokking.study import Trained, Training, build, evaluate

GENERALISES = 0.99
# Names, in the findings, of the layers that are taken from the final model and of those that are frozen.
AS_IT_WAS, WITH_OUTER = "as it was", "embedding, last linear map, unembedding"
NOTHING, PIPELINE = "nothing", "inner layers of the end"


@dataclass(frozen=True)
class Retrained:
    """The course of a new training.

    Attributes
    ----------
    steps : int or None
        Steps until the validation accuracy was 0.99; None if it was not reached within the steps given.
    accuracies : list of float
        Validation accuracies, measured at regular intervals from step 0.
    """

    steps: int | None
    accuracies: list[float]


def swap(
    trained: Trained, training: Training, seed: int, kept: Mapping[str, Sequence[str]], steps: Sequence[int]
) -> dict[str, list[float]]:
    """Combine layers of the final model with earlier states of the other layers.

    Parameters
    ----------
    kept : mapping of str to sequence of str
        By name, the layers that are taken from the final model. The others are those before each step.
    steps : sequence of int
        Steps from which the other layers are taken.

    Returns
    -------
    dict
        By name, the validation accuracy for each step.
    """
    model = build(trained.task, training, seed)
    final = trained.run.theta(len(trained.run.steps))
    found: dict[str, list[float]] = {name: [] for name in kept}
    for step in steps:
        earlier = trained.run.theta(step)
        for name, layers in kept.items():
            _set(model, {path: (final if _layer(path) in layers else earlier)[path] for path in final})
            found[name].append(evaluate(model, trained.test)[0])
    return found


def retrain(
    trained: Trained,
    training: Training,
    seed: int,
    weights: Mapping[str, np.ndarray],
    frozen: Iterable[str],
    steps: int,
) -> Retrained:
    """Train a new model around frozen layers, until it generalises.

    Parameters
    ----------
    seed : int
        Seed of the weights of the layers that learn.
    weights : mapping of str to np.ndarray
        Weights of the frozen layers, by path; others are ignored.
    frozen : iterable of str
        Names of the layers that keep these weights.
    steps : int
        Largest number of steps.
    """
    model = build(trained.task, training, seed)
    frozen = set(frozen)
    _set(model, {path: value for path, value in weights.items() if _layer(path) in frozen})
    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    optimizer = keras.optimizers.AdamW(
        training.learning_rate, weight_decay=training.weight_decay, beta_2=0.98
    )
    optimizer.build(model.trainable_variables)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    x, y = (tf.constant(part) for part in trained.train)

    @tf.function
    def update() -> None:
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)

    accuracies = [evaluate(model, trained.test)[0]]
    for step in range(1, steps + 1):
        update()
        if step % training.measure_every == 0:
            accuracies.append(evaluate(model, trained.test)[0])
            if accuracies[-1] >= GENERALISES:
                return Retrained(step, accuracies)
    return Retrained(None, accuracies)


def _layer(path: str) -> str:
    """Return the name of the layer from the path of a variable."""
    return path.split("/")[-2]


def _set(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    variables = {variable.path: variable for variable in model.variables}
    for path, value in weights.items():
        variables[path].assign(value)
