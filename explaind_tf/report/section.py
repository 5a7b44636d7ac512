"""What a section of the report is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from explaind_tf.runs import RecordedRun


@dataclass(frozen=True)
class Example:
    """An input or a training sample as the reader is to see it.

    Attributes
    ----------
    text : str
        In words, such as its label, or the sample itself where it is a text.
    image : np.ndarray, optional
        Values in [0, 1], shape (height, width, 1 or 3).
    table : sequence of (str, str), optional
        Names and values of a row of a table.
    """

    text: str
    image: np.ndarray | None = None
    table: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Section:
    """What the report tells of one model.

    Attributes
    ----------
    title, introduction : str
        Plain text.
    run : RecordedRun
        The recorded training.
    curves : xarray.Dataset
        Its loss and learning rate, ``run.curves()``.
    balance : xarray.Dataset
        Ledger of ``measurements.outputs()`` on held-out inputs; no axis is needed.
    unit : str
        Unit of the model's outputs, such as ``"logits"`` or ``"nats"``.
    path : xarray.Dataset
        Ledger of the log-probability of the predicted class (nats) of held-out inputs, by layer and step.
    samples : xarray.Dataset
        The same of a few inputs, by sample.
    weights : xarray.DataTree
        The same of these few inputs, by parameter.
    groups : xarray.Dataset or None
        The same of the inputs of ``path``, by group and step.
    grouped_by : str
        What the groups are, such as ``"label"``.
    inputs : sequence of Example
        The few inputs, in order.
    predictions : sequence of str
        What the model predicts for each of them, in words.
    show_sample : callable
        From a label of the sample axis to an ``Example``.
    top : int
        How many proponents and opponents to show.
    position : int or None
        Of a sequence, the position whose prediction the ledgers are about.
    """

    title: str
    introduction: str
    run: RecordedRun
    curves: xr.Dataset
    balance: xr.Dataset
    unit: str
    path: xr.Dataset
    samples: xr.Dataset
    weights: xr.DataTree
    inputs: Sequence[Example]
    predictions: Sequence[str]
    show_sample: Callable[[Any], Example]
    groups: xr.Dataset | None = None
    grouped_by: str = ""
    top: int = 5
    position: int | None = None
