"""The data of the paper's experiments (arXiv:2505.20076), and a small stand-in for images."""

from explaind_tf.datasets.cifar2 import cifar2
from explaind_tf.datasets.digits import digits
from explaind_tf.datasets.operations import (
    cyclic_table,
    dihedral_table,
    modular_addition,
    operation,
    subtraction_table,
    symmetric_table,
)

__all__ = [
    "cifar2",
    "cyclic_table",
    "digits",
    "dihedral_table",
    "modular_addition",
    "operation",
    "subtraction_table",
    "symmetric_table",
]
