"""`PathLion`: Keras' Lion that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.laws import LionLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathLion(PathOptimizer, keras.optimizers.Lion):
    """``keras.optimizers.Lion`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights.

    Parameters
    ----------
    *args, **kwargs
        As in ``keras.optimizers.Lion``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathLion(1e-4, beta_2=0.5)
    >>> optimizer.law().memory
    0.5
    """

    def law(self) -> LionLaw:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        LionLaw
            Δθ_s = −η_sλ w⊙θ_s − η_s c_s / |c_s| (``keras/src/optimizers/lion.py::update_step``).
        """
        return LionLaw(
            beta_1=float(self.beta_1), beta_2=float(self.beta_2), weight_decay=float(self.weight_decay or 0.0)
        )

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        """Return the variables of the momentum, and an empty list.

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        tuple of list of keras.Variable
            In the order and shapes of the variables; the second is empty.
        """
        return self._of(self._momentums, variables), []

    def build(self, var_list: list[Any]) -> None:
        """Create the optimizer's variables.

        Raises
        ------
        ValueError
            If ``beta_2`` is 0 or 1: the momentum does then not show what a step used.
        """
        self.law()
        super().build(var_list)
