"""The data of the paper's experiments (arXiv:2505.20076), and small data sets of images and text."""

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
from explaind_tf.datasets.standard_library import Windows, standard_library

__all__ = [
    "Windows",
    "cifar2",
    "cyclic_table",
    "digits",
    "dihedral_table",
    "modular_addition",
    "operation",
    "standard_library",
    "subtraction_table",
    "symmetric_table",
]
