"""Reads the non-trainable variables of a model, and sees at no cost which of them rest, such as frozen weights."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from explaind_tf.runs.graphs.training_variables import views_of


class StateReader:
    """Reads non-trainable variables. Those that rest are neither copied nor compared.

    TensorFlow changes no value that was read: while it is held, the next update of its variable writes to other memory. So
    a variable that is still at the memory of a held value has that value. What moves once is not held any more, since
    holding it would cost a copy in each step.

    Parameters
    ----------
    variables : sequence of tf.Variable
        The variables.
    """

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self._variables = variables
        self._held = dict(enumerate(views_of(variables)))

    def read(self) -> list[np.ndarray]:
        """Return the values. Of a variable that has rested so far, it is the same array each time."""
        current = self.views()
        for place, view in enumerate(current):
            if self._held.get(place) is not view:
                self._held.pop(place, None)
                current[place] = np.array(view)
        return current

    def views(self) -> list[np.ndarray]:
        """Return the values, valid until the next update. Of a variable that rests, it is the array of :meth:`read`."""
        found = views_of(self._variables)
        for place, held in self._held.items():
            if _address(held) == _address(found[place]):
                found[place] = held
        return found


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])
