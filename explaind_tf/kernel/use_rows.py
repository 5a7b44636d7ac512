"""Rows of the reverse sweep: what the use of each batch's gradient does to measurements.

It walks backwards with one row Ψ a measurement, which gathers how a unit of gradient at a step would have moved the
measurement in that step and, through momentum, in all later ones. Updates are handed over one by one, from the last one
back. Rows are as large as the model times the measurements: no more are kept than the recursion needs.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

# Elements of rows from which it pays to compile what is done with them at each step.
_WORTH_FUSING = 2**22


@dataclass(frozen=True)
class Update:
    """The coefficients of one update of the weights; vectors are of shape (D,).

    Attributes
    ----------
    gain, direct : float
        What a unit of gradient adds to the momentum, and moves a weight by besides.
    pull : np.ndarray
        What a unit of momentum moves a weight by, shape (D,) or ().
    scale : np.ndarray
        κ over the number of accumulated batches, shape (D,) or (): makes gradients of batches that of the update.
    """

    gain: float
    direct: float
    pull: np.ndarray
    scale: np.ndarray


@dataclass(frozen=True)
class UpdateRows:
    """How one update turns momentum and gradient into the measurements of a block.

    Attributes
    ----------
    step : int
        Step number.
    phi : tf.Tensor or None
        What a unit of each weight moves the measurements by in this very step, shape (F, D); None for a step that is not
        accounted for.
    update : Update
        How momentum and gradient move the weights.
    """

    step: int
    phi: tf.Tensor | None
    update: Update

    def of_use(self, psi: tf.Tensor, share: float = 1.0, *, is_direct: bool) -> "UseRows":
        """Return what a unit of this update's batch gradient does through a share of the rows Ψ of its momentum.

        Parameters
        ----------
        psi : tf.Tensor
            Shape (F, D).
        share : float
            Which one.
        is_direct : bool
            Whether to add what it does besides, in this step.
        """
        if self.update.scale.ndim == 0 and not (is_direct and self.update.direct):
            return UseRows(psi, share * self.update.gain * float(self.update.scale))
        dtype = psi.dtype.as_numpy_dtype
        rows = psi * np.asarray(share * self.update.gain * self.update.scale).astype(dtype)
        if is_direct and self.update.direct:
            assert self.phi is not None, "only what is accounted for does something directly"
            rows = rows + self.phi * np.asarray(self.update.direct * self.update.scale).astype(dtype)
        return UseRows(rows)


@dataclass(frozen=True)
class UseRows:
    """What the use of a batch's gradient does to measurements: rows (F, D), times a factor.

    The factor is kept apart: rows are as large as the model times the measurements, and their products with samples small.
    """

    rows: tf.Tensor
    factor: float = 1.0


class RowsByUse:
    """The rows gain_i Ψ_i + what update i does directly, with Ψ_i = memory · Ψ_{i+1} + Φ_i ⊙ pull_i.

    A sample's influence through its use at update i, in step i and in all later ones, is ⟨rows_i, ω ∇ℓ_k(θ_i)⟩.

    Parameters
    ----------
    memory : float
        Share of the momentum that survives an update (β₁).
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._psi: tf.Tensor | None = None
        self._left = 1.0  # of Ψ, since the last update that is accounted for

    def take(self, update: UpdateRows) -> dict[int, UseRows] | None:
        """Take the update before those taken so far, and return its rows, filed under its step.

        Nothing is filed while no update was accounted for. None says that this update and those before it cannot matter
        any more.
        """
        if update.phi is not None:
            self._psi, self._left = _recall(self._psi, update, self._memory * self._left), 1.0
        elif self._psi is not None:
            self._left *= self._memory
            if self._left < np.finfo(self._psi.dtype.as_numpy_dtype).eps:
                return None
        if self._psi is None:
            return {}
        return {update.step: update.of_use(self._psi, self._left, is_direct=update.phi is not None)}


class RowsByEffect:
    """The rows of each effect step s ≥ i, told apart: memory^(updates between) · gain_i · Φ_s ⊙ pull_s.

    Holds the rows of all effect steps until their weight falls below rounding.

    Parameters
    ----------
    memory : float
        As in :class:`RowsByUse`.
    """

    def __init__(self, memory: float) -> None:
        self._memory = memory
        self._position = -1
        self._window: deque[tuple[int, int, tf.Tensor]] = deque()

    def take(self, update: UpdateRows) -> dict[int, UseRows] | None:
        """Take the update before those taken so far, and return its rows by effect step."""
        self._position += 1
        if update.phi is not None:
            self._window.appendleft((self._position, update.step, _recall(None, update, self._memory)))
        while self._window and self._is_forgotten(*self._window[-1]):
            self._window.pop()
        return {
            effect: update.of_use(pulled, self._share(later), is_direct=effect == update.step)
            for later, effect, pulled in self._window
        }

    def _share(self, later: int) -> float:
        """Return what of the momentum gained now is left at a later update."""
        return self._memory ** (self._position - later)

    def _is_forgotten(self, later: int, effect: int, pulled: tf.Tensor) -> bool:
        return bool(self._share(later) < np.finfo(pulled.dtype.as_numpy_dtype).eps)


def _recall(psi: tf.Tensor | None, update: UpdateRows, memory: float) -> tf.Tensor:
    """Return memory · Ψ + Φ ⊙ pull."""
    assert update.phi is not None
    dtype = update.phi.dtype
    pull = tf.constant(update.update.pull.astype(dtype.as_numpy_dtype))
    if psi is None:
        return update.phi * pull
    advance = _advance_fused if update.phi.shape.num_elements() >= _WORTH_FUSING else _advance
    return advance(psi, tf.constant(memory, dtype), update.phi, pull)


def _add_pulled(psi: tf.Tensor, memory: tf.Tensor, phi: tf.Tensor, pull: tf.Tensor) -> tf.Tensor:
    return psi * memory + phi * pull


_advance = tf.function(_add_pulled, autograph=False, reduce_retracing=True)
# One pass over memory instead of three; compiling takes as long as that saves on some GB of rows.
_advance_fused = tf.function(_add_pulled, autograph=False, jit_compile=True)
