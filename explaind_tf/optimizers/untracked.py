"""Variables that an optimizer reads or notes and that are not part of its state."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Untracked:
    """Holds variables so that neither Keras nor TensorFlow tracks them.

    Keras adds each variable that an optimizer's attribute holds, also in a list, to ``optimizer.variables``. With one more
    there, it skips all of them when it loads a saved optimizer.

    Attributes
    ----------
    variables : list of keras.Variable
        The variables.
    """

    variables: list[Any]


@dataclass(frozen=True)
class ByReplica:
    """Holds a tensor of each replica from where it is computed to where it is noted. It is not tracked either.

    Attributes
    ----------
    tensors : dict of int to tf.Tensor
        The tensors by the number of the replica.
    """

    tensors: dict[int, Any] = field(default_factory=dict)
