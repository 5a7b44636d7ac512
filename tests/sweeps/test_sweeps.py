"""Sweeps: loops over steps that yield entries, whoever adds them up."""

from collections import Counter

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf.measurements import outputs
from explaind_tf.progress import Progress
from explaind_tf.questions.options import Options
from explaind_tf.sweeps.choose import choose_routes, sweeps_of
from tests.helpers import X, Y, batches, dense_model, fit, record

QUIET = Progress(enabled=False)


pytestmark = pytest.mark.usefixtures("many_at_once")


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    return record(tmp_path_factory.mktemp("sweeps") / "run").open()


def sweeps_for(run, *axes, **options):
    task = run._task(X[:2], outputs(), Options(axes=axes, **options))
    return sweeps_of(task, choose_routes(task))


def test_the_path_sweep_accounts_for_the_change_of_its_outputs(run):
    (path,) = sweeps_for(run)
    entries = list(path.run(QUIET))
    first = next(entry.values for entry in entries if entry.term == "initial")
    last = [entry.values for entry in entries if entry.term == "final"][-1]
    moved = sum(entry.values for entry in entries if entry.term not in ("initial", "final"))
    np.testing.assert_allclose(moved, last - first, atol=1e-12)
    assert Counter(entry.step for entry in entries if entry.term == "data") == dict.fromkeys(range(6), 1)
    np.testing.assert_array_equal(path.found.initial, first)


def test_the_reverse_sweep_splits_the_data_over_the_samples_of_each_step(run):
    path, reverse = sweeps_for(run, "sample")
    assert [entry for entry in path.run(QUIET) if entry.term == "data"] == []
    entries = [entry for entry in reverse.run(QUIET) if entry.term == "data"]
    assert [entry.step for entry in entries] == [5, 4, 3, 2, 1, 0]
    assert [len(entry.members) for entry in entries] == [2, 4, 4, 2, 4, 4]
    (whole,) = sweeps_for(run)
    data = sum(entry.values for entry in whole.run(QUIET) if entry.term == "data")
    total = sum(entry.values.sum(axis=2) for entry in entries)
    np.testing.assert_allclose(total, data, rtol=1e-4, atol=1e-6)


def test_samples_at_their_use_are_booked_before_the_steps_that_are_asked_for(run):
    assert [s.first_step for s in sweeps_for(run, "sample", steps=range(3, 6))] == [3, 0]
    by_effect = sweeps_for(run, "sample", steps=range(3, 6), step_of="effect")
    assert [s.first_step for s in by_effect] == [3, 3]


def test_a_sweep_says_what_it_costs_before_it_runs(run):
    path, reverse = sweeps = sweeps_for(run, "sample", "layer")
    tried = path.tried(0)
    passes = [one for sweep in sweeps for one in sweep.price(tried)]
    assert all(one.count > 0 and one.seconds > 0 for one in passes)
    assert min(sweep.working_bytes for sweep in sweeps) > 0
    assert path.inputs_at_once == reverse.inputs_at_once == 2
    assert reverse.name == "reverse sweep (rules)"


@pytest.mark.slow
def test_samples_that_interact_are_noticed_behind_batches_of_one(tmp_path):
    # A batch of one sample shows no interaction, and BatchNorm has none in it.
    model = dense_model(
        keras.layers.Dense(3, use_bias=False), keras.layers.BatchNormalization(), keras.layers.Dense(2)
    )
    model.compile(xtf.PathAdamW(0.01, epsilon=1e-3), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    ragged = batches(X[:4], Y[:4], size=1).concatenate(batches(X[4:], Y[4:], size=6))
    fit(model, logger.tap(ragged), logger)
    ledger = xtf.open_run(tmp_path / "run").attribute(X, axes=("sample",), progress=False)
    assert "(shares)" in ledger.attrs["method"]
    ledger.explaind.check()
