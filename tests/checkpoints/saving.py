"""A small model that plain Keras trains, and the forms in which its checkpoints are saved."""

import keras
import tensorflow as tf

import explaind_tf as xtf
from tests.helpers import X, batches, fit

layers = keras.layers
EPOCHS = 3
FORMS = {
    "weights": "w-*.weights.h5",
    "keras": "m-*.keras",
    "legacy": "legacy-*.h5",
    "manager": "tf/*",
    "root": "root-*",
    "keras2": "keras2-*",
    "saved_model": "saved-*",
    "export": "export-*",
}


def build(units=4, extra=0, name="net"):
    """A model with everything that a checkpoint may hold: weights, statistics, seeds, a model within the model."""
    inner = keras.Sequential([layers.Dense(3, activation="tanh", name="inside")], name="inner")
    return keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(units, activation="gelu", name="first"),
            layers.BatchNormalization(momentum=0.7, name="norm"),
            layers.Dropout(0.1, seed=1),
            inner,
            *(layers.Dense(3) for _ in range(extra)),
            layers.Dense(2, name="last"),
        ],
        name=name,
    )


class Saver(keras.callbacks.Callback):
    """Saves after each epoch with a given function, and notes the model's predictions then."""

    def __init__(self, save=None):
        super().__init__()
        self.save, self.predictions = save, []

    def on_epoch_end(self, epoch, logs=None):
        if self.save is not None:
            self.save(self.model, epoch)
        self.predictions.append(self.model.predict(X, verbose=0))


def train(model, *callbacks, epochs=EPOCHS):
    model.compile(keras.optimizers.Adam(0.02, weight_decay=0.1), loss="mse", metrics=["mae"])
    keras.utils.set_random_seed(3)
    fit(model, batches(), *callbacks, epochs=epochs)


def save_like_keras_2(model, path):
    """Save with the names that ``save_weights`` of Keras 2 gave: layers by number, weights by name."""
    first, norm, _, inner, last = model.layers
    named = [tf.train.Checkpoint(**{v.name: v for v in layer.variables}) for layer in (first, norm, last)]
    inside = tf.train.Checkpoint(**{v.name: v for v in inner.layers[0].variables})
    within = tf.train.Checkpoint(**{"layer_with_weights-0": inside})
    parts = [named[0], named[1], within, named[2]]
    tf.train.Checkpoint(**{f"layer_with_weights-{i}": part for i, part in enumerate(parts)}).write(str(path))


def open_form(saved, form="weights", model=None):
    return xtf.open_checkpoints(str(saved[0] / FORMS[form]), model or build())
