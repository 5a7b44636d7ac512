"""Figures of ledgers, for notebooks and the report alike: from an ``xarray`` ledger to a plotly figure.

Blue is what raised the measurement, red what lowered it. Backgrounds are left to whoever shows the figure.
"""

from collections.abc import Hashable, Mapping
from html import escape
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from explaind_tf import constants as names
from explaind_tf.ledgers.ledger import node_path
from explaind_tf.report import reductions
from explaind_tf.terms import all_terms, term

# Paul Tol's muted scheme, for parts that have no colour of their own; the last one is for the others.
_PART_COLORS: Final = ("#88CCEE", "#4466AA", "#44AA99", "#117733", "#DDCC77", "#CC6677", "#AA4499", "#C4C4C4")
_UP, _DOWN, _TOTAL = "#3A7FC1", "#D1495B", "#8A94A0"
# Nothing is drawn where nothing happened: the middle is transparent, and suits a white page and a black one.
_DIVERGING: Final = ((0.0, "rgba(190,30,55,1)"), (0.5, "rgba(140,140,150,0)"), (1.0, "rgba(20,95,180,1)"))
# Of all cells; a few first steps would otherwise make the rest look like nothing.
_SATURATED: Final = 0.99
_MOST_POINTS: Final = 3000
_LABEL_LENGTH: Final = 24


def balance(
    ledger: xr.Dataset, *, input: int | None = None, output: Hashable | None = None, unit: str | None = None
) -> go.Figure:
    """Draw the way from the measurement before training to that after it, one bar for each cause.

    Parameters
    ----------
    ledger : xarray.Dataset or xarray.DataTree
        Any ledger.
    input, output : int and label, optional
        Of one prediction, by position and label; by default the mean over all.
    unit : str, optional
        Of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        Initial value, each term that is not zero (and the residual, always), final value.
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
            # Beside the names, where there is room on any screen.
            y=[
                f"before training {initial:.3g}",
                *(f"{term(name).label} {number:+.3g}" for name, number in shown.items()),
                f"after training {final:.3g}",
            ],
            x=[initial, *shown.values(), 0],
            measure=["absolute", *["relative"] * len(shown), "total"],
            textposition="none",
            increasing={"marker": {"color": _UP}},
            decreasing={"marker": {"color": _DOWN}},
            totals={"marker": {"color": _TOTAL}},
            connector={"line": {"color": _TOTAL, "width": 1}},
            customdata=[initial, *shown.values(), final],
            hovertemplate="%{y} (%{customdata:.5g})<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title_text=f"{_subject(ledger)} ({escape(unit)}){_which(ledger, input)}")
    return _styled(figure, height=110 + 36 * (len(shown) + 2))


def kernel_machine(ledger: xr.Dataset, *, unit: str | None = None) -> go.Figure:
    """Draw what the ledger rebuilds of each prediction against the prediction itself.

    Parameters
    ----------
    ledger : xarray.Dataset or xarray.DataTree
        Any ledger; of more than 3,000 inputs × outputs every so manieth is drawn.
    unit : str, optional
        Of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        One point for each input and output. On the diagonal both agree; the distance from it is the residual.
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
        line={"color": _TOTAL, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={"color": _UP, "size": 5, "opacity": 0.55},
        customdata=np.stack([rows, np.array(outputs, object)[columns], y - x], axis=-1),
        hovertemplate="input %{customdata[0]}, output %{customdata[1]}<br>model %{x:.5g}, ledger %{y:.5g}"
        "<br>difference %{customdata[2]:+.2g}<extra></extra>",
    )
    figure.update_xaxes(title_text=f"output of the trained model ({escape(unit)})")
    figure.update_yaxes(title_text="rebuilt from the ledger")
    figure.update_layout(showlegend=False)
    return _styled(figure, height=400)


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
        With a step axis.
    by : {"layer", "group", "term"}, optional
        What is stacked; by default the first of them that the ledger has. Of many parts the strongest are drawn, and the
        others as one.
    curves : xarray.Dataset, optional
        ``run.curves()``: training loss and learning rate are drawn below, over the same steps.
    input, output : int and label, optional
        Of one prediction; by default the mean over all.
    unit : str, optional
        Of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        Above zero: the step raised the measurement. All bars add up to its change by training. More than 250 steps are
        put together, evenly.

    Raises
    ------
    ValueError
        If the ledger lacks an axis.
    """
    unit = unit or reductions.unit_of(ledger)
    by = by or next((axis for axis in (names.LAYER, names.GROUP) if axis in ledger.dims), "term")
    stacks = reductions.stacks_by_step(ledger, by, input=input, output=output)
    bins = reductions.bins_of(ledger[names.STEP].values)
    panels = [name for name in ("loss", "learning_rate") if curves is not None and name in curves]
    figure = make_subplots(
        rows=1 + len(panels),
        shared_xaxes=True,
        vertical_spacing=0.06,
        row_heights=[1 - 0.2 * len(panels), *[0.2] * len(panels)],
    )
    parts = {name: values for name, values in stacks.parts.items() if np.any(values)}
    chosen = reductions.strongest(parts, len(_PART_COLORS), f"{by}s")
    colored = [(*part, color) for part, color in zip(chosen.items(), _PART_COLORS, strict=False)]
    others = [(term(name).label, values, term(name).colour) for name, values in stacks.terms.items()]
    for label, values, color in (*colored, *(other for other in others if np.any(other[1]))):
        figure.add_bar(
            x=bins.centers,
            y=bins.total(values),
            name=_short(label),
            marker={"color": color, "line": {"width": 0}},
            customdata=bins.labels,
            hovertemplate=f"step %{{customdata}}, {escape(label)}: %{{y:+.4g}}<extra></extra>",
            row=1,
            col=1,
        )
    for row, name in enumerate(panels, start=2):
        assert curves is not None
        values = curves[name].reindex({names.STEP: ledger[names.STEP]}).values
        figure.add_scatter(
            x=bins.centers,
            y=bins.mean(values),
            mode="lines",
            line={"color": _TOTAL, "width": 1.5},
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
    # Relative: what raised the measurement is stacked upwards from zero, what lowered it downwards.
    figure.update_layout(barmode="relative", bargap=0.1, showlegend=True)
    figure.update_yaxes(title_text=f"change ({escape(unit)})", row=1, col=1)
    figure.update_xaxes(title_text="training step", row=1 + len(panels), col=1)
    return _styled(figure, height=400 + 110 * len(panels))


def layers(
    ledger: xr.Dataset, *, input: int | None = None, output: Hashable | None = None, unit: str | None = None
) -> go.Figure:
    """Draw the change of the measurement through each layer, stacked by cause.

    Parameters
    ----------
    ledger : xarray.Dataset
        With a layer axis.
    input, output : int and label, optional
        Of one prediction; by default the mean over all.
    unit : str, optional
        Of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        A bar for each layer, the first on top. Right of zero: what its weights did raised the measurement.

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
    figure.update_xaxes(title_text=f"change ({escape(unit)}){_which(ledger, input)}")
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=[_short(label) for label in labels])
    return _styled(figure, height=150 + 26 * len(labels))


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
        With a step axis, and the other one.
    axis : {"layer", "group"}
        The rows.
    input, output : int and label, optional
        Of one prediction; by default the mean over all.
    unit : str, optional
        Of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        Blue cells raised the measurement, red ones lowered it. One in a hundred cells may be beyond the scale, so that
        the first steps, which move most, do not hide the rest; their numbers are shown all the same.

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
        _cells(
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
        ticktext=[_short(label) for label in labels],
        showgrid=False,
        zeroline=False,
    )
    return _scaled(figure, unit, height=140 + 26 * len(labels), top=64)


