"""Quadrature along one step of the path: the nodes and weights of each input.

The midpoints of 3ᵏ equal intervals contain those of 3ᵏ⁻¹, so no evaluation is thrown away. If the integrand jumps (ReLU,
max-pooling), their plain mean converges like 1/n, and nothing does better. If it is smooth, Romberg's extrapolation of
the same nodes converges at a high order.

A node may stand for a *piece* of the step. Kinks (non-smooth points) then have their mean slope over the piece
(:mod:`explaind_tf.kernel.operations.mean_slopes`), and jumps no longer slow convergence. A *plain* node stands for none.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@functools.lru_cache(maxsize=64)
def nodes_and_weights(level: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes of a level and their weights at an order of extrapolation, each of shape (3**level,).

    Order 0 weighs all nodes alike; order j ≤ level removes the error terms up to h²ʲ.
    """
    count = 3**level
    nodes = (np.arange(count) + 0.5) / count
    if order == 0:
        return nodes, np.full(count, 1 / count)
    fine = nodes_and_weights(level, order - 1)[1]
    coarse = np.zeros(count)
    coarse[1::3] = nodes_and_weights(level - 1, order - 1)[1]
    return nodes, fine + (fine - coarse) / (9**order - 1)


@dataclass(frozen=True)
class NodeTable:
    """Pairs of a node and an input, by node.

    Attributes
    ----------
    nodes : np.ndarray
        Each node and piece once, ascending, shape (n,).
    pieces : np.ndarray
        Start and end of the piece that each node stands for, shape (n, 2); the same place twice for none.
    splits, members : np.ndarray of int32
        Node j belongs to the inputs ``members[splits[j] : splits[j + 1]]``; shapes (n + 1,), (m,).
    order : np.ndarray of int
        Which of the given pairs stands at each place of ``members``, shape (m,).
    """

    nodes: np.ndarray
    pieces: np.ndarray
    splits: np.ndarray
    members: np.ndarray
    order: np.ndarray

    def parts(self, most: int) -> Iterator[tuple[slice, "NodeTable"]]:
        """Yield where some pairs stand, and their table: at most ``most`` pairs, or those of one node."""
        first = 0
        while first < len(self.nodes):
            # The last node with which the part is small enough.
            stop = int(np.searchsorted(self.splits, self.splits[first] + most, side="right")) - 1
            stop = max(stop, first + 1)
            pairs = slice(int(self.splits[first]), int(self.splits[stop]))
            splits = self.splits[first : stop + 1] - self.splits[first]
            own = slice(first, stop)
            table = NodeTable(
                self.nodes[own], self.pieces[own], splits, self.members[pairs], self.order[pairs]
            )
            yield pairs, table
            first = stop


def by_node(nodes: np.ndarray, owners: np.ndarray, pieces: np.ndarray | None = None) -> NodeTable:
    """Sort pairs of nodes and inputs, shape (m,), by node and piece (m, 2)."""
    pieces = _none(nodes) if pieces is None else pieces
    order = np.lexsort((pieces[:, 1], pieces[:, 0], nodes))
    places = np.concatenate([nodes[:, None], pieces], axis=1)[order]
    is_next = (np.diff(places, axis=0, prepend=-1.0) != 0).any(axis=1)
    splits = np.append(np.flatnonzero(is_next), len(nodes)).astype(np.int32)
    used = places[is_next]
    return NodeTable(used[:, 0], used[:, 1:], splits, owners[order].astype(np.int32), order)


def _none(nodes: np.ndarray) -> np.ndarray:
    """Return pieces without length."""
    return np.stack([nodes, nodes], axis=1)


