"""Formulas of quadrature for one piece of a step, as refinement tries them."""

import functools
from dataclasses import dataclass

import numpy as np

from explaind_tf.kernel.quadrature.nodes import nodes_and_weights


@dataclass(frozen=True, eq=False)
class Formula:
    """Nodes and weights, in units of the width of what is integrated.

    Attributes
    ----------
    nodes : np.ndarray
        Shape (n,).
    pieces : np.ndarray
        Where the piece that each stands for begins and ends, shape (n, 2): the same place twice if kinks are not averaged.
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
    """Return the middles of 3**depth equal parts; those of less depth are among them."""
    weights = [nodes_and_weights(depth, order)[1] for order in range(depth + 1)]
    nodes = nodes_and_weights(depth, 0)[0]
    return Formula(nodes, np.stack([nodes, nodes], axis=1), np.stack(weights))


# One node that stands for all, and the two of Gauss and Legendre. Weights are the lengths of the pieces: otherwise the
# share of a kink's mean slope in the integral would not be its share of the step.
WHOLE = Formula(np.array([0.5]), np.array([[0.0, 1.0]]), np.array([[1.0]]))
_PLACE = 0.5 - np.sqrt(3) / 6
HALVES = Formula(np.array([_PLACE, 1 - _PLACE]), np.array([[0.0, 0.5], [0.5, 1.0]]), np.array([[0.5, 0.5]]))
