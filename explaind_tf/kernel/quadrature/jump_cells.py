"""Jumps of a function along a step.

The error of a cell falls with the cell's width, unless the function jumps within the cell: then the height of the jump
remains. A cell is taken to hold a jump if its error is larger than what the steepest slope of the step, four times over,
could give it. A kink is mistaken for a jump only if its slope was seen nowhere else in the step. What it did is then less
than that slope would do in 1/729 of the step.
"""

import numpy as np

from explaind_tf.kernel.quadrature.cells import UNITS, Cells

# Cells are looked at from this width on.
_NARROW = UNITS // 3**6
# How many times the steepest slope seen in a step may be exceeded where no node is.
_STEEPER = 4.0


class Jumps:
    """The jumps that were found in one step.

    Parameters
    ----------
    shape : tuple of int
        (batch, O).
    rounding : float
        Rounding error of f.

    Attributes
    ----------
    found : np.ndarray
        The sum of the jumps, shape (batch, O).
    """

    def __init__(self, shape: tuple[int, ...], rounding: float) -> None:
        self.found, self._steepest, self._rounding = np.zeros(shape), np.zeros(shape), rounding

    def take(self, cells: list[Cells]) -> list[np.ndarray]:
        """Add the errors of cells that hold a jump, and return for each formula which ones they are, shape (c,)."""
        for c in cells:
            slopes = np.abs(c.values.sum(axis=2)).max(axis=1)
            np.maximum.at(self._steepest, c.owner, slopes)
        return [self._taken(c) for c in cells]

    def _taken(self, cells: Cells) -> np.ndarray:
        width = cells.at.width[:, None] / UNITS
        explained = _STEEPER * self._steepest[cells.owner] * width + 2 * self._rounding
        is_jump: np.ndarray = (np.abs(cells.error) > explained).any(axis=1) & (cells.at.width <= _NARROW)
        np.add.at(self.found, cells.owner[is_jump], cells.error[is_jump])
        return is_jump
