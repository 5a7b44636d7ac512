"""Rows of the reverse sweep: how the use of each batch's gradient moves measurements.

The sweep goes backwards through the updates, from the last one to the first, with one row Ψ for each measurement. Ψ adds
up how far a unit of momentum at a step moves the measurement in that step and in all later ones. All rows together are as
large as the model times the number of measurements, so only those that the recursion needs are kept.
"""

from collections import deque
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import tensorflow as tf

# From this many elements of rows on, it pays to compile the recursion.
_WORTH_FUSING = 2**22


@dataclass(frozen=True)
class Update:
    """The coefficients of one update of the weights; vectors are of shape (D,).

    Attributes
    ----------
    gain, direct : float or np.ndarray
        What a unit of gradient adds to the momentum, and how far it moves a weight without the momentum. An array of shape
        (D,) where this differs from weight to weight.
    pull : np.ndarray
        How far a unit of momentum moves a weight, shape (D,) or ().
    scale : np.ndarray
        κ divided by the number of accumulated batches, shape (D,) or (). A batch's gradient times this is its part of
        the update's gradient.
    """

    gain: float | np.ndarray
    direct: float | np.ndarray
    pull: np.ndarray
    scale: np.ndarray

    @cached_property
    def is_direct(self) -> bool:
        """Whether a gradient also moves weights without the momentum."""
        return bool(np.any(self.direct))

    def direct_of_gained(self) -> float | np.ndarray:
        """Return how far a unit that a gradient adds to the momentum moves a weight without the momentum: direct / gain.

        A gradient that adds nothing to the momentum, a gain of 0, cannot be told from it: the result is then 0.
        """
        if np.ndim(self.gain) == 0:
            return self.direct / self.gain if self.gain else 0.0
        return np.divide(self.direct, self.gain, out=np.zeros_like(self.gain), where=self.gain != 0)


@dataclass(frozen=True)
class UpdateRows:
    """How momentum and gradient of one update move the measurements of a block.

    Attributes
    ----------
    step : int
        Step number.
    phi : tf.Tensor or None
        How far a unit of each weight moves the measurements in this step, shape (F, D); None for a step that is not
        accounted for.
    update : Update
        How momentum and gradient move the weights.
    """

    step: int
    phi: tf.Tensor | None
    update: Update


@dataclass(frozen=True)
class UseRows:
    """How the use of a batch's gradient moves measurements: rows (F, D), times a factor.

    The factor is kept apart because it is cheaper to multiply the products with samples by it than the rows. Rows are as
    large as the model times the number of measurements.
    """

    rows: tf.Tensor
    factor: float = 1.0


@dataclass(frozen=True)
class EffectRows:
    """How one update moves the measurements in one later step, or in all: a share of the rows Ψ.

    Attributes
    ----------
    update : UpdateRows
        The update.
    psi : tf.Tensor
        Ψ, shape (F, D).
    share : float
        The share of Ψ.
    is_direct : bool
        Whether the gradient's effect without the momentum, which is in the update's own step, is a part of it.
    """

    update: UpdateRows
    psi: tf.Tensor
    share: float
    is_direct: bool

    def of_gradient(self) -> UseRows:
        """Return how far a unit of the gradient of one of the update's batches moves the measurements."""
        coefficients = self.update.update
        gained = self.share * coefficients.gain * coefficients.scale
        if gained.ndim == 0 and not self._adds_direct:
            return UseRows(self.psi, float(gained))
        rows = self._times(self.psi, gained)
        return UseRows(self._with_direct(rows, coefficients.direct * coefficients.scale))

    def of_momentum(self) -> UseRows:
        """Return how far a unit that the update adds to the momentum moves the measurements."""
        coefficients = self.update.update
        if not self._adds_direct:
            return UseRows(self.psi, self.share)
        rows = self._times(self.psi, np.asarray(self.share))
        return UseRows(self._with_direct(rows, np.asarray(coefficients.direct_of_gained())))

    @property
    def _adds_direct(self) -> bool:
        return self.is_direct and self.update.update.is_direct

    def _with_direct(self, rows: tf.Tensor, factor: np.ndarray) -> tf.Tensor:
        if not self._adds_direct:
            return rows
        assert self.update.phi is not None, "only a step that is accounted for has a direct part"
        return rows + self._times(self.update.phi, factor)

    def _times(self, rows: tf.Tensor, factor: np.ndarray) -> tf.Tensor:
        return rows * factor.astype(rows.dtype.as_numpy_dtype)


