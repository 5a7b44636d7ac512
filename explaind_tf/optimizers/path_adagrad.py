"""`PathAdagrad`: Keras' Adagrad that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.laws import AdagradLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathAdagrad(PathOptimizer, keras.optimizers.Adagrad):
    """``keras.optimizers.Adagrad`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights.

    Parameters
    ----------
    *args, **kwargs
        As in ``keras.optimizers.Adagrad``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathAdagrad(0.01)
    >>> optimizer.law().memory
    0.0
    """

    def law(self) -> AdagradLaw:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        AdagradLaw
            Δθ_s = −η_sλ w⊙θ_s − η_s g_s / √(a_s + ε) (``keras/src/optimizers/adagrad.py::update_step``).
        """
        return AdagradLaw(epsilon=float(self.epsilon), weight_decay=float(self.weight_decay or 0.0))

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        """Return an empty list, and the variables of the accumulated squares a.

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        tuple of list of keras.Variable
            In the order and shapes of the variables; the first is empty.
        """
        return [], self._of(self._accumulators, variables)
