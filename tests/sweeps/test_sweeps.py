"""Sweeps: loops over steps that yield entries, whoever adds them up."""

from collections import Counter

import numpy as np
import pytest

from explaind_tf.measurements import outputs
from explaind_tf.progress import Progress
from explaind_tf.questions.options import Options
from explaind_tf.sweeps.choose import choose_routes, sweeps_of
from tests.helpers import X, record

QUIET = Progress(enabled=False)


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
