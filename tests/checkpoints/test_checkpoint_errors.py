"""Bad inputs: damaged files, checkpoints of other models, lists that are no path, questions that need samples."""

import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest

import explaind_tf as xtf
from tests.checkpoints.saving import FORMS, build, open_form
from tests.helpers import X

# What Keras itself raises when it saves with NumPy 2.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

layers = keras.layers


@pytest.mark.parametrize("axes", [("sample",), ("group",), ("sample", "token"), ("sample", "layer")])
def test_what_needs_samples_is_refused_with_the_way_to_get_it(run, axes):
    with pytest.raises(xtf.RefusedError, match=rf"no '{axes[0]}'.*PathLogger"):
        run.attribute(X, axes=axes)
    with pytest.raises(xtf.RefusedError, match="group"):
        run.plan(X, axes=("step",), groups=[0])
    with pytest.raises(xtf.RefusedError, match="PathLogger"):
        _ = run.samples


def test_workers_cannot_open_what_is_in_memory_alone(run):
    with pytest.raises(xtf.RefusedError, match="in the memory of this process"):
        run.attribute(X, client=object())


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
        ("root-1.index", _cut, "no index of variables.*does not end as a table does"),
        (
            "root-1.data-00000-of-00001",
            _cut,
            r"no index of variables.*tensor '.*': it has .* bytes from byte",
        ),
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
    """The first layers fit, so without a check the remaining weights would go unnoticed."""
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
