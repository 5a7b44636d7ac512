"""Ledgers of checkpoints that plain Keras saved, held against the predictions of the very models."""

import math
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import constants as names
from explaind_tf import terms
from explaind_tf.analysis.fidelity import fidelity
from tests.helpers import X, batches, fit, flat

# What Keras itself raises when it saves with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

layers = keras.layers
EPOCHS = 3


def build(units=4, extra=0, name="net"):
    """A model with all that a checkpoint may hold: weights, statistics, seeds, a model within the model."""
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
    """Saves after each epoch by whatever function, and notes what the model predicts then."""

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


@pytest.fixture(name="saved", scope="module")
def _saved(tmp_path_factory):
    """Return (directory, predictions after each epoch): the same training in every form that is read."""
    directory = tmp_path_factory.mktemp("checkpoints")
    tracker = []

    def save(model, epoch):
        if not tracker:
            checkpoint = tf.train.Checkpoint(net=model, optimizer=model.optimizer)
            tracker.append(tf.train.CheckpointManager(checkpoint, directory / "tf", max_to_keep=None))
        tracker[0].save()
        tf.train.Checkpoint(model).write(str(directory / f"root-{epoch}"))
        tf.saved_model.save(model, directory / f"saved-{epoch}")
        model.export(directory / f"export-{epoch}", verbose=False)
        model.save(directory / f"legacy-{epoch}.h5")
        _save_like_keras_2(model, directory / f"keras2-{epoch}")

    watch = Saver(save)
    weights = str(directory / "w-{epoch}.weights.h5")
    whole = str(directory / "m-{epoch:02d}.keras")
    train(
        build(),
        keras.callbacks.ModelCheckpoint(weights, save_weights_only=True),
        keras.callbacks.ModelCheckpoint(whole),
        watch,
    )
    return directory, watch.predictions


def _save_like_keras_2(model, path):
    """Save with the names that ``save_weights`` of Keras 2 gave: layers by number, weights by name."""
    first, norm, _, inner, last = model.layers
    named = [tf.train.Checkpoint(**{v.name: v for v in layer.variables}) for layer in (first, norm, last)]
    inside = tf.train.Checkpoint(**{v.name: v for v in inner.layers[0].variables})
    within = tf.train.Checkpoint(**{"layer_with_weights-0": inside})
    parts = [named[0], named[1], within, named[2]]
    tf.train.Checkpoint(**{f"layer_with_weights-{i}": part for i, part in enumerate(parts)}).write(str(path))


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


def open_form(saved, form="weights", model=None):
    return xtf.open_checkpoints(str(saved[0] / FORMS[form]), model or build())


@pytest.fixture(name="run", scope="module")
def _run(saved):
    return open_form(saved)


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


@pytest.mark.parametrize("form", ["weights", "keras"])
def test_the_ledger_balances_and_is_what_the_model_itself_predicted(saved, form):
    run, predictions = open_form(saved, form), saved[1]
    ledger = run.attribute(X, axes=("layer", "step"))
    ledger.explaind.check()
    assert ledger.explaind.terms == names.CHECKPOINT_TERMS
    assert not set(names.TERMS) - set(names.CHECKPOINT_TERMS) & set(ledger)
    # Float32, computed by predict() in other batches and another graph.
    np.testing.assert_allclose(ledger.initial, predictions[0], atol=1e-5)
    np.testing.assert_allclose(ledger.final, predictions[-1], atol=1e-5)
    moved = np.moveaxis(np.diff(predictions, axis=0), 0, -1)
    explained = ledger.weights.sum("layer") + ledger.state.sum("layer")
    # The residual of all steps together is within the tolerance; so is, here, that of each.
    np.testing.assert_allclose(explained, moved, atol=1e-3 * float(ledger.movement.max()))
    np.testing.assert_allclose(explained + ledger.residual, moved, atol=2e-5)


