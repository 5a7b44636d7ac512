"""Kernels between the elements of a finite group: how much of them depends on differences only, and on which.

A kernel K(g, h) that is a function f(g⁻¹h) alone is *invariant*: it does not change if both elements are moved by the
same one. Of the numbers modulo p these are the circulant matrices, functions of h - g. The group is given by its table,
so that the same code serves commutative groups and others. With the transposed table it looks for f(hg⁻¹) instead.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Table = npt.NDArray[np.integer]
# Eigenvalues of a random class function that are closer than this are of one component. Random ones of some
# hundred components are further apart; rounding is some 1e-13.
_SAME = 1e-8


@dataclass(frozen=True)
class Invariance:
    """What of a kernel is invariant. The diagonal, g = h, and the mean of the rest of each row are left out.

    That samples help inputs with their own answer, and harm all others alike, is invariant too, but holds for any
    classifier. What is measured is the structure among *different* answers.

    Attributes
    ----------
    share : float
        Of the sum of squares, what f(g⁻¹h) explains, from 0 to 1.
    chance : float
        The share to expect of a kernel of independent random entries: 1 / number of rows.
    profile : np.ndarray
        f less its mean, shape (n,); 0 at the identity.
    spectrum : np.ndarray
        Share of the sum of squares of f in each component of :func:`components` but the first, which is the mean.
    """

    share: float
    chance: float
    profile: npt.NDArray[np.float64]
    spectrum: npt.NDArray[np.float64]

    def concentration(self, k: int = 5) -> float:
        """Return how much of the spectrum is in few components.

        Parameters
        ----------
        k : int
            How many.

        Returns
        -------
        float
            Share of the k largest, between 0 and 1.
        """
        return float(np.sort(self.spectrum)[-k:].sum())


def invariance(kernel: npt.NDArray[np.floating], rows: npt.NDArray[np.integer], table: Table) -> Invariance:
    """Project a kernel on the invariant ones.

    Parameters
    ----------
    kernel : array, shape (R, n)
        K(g, h) for some elements g and all n elements h.
    rows : array of int, shape (R,)
        The g of each row.
    table : array of int, shape (n, n)
        ``table[a, b]`` is the product of a and b; of numbers modulo n their sum.

    Returns
    -------
    Invariance

    Raises
    ------
    ValueError
        If the table is not that of a group, or the shapes do not fit.
    """
    kernel, rows = np.asarray(kernel, np.float64), np.asarray(rows)
    identity, _ = _identity_and_inverse(table)
    if kernel.shape != (len(rows), len(table)):
        raise ValueError(
            f"A kernel of {len(rows)} rows and a group of {len(table)} elements has the shape "
            f"{(len(rows), len(table))}; got {kernel.shape}."
        )
    # Column d holds K(g, gd): a row of the kernel, put in the order of differences.
    by_difference = np.take_along_axis(kernel, table[rows], axis=1)
    others = np.delete(by_difference, identity, axis=1)
    centred = others - others.mean(axis=1, keepdims=True)
    found = centred.mean(axis=0)
    total = float((centred**2).sum())
    profile = np.insert(found, identity, 0.0)
    # The identity's entry is unknown, not zero: set to the mean it adds to no component but the mean.
    energies = np.array([profile @ projector @ profile for projector in components(table)[1:]])
    energy = float((found**2).sum())
    return Invariance(
        share=len(rows) * energy / total if total else 0.0,
        chance=1 / len(rows),
        profile=profile,
        spectrum=energies / energies.sum() if energy else np.zeros_like(energies),
    )


def components(table: Table) -> npt.NDArray[np.float64]:
    """Return the projectors on the components of functions on a group.

    Components are the smallest spaces of functions that stay what they are when the argument is multiplied from either
    side: for numbers modulo n the waves of one frequency, else those of an irreducible representation (and its complex
    conjugate). The constants come first, the others by the character, over its dimension, of the first element that is
    not the identity, from the largest down: of numbers modulo n by frequency, 1, 2, … n // 2.

    Parameters
    ----------
    table : array of int, shape (n, n)
        Of the group: ``table[g, h]`` is the number of gh.

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
            "The table is not that of a group: one identity, each element once in each row and column, (ab)c = a(bc)."
        )
    return int(identities[0]), np.argmax(table == identities[0], axis=1)
