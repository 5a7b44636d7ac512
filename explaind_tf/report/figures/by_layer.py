"""The change through each layer."""

from collections.abc import Hashable
from html import escape

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.report import reductions
from explaind_tf.report.figures.style import short, styled, which_input
from explaind_tf.terms import all_terms, term


def layers(
    ledger: xr.Dataset, *, input: int | None = None, output: Hashable | None = None, unit: str | None = None
) -> go.Figure:
    """Draw the change of the measurement through each layer, stacked by cause.

    Parameters
    ----------
    ledger : xarray.Dataset
        A ledger with a layer axis.
    input, output : int and label, optional
        Which prediction; by default the mean over all.
    unit : str, optional
        Unit of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        A bar for each layer, the first on top. Bars right of zero raised the measurement.

    Raises
    ------
    ValueError
        If the ledger has no layer axis.
    """
    unit = unit or reductions.unit_of(ledger)
    found = reductions.terms_by(ledger, names.LAYER, input=input, output=output)
    labels = [str(layer) for layer in found[names.LAYER].values]
    places = np.arange(len(labels))
    figure = go.Figure()
    for cause in (term(name) for name in all_terms() if name in found and bool((found[name] != 0).any())):
        figure.add_bar(
            orientation="h",
            name=cause.label,
            y=places,
            x=found[cause.name].values,
            marker={"color": cause.colour, "line": {"width": 0}},
            customdata=[escape(label) for label in labels],
            hovertemplate=f"%{{customdata}}, {cause.label}: %{{x:+.4g}}<extra></extra>",
        )
    figure.update_layout(barmode="relative", bargap=0.25, showlegend=True)
    figure.update_xaxes(title_text=f"change ({escape(unit)}){which_input(ledger, input)}")
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=[short(label) for label in labels])
    return styled(figure, height=150 + 26 * len(labels))
