"""Cells: stretches of steps, each integrated by a formula, with an error that is known.

The integral of ∂f/∂z · Δz over any stretch of a step is known beforehand: f at its end minus f at its start. The error of
each input and cell is therefore *known* with its sign. It is not estimated.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from explaind_tf.kernel.quadrature.formulas import Formula

# Values of pairs of a node and an input: (nodes (m,), inputs (m,), pieces (m, 2)) -> (m, ...).
AtNodes = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
# The input, node, piece and weight of each of some pairs.
WeightedPairs = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Places along a step are counted in units of 3⁻¹⁶ of it, finer than float32 resolves.
UNITS = 3**16
# The integrand counts as smooth if extrapolation leaves at most this share of the error.
_SMOOTH = 0.1


@dataclass(frozen=True)
class Stretches:
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

    @classmethod
    def whole(cls, start: np.ndarray, end: np.ndarray, is_own: np.ndarray) -> "Stretches":
        """Return the whole step of some inputs, between values of f of all of them, shape (batch, O)."""
        own = np.flatnonzero(is_own)
        width = np.full(len(own), UNITS)
        return cls(own, np.zeros_like(width), width, start[own], end[own])

    def where(self, is_kept: np.ndarray) -> "Stretches":
        """Return some of them."""
        return Stretches(**{name: array[is_kept] for name, array in vars(self).items()})

    def pairs(self, formula: Formula) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the input, node and piece of each node of a formula, end to end."""

        def along(fractions: np.ndarray) -> np.ndarray:
            # In whole numbers, nodes that inputs share are equal to the bit.
            return np.rint(2 * (self.left[:, None] + self.width[:, None] * fractions)) / (2 * UNITS)

        pieces = np.stack([along(formula.pieces[:, 0]), along(formula.pieces[:, 1])], axis=-1)
        return np.repeat(self.owner, len(formula)), along(formula.nodes).ravel(), pieces.reshape(-1, 2)


@dataclass(frozen=True)
class Cells:
    """Stretches integrated by the same formula, and the best order found for each.

    Attributes
    ----------
    formula : Formula
        The same for all of them.
    at : Stretches
        Where they are.
    values : np.ndarray
        The integrand at the nodes, shape (c, n, K, O).
    order : np.ndarray of int
        Of the extrapolation, shape (c,).
    integral, error : np.ndarray
        Of that order, shapes (c, K, O), (c, O).
    size : np.ndarray
        Largest error, in units of the input's budget, shape (c,).
    is_smooth : np.ndarray of bool
        Whether extrapolation pays, shape (c,).
    """

    formula: Formula
    at: Stretches
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

    def where(self, is_kept: np.ndarray) -> "Cells":
        """Return some of the cells."""
        if is_kept.all():
            return self
        arrays = {name: array[is_kept] for name, array in self.arrays().items()}
        return Cells(self.formula, self.at.where(is_kept), **arrays)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return by name all arrays of the cells, except for where they are."""
        return {name: value for name, value in vars(self).items() if name not in ("formula", "at")}

    def pairs(self, is_kept: np.ndarray) -> WeightedPairs:
        """Return the input, node, piece and weight of each node of some cells, end to end."""
        kept = self.at.where(is_kept)
        weights = self.formula.weights[self.order[is_kept]] * (kept.width / UNITS)[:, None]
        return *kept.pairs(self.formula), weights.ravel()


def merged(cells: Iterable[Cells]) -> list[Cells]:
    """Return cells of the same formula together."""
    groups: dict[Formula, list[Cells]] = {}
    for c in cells:
        if len(c):
            groups.setdefault(c.formula, []).append(c)
    return [alike[0] if len(alike) == 1 else _concatenated(alike) for alike in groups.values()]


def _concatenated(cells: list[Cells]) -> Cells:
    at = Stretches(**_end_to_end([vars(c.at) for c in cells]))
    return Cells(cells[0].formula, at, **_end_to_end([c.arrays() for c in cells]))


def _end_to_end(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@dataclass(frozen=True)
class Integrand:
    """What is integrated along a step.

    Attributes
    ----------
    values : callable
        ∂f/∂z (z(t)) · d_k at pairs of a node and an input, shape (m, K, O).
    measure : callable
        f(z(t)) at such pairs, shape (m, O).
    budget : np.ndarray
        Error allowed for each input and output, shape (batch, O), positive.
    """

    values: AtNodes
    measure: AtNodes
    budget: np.ndarray

    def over(self, at: Stretches, formula: Formula) -> Cells:
        """Return cells that are evaluated at all nodes of a formula."""
        owners, nodes, pieces = at.pairs(formula)
        found = self.values(nodes, owners, pieces)
        return self.cells(at, formula, found.reshape(len(at), len(formula), *found.shape[1:]))

    def cells(self, at: Stretches, formula: Formula, values: np.ndarray) -> Cells:
        """Return cells of known values, with the order of extrapolation that has the smallest error."""
        budget, share = self.budget[at.owner], (at.width / UNITS)[:, None, None]
        change = at.end - at.start
        if len(formula) == 1:  # most cells are, and remain, the whole step of an input
            integral = values[:, 0] * share
            error = change - integral.sum(axis=1)
            size = np.max(np.abs(error) / budget, axis=1)
            order = np.zeros(len(at), int)
            return Cells(formula, at, values, order, integral, error, size, order.astype(bool))
        integrals = np.stack(
            [np.einsum("n,cnko->cko", weights, values) * share for weights in formula.weights]
        )
        errors = change - integrals.sum(axis=2)
        sizes = np.max(np.abs(errors) / budget, axis=2)
        order = np.argmin(sizes, axis=0)
        best = (order, np.arange(len(at)))
        is_smooth = (order == len(sizes) - 1) & (sizes[best] <= _SMOOTH * sizes[0])
        return Cells(formula, at, values, order, integrals[best], errors[best], sizes[best], is_smooth)

    def thirds(self, at: Stretches) -> Stretches:
        """Return the thirds of stretches, with f measured at the cuts."""
        width, owners = at.width // 3, np.repeat(at.owner, 2)
        inner = np.stack([at.left + width, at.left + 2 * width], axis=1)
        places = inner.ravel() / UNITS
        found = self.measure(places, owners, np.stack([places, places], axis=1)).reshape(len(at), 2, -1)
        ends = np.concatenate([at.start[:, None], found, at.end[:, None]], axis=1)
        lefts = np.concatenate([at.left[:, None], inner], axis=1)

        def flat(array: np.ndarray) -> np.ndarray:
            return array.reshape(3 * len(at), *array.shape[2:])

        return Stretches(
            np.repeat(at.owner, 3), flat(lefts), np.repeat(width, 3), flat(ends[:, :-1]), flat(ends[:, 1:])
        )