def weights(
    tree: xr.DataTree,
    layer: str,
    *,
    input: int | None = None,
    output: Hashable | None = None,
    unit: str | None = None,
) -> go.Figure:
    """Draw the change of the measurement through each weight of a layer.

    Parameters
    ----------
    tree : xarray.DataTree
        A ledger with the axis ``"parameter"``.
    layer : str
        Path of a layer, as in ``run.layers``, or of one of its variables.
    input, output : int and label, optional
        Of one prediction; by default the mean over all.
    unit : str, optional
        Of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        A panel for each variable of the layer; columns are its units or filters (last axis), rows its other axes. Where
        a variable has more than 96 rows or columns, a cell is the sum over neighbouring weights.

    Raises
    ------
    ValueError
        If there is no such layer in the tree.
    """
    unit = unit or reductions.unit_of(tree)
    shown = weights_of_layer(tree, layer, input=input, output=output)
    if not shown:
        raise ValueError(
            f"There are no weights of the layer {layer!r} in this tree; there are: {_variables(tree)}."
        )
    matrices = {name: reductions.as_matrix(values) for name, values in shown.items()}
    rows = [min(260, max(40, 4 * len(matrix))) for matrix, _ in matrices.values()]
    height = 100 + sum(rows) + 40 * len(rows)
    figure = make_subplots(
        rows=len(matrices),
        row_heights=rows,
        vertical_spacing=40 / (height - 84),
        subplot_titles=[_panel_title(name, shown[name], matrices[name][1]) for name in matrices],
    )
    largest = max(_scale(matrix) for matrix, _ in matrices.values())
    for row, (name, (matrix, block)) in enumerate(matrices.items(), start=1):
        figure.add_trace(
            _cells(
                matrix,
                unit,
                what=f"{escape(name)}, {_places('row', block[0])} %{{y}}, {_places('column', block[1])} %{{x}}",
                scale=largest,
                bar=row == 1,
                x=block[1] * np.arange(matrix.shape[1]),
                y=block[0] * np.arange(matrix.shape[0]),
            ),
            row=row,
            col=1,
        )
    figure.update_annotations(font_size=13)
    figure.update_yaxes(autorange="reversed", showticklabels=False, showgrid=False, zeroline=False)
    figure.update_xaxes(showticklabels=False, showgrid=False, zeroline=False)
    return _scaled(figure, unit, height=height, top=88)