@dataclass(frozen=True)
class LaterRows:
    """What the updates before a step take over from those after it.

    Attributes
    ----------
    psi : tf.Tensor
        Ψ of the next update that is accounted for, shape (F, D).
    left : float
        Share of Ψ that the updates since then, which are not accounted for, left of it.
    """

    psi: tf.Tensor
    left: float = 1.0


class RowsByUse:
    """The rows gain_i Ψ_i plus the direct part of update i, with Ψ_i = memory · Ψ_{i+1} + Φ_i ⊙ pull_i.

    The influence of a sample through its use at update i, in step i and all later ones, is ⟨rows_i, ω ∇ℓ_k(θ_i)⟩.

    Parameters
    ----------
    memory : float
        Share of the momentum that survives an update (β₁).
    forgets : bool
        Whether what is left of a gradient in the momentum may become negligible.
    later : LaterRows, optional
        What is known of updates after those that will be taken.
    """

    def __init__(self, memory: float, *, forgets: bool = True, later: LaterRows | None = None) -> None:
        self._memory, self._forgets = memory, forgets
        self._psi = None if later is None else later.psi
        self._left = 1.0 if later is None else later.left

    @property
    def leaving(self) -> LaterRows | None:
        """What the updates before those taken so far take over, None if none was accounted for."""
        return None if self._psi is None else LaterRows(self._psi, self._left)

    def take(self, update: UpdateRows) -> dict[int, EffectRows] | None:
        """Take the update before those taken so far, and return its rows under the number of its step.

        The result is empty until an update is accounted for. None says that this update and all before it have no effect
        above rounding.
        """
        if update.phi is not None:
            self._psi, self._left = _recall(self._psi, update, self._memory * self._left), 1.0
        elif self._psi is not None:
            self._left *= self._memory
            if self._forgets and self._left < np.finfo(self._psi.dtype.as_numpy_dtype).eps:
                return None
        if self._psi is None:
            return {}
        return {update.step: EffectRows(update, self._psi, self._left, is_direct=update.phi is not None)}


class RowsByEffect:
    """The rows of each effect step s ≥ i on its own: memory^(updates between) · gain_i · Φ_s ⊙ pull_s.

    Holds the rows of all effect steps until their weight falls below rounding, if it may.

    Parameters
    ----------
    memory, forgets
        As in :class:`RowsByUse`.
    """

    def __init__(self, memory: float, *, forgets: bool = True) -> None:
        self._memory, self._forgets = memory, forgets
        self._position = -1
        self._window: deque[tuple[int, int, tf.Tensor]] = deque()

    def take(self, update: UpdateRows) -> dict[int, EffectRows] | None:
        """Take the update before those taken so far, and return its rows by effect step."""
        self._position += 1
        if update.phi is not None:
            self._window.appendleft((self._position, update.step, _recall(None, update, self._memory)))
        while self._window and self._is_forgotten(*self._window[-1]):
            self._window.pop()
        return {
            effect: EffectRows(update, pulled, self._share(later), is_direct=effect == update.step)
            for later, effect, pulled in self._window
        }

    def _share(self, later: int) -> float:
        """Return the share of the momentum gained in this update that is left at a later one."""
        return self._memory ** (self._position - later)

    def _is_forgotten(self, later: int, effect: int, pulled: tf.Tensor) -> bool:
        return self._forgets and bool(self._share(later) < np.finfo(pulled.dtype.as_numpy_dtype).eps)


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
# One pass over memory instead of three. Compiling costs as much time as that saves on some GB of rows.
_advance_fused = tf.function(_add_pulled, autograph=False, jit_compile=True)
