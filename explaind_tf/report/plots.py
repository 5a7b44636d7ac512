"""``ledger.explaind.plot``: the figures of a ledger, as methods."""

from collections.abc import Hashable, Mapping
from typing import Any

import plotly.graph_objects as go
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.report import figures


class LedgerPlots:
    """Figures of one ledger.

    Most figures take ``input`` (a position) and ``output`` (a label) to show one prediction, and by default show the mean
    over all. Numbers are in the units of the measurement. Positive, or blue, means that it was raised. A notebook shows
    the figure that is returned. Elsewhere, ``figure.show()`` opens a browser and ``figure.write_html(path)`` writes a file.
    """

    def __init__(self, ledger: xr.Dataset | xr.DataTree) -> None:
        self._ledger: Any = ledger

    def balance(self, *, input: int | None = None, output: Hashable | None = None) -> go.Figure:
        """Draw how each cause changed the measurement, from before to after training, see :func:`figures.balance`."""
        return figures.balance(self._ledger, input=input, output=output)

    def kernel_machine(self) -> go.Figure:
        """Draw each prediction as the ledger rebuilds it against the prediction itself."""
        return figures.kernel_machine(self._ledger)

    def steps(
        self,
        *,
        by: str | None = None,
        curves: xr.Dataset | None = None,
        input: int | None = None,
        output: Hashable | None = None,
    ) -> go.Figure:
        """Draw the change in each step, stacked by layer, group or term, see :func:`figures.steps`.

        Parameters
        ----------
        by : {"layer", "group", "term"}, optional
            What to stack; by default the first of these that the ledger has.
        curves : xarray.Dataset, optional
            ``run.curves()``, to draw training loss and learning rate below.
        input, output : int and label, optional
            Which prediction; by default the mean over all.
        """
        return figures.steps(self._ledger, by=by, curves=curves, input=input, output=output)

    def layers(self, *, input: int | None = None, output: Hashable | None = None) -> go.Figure:
        """Draw the change through each layer, stacked by cause, see :func:`figures.layers`."""
        return figures.layers(self._ledger, input=input, output=output)

    def layer_steps(self, *, input: int | None = None, output: Hashable | None = None) -> go.Figure:
        """Draw a heat map of layers by steps, see :func:`figures.heat_map`."""
        return figures.heat_map(self._ledger, names.LAYER, input=input, output=output)

    def group_steps(self, *, input: int | None = None, output: Hashable | None = None) -> go.Figure:
        """Draw a heat map of groups of training samples by steps, see :func:`figures.heat_map`."""
        return figures.heat_map(self._ledger, names.GROUP, input=input, output=output)

    def weights(self, layer: str, *, input: int | None = None, output: Hashable | None = None) -> go.Figure:
        """Draw the change through each weight of a layer; needs the axis ``"parameter"``, see :func:`figures.weights`."""
        return figures.weights(self._ledger, layer, input=input, output=output)

    def samples(
        self,
        *,
        k: int = 10,
        input: int = 0,
        output: Hashable | None = None,
        labels: Mapping[Any, str] | None = None,
    ) -> go.Figure:
        """Draw the strongest proponents and opponents of one prediction, see :func:`figures.samples`.

        Parameters
        ----------
        k : int
            How many of each sign.
        input, output : int and label, optional
            Which prediction; by default the first output of the first input.
        labels : mapping, optional
            Text to show beside each sample, by id.
        """
        return figures.samples(self._ledger, k=k, input=input, output=output, labels=labels)
