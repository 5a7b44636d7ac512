"""The data and the trainings of the evaluation."""

import numpy as np
import pytest

from experiments.evaluation.retraining import Trainer
from experiments.evaluation.sizes import QUICK
from experiments.evaluation.splits import Split, flipped, with_shortcut

pytestmark = pytest.mark.slow


@pytest.fixture(name="split", scope="module")
def _split() -> Split:
    return Split.of(QUICK, seed=0)


def test_flipped_labels_are_wrong(split):
    (x, y), is_wrong = flipped(split.train, 0.1, seed=0)
    assert is_wrong.sum() == round(0.1 * QUICK.samples)
    np.testing.assert_array_equal(y != split.train[1], is_wrong)
    np.testing.assert_array_equal(x, split.train[0])


def test_the_shortcut_is_on_some_of_one_class(split):
    (x, y), is_marked = with_shortcut(split.train, of_class=3, share=0.5, seed=0)
    assert set(y[is_marked]) == {3} and 0 < is_marked.sum() < (y == 3).sum()
    is_changed = (x != split.train[0]).reshape(len(x), -1).any(axis=1)
    np.testing.assert_array_equal(is_changed, is_marked)
    assert (x[is_marked, :2, :2] == 1).all()


def test_subsets_of_retraining(split):
    halves = split.halves(5, seed=0)
    assert halves.shape == (5, QUICK.samples) and set(halves.sum(axis=1)) == {QUICK.samples // 2}
    left_out = ~split.without_groups(20)
    assert left_out.shape == (20, QUICK.samples)
    np.testing.assert_array_equal(left_out.sum(axis=0), 1)  # each sample is in one group
    assert all(len(set(split.train[1][group])) == 1 for group in left_out)


def test_a_training_does_not_depend_on_the_one_before(split):
    trainer, subsets = Trainer(QUICK, split), split.halves(2, seed=0)
    together = trainer.outcomes(subsets)
    np.testing.assert_array_equal(trainer.outcomes(subsets[1:])[:, 0], together[:, 1])
    assert (together[:, 0] != together[:, 1]).any()