def test_entries_are_those_of_an_integral_in_float64(saved, run):
    """Σ over layers and both causes, each by a dense midpoint rule with derivatives by central differences."""
    ledger = run.attribute(X[:2], axes=("layer", "step"), tolerance=1e-4)
    specs = [*run.manifest.variables, *(s for s in run.manifest.state if s.is_floating)]
    points = [_values(run, step) for step in range(EPOCHS)]
    scale = float(ledger.movement.max())
    for step in range(EPOCHS - 1):
        start, end = points[step], points[step + 1]
        for cause in (names.WEIGHTS, names.STATE):
            own = set(run.manifest.variables) if cause == names.WEIGHTS else set(run.manifest.state)
            for layer in run.layers:
                moves = [
                    (b - a) * (spec in own and spec.layer == layer)
                    for spec, a, b in zip(specs, start, end, strict=True)
                ]
                expected = _integral(start, end, moves)
                entry = ledger[cause].sel(layer=layer, step=step)
                np.testing.assert_allclose(entry, expected, atol=2e-4 * scale, err_msg=f"{cause} of {layer}")


def _values(run, step):
    state = zip(run.manifest.state, run.step_store.state(step), strict=True)
    floating = [value for spec, value in state if spec.is_floating]
    return [array.astype(np.float64) for array in (*run.theta(step).values(), *floating)]


def _forward(values):
    """The model of :func:`build` in NumPy."""
    kernel, bias, gamma, beta, inner_kernel, inner_bias, last_kernel, last_bias, mean, variance = values
    x = X[:2].astype(np.float64) @ kernel + bias
    x = x * np.vectorize(lambda v: 0.5 * (1 + math.erf(v / np.sqrt(2))))(x)
    x = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    return np.tanh(x @ inner_kernel + inner_bias) @ last_kernel + last_bias


def _integral(start, end, moves, nodes=200, width=1e-5):
    total = 0.0
    for t in (np.arange(nodes) + 0.5) / nodes:
        at = [a + t * (b - a) for a, b in zip(start, end, strict=True)]
        ahead, behind = ([p + sign * width * d for p, d in zip(at, moves, strict=True)] for sign in (1, -1))
        total = total + (_forward(ahead) - _forward(behind)) / (2 * width)
    return total / nodes


def test_each_cause_and_layer_is_booked_where_it_moved(run):
    ledger = run.attribute(X, axes=("layer", "step"))
    statistics = np.abs(ledger.state).max(["input", "output", "step"])
    assert statistics.where(statistics > 0, drop=True).layer.values.tolist() == ["net/norm"]
    assert float(np.abs(ledger.weights).max(["input", "output", "step"]).min()) > 0


def test_parameters_add_up_to_layers_and_steps_to_the_whole(run):
    measurement = xtf.measurements.log_prob([0, 1] * 5)
    whole = run.attribute(X, measurement)
    by_layer = run.attribute(X, measurement, axes=("layer", "step"))
    tree = run.attribute(X, measurement, axes=("parameter", "step"))
    for ledger in (whole, by_layer, tree):
        ledger.explaind.check()
    scale = float(whole.movement.max())
    for layer in run.layers:
        entries = [
            tree[v.path].weights.sum([d for d in tree[v.path].weights.dims if d.startswith("axis_")])
            for v in run.variables
            if v.layer == layer
        ]
        # The same integrals in other orders of float32 operations.
        np.testing.assert_allclose(sum(entries), by_layer.weights.sel(layer=layer), atol=1e-5 * scale)
    for term in names.CHECKPOINT_TERMS:
        for ledger in (by_layer, tree):
            np.testing.assert_allclose(
                ledger.explaind.total(term), whole.explaind.total(term), atol=2e-5 * scale
            )


def test_steps_are_picked_planned_and_streamed_as_those_of_a_recorded_run(run, saved, tmp_path):
    ledger = run.attribute(X, axes=("step",), steps=[1])
    ledger.explaind.check()
    assert ledger.step.values.tolist() == [1]
    np.testing.assert_allclose(ledger.initial, saved[1][1], atol=1e-5)
    assert run.plan(X, axes=("layer", "step")).steps == EPOCHS - 1
    stored = run.attribute(X, axes=("layer", "step"), out=tmp_path / "ledger.zarr", batch_size=4)
    stored.explaind.check()
    # Another process opens the same series under the same identifier, so that it can go on with the store.
    assert open_form(saved, "keras").run_id != "" and open_form(saved).run_id == run.run_id


