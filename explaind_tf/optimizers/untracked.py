"""Variables that an optimizer reads or notes and that are not part of its state."""

from dataclasses import dataclass
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
