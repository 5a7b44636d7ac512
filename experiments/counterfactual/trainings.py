"""The trainings of the experiment, recorded."""

from pathlib import Path

import keras
import numpy as np

import explaind_tf as xtf
from experiments.classifiers import compiled, shuffled
from experiments.counterfactual.sizes import Network, Settings
from explaind_tf.datasets import digits, modular_addition
from explaind_tf.demo import record_fit
from explaind_tf.models import ModularTransformer, ResNet9

Labelled = tuple[np.ndarray, np.ndarray]
CLASSES = 10


def record_network(
    network: Network, train: Labelled, settings: Settings, seed: int, run_dir: Path
) -> tuple[xtf.Run, keras.Model]:
    """Train a network and record it; the id of a sample is its position."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(settings.units, activation=network.activation),
            keras.layers.Dense(CLASSES),
        ]
    )
    compiled(model, xtf.PathAdamW(network.rate, weight_decay=0.01, epsilon=network.epsilon))
    return _recorded(model, train, settings.batch, settings.steps, seed, run_dir), model


def record_model(name: str, settings: Settings, seed: int, run_dir: Path) -> tuple[xtf.Run, Labelled]:
    """Train a larger model and record it; return the run and held-out inputs with their labels."""
    keras.utils.set_random_seed(seed)
    if name == "Transformer":
        train, test = modular_addition(23, num_train=300, seed=seed)
        model: keras.Model = ModularTransformer(23, d_model=32, d_mlp=128)
    else:
        train, test = digits(size=16, channels=3, num_test=100, seed=seed)
        train = (train[0][:400], train[1][:400])
        model = ResNet9(CLASSES, input_shape=(16, 16, 3), width=0.125)
    compiled(model, xtf.PathAdamW(1e-3, weight_decay=0.01))
    run = _recorded(model, train, 50, settings.model_steps, seed, run_dir)
    return run, tuple(array[: settings.model_inputs] for array in test)


def _recorded(
    model: keras.Model, train: Labelled, batch: int, steps: int, seed: int, run_dir: Path
) -> xtf.Run:
    batches = shuffled((np.arange(len(train[1])), train), seed).batch(batch)
    record_fit(model, xtf.PathLogger(run_dir, verbose=False), batches, steps=steps)
    return xtf.open_run(run_dir)
