"""Analysis: what ledgers say about a model, in a few numbers."""

from explaind_tf.analysis.comparison import divergence, same_class
from explaind_tf.analysis.fidelity import Fidelity, agreement, fidelity, mean_kl
from explaind_tf.analysis.invariance import Invariance, components, invariance
from explaind_tf.analysis.phases import (
    Phases,
    balance,
    find_phases,
    first_reaching,
    influence,
    layer_shares,
)
from explaind_tf.analysis.similarity import cosines, layer_cosines, mean_by_label

__all__ = [
    "Fidelity",
    "Invariance",
    "Phases",
    "agreement",
    "balance",
    "components",
    "cosines",
    "divergence",
    "fidelity",
    "find_phases",
    "first_reaching",
    "influence",
    "invariance",
    "layer_cosines",
    "layer_shares",
    "mean_by_label",
    "mean_kl",
    "same_class",
]
