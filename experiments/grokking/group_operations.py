"""The operations that the models learn."""

from dataclasses import dataclass

import numpy as np

from explaind_tf.datasets import cyclic_table, dihedral_table, subtraction_table, symmetric_table


@dataclass(frozen=True)
class Task:
    """An operation, and the group that its answers are elements of.

    Attributes
    ----------
    title : str
        The operation in words.
    table : np.ndarray
        ``table[a, b]`` is the answer.
    group : np.ndarray
        Table of the group of the answers, by which their kernel is analysed.
    component : str
        Name of a component of the spectrum.
    """

    title: str
    table: np.ndarray
    group: np.ndarray
    component: str


def addition(p: int) -> Task:
    """Sums modulo p."""
    return Task(f"addition modulo {p}", cyclic_table(p), cyclic_table(p), "frequency")


def subtraction(p: int) -> Task:
    """Differences modulo p: answers in the same group as sums, but the operation is not commutative."""
    return Task(f"subtraction modulo {p}", subtraction_table(p), cyclic_table(p), "frequency")


def symmetries(sides: int) -> Task:
    """Products of the symmetries of a regular polygon."""
    table = dihedral_table(sides)
    return Task(f"symmetries of a polygon of {sides} sides", table, table, "irreducible representation")


def composition(degree: int) -> Task:
    """Products of permutations."""
    table = symmetric_table(degree)
    return Task(f"composition of permutations of {degree} things", table, table, "irreducible representation")
