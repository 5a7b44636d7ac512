"""`PathNadam`: Keras' Nadam that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.laws import NadamLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathNadam(PathOptimizer, keras.optimizers.Nadam):
    """``keras.optimizers.Nadam`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights.

    Parameters
    ----------
    *args, **kwargs
        As in ``keras.optimizers.Nadam``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathNadam(1e-3, beta_1=0.5)
    >>> optimizer.law().memory
    0.5
    """

    def law(self) -> NadamLaw:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        NadamLaw
            Δθ_s = −η_sλ w⊙θ_s − R_s (… m_s + … g_s) (``keras/src/optimizers/nadam.py::update_step``).
        """
        return NadamLaw(
            beta_1=float(self.beta_1),
            beta_2=float(self.beta_2),
            epsilon=float(self.epsilon),
            weight_decay=float(self.weight_decay or 0.0),
        )

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        """Return the variables of the momentum m and of the second moment v.

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        tuple of list of keras.Variable
            In the order and shapes of the variables.
        """
        return self._of(self._momentums, variables), self._of(self._velocities, variables)

    def further(self, variables: list[Any]) -> dict[str, list[Any]]:
        """Return the variable of the product of the shares u.

        Parameters
        ----------
        variables : list of keras.Variable
            Trainable variables that the optimizer was built with.

        Returns
        -------
        dict of str to list of keras.Variable
            The list has one element.
        """
        return {"u_product": [self._u_product]}