@dataclass(frozen=True)
class Quadrature:
    """The nodes and weights of each input of a block, end to end.

    Attributes
    ----------
    nodes, weights : np.ndarray
        Shape (m,), nodes in [0, 1].
    splits : np.ndarray of int32
        Input i has those at ``splits[i] : splits[i + 1]``, shape (batch + 1,).
    pieces : np.ndarray
        The pieces that the nodes stand for, shape (m, 2).
    """

    nodes: np.ndarray
    weights: np.ndarray
    splits: np.ndarray
    pieces: np.ndarray

    @classmethod
    def of_pairs(
        cls,
        owners: np.ndarray,
        nodes: np.ndarray,
        weights: np.ndarray,
        count: int,
        pieces: np.ndarray | None = None,
    ) -> "Quadrature":
        """Return the quadrature of ``count`` inputs from pairs in any order."""
        pieces = _none(nodes) if pieces is None else pieces
        order = np.lexsort((nodes, owners))
        splits = np.searchsorted(owners[order], np.arange(count + 1)).astype(np.int32)
        return cls(nodes[order], weights[order], splits, pieces[order])

    @classmethod
    def same(cls, count: int, level: int = 0, order: int = 0) -> "Quadrature":
        """Return a quadrature in which ``count`` inputs have the nodes of a level; by default the midpoint alone."""
        nodes, weights = nodes_and_weights(level, order)
        splits = (np.arange(count + 1) * len(nodes)).astype(np.int32)
        nodes = np.tile(nodes, count)
        return cls(nodes, np.tile(weights, count), splits, _none(nodes))

    @property
    def node_count(self) -> int:
        """Number of (input, node) pairs."""
        return len(self.nodes)

    @property
    def owners(self) -> np.ndarray:
        """The input of each pair, shape (m,)."""
        return np.repeat(np.arange(len(self.splits) - 1), np.diff(self.splits))

    @property
    def is_averaged(self) -> np.ndarray:
        """Whether the nodes of each input stand for pieces, shape (batch,)."""
        has_piece = self.pieces[:, 1] > self.pieces[:, 0]
        return np.bincount(self.owners, has_piece, minlength=len(self.splits) - 1) > 0

    def part(self, start: int, stop: int) -> "Quadrature":
        """Return the quadrature of the inputs ``start … stop − 1``."""
        first, last = self.splits[start], self.splits[stop]
        return self._taken(slice(first, last), self.splits[start : stop + 1] - first)

    def rounds(self, most: int) -> Iterator[tuple[np.ndarray, "Quadrature"]]:
        """Yield inputs (b,) and a part of their nodes, which fits into a table of inputs by at most ``most`` nodes.

        At least a third of the places in a table are filled. The first table has all inputs.
        """
        left, first = np.diff(self.splits), self.splits[:-1].copy()
        while (members := np.flatnonzero(left > 0)).size:
            sizes = np.arange(1, min(most, int(left.max())) + 1)
            filled = np.minimum(left[members, None], sizes).sum(axis=0)
            size = int(sizes[3 * filled >= sizes * len(members)][-1])
            counts = np.minimum(left[members], size)
            pairs = np.concatenate([f + np.arange(c) for f, c in zip(first[members], counts, strict=True)])
            splits = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
            yield members, self._taken(pairs, splits)
            first[members] += counts
            left[members] -= counts

    def by_node(self) -> tuple[NodeTable, np.ndarray]:
        """Return the pairs by node, and their weights in that order."""
        table = by_node(self.nodes, self.owners, self.pieces)
        return table, self.weights[table.order]

    def places(self, table: NodeTable) -> np.ndarray:
        """Return the places of each input's pairs in a table, int32 of shape (batch, n); m, past its end, for none."""
        counts = np.diff(self.splits)
        found = np.full((len(counts), int(counts.max())), len(self.nodes), np.int32)
        found[self.owners, np.arange(len(self.nodes)) - self.splits[self.owners]] = np.argsort(
            table.order, kind="stable"
        )
        return found

    def _taken(self, pairs: slice | np.ndarray, splits: np.ndarray) -> "Quadrature":
        return Quadrature(self.nodes[pairs], self.weights[pairs], splits, self.pieces[pairs])
