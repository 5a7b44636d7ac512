"""Quadrature along one step, refined where and for which inputs the completeness error asks.

The integral of ∂f/∂z · Δz over any piece of a step is known beforehand: it is f at its end less f at its start. So
the error of a rule is *known*, with its sign, for each input and each piece, and not estimated. A step is cut into
*cells*; the cells with the largest errors are refined until the sum of all errors meets the budget. A kink of one
ReLU then costs nodes where it is, two for a third of its error, and not everywhere (ExPLAIND, arXiv:2505.20076,
uses 1 to 100 fixed nodes for all inputs).

Where three nodes of a cell tell that the integrand is smooth, Romberg's extrapolation is used, and more nodes of the same
cell instead of smaller cells. Which is better is known, too, from the completeness error.

Where a model's kinks can be averaged (:mod:`explaind_tf.kernel.kinks`), that comes first: in what one node in the middle
does not explain well enough, nodes reach to both sides as far as the piece that they stand for.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from explaind_tf.kernel.quadrature import PathRule, nodes_and_weights

# Values of pairs of a node and an input: (nodes (m,), inputs (m,), reach (m,)) -> (m, ...).
AtNodes = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]

# Places along a step are counted in 3⁻¹⁶ of it, finer than float32 tells apart.
_UNITS = 3**16
_MOST_DEPTH = 4
# Cells with at least this share of an input's largest error are refined together: fewer, longer rounds.
_SHARE = 0.4
# Extrapolation that takes away less of the error than this does not see a smooth integrand.
_SMOOTH = 0.1


@dataclass(frozen=True)
class _Cells:
    """Pieces of steps with 3**depth nodes each, and the best rule found for each.

    Attributes
    ----------
    depth : int
        The same for all of them.
    reaches : bool
        Whether nodes reach as far as the piece that they stand for, also the same for all of them.
    owner, left, width : np.ndarray of int
        The input, and where the cell begins and how wide it is in units, shape (c,).
    start, end : np.ndarray
        f at both ends, shape (c, O).
    values : np.ndarray
        The integrand at the nodes, shape (c, 3**depth, K, O).
    order : np.ndarray of int
        Of the extrapolation, shape (c,).
    integral, error : np.ndarray
        By that order, shapes (c, K, O), (c, O).
    size : np.ndarray
        Largest error, in units of the input's budget, shape (c,).
    is_smooth : np.ndarray of bool
        Whether extrapolation pays, shape (c,).
    """

    depth: int
    reaches: bool
    owner: np.ndarray
    left: np.ndarray
    width: np.ndarray
    start: np.ndarray
    end: np.ndarray
    values: np.ndarray
    order: np.ndarray
    integral: np.ndarray
    error: np.ndarray
    size: np.ndarray
    is_smooth: np.ndarray

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self.owner)

    def where(self, is_kept: np.ndarray) -> "_Cells":
        """Return some of the cells."""
        if is_kept.all():
            return self
        arrays = {name: value[is_kept] for name, value in vars(self).items() if name not in _SHARED}
        return _Cells(self.depth, self.reaches, **arrays)

    def pairs(self, is_kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the input, node, weight and reach of each node of some cells, end to end."""
        rules = np.stack([nodes_and_weights(self.depth, j)[1] for j in range(self.depth + 1)])
        weights = rules[self.order[is_kept]] * (self.width[is_kept] / _UNITS)[:, None]
        places = _places(self.left[is_kept], self.width[is_kept], self.depth)
        reach = _reach(self.width[is_kept], self.depth, self.reaches)
        return np.repeat(self.owner[is_kept], 3**self.depth), places.ravel(), weights.ravel(), reach


# What is the same for all cells of a group.
_SHARED = ("depth", "reaches")


@dataclass(frozen=True)
class _Path:
    """What is integrated; the attributes are those of :func:`integrate`."""

    integrand: AtNodes
    measure: AtNodes
    budget: np.ndarray
    has_kinks: bool

    def averages(self, cells: _Cells) -> bool:
        """Tell whether refinement lets the nodes of cells reach to both sides, which makes no more of them."""
        return self.has_kinks and not cells.reaches

    def deepens(self, cells: _Cells) -> np.ndarray:
        """Tell whether refinement gives a cell more nodes, rather than cut it into three, shape (c,)."""
        if self.averages(cells):
            return np.zeros(len(cells), bool)
        return (cells.depth == 0) | (cells.is_smooth & (cells.depth < _MOST_DEPTH))


