"""`PathAdam`: Keras' Adam that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.laws import AdamWLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathAdam(PathOptimizer, keras.optimizers.Adam):
    """``keras.optimizers.Adam`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights.

    Parameters
    ----------
    *args, **kwargs
        As in ``keras.optimizers.Adam``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathAdam(1e-3, beta_2=0.98)
    >>> optimizer.law().weight_decay
    0.0
    """

    def law(self) -> AdamWLaw:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        AdamWLaw
            Δθ_s = −η_sλ w⊙θ_s − P_s m_s, with ε added to the uncorrected √v
            (``keras/src/optimizers/adam.py::update_step``).
        """
        return AdamWLaw(
            beta_1=float(self.beta_1),
            beta_2=float(self.beta_2),
            epsilon=float(self.epsilon),
            weight_decay=float(self.weight_decay or 0.0),
        )

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        """Return the variables of the momentum m and of the second moment: v, or with amsgrad its maximum so far.

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        tuple of list of keras.Variable
            Moments in the order and shapes of the variables.
        """
        divisors = self._velocity_hats if self.amsgrad else self._velocities
        return self._of(self._momentums, variables), self._of(divisors, variables)
