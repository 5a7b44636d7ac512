"""`PathSGD`: Keras' SGD that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.laws import SGDLaw
from explaind_tf.optimizers.path_optimizer import PathOptimizer


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathSGD(PathOptimizer, keras.optimizers.SGD):
    """``keras.optimizers.SGD`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights. That holds with and without momentum,
    Nesterov's or not, and with and without decoupled weight decay.

    Parameters
    ----------
    learning_rate, momentum, nesterov, weight_decay, name, **kwargs
        As in ``keras.optimizers.SGD``: clipping, moving averages and gradient accumulation included.

    Examples
    --------
    >>> import explaind_tf as xtf
    >>> optimizer = xtf.PathSGD(0.1, momentum=0.9, nesterov=True)
    >>> optimizer.law().memory
    0.9
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        *,
        name: str = "path_sgd",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate=learning_rate,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            name=name,
            **kwargs,
        )

    def law(self) -> SGDLaw:
        """Return the displacement law with this optimizer's constants.

        Returns
        -------
        SGDLaw
            Δθ_s = −η_sλ w⊙θ_s + m_s with m_s = μ m_{s−1} − η_s g_s (``keras/src/optimizers/sgd.py::update_step``).
        """
        return SGDLaw(
            momentum_share=float(self.momentum),
            nesterov=bool(self.nesterov),
            weight_decay=float(self.weight_decay or 0.0),
        )

    def moments(self, variables: list[Any] | None = None) -> tuple[list[Any], list[Any]]:
        """Return the variables that hold the velocity (none without momentum), and an empty list.

        Parameters
        ----------
        variables : list of keras.Variable, optional
            Trainable variables that the optimizer was built with. Default: all.

        Returns
        -------
        tuple of list of keras.Variable
            Velocities in the order and shapes of the variables.
        """
        return self._of(self.momentums, variables) if self.momentums else [], []
