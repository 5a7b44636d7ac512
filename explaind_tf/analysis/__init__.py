"""Analysis: what ledgers say about a model, in a few numbers."""

from explaind_tf.analysis.comparison import divergence, same_class
from explaind_tf.analysis.fidelity import Fidelity, agreement, fidelity, mean_kl

__all__ = ["Fidelity", "agreement", "divergence", "fidelity", "mean_kl", "same_class"]
