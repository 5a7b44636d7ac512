"""Integrands with a known closed form, integrated like a step."""

import numpy as np

from explaind_tf.kernel.quadrature.cells import Integrand
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.kernel.quadrature.refinement import integrate


class Integrands:
    """Several inputs, one output, one cause; counts the evaluations of each input."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.evaluated = np.zeros(count, int)

    def values(self, nodes: np.ndarray, owners: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        """Return the derivative by t, shape (m,)."""
        raise NotImplementedError

    def measure(self, nodes: np.ndarray, owners: np.ndarray, pieces: np.ndarray | None = None) -> np.ndarray:
        """Return f, shape (m, 1)."""
        raise NotImplementedError

    def _counted(self, nodes: np.ndarray, owners: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        np.add.at(self.evaluated, owners, 1)
        return self.values(nodes, owners, pieces)[:, None, None]

    def integrate(
        self,
        budget: float,
        *,
        averaged: np.ndarray | None = None,
        max_nodes: int = 729,
        rounding: float = 1e-15,
        may_jump: bool = False,
    ) -> tuple[Quadrature, np.ndarray]:
        """Return the quadrature, and its error for each input, in which jumps are errors."""
        every = np.arange(self.count)
        start, end = self.measure(0.0 * every, every), self.measure(1.0 + 0 * every, every)
        found = integrate(
            Integrand(self._counted, self.measure, np.full(start.shape, budget)),
            start,
            end,
            rounding=rounding,
            max_nodes=max_nodes,
            averaged=averaged,
            may_jump=may_jump,
        )
        quadrature, integrals, self.jumps = found
        # The returned quadrature gives exactly the integral that was reported.
        values = self.values(quadrature.nodes, quadrature.owners, quadrature.pieces)
        again = np.bincount(quadrature.owners, quadrature.weights * values, minlength=self.count)
        np.testing.assert_allclose(again, integrals[0, :, 0], atol=1e-12)
        return quadrature, (end - start - integrals.sum(axis=0))[:, 0]