def integrate(
    integrand: AtNodes,
    measure: AtNodes,
    start: np.ndarray,
    end: np.ndarray,
    *,
    budget: np.ndarray,
    rounding: float,
    max_nodes: int,
    has_kinks: bool = False,
) -> tuple[PathRule, np.ndarray]:
    """Integrate K causes over t in [0, 1] until their sum explains the change of each input.

    Parameters
    ----------
    integrand : callable
        ∂f/∂z (z(t)) · d_k at pairs of a node and an input, shape (m, K, O). Where a node reaches to both sides, kinks have
        their mean slopes there.
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
    has_kinks : bool
        Whether the integrand changes where nodes reach.

    Returns
    -------
    rule : PathRule
        Nodes and weights of each input.
    integrals : np.ndarray
        Shape (K, batch, O).
    """
    count = len(start)
    every = np.arange(count)
    whole = np.full(count, _UNITS)
    path = _Path(integrand, measure, budget, has_kinks)
    values = integrand(np.full(count, 0.5), every, np.zeros(count))[:, None]
    cells = [_evaluated(path, 0, False, every, np.zeros_like(whole), whole, start, end, values)]
    integrals = np.zeros((count, *values.shape[2:]))
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    while cells:
        error, largest, nodes = np.zeros(start.shape), np.zeros(count), np.zeros(count, int)
        can_grow = [_can_grow(c, rounding) for c in cells]
        for c, is_free in zip(cells, can_grow, strict=True):
            _add_by_owner(error, c.owner, c.error)
            np.maximum.at(largest, c.owner, np.where(is_free, c.size, 0))
            np.add.at(nodes, c.owner, 3**c.depth)
        worst = [
            is_free & (c.size >= _SHARE * largest[c.owner])
            for c, is_free in zip(cells, can_grow, strict=True)
        ]
        for c, is_worst in zip(cells, worst, strict=True):
            np.add.at(nodes, c.owner, is_worst * path.deepens(c) * 2 * 3**c.depth)
        is_going = (np.max(np.abs(error) / budget, axis=1) > 1) & (largest > 0) & (nodes <= max_nodes)
        refined: list[_Cells] = []
        for c, is_worst in zip(cells, worst, strict=True):
            is_done = ~is_going[c.owner]
            pairs.append(c.pairs(is_done))
            _add_by_owner(integrals, c.owner[is_done], c.integral[is_done])
            refined += _refined(path, c.where(is_going[c.owner] & is_worst))
            refined.append(c.where(is_going[c.owner] & ~is_worst))
        cells = _merged(refined)
    owners, nodes_of_pairs, weights, reach = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    rule = PathRule.of_pairs(owners, nodes_of_pairs, weights, count, reach)
    return rule, np.moveaxis(integrals, 1, 0)


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


