"""`PathRMSprop`: Keras' RMSprop that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.laws import CenteredRMSpropLaw, RMSpropLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathRMSprop(PathOptimizer, keras.optimizers.RMSprop):
    """``keras.optimizers.RMSprop`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights.

    Parameters
    ----------
    *args, **kwargs
        As in ``keras.optimizers.RMSprop``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathRMSprop(1e-3, momentum=0.9)
    >>> optimizer.law().memory
    0.9
    """

    def law(self) -> RMSpropLaw:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        RMSpropLaw
            Δθ_s = −η_sλ w⊙θ_s − m_s with m_s = μ m_{s−1} + η_s g_s / √(v_s + ε), less ḡ_s² under the root if the
            optimizer is centered (``keras/src/optimizers/rmsprop.py::update_step``).
        """
        law = CenteredRMSpropLaw if self.centered else RMSpropLaw
        return law(
            momentum_share=float(self.momentum),
            epsilon=float(self.epsilon),
            weight_decay=float(self.weight_decay or 0.0),
        )

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        """Return the variables of the momentum, and of the second moment v.

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        tuple of list of keras.Variable
            In the order and shapes of the variables; the first is empty without momentum.
        """
        momentum = self._of(self._momentums, variables) if self.momentum > 0 else []
        return momentum, self._of(self._velocities, variables)

    def further(self, variables: list[Any]) -> dict[str, list[Any]]:
        """Return the variables of the average gradient, if the optimizer is centered.

        Parameters
        ----------
        variables : list of keras.Variable
            Trainable variables that the optimizer was built with.

        Returns
        -------
        dict of str to list of keras.Variable
            In the order and shapes of the variables.
        """
        if not self.centered:
            return {}
        return {"average_gradient": self._of(self._average_gradients, variables)}
