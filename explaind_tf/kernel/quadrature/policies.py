"""Policies of refinement: which cells it begins with, and how it refines one whose error is too large.

:class:`Extrapolated` is for integrands that depend on the node alone. If three nodes of a cell show that the integrand is
smooth, Romberg's extrapolation is used, with more nodes in the same cell instead of smaller cells. The completeness error
shows which is better.

:class:`Averaged` is for models whose kinks can be averaged (:mod:`explaind_tf.kernel.operations.kinks`). If one plain
midpoint is not accurate enough, it uses nodes that stand for a piece of the cell. First comes one for the whole cell,
then two Gauss–Legendre nodes, one per half, then the same in each third. Two or three times the nodes then do what took
hundreds.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from explaind_tf.kernel.quadrature.cells import Cells, Integrand, Stretches
from explaind_tf.kernel.quadrature.formulas import HALVES, WHOLE, midpoints

# A cell has at most 3⁴ midpoints.
_MOST_DEPTH = 4


class Policy(Protocol):
    """How the cells of a step are refined."""

    def first_cells(self, start: np.ndarray, end: np.ndarray) -> list[Cells]:
        """Return the whole step of each input by one node; f at its ends is of shape (batch, O)."""
        ...

    def is_cut(self, cells: Cells) -> np.ndarray:
        """Return whether refinement cuts cells into three, shape (c,)."""
        ...

    def added(self, cells: Cells) -> np.ndarray:
        """Return how many nodes refinement adds to each cell, shape (c,)."""
        ...

    def refined(self, cells: Cells) -> list[Cells]:
        """Return the cells with the next formula, or cut into three if none pays."""
        ...


@dataclass(frozen=True)
class Extrapolated:
    """Midpoints: three times as many if extrapolation pays, otherwise smaller cells."""

    integrand: Integrand

    def first_cells(self, start: np.ndarray, end: np.ndarray) -> list[Cells]:
        """Return the whole steps, with the midpoint."""
        whole = Stretches.whole(start, end, np.ones(len(start), bool))
        return [self.integrand.over(whole, midpoints(0))]

    def is_cut(self, cells: Cells) -> np.ndarray:
        """Cut where more nodes do not pay."""
        return ~self._is_deepened(cells)

    def added(self, cells: Cells) -> np.ndarray:
        """Deepened cells get more nodes; cut cells keep their own."""
        return self._is_deepened(cells) * 2 * len(cells.formula)

    def refined(self, cells: Cells) -> list[Cells]:
        """Return cells with more nodes, then those that are cut."""
        deeper, parts = self._is_deepened(cells), []
        if deeper.any():
            parts.append(self._deepened(cells.where(deeper)))
        if not deeper.all():
            parts.append(self._split(cells.where(~deeper)))
        return parts

    @staticmethod
    def _is_deepened(cells: Cells) -> np.ndarray:
        """Return whether cells are given more nodes, rather than cut into three, shape (c,)."""
        return (cells.formula.depth == 0) | (cells.is_smooth & (cells.formula.depth < _MOST_DEPTH))

    def _deepened(self, cells: Cells) -> Cells:
        """Return cells with three times as many midpoints, of which every third is known."""
        formula = midpoints(cells.formula.depth + 1)
        is_new = np.arange(len(formula)) % 3 != 1
        owners, nodes, pieces = cells.at.pairs(formula)
        is_asked = np.tile(is_new, len(cells))
        found = self.integrand.values(nodes[is_asked], owners[is_asked], pieces[is_asked])
        values = np.empty((len(cells), len(formula), *cells.values.shape[2:]))
        values[:, ~is_new] = cells.values
        values[:, is_new] = found.reshape(len(cells), -1, *found.shape[1:])
        return self.integrand.cells(cells.at, formula, values)

    def _split(self, cells: Cells) -> Cells:
        """Return cells cut into three, without any new node."""
        formula = midpoints(cells.formula.depth - 1)
        values = cells.values.reshape(3 * len(cells), -1, *cells.values.shape[2:])
        return self.integrand.cells(self.integrand.thirds(cells.at), formula, values)


@dataclass(frozen=True)
class Averaged:
    """One plain midpoint, then nodes that stand for the whole cell, for its halves, and for those of its thirds.

    Attributes
    ----------
    integrand : Integrand
        What is integrated.
    at_first : np.ndarray of bool
        Inputs for which the plain midpoint is not tried, shape (batch,).
    """

    integrand: Integrand
    at_first: np.ndarray

    def first_cells(self, start: np.ndarray, end: np.ndarray) -> list[Cells]:
        """Return the whole steps with a plain node, then those with a node that averages kinks."""
        choices = ((midpoints(0), ~self.at_first), (WHOLE, self.at_first))
        return [
            self.integrand.over(Stretches.whole(start, end, is_own), formula)
            for formula, is_own in choices
            if is_own.any()
        ]

    def is_cut(self, cells: Cells) -> np.ndarray:
        """Cut where there are already two nodes."""
        return np.full(len(cells), cells.formula is HALVES)

    def added(self, cells: Cells) -> np.ndarray:
        """Two nodes become two in each third, one for the cell becomes two, and a plain one is replaced."""
        more = {HALVES: 2 * len(HALVES), WHOLE: len(HALVES) - len(WHOLE)}
        return np.full(len(cells), more.get(cells.formula, 0))

    def refined(self, cells: Cells) -> list[Cells]:
        """Return the cells with nodes that stand for smaller pieces."""
        if cells.formula is HALVES:
            return [self.integrand.over(self.integrand.thirds(cells.at), HALVES)]
        return [self.integrand.over(cells.at, HALVES if cells.formula is WHOLE else WHOLE)]
