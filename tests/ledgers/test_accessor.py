"""The accessor, on hand-made ledgers in which every number is known."""

import json

import numpy as np
import pytest
import xarray as xr

import explaind_tf as xtf
from explaind_tf import constants as names
from explaind_tf.terms import terms_of


def _ledger(residual=0.0, tolerance=1e-3):
    """Return one input, two outputs and three samples. Output 0 went from 1 to 4, output 1 from 0 to -1."""
    data = np.array([[[3.0, -1.0, 0.5], [-0.5, -1.0, 1.0]]])
    terms = {name: np.zeros((1, 2)) for name in terms_of("recorded") if name != names.DATA}
    terms[names.WEIGHT_DECAY] = np.array([[0.5, -0.5]])
    terms[names.RESIDUAL] = np.full((1, 2), residual)
    initial = np.array([[1.0, 0.0]])
    final = initial + data.sum(-1) + sum(terms.values())
    return xr.Dataset(
        {
            "data": (("input", "output", "sample"), data),
            "initial": (("input", "output"), initial),
            "final": (("input", "output"), final),
            **{name: (("input", "output"), values) for name, values in terms.items()},
        },
        {"input": [0], "output": [0, 1], "sample": ["a", "b", "c"], "movement": ("input", [3.0])},
        {"tolerance": tolerance},
    )


def test_reconstruct_is_initial_plus_everything_but_the_residual():
    ledger = _ledger(residual=0.1)
    np.testing.assert_allclose(ledger.explaind.reconstruct(), [[4.0, -1.0]])
    np.testing.assert_allclose(ledger.final - ledger.explaind.reconstruct(), 0.1)


def test_check_compares_the_residual_with_the_movement():
    _ledger(residual=0.0029).explaind.check()
    with pytest.raises(xtf.UnbalancedLedgerError, match=r"does not balance to 0\.001") as caught:
        _ledger(residual=-0.0031).explaind.check()
    assert "smaller tolerance" in str(caught.value)
    _ledger(residual=-0.0031).explaind.check(tolerance=2e-3)


def test_check_refuses_a_ledger_that_was_cut():
    with pytest.raises(xtf.UnbalancedLedgerError, match="no whole ledger"):
        _ledger().isel(sample=[0, 1]).explaind.check()


def test_check_refuses_nan():
    with pytest.raises(xtf.UnbalancedLedgerError):
        _ledger(residual=np.nan).explaind.check()


def test_proponents_raised_and_opponents_lowered_most():
    top = _ledger().explaind.proponents(2)
    assert top["sample"].values.tolist() == [[["a", "c"], ["c", "a"]]]
    assert top["influence"].values.tolist() == [[[3.0, 0.5], [1.0, -0.5]]]
    bottom = _ledger().explaind.opponents(1)
    assert bottom["sample"].values.tolist() == [[["b"], ["b"]]]


def test_proponents_sum_over_other_axes_and_take_all_samples_at_most():
    ledger = _ledger()
    by_layer = ledger.assign(data=xr.concat([ledger.data * 0.25, ledger.data * 0.75], dim="layer"))
    assert by_layer.explaind.proponents(9)["influence"].values.tolist() == [
        [[3.0, 0.5, -1.0], [1.0, -0.5, -1.0]]
    ]


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_k_must_be_a_positive_number(k):
    with pytest.raises(ValueError, match="k must be"):
        _ledger().explaind.proponents(k)


def test_proponents_need_a_sample_axis():
    ledger = _ledger()
    with pytest.raises(ValueError, match="no sample axis"):
        ledger.assign(data=ledger.data.sum("sample")).explaind.proponents()


def test_another_dataset_is_no_ledger():
    with pytest.raises(ValueError, match="no ledger"):
        xr.Dataset({"a": 1}).explaind.check()


def test_a_table_of_both_sides_without_those_of_the_other_sign():
    table = _ledger().explaind.to_pandas(k=3)
    assert list(table.columns) == ["input", "output", "side", "rank", "sample", "influence"]
    rows = set(table.itertuples(index=False, name=None))
    assert rows == {
        (0, 0, "proponent", 0, "a", 3.0),
        (0, 0, "proponent", 1, "c", 0.5),
        (0, 0, "opponent", 0, "b", -1.0),
        (0, 1, "proponent", 0, "c", 1.0),
        (0, 1, "opponent", 0, "b", -1.0),
        (0, 1, "opponent", 1, "a", -0.5),
    }


def test_scores_are_inputs_by_samples():
    two = xr.concat([_ledger(), _ledger()], "input").assign_coords(input=[0, 1])
    two.data[1] *= 2
    scores = two.expand_dims(step=[0]).explaind.scores(output=1)
    np.testing.assert_array_equal(scores, [[-0.5, -1.0, 1.0], [-1.0, -2.0, 2.0]])
    with pytest.raises(ValueError, match=r"which of \[0, 1\]"):
        two.explaind.scores()
    np.testing.assert_array_equal(two.isel(output=[0]).explaind.scores(), [[3, -1, 0.5], [6, -2, 1]])


def test_lit_gets_a_list_of_examples_for_each_input():
    found = _ledger().explaind.to_lit(lambda sample: {"text": sample.upper()}, k=1, output=1)
    assert found == [
        [{"text": "C", "id": "c", "influence": 1.0}, {"text": "B", "id": "b", "influence": -1.0}]
    ]
    assert json.loads(json.dumps(found)) == found  # LIT sends them to a browser


@pytest.mark.parametrize("ask", ["to_pandas", "scores"])
def test_interoperation_needs_a_sample_axis(ask: str):
    with pytest.raises(ValueError, match="no sample axis"):
        getattr(_ledger().sum("sample").expand_dims(step=[0]).explaind, ask)()
