"""How well its kernel machine reproduces a model: initial outputs plus all terms of a ledger except the residual.

The comparison is that of Table 1 of the paper (ExPLAIND, arXiv:2505.20076). It sets the predictions of the trained
model against those of the sum on the right-hand side of Theorem 3.1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.analysis.comparison import divergence, same_class

Ledger = xr.Dataset | xr.DataTree


@dataclass(frozen=True)
class Fidelity:
    """How a model compares with its kernel machine.

    Attributes
    ----------
    agreement : float
        Share of the inputs for which both predict the same class.
    mean_kl : float
        Mean over inputs of the Kullback–Leibler divergence of the kernel machine's class probabilities from
        the model's, in nats.
    movement : float
        Largest |final − initial| over inputs and outputs, in the units of the measurement.
    residual : float
        Largest |residual| over inputs and outputs, in the units of the measurement.
    terms : mapping of str to float
        For each term of the ledger, the mean over inputs and outputs of its absolute value, in the units of
        the measurement. Absolute, so values of opposite sign do not cancel.
    """

    agreement: float
    mean_kl: float
    movement: float
    residual: float
    terms: Mapping[str, float]


def fidelity(ledger: Ledger) -> Fidelity:
    """Compare a model with its kernel machine.

    Parameters
    ----------
    ledger : xarray.Dataset or xarray.DataTree
        A ledger of ``measurements.outputs()``, or of another measurement whose outputs are the logits or
        log-probabilities of all classes. It may have any axes, or none.

    Returns
    -------
    Fidelity
        In the units of the measurement.

    Raises
    ------
    ValueError
        If the measurement has a single output, so there are no classes to compare.
    """
    totals = {term: np.abs(_values(ledger.explaind.total(term))) for term in ledger.explaind.terms}
    return Fidelity(
        agreement=agreement(ledger),
        mean_kl=mean_kl(ledger),
        movement=float(np.abs(_values(ledger.explaind.movement())).max()),
        residual=float(totals[names.RESIDUAL].max()),
        terms={term: float(total.mean()) for term, total in totals.items()},
    )


def agreement(ledger: Ledger) -> float:
    """Return the share of inputs for which model and kernel machine predict the same class.

    Parameters
    ----------
    ledger : xarray.Dataset or xarray.DataTree
        As for :func:`fidelity`.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ValueError
        If the measurement has a single output.
    """
    return same_class(*_class_outputs(ledger))


def mean_kl(ledger: Ledger) -> float:
    """Return the mean over inputs of KL(softmax(final) ‖ softmax(reconstruction)).

    Parameters
    ----------
    ledger : xarray.Dataset or xarray.DataTree
        As for :func:`fidelity`.

    Returns
    -------
    float
        In nats; 0 if the two agree, and negative only by rounding.

    Raises
    ------
    ValueError
        If the measurement has a single output.
    """
    return divergence(*_class_outputs(ledger))


def _class_outputs(ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """Return the outputs of the model and of its kernel machine, each (inputs, classes) in float64."""
    final = ledger[names.FINAL]
    assert isinstance(final, xr.DataArray)  # in a tree, too
    model, machine = _values(final), _values(ledger.explaind.reconstruct())
    if model.shape[1] < 2:
        raise ValueError(
            f"This ledger of {ledger.attrs.get('measurement')!r} has {model.shape[1]} output for each input. "
            f"Comparing predictions needs the outputs of all classes: run.attribute(inputs, measurements.outputs())."
        )
    return model, machine


def _values(array: xr.DataArray) -> np.ndarray:
    return array.transpose(names.INPUT, names.OUTPUT).values.astype(np.float64)
