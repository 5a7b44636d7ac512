"""The operations that are learnt."""

from dataclasses import dataclass

import numpy as np

from explaind_tf.datasets import cyclic_table, dihedral_table, subtraction_table, symmetric_table


@dataclass(frozen=True)
class Task:
    """An operation, and the group that its answers are elements of.

    Attributes
    ----------
    title : str
        In words.
    table : np.ndarray
        ``table[a, b]`` is the answer.
    group : np.ndarray
        Table of the group of the answers, in which their kernel is looked at.
    component : str
        What a component of the spectrum is.
    """

    title: str
    table: np.ndarray
    group: np.ndarray
    component: str


def addition(p: int) -> Task:
    """Sums modulo p."""
    return Task(f"addition modulo {p}", cyclic_table(p), cyclic_table(p), "frequency")


def subtraction(p: int) -> Task:
    """Differences modulo p: answers of the same group, from an operation that is not commutative."""
    return Task(f"subtraction modulo {p}", subtraction_table(p), cyclic_table(p), "frequency")


def symmetries(sides: int) -> Task:
    """Products of the symmetries of a regular polygon."""
    table = dihedral_table(sides)
    return Task(f"symmetries of a polygon of {sides} sides", table, table, "irreducible representation")


def composition(degree: int) -> Task:
    """Products of permutations."""
    table = symmetric_table(degree)
    return Task(f"composition of permutations of {degree} things", table, table, "irreducible representation")
