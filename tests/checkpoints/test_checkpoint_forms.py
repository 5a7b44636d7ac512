"""Checkpoints saved by plain Keras: every form gives the same weights, for every kind of model."""

import zipfile

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from tests.checkpoints.saving import EPOCHS, FORMS, build, open_form
from tests.helpers import X, flat
from tests.nightly import sweep

# What Keras itself raises when it saves with NumPy 2.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

layers = keras.layers


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_weights_and_leaves_the_model_alone(saved, run, form):
    model = build(name="another_name")
    model.compile("adam", loss="mse")
    model.optimizer.build(model.trainable_variables)
    before, slots = flat(model.variables), flat(model.optimizer.variables)
    opened = open_form(saved, form, model)
    assert len(opened.checkpoints) == EPOCHS
    for step in range(EPOCHS):
        np.testing.assert_array_equal(opened.step_store.theta(step), run.step_store.theta(step))
        for spec, own, other in zip(
            run.manifest.state, opened.step_store.state(step), run.step_store.state(step), strict=True
        ):
            if spec.is_floating:
                np.testing.assert_array_equal(own, other)
    np.testing.assert_array_equal(flat(model.variables), before)
    np.testing.assert_array_equal(flat(model.optimizer.variables), slots)


def test_of_an_archive_nothing_but_the_weights_is_read(saved, run, tmp_path):
    for source in saved[0].glob(FORMS["keras"]):
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / source.name, "w") as new:
            new.writestr("model.weights.h5", old.read("model.weights.h5"))
            new.writestr("config.json", '{"module": "os", "class_name": "system", "config": "exit 1"}')
    opened = xtf.open_checkpoints(str(tmp_path / "*.keras"), build())
    np.testing.assert_array_equal(opened.step_store.theta(1), run.step_store.theta(1))


@pytest.mark.parametrize("kind", sweep(["functional", "subclassed", "recurrent"], core=["subclassed"]))
def test_models_that_are_not_sequential(kind, tmp_path):
    make, x, example = KINDS[kind]()
    model = make()
    rng = np.random.default_rng(0)
    expected = []
    for step in range(3):
        for variable in model.trainable_variables:
            variable.assign_add(rng.normal(size=variable.shape) / 10)
        model.save_weights(tmp_path / f"{step}.weights.h5")
        expected.append(model(x).numpy())
    if example is not None:
        with pytest.raises(xtf.RefusedError, match="inputs="):
            xtf.open_checkpoints(str(tmp_path / "*.weights.h5"), make())
    run = xtf.open_checkpoints(str(tmp_path / "*.weights.h5"), make(), inputs=example)
    ledger = run.attribute(x, axes=("layer", "step"))
    ledger.explaind.check()
    np.testing.assert_allclose(ledger.final - ledger.initial, expected[-1] - expected[0], atol=1e-5)


def _functional(over_words=layers.GlobalAveragePooling1D):
    def make():
        words, size = keras.Input((4,), name="words", dtype="int32"), keras.Input((2,), name="size")
        read = over_words()(layers.Embedding(5, 3)(words))
        outputs = layers.Dense(2)(layers.Concatenate()([read, size]))
        return keras.Model({"words": words, "size": size}, outputs)

    return make, {"words": np.arange(8).reshape(2, 4) % 5, "size": np.ones((2, 2), "float32")}, None


class Residual(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [layers.Dense(3, activation="tanh"), layers.LayerNormalization()]
        self.head = layers.Dense(2)

    def call(self, x):
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def _subclassed():
    def make():
        model = Residual()
        model(X)
        return model

    return make, X, X[:1]


KINDS = {
    "functional": _functional,
    "subclassed": _subclassed,
    "recurrent": lambda: _functional(lambda: layers.LSTM(3)),
}