def weights_of_layer(
    tree: xr.DataTree, layer: str, *, input: int | None = None, output: Hashable | None = None
) -> dict[str, np.ndarray]:
    """Return, by variable, the sum of all terms for each weight of a layer, shaped like the variable."""
    found: dict[str, xr.DataArray] = {}
    layer = node_path(layer)
    for node in tree.subtree:
        path = node.path.strip("/")
        if not node.data_vars or not path or not (path == layer or path.startswith(f"{layer}/")):
            continue
        terms = [node.dataset[name] for name in tree.explaind.terms if name in node.data_vars]
        parts = [reductions.of_prediction(array, input, output) for array in terms]
        total = sum(parts[1:], start=parts[0])
        found[path] = total.sum([dim for dim in (names.STEP, names.SAMPLE, names.GROUP) if dim in total.dims])
    return {path: array.values for path, array in found.items() if array.ndim}


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
        With a sample axis.
    k : int
        How many of each sign.
    input, output : int and label, optional
        Which prediction; by default the first output of the first input.
    labels : mapping, optional
        From ids to what is shown beside them.
    unit : str, optional
        Of the measurement.

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
            marker={"color": [_UP if values[i] > 0 else _DOWN for i in chosen], "line": {"width": 0}},
            customdata=[escape(text) for text in texts],
            hovertemplate="%{customdata}: %{x:+.4g}<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", tickvals=places, ticktext=[_short(text) for text in texts])
    figure.update_xaxes(title_text=f"influence ({escape(unit)})")
    return _styled(figure, height=110 + 22 * len(chosen))


def _cells(
    values: np.ndarray,
    unit: str,
    *,
    what: str,
    scale: float | None = None,
    bar: bool = True,
    **places: Any,
) -> go.Heatmap:
    """Return cells whose hover text begins with a template, with a scale for :func:`_scaled` to place."""
    scale = scale or _scale(values)
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


def _scale(values: np.ndarray) -> float:
    return float(np.quantile(np.abs(values), _SATURATED)) or float(np.abs(values).max()) or 1.0


def _panel_title(name: str, values: np.ndarray, block: tuple[int, int]) -> str:
    sizes = " × ".join(map(str, values.shape))
    per_cell = "" if block == (1, 1) else f", {block[0]} × {block[1]} weights a cell"
    return escape(f"{name.rpartition('/')[2]}: {sizes}{per_cell}")


def _places(name: str, size: int) -> str:
    return name if size == 1 else f"{size} {name}s from"


def _variables(tree: xr.DataTree) -> list[str]:
    return [node.path.strip("/") for node in tree.subtree if node.path != "/" and node.data_vars]


def _subject(ledger: xr.Dataset | xr.DataTree) -> str:
    name = str(ledger.attrs.get("measurement", "measurement"))
    return escape({"log_prob": "log-probability", "outputs": "outputs of the model"}.get(name, name))


def _which(ledger: xr.Dataset, input: int | None) -> str:
    # On a line of its own, since narrow screens cut longer ones.
    count = ledger.sizes[names.INPUT]
    if input is not None:
        return f"<br>input {input}"
    return f"<br>mean of {count} inputs" if count > 1 else ""


def _short(label: str) -> str:
    """Shorten a label from its front, for the end of a path says most, and escape it: plotly reads tags in labels."""
    return escape(label if len(label) <= _LABEL_LENGTH else f"…{label[-_LABEL_LENGTH + 1 :]}")


def _scaled(figure: go.Figure, unit: str, *, height: int, top: int) -> go.Figure:
    """Return a heat map with its scale on top. The scale's own title would lie upon it where the figure is low."""
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
    return _styled(figure, height=height, top=top)


def _styled(figure: go.Figure, *, height: int, top: int | None = None) -> go.Figure:
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
