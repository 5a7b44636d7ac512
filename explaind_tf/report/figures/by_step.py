"""The change in each training step, above the training curves."""

from collections.abc import Hashable, Iterator
from html import escape
from typing import Final, NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from explaind_tf import constants as names
from explaind_tf.report import reductions
from explaind_tf.report.figures.style import TOTAL, short, styled
from explaind_tf.terms import term

# Paul Tol's muted scheme, for layers and groups; the last colour is for the others as one.
_PART_COLOURS: Final = (
    "#88CCEE",
    "#4466AA",
    "#44AA99",
    "#117733",
    "#DDCC77",
    "#CC6677",
    "#AA4499",
    "#C4C4C4",
)


class _Stack(NamedTuple):
    """What is drawn in one colour, over all steps."""

    label: str
    values: np.ndarray
    colour: str


def steps(
    ledger: xr.Dataset,
    *,
    by: str | None = None,
    curves: xr.Dataset | None = None,
    input: int | None = None,
    output: Hashable | None = None,
    unit: str | None = None,
) -> go.Figure:
    """Draw the change of the measurement in each training step, stacked by its parts.

    Parameters
    ----------
    ledger : xarray.Dataset
        A ledger with a step axis.
    by : {"layer", "group", "term"}, optional
        What to stack; by default the first of these that the ledger has. Of many parts, the strongest are drawn, and the
        others as one.
    curves : xarray.Dataset, optional
        ``run.curves()``, to draw training loss and learning rate below, over the same steps.
    input, output : int and label, optional
        Which prediction; by default the mean over all.
    unit : str, optional
        Unit of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        Bars above zero raised the measurement. All bars add up to its change by training, except for terms without a step
        axis. More than 250 steps are merged evenly.

    Raises
    ------
    ValueError
        If the ledger lacks an axis.
    """
    unit = unit or reductions.unit_of(ledger)
    by = by or next((axis for axis in (names.LAYER, names.GROUP) if axis in ledger.dims), "term")
    stacks = reductions.stacks_by_step(ledger, by, input=input, output=output)
    bins = reductions.bins_of(ledger[names.STEP].values)
    panels = _curves_over(ledger, curves)
    figure = make_subplots(
        rows=1 + len(panels),
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[1 - 0.2 * len(panels), *[0.2] * len(panels)],
    )
    for stack in _stacked(stacks, by):
        figure.add_bar(
            x=bins.centers,
            y=bins.total(stack.values),
            name=short(stack.label),
            marker={"color": stack.colour, "line": {"width": 0}},
            customdata=bins.labels,
            hovertemplate=f"step %{{customdata}}, {escape(stack.label)}: %{{y:+.4g}}<extra></extra>",
            row=1,
            col=1,
        )
    for row, (name, values) in enumerate(panels.items(), start=2):
        _add_panel(figure, row, name, bins, values)
    # Relative: positive parts are stacked upwards from zero, negative ones downwards.
    figure.update_layout(barmode="relative", bargap=0.1, showlegend=True)
    figure.update_yaxes(title_text=f"change ({escape(unit)})", row=1, col=1)
    figure.update_xaxes(title_text="training step", row=1 + len(panels), col=1)
    return styled(figure, height=400 + 110 * len(panels))


def _stacked(stacks: reductions.Stacks, by: str) -> Iterator[_Stack]:
    """Yield the strongest layers or groups, the others as one, then the terms; skip what is zero in every step."""
    parts = {name: values for name, values in stacks.parts.items() if np.any(values)}
    chosen = reductions.strongest(parts, len(_PART_COLOURS), f"{by}s")
    for (label, values), colour in zip(chosen.items(), _PART_COLOURS, strict=False):
        yield _Stack(label, values, colour)
    for name, values in stacks.terms.items():
        if np.any(values):
            yield _Stack(term(name).label, values, term(name).colour)


def _curves_over(ledger: xr.Dataset, curves: xr.Dataset | None) -> dict[str, np.ndarray]:
    """Return the available curves, over the steps of the ledger."""
    if curves is None:
        return {}
    known = [name for name in ("loss", "learning_rate") if name in curves]
    return {name: curves[name].reindex({names.STEP: ledger[names.STEP]}).values for name in known}


def _add_panel(figure: go.Figure, row: int, name: str, bins: reductions.Bins, values: np.ndarray) -> None:
    """Draw a training curve below the bars."""
    figure.add_scatter(
        x=bins.centers,
        y=bins.mean(values),
        mode="lines",
        line={"color": TOTAL, "width": 1.5},
        customdata=bins.labels,
        hovertemplate="step %{customdata}: %{y:.4g}<extra></extra>",
        showlegend=False,
        row=row,
        col=1,
    )
    figure.update_yaxes(
        title_text=name.replace("_", " ").replace("loss", "training loss"),
        row=row,
        col=1,
        rangemode="tozero",
        nticks=4,
    )
