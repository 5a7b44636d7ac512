"""The report's charts: from a ledger to a plotly figure, as a fragment of HTML."""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
import plotly.io
import xarray as xr

from explaind_tf import constants as names

TERM_LABELS: Final = {
    names.DATA: "training data",
    names.WEIGHT_DECAY: "weight decay",
    names.REGULARIZER: "loss regularisers",
    names.CARRYOVER: "carried-over momentum",
    names.EXTERNAL: "external changes",
    names.WEIGHTS: "trained weights",
    names.STATE: "state drift",
    names.RESIDUAL: "residual",
}

# Paul Tol's bright scheme: told apart by the colour-blind too, and legible on white as on near-black.
_COLORS: Final = {
    names.DATA: "#4477AA",
    names.WEIGHT_DECAY: "#EE6677",
    names.REGULARIZER: "#228833",
    names.CARRYOVER: "#CCBB44",
    names.EXTERNAL: "#66CCEE",
    names.WEIGHTS: "#4477AA",  # never beside the training data
    names.STATE: "#AA3377",
    names.RESIDUAL: "#999999",
}


def lead_by_step(ledger: xr.Dataset) -> xr.Dataset:
    """Split the growth of the winning class' lead over steps and terms, as a mean over the inputs.

    The lead of an input is the output of its predicted class less the mean of its other outputs. It is linear
    in the outputs, so that their ledger splits it exactly; and unlike a logit, it means something by itself.

    Parameters
    ----------
    ledger : xarray.Dataset
        Of all outputs, with a step axis.

    Returns
    -------
    xarray.Dataset
        Variables ``initial`` and ``final`` (scalars) and each term (dims ``step``), in the units of the
        measurement. Positive entries raised the lead; ``final − initial`` is their sum.

    Raises
    ------
    ValueError
        If the ledger has no step axis.
    """
    _check_axis(ledger, names.STEP)
    final = ledger[names.FINAL]
    others = 1 / (final.sizes[names.OUTPUT] - 1)
    weights = xr.where(
        final.argmax(names.OUTPUT) == xr.DataArray(np.arange(final.sizes[names.OUTPUT]), dims=names.OUTPUT),
        1.0,
        -others,
    )
    leads = {}
    for name in (names.INITIAL, names.FINAL, *ledger.explaind.terms):
        array = ledger[name].drop_vars(names.OUTPUT, errors="ignore")
        lead = (array * weights).sum(names.OUTPUT).mean(names.INPUT)
        leads[name] = lead.sum([dim for dim in lead.dims if dim != names.STEP])
    return xr.Dataset(leads)


def terms_by_layer(ledger: xr.Dataset) -> xr.Dataset:
    """Return the terms that have a layer axis as a mean over inputs and outputs, dims ``layer``.

    Raises
    ------
    ValueError
        If the ledger has no layer axis.
    """
    _check_axis(ledger, names.LAYER)
    totals = {}
    for term in ledger.explaind.terms:
        if names.LAYER in ledger[term].dims:
            mean = ledger[term].mean([names.INPUT, names.OUTPUT])
            totals[term] = mean.sum([dim for dim in mean.dims if dim != names.LAYER])
    return xr.Dataset(totals)


def _check_axis(ledger: xr.Dataset, axis: str) -> None:
    if axis not in ledger.dims:
        raise ValueError(
            f'This ledger has no {axis} axis ({dict(ledger.sizes)}). Attribute with axes=("{axis}", …).'
        )


def terms_chart(terms: Mapping[str, float], *, unit: str, element_id: str) -> str:
    """Draw a horizontal bar for each term that is not zero, the first on top."""
    shown = {term: value for term, value in terms.items() if value or term == names.RESIDUAL}
    figure = go.Figure(
        go.Bar(
            orientation="h",
            y=[TERM_LABELS[term] for term in shown],
            x=list(shown.values()),
            marker={"color": [_COLORS[term] for term in shown], "line": {"width": 0}},
            text=[f"{value:.3g}" for value in shown.values()],
            textposition="outside",
            cliponaxis=False,
            hovertemplate="%{y}: %{x:.4g}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(
        title_text=f"mean |term| ({escape(unit)})", range=[0, 1.12 * max(shown.values()) or 1]
    )
    return _fragment(figure, element_id, height=110 + 44 * len(shown))


def steps_chart(leads: xr.Dataset, *, unit: str, element_id: str) -> str:
    """Draw the terms of :func:`lead_by_step` as stacked bars, one for each step."""
    figure = _stacked(leads, leads[names.STEP].values, hover="step %{x}: %{y:+.4g}")
    figure.update_xaxes(title_text="training step")
    figure.update_yaxes(title_text=f"change of the lead ({escape(unit)})")
    return _fragment(figure, element_id, height=360)


def layers_chart(by_layer: xr.Dataset, *, unit: str, element_id: str) -> str:
    """Draw the terms of :func:`terms_by_layer` as stacked bars, one for each layer, the first on top."""
    # Plotly reads tags in labels; a layer may be called anything.
    labels = [escape(str(layer)) for layer in by_layer[names.LAYER].values]
    figure = _stacked(by_layer, labels, hover="%{y}: %{x:+.4g}", orientation="h")
    figure.update_xaxes(title_text=f"mean change ({escape(unit)})")
    figure.update_yaxes(autorange="reversed")
    return _fragment(figure, element_id, height=150 + 26 * len(labels))


def _stacked(terms: xr.Dataset, positions: Any, *, hover: str, orientation: str = "v") -> go.Figure:
    figure = go.Figure()
    along, across = ("x", "y") if orientation == "v" else ("y", "x")
    for term in (name for name in TERM_LABELS if name in terms and bool((terms[name] != 0).any())):
        figure.add_bar(
            orientation=orientation,
            name=TERM_LABELS[term],
            marker={"color": _COLORS[term], "line": {"width": 0}},
            hovertemplate=f"{TERM_LABELS[term]}, {hover}<extra></extra>",
            **{along: positions, across: terms[term].values},
        )
    # Relative: what raised the measurement is stacked upwards from zero, what lowered it downwards.
    figure.update_layout(barmode="relative", bargap=0.15, showlegend=True)
    return figure


def _fragment(figure: go.Figure, element_id: str, *, height: int) -> str:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 24, "t": 36, "b": 8},
        # The page shows through, light or dark; its style sheet colours text and lines.
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0, "bgcolor": "rgba(0,0,0,0)"},
    )
    figure.update_xaxes(automargin=True, title_standoff=8)
    figure.update_yaxes(automargin=True, ticksuffix="  ")
    html: str = plotly.io.to_html(
        figure,
        include_plotlyjs=False,
        full_html=False,
        div_id=element_id,
        default_height=f"{height}px",
        config={"responsive": True, "displaylogo": False, "displayModeBar": False},
    )
    return html
