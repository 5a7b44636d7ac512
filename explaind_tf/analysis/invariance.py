"""Kernels between the elements of a finite group: how much of a kernel depends only on differences, and on which.

A kernel K(g, h) is *invariant* if it is a function f(g⁻¹h): it does not change if the same element multiplies g and h
from the left. For numbers modulo p, invariant kernels are the circulant matrices, functions of h - g. The group is given
by its table, so the same code serves commutative groups and others. With the transposed table, it looks for f(hg⁻¹).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.integer]
# Eigenvalues of a random class function that are closer than this belong to one component. Those of about a hundred
# components are further apart; rounding is about 1e-13.
_SAME = 1e-8


@dataclass(frozen=True)
class Invariance:
    """The invariant part of a kernel, without its diagonal, g = h, and without the mean of the rest of each row.

    If samples help inputs with their own answer and harm all others alike, that is invariant, too, but it holds for any
    classifier. Without diagonal and means, the structure among *different* answers is measured.

    Attributes
    ----------
    share : float
        Share of the sum of squares that f(g⁻¹h) explains, from 0 to 1.
    chance : float
        The share to expect for a kernel of independent random entries: 1 / number of rows.
    profile : np.ndarray
        f minus its mean, shape (n,); 0 at the identity.
    spectrum : np.ndarray
        Share of the sum of squares of f in each of :func:`components` except the first, which is the mean.
    """

    share: float
    chance: float
    profile: npt.NDArray[np.float64]
    spectrum: npt.NDArray[np.float64]

    def concentration(self, k: int = 5) -> float:
        """Return the share of the spectrum in its largest components.

        Parameters
        ----------
        k : int
            Number of components.

        Returns
        -------
        float
            Share of the k largest, between 0 and 1.
        """
        return float(np.sort(self.spectrum)[-k:].sum())


def invariance(kernel: npt.NDArray[np.floating], rows: npt.NDArray[np.integer], table: Table) -> Invariance:
    """Project a kernel onto the invariant kernels.

    Parameters
    ----------
    kernel : array, shape (R, n)
        K(g, h) for some elements g and all n elements h.
    rows : array of int, shape (R,)
        The g of each row.
    table : array of int, shape (n, n)
        ``table[a, b]`` is the product of a and b; for numbers modulo n, their sum.

    Returns
    -------
    Invariance

    Raises
    ------
    ValueError
        If the table is not that of a group, or the shape of the kernel does not fit.
    """
    kernel, rows = np.asarray(kernel, np.float64), np.asarray(rows)
    identity, _ = _identity_and_inverse(table)
    if kernel.shape != (len(rows), len(table)):
        raise ValueError(
            f"With {len(rows)} rows and a group of {len(table)} elements, the kernel must have the shape "
            f"{(len(rows), len(table))}; got {kernel.shape}."
        )
    # Column d holds K(g, gd): each row of the kernel in the order of differences.
    by_difference = np.take_along_axis(kernel, table[rows], axis=1)
    others = np.delete(by_difference, identity, axis=1)
    centred = others - others.mean(axis=1, keepdims=True)
    found = centred.mean(axis=0)
    total = float((centred**2).sum())
    profile = np.insert(found, identity, 0.0)
    # The identity's entry is unknown, not zero. Set to the mean, it adds to no component except the mean.
    energies = np.array([profile @ projector @ profile for projector in components(table)[1:]])
    energy = float((found**2).sum())
    return Invariance(
        share=len(rows) * energy / total if total else 0.0,
        chance=1 / len(rows),
        profile=profile,
        spectrum=energies / energies.sum() if energy else np.zeros_like(energies),
    )


def components(table: Table) -> npt.NDArray[np.float64]:
    """Return the projectors onto the components of the functions on a group.

    A component is a minimal space of functions that stays the same if the argument is multiplied from either side. For
    numbers modulo n, it holds the waves of one frequency; otherwise, the functions of an irreducible representation (and
    its complex conjugate). The constants come first. The others are sorted by the character, divided by the dimension, of
    the first element that is not the identity, from the largest down. For numbers modulo n, that is by frequency: 1, 2, …
    n // 2.

    Parameters
    ----------
    table : array of int, shape (n, n)
        Table of the group: ``table[g, h]`` is the number of gh.

    Returns
    -------
    array, shape (components, n, n)
        Symmetric; they add up to the identity.

    Raises
    ------
    ValueError
        If the table is not that of a group.
    """
    identity, inverse = _identity_and_inverse(table)
    n, other = len(table), 0 if identity else 1
    # Convolution with a function that is constant on conjugacy classes is a multiple of the identity on each component.
    conjugates = table[table, inverse[:, None]]  # [x, g] = x g x⁻¹
    names = conjugates.min(axis=0)
    weights = np.random.default_rng(0).normal(size=n)[np.minimum(names, names[inverse])]
    values, vectors = np.linalg.eigh(weights[table[inverse]])
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf) > _SAME * np.abs(values).max())
    found = [part @ part.T for part in np.split(vectors, starts[1:], axis=1)]

    def place(projector: npt.NDArray[np.float64]) -> tuple[bool, float]:
        at_identity = projector[identity]
        return not np.allclose(projector, 1 / n), -at_identity[other] / at_identity[identity]

    return np.array(sorted(found, key=place))


def _identity_and_inverse(table: Table) -> tuple[int, npt.NDArray[np.integer]]:
    table = np.asarray(table)
    numbers = np.arange(len(table))
    identities = np.flatnonzero((table == numbers).all(axis=1))
    is_latin = (np.sort(table, axis=0) == numbers[:, None]).all() and (
        np.sort(table, axis=1) == numbers
    ).all()
    if len(identities) != 1 or not is_latin or (table[table] != table[:, table]).any():
        raise ValueError(
            "The table is not that of a group, which has one identity, each element once in each row and column, and "
            "(ab)c = a(bc). Pass a table such as datasets.cyclic_table(n)."
        )
    return int(identities[0]), np.argmax(table == identities[0], axis=1)
