"""The quadrature formulas for one cell that refinement tries."""

import functools
from dataclasses import dataclass

import numpy as np

from explaind_tf.kernel.quadrature.nodes import nodes_and_weights


@dataclass(frozen=True, eq=False)
class Formula:
    """Nodes and weights, in units of the cell's width.

    Attributes
    ----------
    nodes : np.ndarray
        Shape (n,).
    pieces : np.ndarray
        Start and end of the piece that each node stands for, shape (n, 2): the same place twice if kinks are not averaged.
    weights : np.ndarray
        One row for each order of extrapolation, shape (orders, n).
    """

    nodes: np.ndarray
    pieces: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.nodes)

    @property
    def depth(self) -> int:
        """The highest order; there are 3**depth midpoints."""
        return len(self.weights) - 1


@functools.cache
def midpoints(depth: int) -> Formula:
    """Return the midpoints of 3**depth equal parts, which include those of smaller depth."""
    weights = [nodes_and_weights(depth, order)[1] for order in range(depth + 1)]
    nodes = nodes_and_weights(depth, 0)[0]
    return Formula(nodes, np.stack([nodes, nodes], axis=1), np.stack(weights))


# One node for the whole cell, and two Gauss–Legendre nodes, one per half. Each weight is the length of its piece, so a
# kink's mean slope counts for its share of the step.
WHOLE = Formula(np.array([0.5]), np.array([[0.0, 1.0]]), np.array([[1.0]]))
_PLACE = 0.5 - np.sqrt(3) / 6
HALVES = Formula(np.array([_PLACE, 1 - _PLACE]), np.array([[0.0, 0.5], [0.5, 1.0]]), np.array([[0.5, 0.5]]))
