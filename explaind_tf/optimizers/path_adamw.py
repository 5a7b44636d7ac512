"""`PathAdamW`: Keras' AdamW that also notes what it used in each step."""

from typing import Any

import keras

from explaind_tf.optimizers.path_adam import PathAdam


@keras.saving.register_keras_serializable(package="explaind_tf")
class PathAdamW(PathAdam, keras.optimizers.AdamW):
    """``keras.optimizers.AdamW`` whose steps can be accounted for.

    A drop-in replacement: same arguments, and bit for bit the same weights. It adds its displacement law and a ring
    buffer of the learning rates and clipping factors that were used. The buffer is not in ``optimizer.variables``.
    For Adam without decay, see :class:`PathAdam`.

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
