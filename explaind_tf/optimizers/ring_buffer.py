"""Ring buffers of what an optimizer used and produced in each of its last steps."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from explaind_tf.replicas import first_copy, own_copy

SLOTS = 64
# Name scope of the operations that write the buffers. The training step is the same without them.
NOTES = "path_notes"
# Up to this many elements, all slots of a buffer are read faster than one.
_SMALL = 1024


class StepScalars(NamedTuple):
    """What the optimizer used in one update.

    Attributes
    ----------
    learning_rate : float
        η.
    clip_factors : np.ndarray or None
        For each variable that the optimizer was built with, the factor by which its gradient was clipped; None
        without clipping by norm.
    """

    learning_rate: float
    clip_factors: np.ndarray | None


class RingBuffer:
    """The last values of some tensors, written inside the compiled training step and read between steps.

    The buffers are plain ``tf.Variable``s. Neither Keras nor TensorFlow tracks the object that holds them:
    with one more variable in ``optimizer.variables``, Keras would skip all of them when it loads a saved
    optimizer.

    Parameters
    ----------
    specs : sequence of tf.TensorSpec
        Shapes and dtypes of the tensors.
    slots : int
        How many steps are kept.

    Attributes
    ----------
    buffers : list of tf.Variable
        One for each tensor, shape (slots, ...). The value of raw counter i is in slot i modulo slots.
    """

    def __init__(self, specs: Sequence[tf.TensorSpec], slots: int = SLOTS) -> None:
        # This may run inside a traced training step, and the variables must outlive the trace.
        with tf.init_scope():
            self._iterations = tf.Variable(tf.fill([slots], tf.constant(-1, tf.int64)), trainable=False)
            self.buffers = [
                tf.Variable(tf.zeros([slots, *spec.shape], spec.dtype), trainable=False) for spec in specs
            ]
        self._slots = slots

    def write(self, iteration: tf.Tensor, values: Sequence[Any]) -> None:
        """Note the values at a step's counter (graph mode, XLA or eager)."""
        with tf.name_scope(NOTES):
            iteration = tf.cast(iteration, tf.int64)
            slot = tf.cast(iteration % self._slots, tf.int32)
            _set(self._iterations, slot, iteration)
            for buffer, value in zip(self.buffers, values, strict=True):
                _set(buffer, slot, tf.cast(tf.convert_to_tensor(value), buffer.dtype))

    def holds(self, iteration: int) -> bool:
        """Return whether values were noted at that counter and are still there."""
        return int(_value(self._iterations)[iteration % self._slots]) == iteration

    def read(self, iteration: int) -> list[np.ndarray]:
        """Return what was noted at ``iteration`` (the optimizer's raw counter before that step).

        Raises
        ------
        LookupError
            If nothing was noted then, or it has been overwritten since.
        """
        if not self.holds(iteration):
            raise LookupError(
                f"The optimizer holds no record of iteration {iteration}. It keeps the last {self._slots} steps: "
                f"read them at least once every {self._slots} steps."
            )
        slot = iteration % self._slots
        return [_at(buffer, slot) for buffer in self.buffers]


def _set(buffer: tf.Variable, slot: tf.Tensor, value: tf.Tensor) -> None:
    """Set one slot; under a strategy in the copy of the replica that is running."""
    own_copy(buffer).scatter_nd_update(slot[None, None], value[None])


def _at(buffer: tf.Variable, slot: int) -> np.ndarray:
    if buffer.shape.num_elements() <= _SMALL:
        return _value(buffer)[slot]
    # One operation on the variable; indexing it would read all slots first.
    return first_copy(buffer).gather_nd([slot]).numpy()


def _value(variable: tf.Variable) -> np.ndarray:
    """Return a copy of the value; ``Variable.numpy()`` takes ten times as long."""
    return tf.raw_ops.ReadVariableOp(resource=first_copy(variable).handle, dtype=variable.dtype).numpy()
