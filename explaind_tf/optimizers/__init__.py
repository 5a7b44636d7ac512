"""Path optimizers: Keras optimizers that also note what only they see in a step."""

from explaind_tf.laws import AdamWLaw, Law, SGDLaw
from explaind_tf.optimizers.path_adam import PathAdam
from explaind_tf.optimizers.path_adamw import PathAdamW
from explaind_tf.optimizers.path_optimizer import PathOptimizer
from explaind_tf.optimizers.path_sgd import PathSGD

__all__ = [
    "AdamWLaw",
    "Law",
    "PathAdam",
    "PathAdamW",
    "PathOptimizer",
    "PathSGD",
    "SGDLaw",
]
