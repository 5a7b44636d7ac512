"""The parts of the Grokking experiments and of the one with a late class."""

from pathlib import Path

import numpy as np
import pytest

from experiments.dynamics.__main__ import LATE, OTHERS, measure, record
from experiments.dynamics.__main__ import QUICK as DYNAMICS
from experiments.grokking.group_operations import addition
from experiments.grokking.interventions import swap
from experiments.grokking.study import INNER, LAYERS, OUTER, Trained, Training, shuffled, train
from explaind_tf.analysis import invariance
from explaind_tf.datasets import dihedral_table

pytestmark = pytest.mark.slow

TRAINING = Training(num_train=20, num_test=5, steps=20, measure_every=10, learning_rate=0.05, width=8)


@pytest.fixture(name="trained", scope="module")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(addition(5), TRAINING, tmp_path_factory.mktemp("grokking") / "run", seed=0)


def test_layers_are_those_of_the_model(trained):
    assert [path.rsplit("/", 1)[-1] for path in trained.run.layers] == list(LAYERS)
    assert {*OUTER, *INNER} == set(LAYERS)


def test_swapping_puts_models_together(trained):
    steps = trained.curve.step.values.tolist()
    found = swap(trained, TRAINING, 1, {"nothing": (), "outer": OUTER, "all": LAYERS}, steps)
    measured = trained.curve.accuracy.sel(split="validation").values
    assert measured[0] != measured[-1]
    np.testing.assert_allclose(found["nothing"], measured)
    np.testing.assert_allclose(found["all"], measured[-1])
    assert found["outer"][-1] == pytest.approx(measured[-1])


def test_a_group_in_a_random_order_is_the_same_group():
    table = dihedral_table(7)
    other = shuffled(table, 0)
    assert (other != table).any()
    order = np.random.default_rng(0).permutation(len(table))
    kernel = np.random.default_rng(1).normal(size=table.shape)
    moved = kernel[np.ix_(order, order)]  # row and column i are of the element order[i]
    rows = np.arange(len(table))
    assert invariance(moved, rows, other).share == pytest.approx(invariance(kernel, rows, table).share)


@pytest.mark.nightly
def test_a_late_class_does_nothing_before_it_is_there(tmp_path: Path):
    found = record(DYNAMICS, tmp_path / "run", seed=0)
    numbers = measure(DYNAMICS, found)
    assert numbers["share_before"] == 0
    assert numbers["first_step"] == DYNAMICS.before
    before = found.data.sel(step=slice(None, DYNAMICS.before - 1))
    assert (before.sel(group=LATE) == 0).all()
    assert (abs(before.sel(group=OTHERS)).sum("layer") > 0).all()
