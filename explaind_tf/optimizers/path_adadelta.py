"""`PathAdadelta`: Keras' Adadelta that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.laws import AdadeltaLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathAdadelta(PathOptimizer, keras.optimizers.Adadelta):
    """``keras.optimizers.Adadelta`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights.

    Parameters
    ----------
    *args, **kwargs
        As in ``keras.optimizers.Adadelta``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathAdadelta(1.0)
    >>> optimizer.law().memory
    0.0
    """

    def law(self) -> AdadeltaLaw:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        AdadeltaLaw
            Δθ_s = −η_sλ w⊙θ_s − η_s √(x_{s−1} + ε) / √(v_s + ε) ⊙ g_s (``keras/src/optimizers/adadelta.py::update_step``).
        """
        return AdadeltaLaw(epsilon=float(self.epsilon), weight_decay=float(self.weight_decay or 0.0))

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        """Return an empty list, and the variables of the second moment v.

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        tuple of list of keras.Variable
            In the order and shapes of the variables; the first is empty.
        """
        return [], self._of(self._accumulated_grads, variables)

    def further(self, variables: list[Any]) -> dict[str, list[Any]]:
        """Return the variables of the squared displacements x.

        Parameters
        ----------
        variables : list of keras.Variable
            Trainable variables that the optimizer was built with.

        Returns
        -------
        dict of str to list of keras.Variable
            In the order and shapes of the variables.
        """
        return {"accumulated_delta_var": self._of(self._accumulated_delta_vars, variables)}
