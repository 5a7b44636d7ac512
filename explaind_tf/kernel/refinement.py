"""Quadrature along one step, refined where and for which inputs the completeness error asks.

The integral of ∂f/∂z · Δz over any piece of a step is known beforehand: it is f at its end less f at its start. So
the error of a rule is *known*, with its sign, for each input and each piece, and not estimated. A step is cut into
*cells*; the cells with the largest errors are refined until the sum of all errors meets the budget. A kink of one
ReLU then costs nodes where it is, two for a third of its error, and not everywhere (ExPLAIND, arXiv:2505.20076,
uses 1 to 100 fixed nodes for all inputs).

Where three nodes of a cell tell that the integrand is smooth, Romberg's extrapolation is used, and more nodes of the same
cell instead of smaller cells. Which is better is known, too, from the completeness error.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from explaind_tf.kernel.quadrature import PathRule, nodes_and_weights

# Values of pairs of a node and an input: (nodes (m,), inputs (m,)) -> (m, ...).
AtNodes = Callable[[np.ndarray, np.ndarray], np.ndarray]

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
        arrays = {name: value[is_kept] for name, value in vars(self).items() if name != "depth"}
        return _Cells(self.depth, **arrays)

    @property
    def is_deepened(self) -> np.ndarray:
        """Whether refinement gives a cell more nodes, rather than cut it into three, shape (c,)."""
        return (self.depth == 0) | (self.is_smooth & (self.depth < _MOST_DEPTH))

    def pairs(self, is_kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the input, node and weight of each node of some cells, end to end."""
        rules = np.stack([nodes_and_weights(self.depth, j)[1] for j in range(self.depth + 1)])
        weights = rules[self.order[is_kept]] * (self.width[is_kept] / _UNITS)[:, None]
        places = _places(self.left[is_kept], self.width[is_kept], self.depth)
        return np.repeat(self.owner[is_kept], 3**self.depth), places.ravel(), weights.ravel()