def test_of_an_archive_nothing_but_the_weights_is_read(saved, run, tmp_path):
    for source in saved[0].glob(FORMS["keras"]):
        with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / source.name, "w") as new:
            new.writestr("model.weights.h5", old.read("model.weights.h5"))
            new.writestr("config.json", '{"module": "os", "class_name": "system", "config": "exit 1"}')
    opened = xtf.open_checkpoints(str(tmp_path / "*.keras"), build())
    np.testing.assert_array_equal(opened.step_store.theta(1), run.step_store.theta(1))


def test_what_reads_ledgers_reads_those_of_checkpoints(run):
    ledger = run.attribute(X, axes=("layer", "step"))
    assert set(fidelity(ledger).terms) == set(names.CHECKPOINT_TERMS)
    drawn = [
        ledger.explaind.plot.balance(),
        ledger.explaind.plot.layers(),
        ledger.explaind.plot.steps(by="term"),
    ]
    for figure in drawn:
        assert terms.label(names.WEIGHTS) in figure.to_json()


@pytest.mark.parametrize("axes", [("sample",), ("group",), ("sample", "token"), ("sample", "layer")])
def test_what_needs_samples_is_refused_with_the_way_to_get_it(run, axes):
    with pytest.raises(xtf.RefusedError, match=rf"no '{axes[0]}'.*PathLogger"):
        run.attribute(X, axes=axes)
    with pytest.raises(xtf.RefusedError, match="group"):
        run.plan(X, axes=("step",), groups=[0])
    with pytest.raises(xtf.RefusedError, match="PathLogger"):
        _ = run.samples


@pytest.mark.parametrize("kind", ["functional", "subclassed"])
def test_models_that_are_not_sequential(kind, tmp_path):
    make, x, example = {"functional": _functional, "subclassed": _subclassed}[kind]()
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


def _functional():
    def make():
        words, size = keras.Input((4,), name="words", dtype="int32"), keras.Input((2,), name="size")
        recurrent = layers.LSTM(3)(layers.Embedding(5, 3)(words))
        outputs = layers.Dense(2)(layers.Concatenate()([recurrent, size]))
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


# Bad inputs.


def _cut(path):
    path.write_bytes(path.read_bytes()[:200])


def _foreign_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


def _without_a_layer(path):
    with h5py.File(path, "a") as file:
        del file["layers/dense_1"]


def _with_nan(path):
    with h5py.File(path, "a") as file:
        file["layers/dense/vars/1"][...] = np.nan


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("w-2.weights.h5", _cut, "cannot be read"),
        ("m-02.keras", _cut, "no readable .keras archive"),
        ("m-02.keras", _foreign_archive, "holds no model.weights.h5"),
        (
            "w-2.weights.h5",
            _without_a_layer,
            "(?s)cannot be read.*'last' expected 2 variables, but received 0",
        ),
        ("w-2.weights.h5", _with_nan, "'net/first/bias' holds NaN"),
        ("root-1.index", _cut, "cannot be read as a TensorFlow checkpoint"),
        ("root-1.data-00000-of-00001", _cut, "cannot be read as a TensorFlow checkpoint"),
    ],
)
def test_a_damaged_file_is_named(saved, tmp_path, name, damage, message):
    pattern = {"w": FORMS["weights"], "m": FORMS["keras"], "r": FORMS["root"]}[name[0]]
    for file in saved[0].glob(pattern):
        shutil.copy(file, tmp_path)
    damage(tmp_path / name)
    with pytest.raises(xtf.RunFormatError, match=message) as caught:
        xtf.open_checkpoints(str(tmp_path / pattern), build())
    assert str(tmp_path / name.split(".")[0]) in str(caught.value)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("units", "extra"), [(5, 0), (4, 1)], ids=["shape", "missing"])
def test_checkpoints_of_another_model_are_refused(saved, form, units, extra):
    with pytest.raises(xtf.RunFormatError, match=r"shape|lacks|takes|expected|does not have|saved"):
        open_form(saved, form, build(units, extra))


