"""Quadrature along one step, refined where and for which inputs the completeness error asks.

The integral of ∂f/∂z · Δz over any piece of a step is known beforehand: it is f at its end less f at its start. So
the error of a quadrature is *known*, with its sign, for each input and each piece, and not estimated. A step is cut into
*cells*; the cells with the largest errors are refined until the sum of all errors meets the budget. A single kink then
costs nodes where it is, two for a third of its error, and not everywhere (ExPLAIND, arXiv:2505.20076, uses 1 to 100
fixed nodes for all inputs).

Where three nodes of a cell tell that the integrand is smooth, Romberg's extrapolation is used, and more nodes of the same
cell instead of smaller cells. Which is better is known, too, from the completeness error.

Where a model's kinks can be averaged (:mod:`explaind_tf.kernel.operations.kinks`), all that needs more than one
plain node in the middle is integrated by nodes that stand for a piece of the cell: one for the whole cell, then two for
its halves, at the places of Gauss and Legendre, then the same in each third. Twice or thrice the nodes then do what took
hundreds.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from explaind_tf.kernel.quadrature.formulas import HALVES, WHOLE, Formula, midpoints
from explaind_tf.kernel.quadrature.nodes import Quadrature

# Values of pairs of a node and an input: (nodes (m,), inputs (m,), pieces (m, 2)) -> (m, ...).
AtNodes = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
# The input, node, piece and weight of each of some pairs.
_Pairs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Places along a step are counted in 3⁻¹⁶ of it, finer than float32 tells apart.
_UNITS = 3**16
_MOST_DEPTH = 4
# Cells with at least this share of an input's largest error are refined together: fewer, longer rounds.
_SHARE = 0.4
# Extrapolation that takes away less of the error than this does not see a smooth integrand.
_SMOOTH = 0.1


@dataclass(frozen=True)
class _Stretches:
    """Stretches of steps.

    Attributes
    ----------
    owner, left, width : np.ndarray of int
        The input, and where the stretch begins and how wide it is in units, shape (c,).
    start, end : np.ndarray
        f at both ends, shape (c, O).
    """

    owner: np.ndarray
    left: np.ndarray
    width: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        """Return their number."""
        return len(self.owner)

    def where(self, is_kept: np.ndarray) -> "_Stretches":
        """Return some of them."""
        return _Stretches(**{name: array[is_kept] for name, array in vars(self).items()})

    def pairs(self, formula: Formula) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the input, node and piece of each node of a formula, end to end."""

        def along(fractions: np.ndarray) -> np.ndarray:
            # In whole numbers, so that inputs which share a node share it to the bit.
            return np.rint(2 * (self.left[:, None] + self.width[:, None] * fractions)) / (2 * _UNITS)

        pieces = np.stack([along(formula.pieces[:, 0]), along(formula.pieces[:, 1])], axis=-1)
        return np.repeat(self.owner, len(formula)), along(formula.nodes).ravel(), pieces.reshape(-1, 2)