def _places(left: np.ndarray, width: np.ndarray, depth: int) -> np.ndarray:
    # In whole numbers, so that inputs which share a node share it to the bit.
    halves = 2 * np.arange(3**depth) + 1
    return (2 * left[:, None] + (width // 3**depth)[:, None] * halves) / (2 * _UNITS)


def _reach(width: np.ndarray, depth: int, reaches: bool) -> np.ndarray:
    """Return how far the nodes of cells reach, end to end."""
    return np.repeat((width // 3**depth) * reaches / (2 * _UNITS), 3**depth)


def _evaluated(
    path: _Path,
    depth: int,
    reaches: bool,
    owner: np.ndarray,
    left: np.ndarray,
    width: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    values: np.ndarray,
) -> _Cells:
    """Return cells with the order of extrapolation whose error is smallest."""
    budget = path.budget[owner]
    share = (width / _UNITS)[:, None, None]
    if depth == 0:  # most cells are the whole step of an input, and stay so
        integral = values[:, 0] * share
        error = (end - start) - integral.sum(axis=1)
        size = np.max(np.abs(error) / budget, axis=1)
        order = np.zeros(len(owner), int)
        return _Cells(
            depth, reaches, owner, left, width, start, end, values,
            order, integral, error, size, order.astype(bool),
        )  # fmt: skip
    rules = [nodes_and_weights(depth, order)[1] for order in range(depth + 1)]
    integrals = np.stack([np.einsum("n,cnko->cko", rule, values) * share for rule in rules])
    errors = (end - start) - integrals.sum(axis=2)
    sizes = np.max(np.abs(errors) / budget, axis=2)
    order = np.argmin(sizes, axis=0)
    best = (order, np.arange(len(owner)))
    is_smooth = (order == depth) & (sizes[best] <= _SMOOTH * sizes[0])
    return _Cells(
        depth, reaches, owner, left, width, start, end, values,
        order, integrals[best], errors[best], sizes[best], is_smooth,
    )  # fmt: skip


def _can_grow(cells: _Cells, rounding: float) -> np.ndarray:
    return (np.max(np.abs(cells.error), axis=1) > rounding) & (cells.width >= 3 ** (cells.depth + 1))


def _refined(path: _Path, cells: _Cells) -> list[_Cells]:
    """Return the cells refined: averaged at first, then with more nodes where that pays, and else cut into three."""
    if not len(cells):
        return []
    if path.averages(cells):
        return [_averaged(path, cells)]
    deeper, parts = path.deepens(cells), []
    if deeper.any():
        parts.append(_deepened(path, cells.where(deeper)))
    if not deeper.all():
        parts.append(_split(path, cells.where(~deeper)))
    return parts


def _averaged(path: _Path, cells: _Cells) -> _Cells:
    """Return the cells with the same nodes, which now reach to both sides."""
    places, reach = _places(cells.left, cells.width, cells.depth), _reach(cells.width, cells.depth, True)
    found = path.integrand(places.ravel(), np.repeat(cells.owner, 3**cells.depth), reach)
    return _evaluated(
        path, cells.depth, True, cells.owner, cells.left, cells.width, cells.start, cells.end,
        found.reshape(cells.values.shape),
    )  # fmt: skip


def _deepened(path: _Path, cells: _Cells) -> _Cells:
    """Return the cells with three times as many nodes; those that they had are kept, unless they reached too far."""
    depth = cells.depth + 1
    places = _places(cells.left, cells.width, depth)
    is_new = (np.arange(3**depth) % 3 != 1) | cells.reaches
    reach = _reach(cells.width, depth, cells.reaches).reshape(places.shape)[:, is_new]
    found = path.integrand(
        places[:, is_new].ravel(), np.repeat(cells.owner, int(is_new.sum())), reach.ravel()
    )
    values = np.empty((len(cells), 3**depth, *cells.values.shape[2:]))
    values[:, 1::3] = cells.values
    values[:, is_new] = found.reshape(len(cells), -1, *found.shape[1:])
    return _evaluated(
        path, depth, cells.reaches, cells.owner, cells.left, cells.width, cells.start, cells.end, values
    )


def _split(path: _Path, cells: _Cells) -> _Cells:
    """Return the cells cut into three, without any new node."""
    width = cells.width // 3
    inner = np.stack([cells.left + width, cells.left + 2 * width], axis=1)
    owners = np.repeat(cells.owner, 2)
    found = path.measure((inner / _UNITS).ravel(), owners, np.zeros(len(owners)))
    ends = np.concatenate(
        [cells.start[:, None], found.reshape(len(cells), 2, -1), cells.end[:, None]], axis=1
    )
    lefts = np.concatenate([cells.left[:, None], inner], axis=1)

    def flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(3 * len(cells), *array.shape[2:])

    return _evaluated(
        path, cells.depth - 1, cells.reaches, np.repeat(cells.owner, 3), flat(lefts), np.repeat(width, 3),
        flat(ends[:, :-1]), flat(ends[:, 1:]),
        cells.values.reshape(3 * len(cells), -1, *cells.values.shape[2:]),
    )  # fmt: skip


def _merged(cells: Iterable[_Cells]) -> list[_Cells]:
    """Return cells of the same depth and kind of nodes together."""
    groups: dict[tuple[int, bool], list[_Cells]] = {}
    for c in cells:
        if len(c):
            groups.setdefault((c.depth, c.reaches), []).append(c)
    return [alike[0] if len(alike) == 1 else _concatenated(alike) for alike in groups.values()]


def _concatenated(cells: list[_Cells]) -> _Cells:
    first = cells[0]
    arrays = {
        name: np.concatenate([getattr(c, name) for c in cells]) for name in vars(first) if name not in _SHARED
    }
    return _Cells(first.depth, first.reaches, **arrays)
