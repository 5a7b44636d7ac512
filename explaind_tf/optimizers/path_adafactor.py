"""`PathAdafactor`: Keras' Adafactor that also notes what it used in each step."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from explaind_tf.laws import AdafactorLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer
from explaind_tf.optimizers.ring_buffer import NOTES
from explaind_tf.optimizers.untracked import Untracked


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathAdafactor(PathOptimizer, keras.optimizers.Adafactor):
    """``keras.optimizers.Adafactor`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights.

    Parameters
    ----------
    *args, **kwargs
        As in ``keras.optimizers.Adafactor``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathAdafactor(1e-2)
    >>> optimizer.law().memory
    0.0
    """

    _scales: Untracked

    def build(self, var_list: list[Any]) -> None:
        """Create the optimizer's variables, and those of the scales beside them."""
        if self.built:
            return
        super().build(var_list)
        with tf.init_scope():  # this may run inside a traced training step
            self._scales = Untracked(
                [keras.Variable(1.0, dtype=v.dtype, trainable=False) for v in self._trainable_variables]
            )

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable as the Keras optimizer does, and note how far the update was scaled."""
        index = self._get_variable_index(variable)
        with tf.name_scope(NOTES):
            size = ops.maximum(ops.cast(self.epsilon_2, variable.dtype), self._rms(variable))
        super().update_step(gradient, variable, learning_rate)
        with tf.name_scope(NOTES):
            update = ops.divide(ops.cast(gradient, variable.dtype), ops.sqrt(self._v[index]))
            excess = ops.maximum(ops.cast(1.0, variable.dtype), self._rms(update) / self.clip_threshold)
            self.assign(self._scales.variables[index], size / excess)

    def law(self) -> AdafactorLaw:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        AdafactorLaw
            Δθ_s = −η_sλ w⊙θ_s − min(η_s, 1/√t) k_s g_s / √v_s (``keras/src/optimizers/adafactor.py::update_step``).
        """
        return AdafactorLaw(weight_decay=float(self.weight_decay or 0.0))

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
        return [], self._of(self._v, variables)

    def further(self, variables: list[Any]) -> dict[str, list[Any]]:
        """Return the variables of k: how far the update of each variable was scaled.

        Parameters
        ----------
        variables : list of keras.Variable
            Trainable variables that the optimizer was built with.

        Returns
        -------
        dict of str to list of keras.Variable
            In the order of the variables.
        """
        return {"update_scale": self._of(self._scales.variables, variables)}
