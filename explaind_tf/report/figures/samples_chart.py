"""The training samples that moved a prediction most."""

from collections.abc import Hashable, Mapping
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.report import reductions
from explaind_tf.report.figures.style import DOWN, UP, short, styled


def samples(
    ledger: xr.Dataset,
    *,
    k: int = 10,
    input: int = 0,
    output: Hashable | None = None,
    labels: Mapping[Any, str] | None = None,
    unit: str | None = None,
) -> go.Figure:
    """Draw the training samples that raised, and those that lowered, one measurement most.

    Parameters
    ----------
    ledger : xarray.Dataset
        A ledger with a sample axis.
    k : int
        How many of each sign.
    input, output : int and label, optional
        Which prediction; by default the first output of the first input.
    labels : mapping, optional
        Text to show beside each sample, by id.
    unit : str, optional
        Unit of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        Bars, the strongest proponent on top, the strongest opponent at the bottom.

    Raises
    ------
    ValueError
        If the ledger has no sample axis.
    """
    unit = unit or reductions.unit_of(ledger)
    check = ledger.explaind.proponents(1)  # refuses a ledger without samples
    output = check[names.OUTPUT].values[0] if output is None else output
    array = ledger[names.DATA].isel({names.INPUT: input}).sel({names.OUTPUT: output})
    influence = array.sum([dim for dim in array.dims if dim != names.SAMPLE])
    order = np.argsort(-influence.values, kind="stable")
    values, ids = influence.values[order], influence[names.SAMPLE].values[order]
    chosen = [i for i in range(len(values)) if (i < k and values[i] > 0)]
    chosen += [i for i in range(max(0, len(values) - k), len(values)) if values[i] < 0]
    texts = [f"{ids[i]} {(labels or {}).get(ids[i], '')}".strip() for i in chosen]
    places = np.arange(len(chosen))
    figure = go.Figure(
        go.Bar(
            orientation="h",
            y=places,
            x=values[chosen],
            marker={"color": [UP if values[i] > 0 else DOWN for i in chosen], "line": {"width": 0}},
            customdata=[escape(text) for text in texts],
            hovertemplate="%{customdata}: %{x:+.4g}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=[short(text) for text in texts])
    figure.update_xaxes(title_text=f"influence ({escape(unit)})")
    return styled(figure, height=110 + 22 * len(chosen))
