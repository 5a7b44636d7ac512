"""Rounding is an entry: what the samples' gradients leave of the gradient that the optimizer used."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import xarray as xr
from keras import layers

import explaind_tf as xtf
from tests import helpers
from tests.helpers import X, batches, dense_model, fit
from tests.nightly import sweep

pytestmark = pytest.mark.slow

# Biases before a normalisation have no gradient but rounding, which AdamW blows up.
MODELS = {
    "BatchNorm after a bias": (layers.Dense(8), layers.BatchNormalization(), layers.ReLU()),
    "LayerNorm after a bias": (layers.Dense(8), layers.LayerNormalization()),
    "GroupNorm after a bias": (layers.Dense(8), layers.GroupNormalization(2)),
    "units that are never active": (layers.Dense(8), layers.Rescaling(1.0, -1e3), layers.ReLU()),
    "regulariser": (layers.Dense(8, kernel_regularizer="l2"), layers.BatchNormalization()),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "clipvalue": {"clipvalue": 0.1},
}
AXES = [
    ("sample",),
    ("sample", "layer"),
    ("sample", "step"),
    ("sample", "parameter"),
    ("group",),
    ("group", "step"),
]


def record(run_dir: Path, *of_model: keras.layers.Layer, **options: Any) -> xtf.Run:
    model = dense_model(
        *(layer.__class__.from_config(layer.get_config()) for layer in of_model), layers.Dense(2)
    )
    model.compile(xtf.PathAdamW(0.05, **options), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    fit(model, logger.tap(batches()), logger, epochs=4)
    return xtf.open_run(run_dir)


def ask(run: xtf.Run, axes: tuple[str, ...], **options: Any) -> xr.Dataset | xr.DataTree:
    groups = {"groups": [k % 2 for k in range(len(X))]} if "group" in axes else {}
    ledger = run.attribute(X[:2], axes=axes, progress=False, **groups, **options)
    ledger.explaind.check()
    return ledger


def assert_the_same_data(split: xr.Dataset | xr.DataTree, whole: xr.Dataset) -> None:
    difference = np.abs(helpers.totals(split)["data"] - whole.data)
    # Groups are integrated one by one in float32. Where they are large and cancel, the rounding of each is left.
    allowed = 2e-5 if "group" in split.dims else 1e-6
    assert float((difference / whole.movement).max()) <= allowed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> xtf.Run:
    return record(tmp_path_factory.mktemp("rounding") / "run", *MODELS["BatchNorm after a bias"])


@pytest.fixture(scope="module")
def whole(run: xtf.Run) -> xr.Dataset:
    return ask(run, ())


@pytest.mark.parametrize("axes", AXES, ids="-".join)
def test_samples_and_rounding_are_the_data_of_a_ledger_without_samples(run, whole, axes):
    split = ask(run, axes)
    assert_the_same_data(split, whole)
    assert float(np.abs(split.explaind.total("rounding")).max()) > 0


def test_questions_use_the_same_nodes_however_they_split(run):
    # Entries of data and state are many times the movement here, and cancel. Other nodes would move both.
    whole, split = (ask(run, axes, dtype="float64", tolerance=1e-6) for axes in ((), ("sample",)))
    assert split.attrs["quadrature_nodes"] == whole.attrs["quadrature_nodes"] > 2 * len(run.steps)
    difference = np.abs(helpers.totals(split)["data"] - whole.data)
    assert float((difference / whole.movement).max()) <= 1e-12


def test_rounding_is_where_the_gradient_is_nothing_else(run):
    rounding = np.abs(ask(run, ("sample", "layer")).rounding).sum(("input", "output"))
    assert rounding.idxmax("layer") == run.layers[0]
    by_effect = ask(run, ("sample", "step"), step_of="effect")
    assert by_effect.rounding.dims == ("input", "output", "step")


def test_a_ledger_without_samples_has_no_rounding_and_says_where_it_is(run, whole):
    assert "rounding" not in whole
    assert "all of the gradient" in whole.attrs["data_holds"]
    assert "rounding" in ask(run, ("sample",)).attrs["data_holds"]


CASES = [f"{model}, {options}" for model in MODELS for options in OPTIONS]


# The run that is asked for all axes every time has a bias before BatchNorm.
@pytest.mark.parametrize("case", sweep(CASES, daily=False))
def test_models_whose_gradients_vanish(case, tmp_path):
    model, options = case.split(", ")
    run = record(tmp_path / "run", *MODELS[model], **OPTIONS[options])
    run.verify(progress=False)
    whole = ask(run, ())
    for axes in AXES[:2] + AXES[4:5]:
        assert_the_same_data(ask(run, axes), whole)
