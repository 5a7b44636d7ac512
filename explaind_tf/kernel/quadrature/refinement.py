"""Quadrature along one step, refined for the inputs and in the places where the completeness error is large.

A step is cut into *cells*, whose errors are known (:mod:`explaind_tf.kernel.quadrature.cells`). A policy refines those
with the largest errors (:mod:`explaind_tf.kernel.quadrature.policies`) until the sum of all errors meets the budget. A
single kink then costs nodes only where it is: two more reduce its error to a third. (ExPLAIND, arXiv:2505.20076, uses 1 to
100 fixed nodes for all inputs.)
"""

from typing import NamedTuple

import numpy as np

from explaind_tf.kernel.quadrature.cells import Cells, Integrand, WeightedPairs, merged
from explaind_tf.kernel.quadrature.jump_cells import Jumps
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.kernel.quadrature.policies import Averaged, Extrapolated, Policy

# Cells with at least this share of an input's largest error are refined together, in fewer and longer rounds.
_SHARE = 0.4


class Integrated(NamedTuple):
    """The integrals of K causes over one step.

    Attributes
    ----------
    quadrature : Quadrature
        Nodes and weights of each input.
    integrals : np.ndarray
        Shape (K, batch, O).
    jumps : np.ndarray
        How far f jumped, shape (batch, O).
    """

    quadrature: Quadrature
    integrals: np.ndarray
    jumps: np.ndarray


def integrate(
    integrand: Integrand,
    start: np.ndarray,
    end: np.ndarray,
    *,
    rounding: float,
    max_nodes: int,
    averaged: np.ndarray | None = None,
    may_jump: bool = False,
) -> Integrated:
    """Integrate K causes over t in [0, 1] until their sum explains the change of each input.

    Parameters
    ----------
    integrand : Integrand
        The derivative, f, and the largest |change − Σ_k integral_k| allowed. If a node stands for a piece, kinks have their
        mean slopes over it.
    start, end : np.ndarray
        f at t = 0 and 1, shape (batch, O).
    rounding : float
        Rounding error of f: cells with a smaller error are not refined.
    max_nodes : int
        Largest number of nodes of one input. What it leaves of the error remains.
    averaged : np.ndarray of bool, optional
        Inputs whose kinks are averaged from the start, since one plain node is not expected to suffice, shape (batch,).
        None if the integrand does not depend on pieces.
    may_jump : bool
        Whether f may jump. If so, the error of a narrow cell that is larger than any slope explains is a jump of f.
    """
    count = len(start)
    policy: Policy = Extrapolated(integrand) if averaged is None else Averaged(integrand, averaged)
    cells = policy.first_cells(start, end)
    integrals = np.zeros((count, *cells[0].integral.shape[1:]))
    pairs: list[WeightedPairs] = []
    jumps = Jumps(start.shape, rounding)

    def finish(c: Cells, is_done: np.ndarray) -> None:
        pairs.append(c.pairs(is_done))
        _add_by_owner(integrals, c.owner[is_done], c.integral[is_done])

    while cells:
        if may_jump:
            is_jump = jumps.take(cells)
            for c, own in zip(cells, is_jump, strict=True):
                finish(c, own)
            cells = [c.where(~own) for c, own in zip(cells, is_jump, strict=True)]
        error, largest, nodes = np.zeros(start.shape), np.zeros(count), np.zeros(count, int)
        can_grow = [_can_grow(policy, c, rounding) for c in cells]
        for c, is_free in zip(cells, can_grow, strict=True):
            _add_by_owner(error, c.owner, c.error)
            np.maximum.at(largest, c.owner, np.where(is_free, c.size, 0))
            np.add.at(nodes, c.owner, len(c.formula))
        worst = [
            is_free & (c.size >= _SHARE * largest[c.owner])
            for c, is_free in zip(cells, can_grow, strict=True)
        ]
        for c, is_worst in zip(cells, worst, strict=True):
            np.add.at(nodes, c.owner, is_worst * policy.added(c))
        is_going = (
            (np.max(np.abs(error) / integrand.budget, axis=1) > 1) & (largest > 0) & (nodes <= max_nodes)
        )
        refined: list[Cells] = []
        for c, is_worst in zip(cells, worst, strict=True):
            finish(c, ~is_going[c.owner])
            chosen = c.where(is_going[c.owner] & is_worst)
            refined += policy.refined(chosen) if len(chosen) else []
            refined.append(c.where(is_going[c.owner] & ~is_worst))
        cells = merged(refined)
    owners, nodes_of_pairs, pieces, weights = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    quadrature = Quadrature.of_pairs(owners, nodes_of_pairs, weights, count, pieces)
    return Integrated(quadrature, np.moveaxis(integrals, 1, 0), jumps.found)


def _can_grow(policy: Policy, cells: Cells, rounding: float) -> np.ndarray:
    # Each third of a cell has as much rounding error as the whole, so cutting because of it would never end.
    limit = rounding * np.where(policy.is_cut(cells), 2, 1)
    return (np.max(np.abs(cells.error), axis=1) > limit) & (cells.at.width >= 3 * len(cells.formula))


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
