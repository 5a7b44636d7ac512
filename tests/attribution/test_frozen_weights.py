"""Weights that are never trained are constants, unless something moves them."""

from pathlib import Path

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from tests.helpers import X, Y, dense_model

layers = keras.layers


class MovesOnce(keras.callbacks.Callback):
    """Changes a frozen weight after the second batch."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if batch == 1:
            kernel = self.model.layers[0].kernel
            kernel.assign(kernel * 1.5)


def _recorded(run_dir: Path, *callbacks: keras.callbacks.Callback) -> xtf.Run:
    frozen, normalized = layers.Dense(4, activation="tanh"), layers.BatchNormalization()
    model = dense_model(frozen, normalized, layers.Dense(2))
    frozen.trainable = False
    model.compile(xtf.PathAdamW(0.05), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False, retrain=False)
    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[*callbacks, logger])
    return xtf.open_run(run_dir)


@pytest.mark.parametrize("is_moved", [False, True])
def test_the_ledger_balances_and_only_what_moves_is_a_part_of_the_point(tmp_path: Path, is_moved: bool):
    run = _recorded(tmp_path / "run", *([MovesOnce()] if is_moved else []))
    moving = [spec.path for spec, moves in zip(run.manifest.state, run.moving, strict=True) if moves]
    assert [path.split("/")[-1] for path in moving] == ["kernel"] * is_moved + [
        "moving_mean",
        "moving_variance",
    ]
    ledger = run.attribute(X[:2], axes=("layer", "step"), progress=False)
    ledger.explaind.check()
    by_frozen_layer = float(np.abs(ledger["state"].sel(layer=run.manifest.state[0].layer)).sum())
    assert (by_frozen_layer > 0) == is_moved