@pytest.mark.parametrize("form", ["weights", "keras", "manager", "saved_model", "export"])
def test_checkpoints_of_a_larger_model_are_refused(saved, form):
    """Whose first layers fit, so that what is left over would go unnoticed."""
    smaller = keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.BatchNormalization()])
    with pytest.raises(xtf.RunFormatError, match=r"of which the model|does not have"):
        open_form(saved, form, smaller)


def test_lists_that_are_no_path(saved, tmp_path):
    one, two = (saved[0] / f"w-{i}.weights.h5" for i in (1, 2))
    with pytest.raises(ValueError, match=r"1 checkpoints: .*two or more"):
        xtf.open_checkpoints([one], build())
    with pytest.raises(ValueError, match=r"0 checkpoints.*two or more"):
        xtf.open_checkpoints(str(tmp_path / "*.keras"), build())
    with pytest.raises(ValueError, match=r"2 of the list is checkpoint 0 again.*w-1\.weights\.h5"):
        xtf.open_checkpoints([one, two, saved[0] / "." / one.name], build())
    with pytest.raises(xtf.RunFormatError, match=r"absent.keras does not exist.*A checkpoint is one of"):
        xtf.open_checkpoints([one, tmp_path / "absent.keras"], build())
    with pytest.raises(xtf.RunFormatError, match=r"directory without saved_model.pb"):
        xtf.open_checkpoints([one, tmp_path], build())
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(xtf.RunFormatError, match="is of another form"):
        xtf.open_checkpoints([one, tmp_path / "weights.npz"], build())


def test_a_file_that_changes_under_an_open_run_is_noticed(saved, tmp_path):
    for epoch in (1, 2):
        shutil.copy(saved[0] / f"w-{epoch}.weights.h5", tmp_path)
    run = xtf.open_checkpoints(str(tmp_path / "*"), build())
    shutil.copy(saved[0] / "w-3.weights.h5", tmp_path / "w-2.weights.h5")
    with pytest.raises(xtf.RunFormatError, match=r"w-2\.weights\.h5 has changed"):
        run.attribute(X)


def test_models_that_cannot_be_asked(saved):
    with pytest.raises(TypeError, match=r"keras.Model"):
        open_form(saved, model="net")
    with pytest.raises(xtf.RefusedError, match="no weights yet"):
        open_form(saved, model=keras.Sequential([layers.Dense(2)]))
    frozen = build()
    frozen.trainable = False
    with pytest.raises(xtf.RefusedError, match="no trainable variables"):
        open_form(saved, model=frozen)


def test_statistics_beside_the_variables_must_be_the_models(tmp_path):
    def make(shift):
        model = keras.Sequential([keras.Input((3,)), layers.Normalization(), layers.Dense(2)])
        model.layers[0].adapt(X + shift)
        return model

    for step in range(2):
        make(1.0).save_weights(tmp_path / f"{step}.weights.h5")
    fresh, prediction = make(0.0), make(0.0)
    prediction.set_weights(fresh.get_weights())
    with pytest.raises(xtf.RefusedError, match="Normalization"):
        xtf.open_checkpoints(str(tmp_path / "*"), fresh)
    np.testing.assert_allclose(fresh(X), prediction(X), atol=1e-6)  # left as it was
    run = xtf.open_checkpoints(str(tmp_path / "*"), make(1.0))
    run.attribute(X, axes=("layer",)).explaind.check()


def test_layers_that_were_frozen_are_state(tmp_path):
    model = build()
    train(
        model, keras.callbacks.ModelCheckpoint(str(tmp_path / "{epoch}.weights.h5"), save_weights_only=True)
    )
    model = build()
    model.get_layer("first").trainable = False
    run = xtf.open_checkpoints(str(tmp_path / "*"), model)
    ledger = run.attribute(X, axes=("layer",))
    ledger.explaind.check()
    assert float(np.abs(ledger.weights.sel(layer="net/first")).max()) == 0
    assert float(np.abs(ledger.state.sel(layer="net/first")).max()) > 0
    assert {v.path for v in run.variables} == {v.path for v in model.trainable_variables}
