"""Quadrature along one step, refined for each input as far as its completeness error asks.

The integral of ∂f/∂z · Δz over a step is known beforehand: it is f at the end less f at the start. So the
error of a rule is *known* for each input, not estimated, and the nodes of a step are trisected only for those
inputs that miss their budget (ExPLAIND, arXiv:2505.20076, uses 1 to 100 fixed nodes for all).

The midpoints of 3ᵏ equal intervals contain those of 3ᵏ⁻¹: nothing that was evaluated is thrown away. Where
the integrand jumps (ReLU, max-pooling) their plain mean converges like 1/n, and no rule does better. Where it
is smooth, Romberg's extrapolation of the same nodes converges at a high order. Which of them is better is
known, too, from the completeness error.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

Integrand = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


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
class PathRule:
    """The rule found for each input of a block: its level and order of extrapolation.

    Attributes
    ----------
    levels, orders : np.ndarray of int
        Shape (batch,).
    """

    levels: np.ndarray
    orders: np.ndarray

    @property
    def node_count(self) -> int:
        """Number of (input, node) pairs."""
        return int(np.sum(3**self.levels))

    def part(self, start: int, stop: int) -> "PathRule":
        """Return the rule of the inputs ``start … stop − 1``."""
        return PathRule(self.levels[start:stop], self.orders[start:stop])

    def groups(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield the inputs that share nodes and weights: (positions, nodes, weights)."""
        for level, order in sorted(set(zip(self.levels.tolist(), self.orders.tolist(), strict=True))):
            yield (
                np.flatnonzero((self.levels == level) & (self.orders == order)),
                *nodes_and_weights(level, order),
            )

    def flat(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return nodes and weights of all inputs end to end, and where each input's begin: (n,), (n,), (batch + 1,)."""
        rules = [
            nodes_and_weights(*key) for key in zip(self.levels.tolist(), self.orders.tolist(), strict=True)
        ]
        splits = np.cumsum([0, *(len(nodes) for nodes, _ in rules)]).astype(np.int32)
        return np.concatenate([nodes for nodes, _ in rules]), np.concatenate([w for _, w in rules]), splits

    def by_node(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the nodes of all inputs together, each once, and who has them with which weights.

        Returns
        -------
        nodes, splits, members, weights : np.ndarray
            Shapes (n,), (n + 1,), (m,), (m,): node j belongs to the inputs ``members[splits[j] : splits[j + 1]]``.
        """
        finest = int(self.levels.max())
        found: list[list[np.ndarray]] = []
        for level, order in sorted(set(zip(self.levels.tolist(), self.orders.tolist(), strict=True))):
            own = np.flatnonzero((self.levels == level) & (self.orders == order))
            _, weights = nodes_and_weights(level, order)
            # Midpoints of coarse intervals are midpoints of fine ones: numbered as those of the finest level.
            stride = 3 ** (finest - level)
            places = np.arange(3**level) * stride + stride // 2
            found.append(
                [np.repeat(places, len(own)), np.tile(own, len(places)), np.repeat(weights, len(own))]
            )
        places, members, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
        by_place = np.argsort(places, kind="stable")
        used, starts = np.unique(places[by_place], return_index=True)
        nodes = (used + 0.5) / 3**finest
        splits = np.append(starts, len(places)).astype(np.int32)
        return nodes, splits, members[by_place].astype(np.int32), weights[by_place]


def integrate(
    integrand: Integrand, change: np.ndarray, *, budget: np.ndarray, max_level: int
) -> tuple[PathRule, np.ndarray]:
    """Integrate K causes over t in [0, 1] until their sum explains the change of each input.

    Parameters
    ----------
    integrand : callable
        ``(nodes, weights, members) -> (K, len(members), O)``: Σ_j weights_j · ∂f/∂z (z(nodes_j)) · d_k for some
        inputs of the block.
    change : np.ndarray
        f(z(1)) − f(z(0)), shape (batch, O).
    budget : np.ndarray
        Largest |change − Σ_k integral_k| allowed for each entry, shape (batch, O), positive.
    max_level : int
        Most levels of trisection; what is left then stays in the error.

    Returns
    -------
    rule : PathRule
        Level and order for each input.
    integrals : np.ndarray
        Shape (K, batch, O).
    """
    count = len(change)
    levels, orders = np.zeros(count, int), np.zeros(count, int)
    integrals = integrand(*nodes_and_weights(0, 0), np.arange(count))
    active = np.arange(count)
    tableau = [integrals.copy()]  # Romberg's row: orders 0 … level for the active inputs
    for level in range(max_level + 1):
        if level > 0:
            plain = _refine(integrand, tableau[0], level, active)
            tableau = _extrapolate(plain, tableau)
        excess = np.stack([_excess(change[active] - row.sum(axis=0), budget[active]) for row in tableau])
        best = np.argmin(excess, axis=0)
        levels[active], orders[active] = level, best
        integrals[:, active] = np.stack(tableau)[best, :, np.arange(len(active))].swapaxes(0, 1)
        going = excess.min(axis=0) > 1
        if not going.any():
            break
        active = active[going]
        tableau = [row[:, going] for row in tableau]
    return PathRule(levels, orders), integrals


def _excess(error: np.ndarray, budget: np.ndarray) -> np.ndarray:
    return np.max(np.abs(error) / budget, axis=1)


def _refine(integrand: Integrand, coarse: np.ndarray, level: int, active: np.ndarray) -> np.ndarray:
    """Return the plain mean of a level from that of the level below and the nodes that are new."""
    nodes, weights = nodes_and_weights(level, 0)
    is_new = np.arange(len(nodes)) % 3 != 1
    return coarse / 3 + integrand(nodes[is_new], weights[is_new], active)


def _extrapolate(plain: np.ndarray, coarse_row: list[np.ndarray]) -> list[np.ndarray]:
    row = [plain]
    for order, coarse in enumerate(coarse_row, start=1):
        row.append(row[-1] + (row[-1] - coarse) / (9**order - 1))
    return row
