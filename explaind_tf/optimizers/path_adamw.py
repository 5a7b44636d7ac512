"""`PathAdamW`: Keras' AdamW that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.laws import AdamWLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathAdamW(PathOptimizer, keras.optimizers.AdamW):
    """``keras.optimizers.AdamW`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights. It adds its displacement law and a ring
    buffer of the learning rates and clipping factors that were used. The buffer is not in ``optimizer.variables``.
    For Adam without decay, pass ``weight_decay=0``.

    Parameters
    ----------
    learning_rate, weight_decay, beta_1, beta_2, epsilon, amsgrad, name, **kwargs
        As in ``keras.optimizers.AdamW``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathAdamW(1e-3, weight_decay=4.0, beta_2=0.98)
    >>> optimizer.law().memory
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        *,
        name: str = "path_adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            amsgrad=amsgrad,
            name=name,
            **kwargs,
        )

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
            weight_decay=float(self.weight_decay),
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
        variables = self._trainable_variables if variables is None else variables
        indices = [self._get_variable_index(variable) for variable in variables]
        divisors = self._velocity_hats if self.amsgrad else self._velocities
        return [self._momentums[i] for i in indices], [divisors[i] for i in indices]
