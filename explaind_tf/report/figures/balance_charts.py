"""Figures of a whole ledger: the change by cause, and the predictions that the ledger rebuilds."""

from collections.abc import Hashable
from html import escape
from typing import Final

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.report import reductions
from explaind_tf.report.figures.style import DOWN, TOTAL, UP, styled, which_input
from explaind_tf.terms import term

_MOST_POINTS: Final = 3000


def balance(
    ledger: xr.Dataset, *, input: int | None = None, output: Hashable | None = None, unit: str | None = None
) -> go.Figure:
    """Draw the measurement before training, a bar for the change by each cause, and the measurement after training.

    Parameters
    ----------
    ledger : xarray.Dataset or xarray.DataTree
        Any ledger.
    input, output : int and label, optional
        Which prediction, by position and label; by default the mean over all.
    unit : str, optional
        Unit of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        Bars of the initial value, each term that is not zero (the residual always), and the final value.
    """
    unit = unit or reductions.unit_of(ledger)

    def value(array: xr.DataArray) -> float:
        return float(reductions.of_prediction(array, input, output))

    totals = {name: value(ledger.explaind.total(name)) for name in ledger.explaind.terms}
    shown = {name: number for name, number in totals.items() if number or name == names.RESIDUAL}
    initial, final = (value(ledger[name]) for name in (names.INITIAL, names.FINAL))
    figure = go.Figure(
        go.Waterfall(
            orientation="h",
            # Numbers stand beside the names, where every screen has room.
            y=[
                f"before training {initial:.3g}",
                *(f"{term(name).label} {number:+.3g}" for name, number in shown.items()),
                f"after training {final:.3g}",
            ],
            x=[initial, *shown.values(), 0],
            measure=["absolute", *["relative"] * len(shown), "total"],
            textposition="none",
            increasing={"marker": {"color": UP}},
            decreasing={"marker": {"color": DOWN}},
            totals={"marker": {"color": TOTAL}},
            connector={"line": {"color": TOTAL, "width": 1}},
            customdata=[initial, *shown.values(), final],
            hovertemplate="%{y} (%{customdata:.5g})<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text=f"{_subject(ledger)} ({escape(unit)}){which_input(ledger, input)}")
    return styled(figure, height=110 + 36 * (len(shown) + 2))


def kernel_machine(ledger: xr.Dataset, *, unit: str | None = None) -> go.Figure:
    """Draw each prediction as the ledger rebuilds it against the prediction itself.

    Parameters
    ----------
    ledger : xarray.Dataset or xarray.DataTree
        Any ledger. Of more than 3,000 inputs × outputs, only every n-th is drawn.
    unit : str, optional
        Unit of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        One point for each input and output. On the diagonal both are equal; the distance from it is the residual.
    """
    unit = unit or reductions.unit_of(ledger)
    model = ledger[names.FINAL].transpose(names.INPUT, names.OUTPUT)
    machine = ledger.explaind.reconstruct().transpose(names.INPUT, names.OUTPUT)
    every = -(-model.size // _MOST_POINTS)
    x, y = (array.values.reshape(-1)[::every] for array in (model, machine))
    rows, columns = np.unravel_index(np.arange(0, model.size, every), model.shape)
    outputs = [escape(str(label)) for label in model[names.OUTPUT].values]
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    figure = go.Figure()
    figure.add_scatter(
        x=[low, high],
        y=[low, high],
        mode="lines",
        line={"color": TOTAL, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"color": UP, "size": 5, "opacity": 0.55},
        customdata=np.stack([rows, np.array(outputs, object)[columns], y - x], axis=-1),
        hovertemplate="input %{customdata[0]}, output %{customdata[1]}<br>model %{x:.5g}, ledger %{y:.5g}"
        "<br>difference %{customdata[2]:+.2g}<extra></extra>",
    )
    figure.update_xaxes(title_text=f"output of the trained model ({escape(unit)})")
    figure.update_yaxes(title_text="rebuilt from the ledger")
    figure.update_layout(showlegend=False)
    return styled(figure, height=400)


def _subject(ledger: xr.Dataset | xr.DataTree) -> str:
    name = str(ledger.attrs.get("measurement", "measurement"))
    return escape({"log_prob": "log-probability", "outputs": "outputs of the model"}.get(name, name))
