"""The theory of the ledger in float64 NumPy with plain loops, which the package is compared with.

Nothing here is shared with the package, TensorFlow or Keras. Forward passes are written by hand. Gradients come from
complex steps, not from automatic differentiation. The run is trained again. Path integrals use a fixed number of nodes,
more than they need. The entries of a ledger are the terms of the theorem, one by one. All is small and slow on purpose.

References
----------
Eichin et al., "ExPLAIND", arXiv:2505.20076, Theorem 3.1: the ledger, here with Keras' displacement law.
Squire and Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40 (1998).
"""

from tests.oracle.derivatives import derivative
from tests.oracle.ledgers import Ledger, ledger, path_gradient
from tests.oracle.losses import crossentropy, log_prob, log_softmax, squared_error
from tests.oracle.networks import (
    Arrays,
    Network,
    Variable,
    attention_network,
    convolutional_network,
    dense_network,
)
from tests.oracle.optimizers import (
    Steps,
    WrittenOut,
    adadelta,
    adafactor,
    adagrad,
    adam,
    adamax,
    lion,
    nadam,
    rmsprop,
    train_by,
)
from tests.oracle.training import AdamW, Batch, Training, cosine_decay, train

__all__ = [
    "AdamW",
    "Arrays",
    "Batch",
    "Ledger",
    "Network",
    "Steps",
    "Training",
    "Variable",
    "WrittenOut",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "attention_network",
    "convolutional_network",
    "cosine_decay",
    "crossentropy",
    "dense_network",
    "derivative",
    "ledger",
    "lion",
    "log_prob",
    "log_softmax",
    "nadam",
    "path_gradient",
    "rmsprop",
    "squared_error",
    "train",
    "train_by",
]
