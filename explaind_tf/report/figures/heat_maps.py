"""Where and when the measurement changed."""

from collections.abc import Hashable
from html import escape

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.report import reductions
from explaind_tf.report.figures.style import cells, scaled, short


def heat_map(
    ledger: xr.Dataset,
    axis: str,
    *,
    input: int | None = None,
    output: Hashable | None = None,
    unit: str | None = None,
) -> go.Figure:
    """Draw where and when the measurement changed: layers, or groups of training samples, by training step.

    Parameters
    ----------
    ledger : xarray.Dataset
        A ledger with a step axis and the axis of the rows.
    axis : {"layer", "group"}
        The axis of the rows.
    input, output : int and label, optional
        Which prediction; by default the mean over all.
    unit : str, optional
        Unit of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        Blue cells raised the measurement, red ones lowered it. One in a hundred cells may exceed the colour scale, since
        the first steps move most and would hide the rest. Hovering over a cell shows its number.

    Raises
    ------
    ValueError
        If the ledger lacks an axis.
    """
    unit = unit or reductions.unit_of(ledger)
    parts = reductions.stacks_by_step(ledger, axis, input=input, output=output).parts
    labels = [str(label) for label in ledger[axis].values]
    bins = reductions.bins_of(ledger[names.STEP].values)
    values = np.stack([bins.total(parts[label]) for label in labels])
    figure = go.Figure(
        cells(
            values,
            unit,
            x=bins.centers,
            y=np.arange(len(labels)),
            what="%{text}",
            text=[[escape(f"{axis} {label}, step {step}") for step in bins.labels] for label in labels],
        )
    )
    figure.update_xaxes(title_text="training step", showgrid=False, zeroline=False)
    figure.update_yaxes(
        autorange="reversed",
        tickvals=np.arange(len(labels)),
        ticktext=[short(label) for label in labels],
        showgrid=False,
        zeroline=False,
    )
    return scaled(figure, unit, height=140 + 26 * len(labels), top=64)
