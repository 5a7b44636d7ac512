"""Path optimizers: Keras optimizers that also note what only they see in a step."""

from explaind_tf.laws import AdamWLaw, Law, SGDLaw
from explaind_tf.optimizers.path_adadelta import PathAdadelta
from explaind_tf.optimizers.path_adafactor import PathAdafactor
from explaind_tf.optimizers.path_adagrad import PathAdagrad
from explaind_tf.optimizers.path_adam import PathAdam
from explaind_tf.optimizers.path_adamax import PathAdamax
from explaind_tf.optimizers.path_adamw import PathAdamW
from explaind_tf.optimizers.path_lion import PathLion
from explaind_tf.optimizers.path_nadam import PathNadam
from explaind_tf.optimizers.path_optimizer import PathOptimizer
from explaind_tf.optimizers.path_rmsprop import PathRMSprop
from explaind_tf.optimizers.path_sgd import PathSGD

__all__ = [
    "AdamWLaw",
    "Law",
    "PathAdadelta",
    "PathAdafactor",
    "PathAdagrad",
    "PathAdam",
    "PathAdamW",
    "PathAdamax",
    "PathLion",
    "PathNadam",
    "PathOptimizer",
    "PathRMSprop",
    "PathSGD",
    "SGDLaw",
]
