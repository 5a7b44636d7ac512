"""The data of the paper's experiments (arXiv:2505.20076), and small stand-ins for images and text."""

from explaind_tf.datasets.cifar2 import cifar2
from explaind_tf.datasets.digits import digits
from explaind_tf.datasets.modular import modular_addition
from explaind_tf.datasets.standard_library import Windows, standard_library

__all__ = ["Windows", "cifar2", "digits", "modular_addition", "standard_library"]