def integrate(
    integrand: AtNodes,
    measure: AtNodes,
    start: np.ndarray,
    end: np.ndarray,
    *,
    budget: np.ndarray,
    rounding: float,
    max_nodes: int,
) -> tuple[PathRule, np.ndarray]:
    """Integrate K causes over t in [0, 1] until their sum explains the change of each input.

    Parameters
    ----------
    integrand : callable
        ∂f/∂z (z(t)) · d_k at pairs of a node and an input, shape (m, K, O).
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
    values = integrand(np.full(count, 0.5), every)[:, None]
    cells = [_evaluated(0, every, np.zeros_like(whole), whole, start, end, values, budget)]
    integrals = np.zeros((count, *values.shape[2:]))
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
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
            np.add.at(nodes, c.owner, is_worst * c.is_deepened * 2 * 3**c.depth)
        is_going = (np.max(np.abs(error) / budget, axis=1) > 1) & (largest > 0) & (nodes <= max_nodes)
        refined: list[_Cells] = []
        for c, is_worst in zip(cells, worst, strict=True):
            is_done = ~is_going[c.owner]
            pairs.append(c.pairs(is_done))
            _add_by_owner(integrals, c.owner[is_done], c.integral[is_done])
            refined += _refined(c.where(is_going[c.owner] & is_worst), integrand, measure, budget)
            refined.append(c.where(is_going[c.owner] & ~is_worst))
        cells = _merged(refined)
    owners, nodes_of_pairs, weights = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return PathRule.of_pairs(owners, nodes_of_pairs, weights, count), np.moveaxis(integrals, 1, 0)


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


def _evaluated(
    depth: int,
    owner: np.ndarray,
    left: np.ndarray,
    width: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    values: np.ndarray,
    budget: np.ndarray,
) -> _Cells:
    """Return cells with the order of extrapolation whose error is smallest."""
    share = (width / _UNITS)[:, None, None]
    if depth == 0:  # most cells are the whole step of an input, and stay so
        integral = values[:, 0] * share
        error = (end - start) - integral.sum(axis=1)
        size = np.max(np.abs(error) / budget[owner], axis=1)
        order = np.zeros(len(owner), int)
        return _Cells(
            depth, owner, left, width, start, end, values, order, integral, error, size, order.astype(bool)
        )
    rules = [nodes_and_weights(depth, order)[1] for order in range(depth + 1)]
    integrals = np.stack([np.einsum("n,cnko->cko", rule, values) * share for rule in rules])
    errors = (end - start) - integrals.sum(axis=2)
    sizes = np.max(np.abs(errors) / budget[owner], axis=2)
    order = np.argmin(sizes, axis=0)
    best = (order, np.arange(len(owner)))
    is_smooth = (order == depth) & (sizes[best] <= _SMOOTH * sizes[0])
    return _Cells(
        depth, owner, left, width, start, end, values,
        order, integrals[best], errors[best], sizes[best], is_smooth,
    )  # fmt: skip


def _can_grow(cells: _Cells, rounding: float) -> np.ndarray:
    return (np.max(np.abs(cells.error), axis=1) > rounding) & (cells.width >= 3 ** (cells.depth + 1))


def _refined(cells: _Cells, integrand: AtNodes, measure: AtNodes, budget: np.ndarray) -> list[_Cells]:
    """Return the cells with more nodes, where that pays, and cut into three (without any new node) where it does not."""
    deeper, parts = cells.is_deepened, []
    if deeper.any():
        parts.append(_deepened(cells.where(deeper), integrand, budget))
    if not deeper.all():
        parts.append(_split(cells.where(~deeper), measure, budget))
    return parts


def _deepened(cells: _Cells, integrand: AtNodes, budget: np.ndarray) -> _Cells:
    depth = cells.depth + 1
    places = _places(cells.left, cells.width, depth)
    is_new = np.arange(3**depth) % 3 != 1
    found = integrand(places[:, is_new].ravel(), np.repeat(cells.owner, int(is_new.sum())))
    values = np.empty((len(cells), 3**depth, *cells.values.shape[2:]))
    values[:, ~is_new] = cells.values
    values[:, is_new] = found.reshape(len(cells), -1, *found.shape[1:])
    return _evaluated(
        depth, cells.owner, cells.left, cells.width, cells.start, cells.end, values, budget
    )  # fmt: skip


def _split(cells: _Cells, measure: AtNodes, budget: np.ndarray) -> _Cells:
    width = cells.width // 3
    inner = np.stack([cells.left + width, cells.left + 2 * width], axis=1)
    found = measure((inner / _UNITS).ravel(), np.repeat(cells.owner, 2)).reshape(len(cells), 2, -1)
    ends = np.concatenate([cells.start[:, None], found, cells.end[:, None]], axis=1)
    lefts = np.concatenate([cells.left[:, None], inner], axis=1)

    def flat(array: np.ndarray) -> np.ndarray:
        return array.reshape(3 * len(cells), *array.shape[2:])

    values = cells.values.reshape(3 * len(cells), -1, *cells.values.shape[2:])
    owner, widths = np.repeat(cells.owner, 3), np.repeat(width, 3)
    return _evaluated(
        cells.depth - 1, owner, flat(lefts), widths, flat(ends[:, :-1]), flat(ends[:, 1:]), values, budget
    )


def _merged(cells: Iterable[_Cells]) -> list[_Cells]:
    """Return cells of the same depth together."""
    by_depth: dict[int, list[_Cells]] = {}
    for c in cells:
        if len(c):
            by_depth.setdefault(c.depth, []).append(c)
    return [alike[0] if len(alike) == 1 else _concatenated(depth, alike) for depth, alike in by_depth.items()]


def _concatenated(depth: int, cells: list[_Cells]) -> _Cells:
    names = [name for name in vars(cells[0]) if name != "depth"]
    return _Cells(depth, **{name: np.concatenate([getattr(c, name) for c in cells]) for name in names})
