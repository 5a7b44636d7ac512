"""How figures look: colours, labels, and the scale of a heat map."""

import json
from html import escape
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from explaind_tf import constants as names

UP, DOWN, TOTAL = "#3A7FC1", "#D1495B", "#8A94A0"
# Zero is transparent, which suits a white page and a black one.
_DIVERGING: Final = ((0.0, "rgba(190,30,55,1)"), (0.5, "rgba(140,140,150,0)"), (1.0, "rgba(20,95,180,1)"))
# Share of cells within the scale: a few first steps would otherwise make all others pale.
_SATURATED: Final = 0.99
_LABEL_LENGTH: Final = 24


def styled(figure: go.Figure, *, height: int, top: int | None = None) -> go.Figure:
    """Return the figure with its sizes; by default with room for a legend on top, if there is one."""
    top = (40 if figure.layout.showlegend else 12) if top is None else top
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 16, "t": top, "b": 8},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom", "x": 0, "bgcolor": "rgba(0,0,0,0)"},
        hoverlabel={"namelength": -1},
    )
    figure.update_xaxes(automargin=True, title_standoff=8, ticks="")
    figure.update_yaxes(automargin=True, title_standoff=6, ticks="", ticksuffix=" ")
    return figure


def short(label: str) -> str:
    """Shorten a label at its front, since the end of a path says most, and escape it: plotly reads tags in labels."""
    return escape(label if len(label) <= _LABEL_LENGTH else f"…{label[-_LABEL_LENGTH + 1 :]}")


def which_input(ledger: xr.Dataset, input: int | None) -> str:
    """Say which input a figure shows, on a line of its own: narrow screens cut longer lines."""
    count = ledger.sizes[names.INPUT]
    if input is not None:
        return f"<br>input {input}"
    return f"<br>mean of {count} inputs" if count > 1 else ""


def cells(
    values: np.ndarray,
    unit: str,
    *,
    what: str,
    scale: float | None = None,
    bar: bool = True,
    **places: Any,
) -> go.Heatmap:
    """Return the cells of a heat map. Their hover text begins with ``what``; :func:`scaled` places their scale."""
    scale = scale or scale_of(values)
    return go.Heatmap(
        z=values.astype(np.float32),
        zmin=-scale,
        zmax=scale,
        colorscale=[list(stop) for stop in _DIVERGING],
        hovertemplate=f"{what}: %{{z:+.4g}}<extra></extra>",
        showscale=bar,
        colorbar={
            "orientation": "h",
            "yref": "container",
            "yanchor": "top",
            "ypad": 0,
            "thickness": 10,
            "len": 0.9,
            "nticks": 5,
            "tickangle": 0,
        },
        **places,
    )


def scale_of(values: np.ndarray) -> float:
    """Return the number that the strongest colour stands for."""
    return float(np.quantile(np.abs(values), _SATURATED)) or float(np.abs(values).max()) or 1.0


def scaled(figure: go.Figure, unit: str, *, height: int, top: int) -> go.Figure:
    """Return a heat map with its colour scale on top. In a low figure, the scale's own title would cover it."""
    figure.update_layout(
        title={
            "text": f"← lowered   change ({escape(unit)})   raised →",
            "font": {"size": 13},
            "x": 0.5,
            "y": 1 - 6 / height,
            "yanchor": "top",
        }
    )
    figure.update_traces(colorbar_y=1 - 24 / height)
    return styled(figure, height=height, top=top)


def bare(drawn: go.Figure) -> dict[str, Any]:
    """Return a figure as JSON values without a background and colours of text: it takes those of the page around it."""
    found = go.Figure(drawn)
    # Transparent, since the page may be light or dark; its style sheet colours text and lines.
    found.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    values: dict[str, Any] = json.loads(found.to_json())
    values["layout"].pop("template", None)  # 7 kB of colours in each figure that the page does not use
    return values
