"""The change through each weight of a layer."""

from collections.abc import Hashable
from html import escape

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from explaind_tf import constants as names
from explaind_tf.ledgers.node_paths import node_path
from explaind_tf.report import reductions
from explaind_tf.report.figures.style import cells, scale_of, scaled


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
        Which prediction; by default the mean over all.
    unit : str, optional
        Unit of the measurement.

    Returns
    -------
    plotly.graph_objects.Figure
        A panel for each variable of the layer. Columns are its units or filters (last axis), rows its other axes. If a
        variable has more than 96 rows or columns, a cell is the sum over neighbouring weights.

    Raises
    ------
    ValueError
        If there is no such layer in the tree.
    """
    unit = unit or reductions.unit_of(tree)
    shown = weights_of_layer(tree, layer, input=input, output=output)
    if not shown:
        raise ValueError(
            f"This tree has no weights of the layer {layer!r}. Pass the path of one of its variables, or of their layer: "
            f"{_variables(tree)}."
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
    largest = max(scale_of(matrix) for matrix, _ in matrices.values())
    for row, (name, (matrix, block)) in enumerate(matrices.items(), start=1):
        figure.add_trace(
            cells(
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
    return scaled(figure, unit, height=height, top=88)


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


def _panel_title(name: str, values: np.ndarray, block: tuple[int, int]) -> str:
    sizes = " × ".join(map(str, values.shape))
    per_cell = "" if block == (1, 1) else f", {block[0]} × {block[1]} weights a cell"
    return escape(f"{name.rpartition('/')[2]}: {sizes}{per_cell}")


def _places(name: str, size: int) -> str:
    return name if size == 1 else f"{size} {name}s from"


def _variables(tree: xr.DataTree) -> list[str]:
    return [node.path.strip("/") for node in tree.subtree if node.path != "/" and node.data_vars]
