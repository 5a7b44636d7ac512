"""Phases, and what acts in them: curves made by hand, and a recorded run."""

import numpy as np
import pytest
import xarray as xr

from explaind_tf import measurements
from explaind_tf.analysis import Phases, balance, find_phases, first_reaching, influence, layer_shares
from tests.helpers import LABELS, Recorded, X

pytestmark = pytest.mark.slow


def test_phases_divide_the_steps():
    found = find_phases([0, 10, 20, 30], [0.2, 0.9, 1.0, 1.0], [0.1, 0.2, 0.5, 0.99])
    assert found == Phases(20, 30, 30)
    assert found.windows == {"memorisation": range(20), "generalisation": range(20, 30)}
    assert Phases(10, 10, 40).windows == {"memorisation": range(10), "after": range(10, 40)}


@pytest.mark.parametrize(
    ("training", "validation"), [([0.5, 0.9], [0.5, 1.0]), ([0.5, 1.0], [0.5, 0.9]), ([0.5, 1.0], [1.0, 1.0])]
)
def test_no_phases_without_generalising_last(training, validation):
    assert find_phases([0, 5], training, validation) is None


def test_levels_are_reached_once():
    assert first_reaching([3, 6, 9], [0.1, 0.7, 0.2], 0.7) == 6
    assert first_reaching([3, 6, 9], [0.1, 0.7, 0.2], 0.8) is None


@pytest.fixture(name="ledger", scope="module")
def _ledger(small_run: Recorded) -> xr.Dataset:
    run = small_run.open()
    return run.attribute(X, measurements.log_prob(LABELS), axes=("layer", "step"), progress=False)


def test_shares_are_those_of_a_loop(ledger):
    found = layer_shares(ledger, 2)
    assert found.step.values.tolist() == [0, 2, 4]
    flow = influence(ledger).transpose("layer", "step", "input", "output").values
    for i, step in enumerate((0, 2, 4)):
        absolute = [np.abs(layer[step] + layer[step + 1]).mean() for layer in flow]
        np.testing.assert_allclose(found.transpose("layer", "step").values[:, i], absolute / np.sum(absolute))
    np.testing.assert_allclose(found.sum("layer"), 1)


def test_balance_adds_up_to_what_happened(ledger):
    found = balance(ledger, 4)
    assert found.step.values.tolist() == [0]  # two steps are left over
    assert found.term.values.tolist() == list(ledger.explaind.terms)
    whole = balance(ledger)
    moved = (ledger.final - ledger.initial).mean()
    assert float(whole.sum()) == pytest.approx(float(moved))
    np.testing.assert_allclose(found.isel(step=0), whole.isel(step=slice(0, 4)).sum("step"), atol=1e-12)
