"""What a section of the report holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr

from explaind_tf.report.examples import Example
from explaind_tf.runs import RecordedRun


@dataclass(frozen=True)
class Section:
    """What the report says about one model.

    Attributes
    ----------
    title, introduction : str
        Plain text.
    run : RecordedRun
        The recorded training.
    curves : xarray.Dataset or None
        Its loss and learning rate: ``run.curves()``. None for a run below the level ``"sample"``.
    balance : xarray.Dataset
        Ledger of ``measurements.outputs()`` for held-out inputs; it needs no axis.
    unit : str
        Unit of the model's outputs, such as ``"logits"`` or ``"nats"``.
    path : xarray.Dataset
        Ledger of the predicted class' log-probability (nats) for held-out inputs, by layer and step.
    samples : xarray.Dataset or None
        The same for a few inputs, by sample.
    weights : xarray.DataTree
        The same for these few inputs, by parameter.
    groups : xarray.Dataset or None
        The same for the inputs of ``path``, by group and step.
    grouped_by : str
        What the groups are, such as ``"label"``.
    inputs : sequence of Example
        The few inputs, in order.
    predictions : sequence of str
        What the model predicts for each of them, in words.
    show_sample : callable
        Takes a label of the sample axis and returns its ``Example``.
    top : int
        How many proponents and opponents to show.
    position : int or None
        For sequences, the position whose prediction the ledgers account for.
    counterfactual : xarray.Dataset, str or None
        The answer of ``run.counterfactual`` for the inputs and measurement of ``samples``, by sample; with a verdict if one
        was asked for. Or the sentence why there is none. None if it was not asked for.
    """

    title: str
    introduction: str
    run: RecordedRun
    curves: xr.Dataset | None
    balance: xr.Dataset
    unit: str
    path: xr.Dataset
    samples: xr.Dataset | None
    weights: xr.DataTree
    inputs: Sequence[Example]
    predictions: Sequence[str]
    show_sample: Callable[[Any], Example]
    groups: xr.Dataset | None = None
    grouped_by: str = ""
    top: int = 5
    position: int | None = None
    counterfactual: xr.Dataset | str | None = None
