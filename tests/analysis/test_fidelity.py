"""Fidelity: the numbers of a ledger made by hand, and of a recorded run."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from explaind_tf import constants as names
from explaind_tf import measurements
from explaind_tf.analysis import Fidelity, agreement, fidelity, mean_kl
from explaind_tf.terms import terms_of
from tests.helpers import LABELS, Recorded, X

pytestmark = pytest.mark.slow


def ledger(initial: list, final: list, **terms: list) -> xr.Dataset:
    """Return a ledger with the terms given, zero elsewhere; what is missing is the residual."""
    dims = (names.INPUT, names.OUTPUT)
    arrays = {
        name: np.array(terms.get(name, np.zeros_like(final)), float) for name in terms_of("recorded")[:-1]
    }
    arrays[names.RESIDUAL] = np.subtract(final, initial) - sum(arrays.values())
    arrays |= {names.INITIAL: np.array(initial, float), names.FINAL: np.array(final, float)}
    return xr.Dataset(
        {name: (dims, array) for name, array in arrays.items()}, attrs={"measurement": "outputs"}
    )


def test_a_perfect_ledger():
    found = fidelity(ledger([[0, 0]], [[3, -1]], data=[[3.5, -1.5]], weight_decay=[[-0.5, 0.5]]))
    assert found == Fidelity(
        agreement=1.0,
        mean_kl=0.0,
        movement=3.0,
        residual=0.0,
        terms=dict.fromkeys(terms_of("recorded"), 0.0) | {"data": 2.5, "weight_decay": 0.5},
    )


def test_agreement_counts_inputs():
    # The machine predicts the classes 0, 1, 0, 0 and the model 0, 1, 1, 0.
    final = [[2, 1], [0, 1], [0.9, 1], [5, 0]]
    machine = [[3, 1], [0, 4], [1.1, 1], [1, 0]]
    assert agreement(ledger(np.zeros((4, 2)), final, data=machine)) == 0.75


def test_kl_is_that_of_the_definition():
    rng = np.random.default_rng(0)
    final, machine = rng.normal(size=(2, 5, 4))
    p, q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (final, machine))
    expected = np.mean(
        [sum(a * np.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    )
    np.testing.assert_allclose(
        mean_kl(ledger(np.zeros((5, 4)), final, data=machine)),
        expected,
        rtol=1e-12,  # both in float64
    )


def test_kl_is_from_the_model_to_the_machine():
    # KL((1/2, 1/2) ‖ (3/4, 1/4)) = ln(2/√3); in the other direction it is 0.131.
    found = mean_kl(ledger([[0, 0]], [[0, 0]], data=[[np.log(3), 0]]))
    np.testing.assert_allclose(found, np.log(2 / np.sqrt(3)), rtol=1e-12)


def test_kl_bears_large_logits():
    final = np.array([[1e4, 0, -1e4]])
    assert mean_kl(ledger(np.zeros((1, 3)), final, data=final)) == 0.0


def test_kl_is_blind_to_a_common_shift():
    final = np.array([[1.0, 2, 3]])
    assert abs(mean_kl(ledger(np.zeros((1, 3)), final, data=final + 7))) < 1e-12


def test_one_output_is_refused():
    with pytest.raises(ValueError, match="1 output for each input"):
        fidelity(ledger([[0]], [[1]], data=[[1]]))


@pytest.mark.parametrize("axes", [(), ("step",), ("sample", "layer"), ("parameter",)])
def test_axes_do_not_matter(small_run: Recorded, axes: tuple[str, ...]):
    run = small_run.open()
    plain = fidelity(run.attribute(X, measurements.outputs(), progress=False))
    found = fidelity(run.attribute(X, measurements.outputs(), axes, progress=False))
    assert found.agreement == plain.agreement
    assert found.movement == plain.movement
    # In float32 products, a sum over samples equals that over steps to about 1e-6 of the movement.
    for term in ("data", "weight_decay"):
        np.testing.assert_allclose(found.terms[term], plain.terms[term], rtol=1e-4)


def test_a_recorded_model_is_its_kernel_machine(small_run: Recorded):
    book = small_run.open().attribute(X, measurements.outputs(), tolerance=1e-3, progress=False)
    found = fidelity(book)
    assert found.agreement == 1.0
    assert found.mean_kl < 1e-6  # about (tolerance · movement)² / 2, with a movement below 1
    assert 0 < found.residual <= 1e-3 * found.movement
    assert found.terms["data"] > found.terms["weight_decay"] > 0
    assert found.terms["regularizer"] == found.terms["external"] == 0


def test_it_is_frozen(small_run: Recorded):
    found = fidelity(small_run.open().attribute(X[:2], measurements.outputs(), progress=False))
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.agreement = 0.0


def test_log_probabilities_are_no_classes(small_run: Recorded):
    book = small_run.open().attribute(X, measurements.log_prob(LABELS), progress=False)
    with pytest.raises(ValueError, match="log_prob"):
        agreement(book)
