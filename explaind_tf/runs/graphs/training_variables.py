"""The variables of a model in training, read into snapshots and set from them.

They are used both in the original training and when steps are trained again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import tensorflow as tf

from explaind_tf.replicas import first_copy
from explaind_tf.runs.format.step_records import Snapshot


@dataclass(frozen=True)
class TrainingVariables:
    """All variables that a training step depends on, as in :class:`Snapshot`. A list is empty if there are none."""

    parameters: list[tf.Variable]
    state: list[tf.Variable]
    momentum: list[tf.Variable]
    second_moment: list[tf.Variable]
    accumulated: list[tf.Variable]
    optimizer: list[tf.Variable]

    def by_group(self) -> dict[str, list[tf.Variable]]:
        """Return the lists by name, in order."""
        return {group.name: getattr(self, group.name) for group in fields(self)}

    def snapshot(self) -> Snapshot:
        """Return copies of the current values of all variables."""
        return self.pack([value for group in self.by_group().values() for value in views_of(group)])

    def pack(self, values: Sequence[np.ndarray], *, copies_state: bool = True) -> Snapshot:
        """Return a snapshot that copies the given values, in the order of :meth:`by_group`, the state only if asked to."""
        left = iter(values)
        weights, state, momentum, second_moment, accumulated, optimizer = (
            [next(left) for _ in group] for group in self.by_group().values()
        )
        waiting = flat_or_none(accumulated)
        return Snapshot(
            theta=np.concatenate([array.reshape(-1) for array in weights]),
            state=[np.array(value) for value in state] if copies_state else state,
            momentum=flat_or_none(momentum),
            second_moment=flat_or_none(second_moment),
            accumulated=waiting if waiting is not None and waiting.any() else None,
            optimizer=[np.array(value) for value in optimizer],
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Set all variables from a snapshot."""
        self.set_parameters(snapshot.theta)
        self.set_state(snapshot.state)
        _set_flat(self.momentum, snapshot.momentum)
        _set_flat(self.second_moment, snapshot.second_moment)
        _set_flat(self.accumulated, snapshot.accumulated)
        _set(self.optimizer, snapshot.optimizer)

    def set_parameters(self, theta: np.ndarray) -> None:
        """Set the weights from a vector, shape (D,)."""
        _set_flat(self.parameters, theta)

    def set_state(self, state: Sequence[np.ndarray], *, keeps_floats: bool = False) -> None:
        """Set the non-trainable variables, or only those that are not floating-point: seeds and counters."""
        for variable, value in zip(self.state, state, strict=True):
            if not (keeps_floats and variable.dtype.is_floating):
                variable.assign(value)


def views_of(variables: Sequence[tf.Variable]) -> list[np.ndarray]:
    """Return the current values of variables without copying them.

    While such a view exists, the next change of its variable makes a copy. `Variable.numpy()` takes ten times as long.
    """
    return [
        np.asarray(tf.raw_ops.ReadVariableOp(resource=v.handle, dtype=v.dtype))
        for v in map(first_copy, variables)
    ]


def flat_or_none(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return arrays as one vector, None if there are none."""
    return np.concatenate([array.reshape(-1) for array in arrays]) if arrays else None


def _set(variables: Sequence[tf.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _set_flat(variables: Sequence[tf.Variable], vector: np.ndarray | None) -> None:
    """Set variables to the pieces of a vector, or to zero if there is no vector."""
    if vector is None:
        _set(variables, [np.zeros(v.shape, v.dtype.as_numpy_dtype) for v in variables])
        return
    sizes = [variable.shape.num_elements() for variable in variables]
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    _set(variables, [piece.reshape(v.shape) for v, piece in zip(variables, pieces, strict=True)])
