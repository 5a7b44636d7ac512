"""`PathAdamax`: Keras' Adamax that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.laws import AdamaxLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathAdamax(PathOptimizer, keras.optimizers.Adamax):
    """``keras.optimizers.Adamax`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights.

    Parameters
    ----------
    *args, **kwargs
        As in ``keras.optimizers.Adamax``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathAdamax(1e-3)
    >>> optimizer.law().memory
    0.9
    """

    def law(self) -> AdamaxLaw:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        AdamaxLaw
            Δθ_s = −η_sλ w⊙θ_s − η_s m_s / ((1 − β₁ᵗ) (u_s + ε)) (``keras/src/optimizers/adamax.py::update_step``).
        """
        return AdamaxLaw(
            beta_1=float(self.beta_1),
            epsilon=float(self.epsilon),
            weight_decay=float(self.weight_decay or 0.0),
        )

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        """Return the variables of the momentum m and of the largest gradients u.

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        tuple of list of keras.Variable
            In the order and shapes of the variables.
        """
        return self._of(self._m, variables), self._of(self._u, variables)
