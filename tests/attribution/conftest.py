"""One small recorded run with all features: convolution, BatchNorm, dropout, regulariser, ragged batches."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf


def _model():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.BatchNormalization(momentum=0.8, name="norm"),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2, seed=3),
            layers.Dense(8, activation="relu", name="hidden"),
            layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.01), name="logits"),
        ],
        name="net",
    )


@pytest.fixture(scope="session", name="recorded")
def _recorded(tmp_path_factory):
    """Return (run directory, trained model) of 12 steps, ragged batches and a callback that sets weights."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(22, 6, 6, 1)).astype("float32")
    y = rng.integers(0, 3, 22)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(22, seed=1).batch(8)
    model = _model()
    run_dir = tmp_path_factory.mktemp("runs") / "everything"
    logger = xtf.PathLogger(run_dir, verbose=False)
    schedule = keras.optimizers.schedules.CosineDecay(2e-2, 12)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(schedule, weight_decay=0.1), loss=loss)

    def nudge(epoch, logs):
        if epoch == 1:
            logits = model.get_layer("logits")
            logits.bias.assign_add([0.1, 0.0, -0.1])

    callbacks = [logger, keras.callbacks.LambdaCallback(on_epoch_end=nudge)]
    model.fit(logger.tap(dataset), epochs=4, callbacks=callbacks, verbose=0, shuffle=False)
    return run_dir, model


@pytest.fixture(scope="session", name="run")
def _run(recorded):
    return xtf.open_run(recorded[0])