@dataclass(frozen=True)
class _Cells:
    """Stretches integrated by the same formula, and the best order found for each.

    Attributes
    ----------
    formula : Formula
        The same for all of them.
    at : _Stretches
        Where they are.
    values : np.ndarray
        The integrand at the nodes, shape (c, n, K, O).
    order : np.ndarray of int
        Of the extrapolation, shape (c,).
    integral, error : np.ndarray
        By that order, shapes (c, K, O), (c, O).
    size : np.ndarray
        Largest error, in units of the input's budget, shape (c,).
    is_smooth : np.ndarray of bool
        Whether extrapolation pays, shape (c,).
    """

    formula: Formula
    at: _Stretches
    values: np.ndarray
    order: np.ndarray
    integral: np.ndarray
    error: np.ndarray
    size: np.ndarray
    is_smooth: np.ndarray

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.at)

    @property
    def owner(self) -> np.ndarray:
        """The input of each, shape (c,)."""
        return self.at.owner

    def where(self, is_kept: np.ndarray) -> "_Cells":
        """Return some of the cells."""
        if is_kept.all():
            return self
        arrays = {name: array[is_kept] for name, array in self.arrays().items()}
        return _Cells(self.formula, self.at.where(is_kept), **arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is known of each cell besides where it is, by name."""
        return {name: value for name, value in vars(self).items() if name not in ("formula", "at")}

    @property
    def is_deepened(self) -> np.ndarray:
        """Whether refinement gives cells of midpoints more of them, rather than cut them into three, shape (c,)."""
        return (self.formula.depth == 0) | (self.is_smooth & (self.formula.depth < _MOST_DEPTH))

    @property
    def averages(self) -> bool:
        """Whether the nodes stand for pieces, over which kinks are averaged."""
        return self.formula in (WHOLE, HALVES)

    def is_cut(self, *, has_kinks: bool) -> np.ndarray:
        """Return whether refinement cuts cells into three, shape (c,)."""
        if self.averages or has_kinks:
            return np.full(len(self), self.formula is HALVES)
        return ~self.is_deepened

    def added(self, *, has_kinks: bool) -> np.ndarray:
        """Return how many more nodes refinement makes of each cell, shape (c,)."""
        if self.averages:
            return np.full(len(self), 2 * len(HALVES) if self.formula is HALVES else len(HALVES) - len(WHOLE))
        return np.zeros(len(self), int) if has_kinks else self.is_deepened * 2 * len(self.formula)

    def pairs(self, is_kept: np.ndarray) -> _Pairs:
        """Return the input, node, piece and weight of each node of some cells, end to end."""
        kept = self.at.where(is_kept)
        weights = self.formula.weights[self.order[is_kept]] * (kept.width / _UNITS)[:, None]
        return *kept.pairs(self.formula), weights.ravel()


@dataclass(frozen=True)
class _Path:
    """What is integrated, as in :func:`integrate`, and whether there are kinks to average."""

    integrand: AtNodes
    measure: AtNodes
    budget: np.ndarray
    has_kinks: bool


def integrate(
    integrand: AtNodes,
    measure: AtNodes,
    start: np.ndarray,
    end: np.ndarray,
    *,
    budget: np.ndarray,
    rounding: float,
    max_nodes: int,
    averaged: np.ndarray | None = None,
) -> tuple[Quadrature, np.ndarray]:
    """Integrate K causes over t in [0, 1] until their sum explains the change of each input.

    Parameters
    ----------
    integrand : callable
        ∂f/∂z (z(t)) · d_k at pairs of a node and an input, shape (m, K, O). Where a node stands for a piece, kinks have
        their mean slopes over it.
    measure : callable
        f(z(t)) at such pairs, shape (m, O).
    start, end : np.ndarray
        f at t = 0 and 1, shape (batch, O).
    budget : np.ndarray
        Largest |change − Σ_k integral_k| allowed for each entry, shape (batch, O), positive.
    rounding : float
        Error of f: cells that err by less are left alone.
    max_nodes : int
        Most nodes of one input; what is left then stays in the error.
    averaged : np.ndarray of bool, optional
        Inputs whose kinks are averaged from the first, shape (batch,), where one plain node is not expected to do. None if
        the integrand does not depend on pieces.

    Returns
    -------
    quadrature : Quadrature
        Nodes and weights of each input.
    integrals : np.ndarray
        Shape (K, batch, O).
    """
    count = len(start)
    has_kinks = averaged is not None
    path = _Path(integrand, measure, budget, has_kinks)
    cells = _first_cells(path, start, end, np.zeros(count, bool) if averaged is None else averaged)
    integrals = np.zeros((count, *cells[0].integral.shape[1:]))
    pairs: list[_Pairs] = []
    while cells:
        error, largest, nodes = np.zeros(start.shape), np.zeros(count), np.zeros(count, int)
        can_grow = [_can_grow(path, c, rounding) for c in cells]
        for c, is_free in zip(cells, can_grow, strict=True):
            _add_by_owner(error, c.owner, c.error)
            np.maximum.at(largest, c.owner, np.where(is_free, c.size, 0))
            np.add.at(nodes, c.owner, len(c.formula))
        worst = [
            is_free & (c.size >= _SHARE * largest[c.owner])
            for c, is_free in zip(cells, can_grow, strict=True)
        ]
        for c, is_worst in zip(cells, worst, strict=True):
            np.add.at(nodes, c.owner, is_worst * c.added(has_kinks=has_kinks))
        is_going = (np.max(np.abs(error) / budget, axis=1) > 1) & (largest > 0) & (nodes <= max_nodes)
        refined: list[_Cells] = []
        for c, is_worst in zip(cells, worst, strict=True):
            is_done = ~is_going[c.owner]
            pairs.append(c.pairs(is_done))
            _add_by_owner(integrals, c.owner[is_done], c.integral[is_done])
            refined += _refined(path, c.where(is_going[c.owner] & is_worst))
            refined.append(c.where(is_going[c.owner] & ~is_worst))
        cells = _merged(refined)
    owners, nodes_of_pairs, pieces, weights = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    quadrature = Quadrature.of_pairs(owners, nodes_of_pairs, weights, count, pieces)
    return quadrature, np.moveaxis(integrals, 1, 0)


def _first_cells(path: _Path, start: np.ndarray, end: np.ndarray, averaged: np.ndarray) -> list[_Cells]:
    """Return the whole step of each input, by one node in the middle."""
    cells = []
    for formula, is_own in ((midpoints(0), ~averaged), (WHOLE, averaged)):
        own = np.flatnonzero(is_own)
        if own.size:
            width = np.full(len(own), _UNITS)
            whole = _Stretches(own, np.zeros_like(width), width, start[own], end[own])
            cells.append(_integrated(path, formula, whole))
    return cells


def _add_by_owner(total: np.ndarray, owner: np.ndarray, values: np.ndarray) -> None:
    """Add values (c, ...) to those of their inputs; `np.add.at` takes several times as long."""
    if not owner.size:
        return
    order = np.argsort(owner, kind="stable")
    owners, starts = np.unique(owner[order], return_index=True)
    if len(owners) == len(owner):
        total[owner] += values
    else:
        total[owners] += np.add.reduceat(values[order], starts, axis=0)


def _integrated(path: _Path, formula: Formula, at: _Stretches) -> _Cells:
    """Return cells whose integrand is evaluated at all nodes of a formula."""
    owners, nodes, pieces = at.pairs(formula)
    found = path.integrand(nodes, owners, pieces)
    return _evaluated(path, formula, at, found.reshape(len(at), len(formula), *found.shape[1:]))


def _evaluated(path: _Path, formula: Formula, at: _Stretches, values: np.ndarray) -> _Cells:
    """Return cells with the order of extrapolation whose error is smallest."""
    budget, share = path.budget[at.owner], (at.width / _UNITS)[:, None, None]
    change = at.end - at.start
    if len(formula) == 1:  # most cells are the whole step of an input, and stay so
        integral = values[:, 0] * share
        error = change - integral.sum(axis=1)
        size = np.max(np.abs(error) / budget, axis=1)
        order = np.zeros(len(at), int)
        return _Cells(formula, at, values, order, integral, error, size, order.astype(bool))
    integrals = np.stack([np.einsum("n,cnko->cko", weights, values) * share for weights in formula.weights])
    errors = change - integrals.sum(axis=2)
    sizes = np.max(np.abs(errors) / budget, axis=2)
    order = np.argmin(sizes, axis=0)
    best = (order, np.arange(len(at)))
    is_smooth = (order == len(sizes) - 1) & (sizes[best] <= _SMOOTH * sizes[0])
    return _Cells(formula, at, values, order, integrals[best], errors[best], sizes[best], is_smooth)


def _can_grow(path: _Path, cells: _Cells, rounding: float) -> np.ndarray:
    # Each third of a cell is off by as much rounding as the whole: what is cut because of it would be cut on and on.
    limit = rounding * np.where(cells.is_cut(has_kinks=path.has_kinks), 2, 1)
    return (np.max(np.abs(cells.error), axis=1) > limit) & (cells.at.width >= 3 * len(cells.formula))


def _refined(path: _Path, cells: _Cells) -> list[_Cells]:
    """Return the cells by the next formula, or cut into three where there is none that pays."""
    if not len(cells):
        return []
    if cells.formula is HALVES:
        return [_integrated(path, HALVES, _thirds(path, cells.at))]
    if path.has_kinks:
        return [_integrated(path, HALVES if cells.averages else WHOLE, cells.at)]
    deeper, parts = cells.is_deepened, []
    if deeper.any():
        parts.append(_deepened(path, cells.where(deeper)))
    if not deeper.all():
        parts.append(_split(path, cells.where(~deeper)))
    return parts


def _deepened(path: _Path, cells: _Cells) -> _Cells:
    """Return cells with three times as many midpoints, of which every third is known."""
    formula = midpoints(cells.formula.depth + 1)
    is_new = np.arange(len(formula)) % 3 != 1
    owners, nodes, pieces = cells.at.pairs(formula)
    is_asked = np.tile(is_new, len(cells))
    found = path.integrand(nodes[is_asked], owners[is_asked], pieces[is_asked])
    values = np.empty((len(cells), len(formula), *cells.values.shape[2:]))
    values[:, ~is_new] = cells.values
    values[:, is_new] = found.reshape(len(cells), -1, *found.shape[1:])
    return _evaluated(path, formula, cells.at, values)


def _split(path: _Path, cells: _Cells) -> _Cells:
    """Return cells of midpoints cut into three, without any new node."""
    formula = midpoints(cells.formula.depth - 1)
    values = cells.values.reshape(3 * len(cells), -1, *cells.values.shape[2:])
    return _evaluated(path, formula, _thirds(path, cells.at), values)


def _thirds(path: _Path, at: _Stretches) -> _Stretches:
    """Return the thirds of stretches."""
    width, owners = at.width // 3, np.repeat(at.owner, 2)
    inner = np.stack([at.left + width, at.left + 2 * width], axis=1)
    places = inner.ravel() / _UNITS
    found = path.measure(places, owners, np.stack([places, places], axis=1)).reshape(len(at), 2, -1)
    ends = np.concatenate([at.start[:, None], found, at.end[:, None]], axis=1)
    lefts = np.concatenate([at.left[:, None], inner], axis=1)

    def flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(3 * len(at), *array.shape[2:])

    return _Stretches(
        np.repeat(at.owner, 3), flat(lefts), np.repeat(width, 3), flat(ends[:, :-1]), flat(ends[:, 1:])
    )


def _merged(cells: Iterable[_Cells]) -> list[_Cells]:
    """Return cells of the same formula together."""
    groups: dict[Formula, list[_Cells]] = {}
    for c in cells:
        if len(c):
            groups.setdefault(c.formula, []).append(c)
    return [alike[0] if len(alike) == 1 else _concatenated(alike) for alike in groups.values()]


def _concatenated(cells: list[_Cells]) -> _Cells:
    at = _Stretches(**_end_to_end([vars(c.at) for c in cells]))
    return _Cells(cells[0].formula, at, **_end_to_end([c.arrays() for c in cells]))


def _end_to_end(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
