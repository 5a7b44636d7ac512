"""The ``explaind`` accessor: methods of a ledger, on the xarray object itself."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.errors import UnbalancedLedgerError
from explaind_tf.ledgers import plotting
from explaind_tf.ledgers.at_a_glance import at_a_glance
from explaind_tf.ledgers.conditioning import share_of_cancelled
from explaind_tf.ledgers.response_accessor import Responses
from explaind_tf.ledgers.strongest import Ranked
from explaind_tf.ledgers.unexplained import refuse_unexplained
from explaind_tf.terms import terms_in

_KEPT = (names.INPUT, names.OUTPUT)
# For a ledger that balances to its own tolerance: nobody looked for a cause.
_ADVICE = (
    "Call attribute() again with a smaller tolerance or a larger max_nodes. In float32, rounding sets a limit near 1e-5 of "
    "the movement."
)


class _LedgerAccessor:
    """Methods that datasets and trees share. Subclasses sum up a term."""

    _root: xr.Dataset | xr.DataTree

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the ledger: the causes that the run tells apart, and the residual, in order."""
        raise NotImplementedError

    def total(self, term: str) -> xr.DataArray:
        """Return a term summed over every axis but input and output.

        Parameters
        ----------
        term : str
            One of :attr:`terms`.

        Returns
        -------
        xarray.DataArray
            Dims (input, output), in the units of the measurement; positive where the term raised it.
        """
        raise NotImplementedError

    @property
    def plot(self) -> Any:
        """Figures of the ledger: ``plot.balance()``, ``plot.steps()``, ``plot.layers()``, ``plot.samples()`` and others."""
        return plotting.plots_of(self._root)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: what the ledger is, whether it balances, and its strongest entries."""
        is_tree = isinstance(self._root, xr.DataTree)
        root = self._root.to_dataset() if isinstance(self._root, xr.DataTree) else self._root
        return at_a_glance(root, {name: self.total(name) for name in self.terms}, is_tree)

    def _output(self, name: str) -> xr.DataArray:
        return self._root.to_dataset()[name] if isinstance(self._root, xr.DataTree) else self._root[name]

    def movement(self) -> xr.DataArray:
        """Return ``final − initial``: the change that all terms add up to.

        The *coordinate* ``movement``, against which :meth:`check` compares the residual, is another number: the farthest
        that any output of an input got from its initial value during training. It may be larger than the change, since
        outputs may move and come back.

        Returns
        -------
        xarray.DataArray
            Dims (input, output), in the units of the measurement.
        """
        return self._output(names.FINAL) - self._output(names.INITIAL)

    def reconstruct(self) -> xr.DataArray:
        """Return the prediction of the kernel machine: ``initial`` plus all terms except the residual.

        This is the right-hand side of the paper's Theorem 3.1 (arXiv:2505.20076) with the terms of this ledger.
        It equals ``final`` up to the residual.

        Returns
        -------
        xarray.DataArray
            Dims (input, output), in the units of the measurement.
        """
        explained = sum(self.total(term) for term in self.terms if term != names.RESIDUAL)
        return (self._output(names.INITIAL) + explained).rename("reconstruction")

    def check(self, tolerance: float | None = None, *, strict: bool = False) -> None:
        """Raise an error unless the ledger balances; return nothing if it does.

        For each input and output, two things must hold. ``final − initial`` is the sum of all terms, up to rounding. And
        the residual is at most ``tolerance`` times the coordinate ``movement``: the farthest that any output of the input
        got from its initial value during training.

        The residual is measured: it is what the *sum* of all other entries misses. So the check says how exact the sum
        is. It does not bound the error of each entry: entries that are larger than the movement and cancel may be off by
        more. Attribute again with a tenth of the tolerance to see how far an entry changes.

        Parameters
        ----------
        tolerance : float, optional
            Largest residual, as a share of the movement. By default the one with which the ledger was made.
        strict : bool
            Whether it is an error, too, if the optimizer's law does not explain all steps. What it misses is entered under
            ``external``, so the ledger balances nevertheless.

        Raises
        ------
        UnbalancedLedgerError
            If either does not hold. The message names the worst input and output, the likely cause if the ledger exceeds
            its own tolerance, and what to do. The ledger is unchanged.
        """
        tolerance = float(self._root.attrs["tolerance"]) if tolerance is None else tolerance
        scale = self._output(names.MOVEMENT)
        residual = self.total(names.RESIDUAL)
        missing = self.movement() - (self.reconstruct() - self._output(names.INITIAL)) - residual
        largest = max(float(np.abs(self.total(term)).max()) for term in self.terms)
        if not float(np.abs(missing).max()) <= 1e-9 * max(largest, float(scale.max())):
            raise UnbalancedLedgerError(
                f"The terms of this ledger miss final − initial by {float(np.abs(missing).max()):.3g}. It is no whole "
                f"ledger (entries were selected, dropped or changed), or it has entries that are not finite. Call check() "
                f"on the ledger as attribute() returned it, before selecting from it."
            )
        excess: xr.DataArray = (abs(residual) - tolerance * scale).transpose(*_KEPT)
        if not bool((excess <= 0).all()):
            worst = np.unravel_index(np.nan_to_num(excess.values, nan=np.inf).argmax(), excess.shape)
            at = dict(zip(_KEPT, map(int, worst), strict=True))
            moved = float(scale.isel({names.INPUT: at[names.INPUT]}))
            raise UnbalancedLedgerError(
                f"The ledger does not balance to {tolerance:g}: for input {at[names.INPUT]}, output {at[names.OUTPUT]} the "
                f"residual is {float(residual.isel(at)):.3g}, with a movement of {moved:.3g}. "
                f"{float((excess > 0).mean()):.1%} of the residuals exceed the tolerance. "
                f"{self._root.attrs.get(names.DIAGNOSIS, _ADVICE)}"
            )
        if strict:
            refuse_unexplained(self._root)


class DatasetLedger(_LedgerAccessor, Ranked):
    """Methods of a ledger that is an ``xarray.Dataset``: ``ledger.explaind.check()`` and so on.

    Raises
    ------
    ValueError
        If the dataset lacks a variable that every ledger has, for example after ``ledger[["data"]]``.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        terms = terms_in(dataset)
        missing = [name for name in (names.INITIAL, names.FINAL, *terms) if name not in dataset]
        if missing:
            raise ValueError(
                f"This dataset is no ledger of explaind_tf: it lacks the variables {missing}. Use a dataset as "
                f"run.attribute(...) returned it."
            )
        self._root: xr.Dataset = dataset

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the ledger: the causes that the run tells apart, and the residual, in order."""
        return terms_in(self._root)

    def total(self, term: str) -> xr.DataArray:
        """Return a term summed over every axis but input and output.

        Parameters
        ----------
        term : str
            One of :attr:`terms`.

        Returns
        -------
        xarray.DataArray
            Dims (input, output), in the units of the measurement; positive where the term raised it.

        Raises
        ------
        KeyError
            If the ledger has no such term.
        """
        array = self._root[term]
        return array.sum([dim for dim in array.dims if dim not in _KEPT])

    def conditioning(self) -> xr.DataArray:
        """Return the share of each sample's entry that rests on weights whose batch gradient nearly cancelled.

        With D the sample's entry and C its part through such weights, the share is |C| / (|C| + |D − C|). Near 0, the entry
        rests on gradients of usual size. Near 1, it rests on a few weights and on the rounding of their gradients: another
        seed, order or precision may give another entry. See :mod:`explaind_tf.sweeps.cancelled`.

        Returns
        -------
        xarray.DataArray
            Dims (input, output, sample), from 0 to 1; 0 for an entry of zero.

        Raises
        ------
        ValueError
            If the ledger was made without ``conditioning=True``.
        """
        return share_of_cancelled(self._root)

    def to_pandas(self, k: int = 5) -> pd.DataFrame:
        """Return proponents and opponents as a table, one row for each.

        Parameters
        ----------
        k : int
            How many of each, at most.

        Returns
        -------
        pandas.DataFrame
            Columns ``input``, ``output``, ``side`` (``"proponent"`` for positive influence, ``"opponent"`` for negative),
            ``rank`` (0 is the strongest), ``sample`` (id) and ``influence`` (units of the measurement).

        Raises
        ------
        ValueError
            If the ledger has no sample axis.
        """
        sides = {"proponent": self.proponents(k), "opponent": self.opponents(k)}
        tables = [found.to_dataframe().reset_index().assign(side=side) for side, found in sides.items()]
        table = pd.concat(tables, ignore_index=True)
        is_meant = (table["influence"] > 0) == (table["side"] == "proponent")
        columns = [*_KEPT, "side", "rank", names.SAMPLE, "influence"]
        return table.loc[is_meant & (table["influence"] != 0), columns].reset_index(drop=True)

    def scores(self, output: Hashable | None = None) -> np.ndarray:
        """Return the influences as a bare matrix, for tools that evaluate attributions.

        Rows are test inputs and columns are training samples, the form in which quanda's metrics take explanations.
        ``scores[i, j]`` is what sample j contributed to the measurement of input i. Column j is the sample
        ``ledger["sample"].values[j]``, which is ``run.samples.ids[j]``.

        Parameters
        ----------
        output : label, optional
            Which output; needed if there are several.

        Returns
        -------
        np.ndarray
            Shape (n_test, n_train), in the units of the measurement. Positive: the sample raised it.

        Raises
        ------
        ValueError
            If the ledger has no sample axis, or it has several outputs and none is chosen.
        KeyError
            If there is no such output.
        """
        influence = self._influence()
        if output is None and influence.sizes[names.OUTPUT] > 1:
            raise ValueError(
                f"scores() needs one output. Choose which of {influence[names.OUTPUT].values.tolist()}: scores(output=…)."
            )
        chosen = (
            influence.isel({names.OUTPUT: 0}) if output is None else influence.sel({names.OUTPUT: output})
        )
        return chosen.values

    def to_lit(
        self, show: Callable[[Any], Mapping[str, Any]], k: int = 5, output: Hashable | None = None
    ) -> list[list[dict[str, Any]]]:
        """Return proponents and opponents in the form of LIT's ``InfluentialExamples``.

        Parameters
        ----------
        show : callable
            Maps a sample's id to its fields as LIT's dataset has them, such as ``{"text": …, "label": …}``.
        k : int
            How many of each sign, at most.
        output : label, optional
            Which output; needed if there are several.

        Returns
        -------
        list of list of dict
            For each input its training examples, starting with those that raised the measurement most. An example has the
            fields, ``id`` and ``influence`` (units of the measurement).

        Raises
        ------
        ValueError
            As :meth:`scores` does.
        """
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k must be a positive number of samples; got {k!r}.")
        ids = self._root[names.SAMPLE].values if names.SAMPLE in self._root.coords else np.zeros(0)
        examples = []
        for row in self.scores(output):
            order = np.argsort(-row, kind="stable")
            proponents = [j for j in order[:k] if row[j] > 0]
            opponents = [j for j in order[-k:] if row[j] < 0]
            examples.append(
                [
                    {**show(ids[j]), "id": ids[j : j + 1].tolist()[0], "influence": float(row[j])}
                    for j in (*proponents, *opponents)
                ]
            )
        return examples

    def _influence(self) -> xr.DataArray:
        """Return the influence of each sample, dims (input, output, sample)."""
        influence = self._root.get(names.DATA)
        if influence is None or names.SAMPLE not in influence.dims:
            found = "no data term" if influence is None else f"a data term with dims {influence.dims}"
            raise ValueError(
                f'This ledger has no sample axis (it has {found}). Attribute with axes=("sample", …).'
            )
        others: list[Hashable] = [d for d in influence.dims if d not in (*_KEPT, names.SAMPLE)]
        return influence.sum(others).transpose(*_KEPT, names.SAMPLE)


def accessor_of(dataset: xr.Dataset) -> DatasetLedger | Responses:
    """Return the methods of a dataset: those of a ledger, or of a counterfactual answer."""
    return Responses(dataset) if names.RESPONSE in dataset else DatasetLedger(dataset)


class TreeLedger(_LedgerAccessor):
    """Methods of a ledger by weight, an ``xarray.DataTree``."""

    def __init__(self, tree: xr.DataTree) -> None:
        self._root: xr.DataTree = tree

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms of the ledger: the causes that the run tells apart, and the residual, in order."""
        return terms_in({name for node in self._root.subtree for name in node.data_vars})

    def total(self, term: str) -> xr.DataArray:
        """Return a term summed over all weights and every axis but input and output.

        Parameters
        ----------
        term : str
            One of :attr:`terms`.

        Returns
        -------
        xarray.DataArray
            Dims (input, output), in the units of the measurement; positive where the term raised it.

        Raises
        ------
        ValueError
            If the tree has no such term.
        """
        found = [node.dataset[term] for node in self._root.subtree if term in node.data_vars]
        if not found:
            raise ValueError(
                f"This tree is no ledger of explaind_tf: it lacks {term!r}. Use a tree as run.attribute(...) returned it."
            )
        totals = [array.sum([dim for dim in array.dims if dim not in _KEPT]) for array in found]
        return sum(totals[1:], start=totals[0])


def register() -> None:
    """Give datasets and trees of xarray the attribute ``explaind``."""
    xr.register_dataset_accessor("explaind")(accessor_of)
    xr.register_datatree_accessor("explaind")(TreeLedger)
