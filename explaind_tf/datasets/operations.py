"""Binary operations on a finite set as token sequences: modular arithmetic and permutation groups."""

import itertools

import numpy as np
import numpy.typing as npt

Split = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
Table = npt.NDArray[np.int64]


def operation(
    table: npt.ArrayLike, *, num_train: int, num_test: int | None = None, seed: int = 0
) -> tuple[Split, Split]:
    """Return disjoint random training and test sets of ``a ∘ b = ?``, where a table gives the operation.

    All ``n * n`` ordered pairs ``(a, b)`` are shuffled once. The first ``num_train`` are the training set, and the
    next ``num_test`` are the test set. ``(a, b)`` and ``(b, a)`` are two pairs, so each set may have one of them.

    Parameters
    ----------
    table : array of int, shape (n, n)
        ``table[a, b]`` is ``a ∘ b``, a number from 0 to n - 1.
    num_train : int
        Training pairs, at least 1.
    num_test : int, optional
        Test pairs, at least 0. By default all that remain.
    seed : int, default 0
        Seed of the shuffle. The training pairs depend on ``n``, ``num_train`` and ``seed`` only.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuple of tuples of numpy.ndarray
        ``x`` int32 of shape ``(pairs, 4)`` with rows ``[a, n, b, n + 1]``. Token ``n`` is the operation's sign, and
        ``n + 1`` is "=". ``y`` int32 of shape ``(pairs,)``.

    Raises
    ------
    ValueError
        If the table is not square with entries from 0 to n - 1, or the sizes are out of range.

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = operation(cyclic_table(5), num_train=20)
    >>> x_train.shape, x_test.shape
    ((20, 4), (5, 4))
    """
    table = np.asarray(table)
    n = len(table)
    if (
        table.shape != (n, n)
        or not np.issubdtype(table.dtype, np.integer)
        or not np.isin(table, range(n)).all()
    ):
        raise ValueError(
            f"`table` must be a square array of whole numbers from 0 to n - 1. Received: shape {table.shape}, "
            f"dtype {table.dtype}."
        )
    pairs = n * n
    if not 1 <= num_train <= pairs:
        raise ValueError(
            f"`num_train` must be between 1 and {n} * {n} = {pairs}, the number of pairs (a, b). Received: "
            f"num_train={num_train}."
        )
    remaining = pairs - num_train
    if num_test is None:
        num_test = remaining
    if not 0 <= num_test <= remaining:
        raise ValueError(
            f"`num_test` must be between 0 and the {remaining} pairs that num_train={num_train} leaves of "
            f"{n} * {n} = {pairs}. Received: num_test={num_test}. Pass fewer, or None for all of them."
        )
    order = np.random.default_rng(seed).permutation(pairs)
    train, test = order[:num_train], order[num_train : num_train + num_test]
    return _sequences(train, table), _sequences(test, table)


def modular_addition(
    p: int = 113, *, num_train: int = 4000, num_test: int | None = None, seed: int = 0
) -> tuple[Split, Split]:
    """Return disjoint random training and test sets of ``a + b = ? (mod p)``.

    The defaults are those of the paper's Grokking experiment (arXiv:2505.20076): 4,000 of 12,769 pairs for training.

    Parameters
    ----------
    p : int, default 113
        The modulus, at least 2.
    num_train, num_test, seed
        As for :func:`operation`.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : tuple of tuples of numpy.ndarray
        ``x`` int32 of shape ``(n, 4)`` with rows ``[a, p, b, p + 1]``. Token ``p`` is "+", and
        ``p + 1`` is "=". ``y`` int32 of shape ``(n,)``, ``(a + b) % p``.

    Raises
    ------
    ValueError
        If ``p`` is below 2, or the sizes are out of range or exceed ``p * p`` pairs.

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = modular_addition()
    >>> x_train.shape, x_test.shape
    ((4000, 4), (8769, 4))
    """
    return operation(cyclic_table(p), num_train=num_train, num_test=num_test, seed=seed)


def cyclic_table(p: int) -> Table:
    """Return the table of addition modulo p, ``table[a, b] = (a + b) % p``.

    Parameters
    ----------
    p : int
        The modulus, at least 2.

    Returns
    -------
    array of int, shape (p, p)
        Numbers from 0 to p − 1.

    Raises
    ------
    ValueError
        If ``p`` is below 2.
    """
    if p < 2:
        raise ValueError(f"`p`, the modulus, must be at least 2. Received: p={p}.")
    numbers = np.arange(p)
    return (numbers[:, None] + numbers) % p


def subtraction_table(p: int) -> Table:
    """Return the table of subtraction modulo p, ``table[a, b] = (a - b) % p``. It is no group, and not commutative.

    Parameters
    ----------
    p : int
        The modulus, at least 2.

    Returns
    -------
    array of int, shape (p, p)
        Numbers from 0 to p − 1.

    Raises
    ------
    ValueError
        If ``p`` is below 2.
    """
    return cyclic_table(p)[:, -np.arange(p)]


def dihedral_table(n: int) -> Table:
    """Return the table of the dihedral group: the 2n symmetries of a regular polygon of n sides. Not commutative.

    Element ``r`` below n is the rotation by r sides. Element ``n + r`` is this rotation after a reflection.
    ``table[a, b]`` is the number of the symmetry that applies b first, then a.

    Parameters
    ----------
    n : int
        Sides of the polygon, at least 3.

    Returns
    -------
    array of int, shape (2n, 2n)
        Numbers of elements.

    Raises
    ------
    ValueError
        If ``n`` is below 3.
    """
    if n < 3:
        raise ValueError(f"`n`, the number of sides of the polygon, must be at least 3. Received: n={n}.")
    flip, turn = np.divmod(np.arange(2 * n), n)
    # If a is a reflection, the turn of b counts in the opposite direction.
    turned = turn[:, None] + np.where(flip[:, None] == 1, -turn, turn)
    return turned % n + n * (flip[:, None] ^ flip)


def symmetric_table(degree: int) -> Table:
    """Return the table of the symmetric group: all permutations of ``degree`` things, in lexicographic order.

    ``table[a, b]`` is the number of the permutation that applies b first, then a. Not commutative from degree 3 on.

    Parameters
    ----------
    degree : int
        Number of things, from 2 to 6: the table has (degree!)² entries.

    Returns
    -------
    array of int, shape (degree!, degree!)
        Numbers of elements.

    Raises
    ------
    ValueError
        If the degree is out of range.

    Examples
    --------
    >>> symmetric_table(5).shape
    (120, 120)
    """
    if not 2 <= degree <= 6:
        raise ValueError(f"`degree` must be from 2 to 6. Received: degree={degree}.")
    elements = np.array(list(itertools.permutations(range(degree))))
    composed = elements[:, elements]  # [a, b, i] = a(b(i))
    place = degree ** np.arange(degree)[::-1]
    return np.searchsorted(elements @ place, composed @ place)


def _sequences(pairs: npt.NDArray[np.int64], table: npt.NDArray[np.integer]) -> Split:
    """Return the pairs numbered ``a * n + b`` as token sequences, and the results of the operation."""
    n = len(table)
    a, b = np.divmod(pairs, n)
    x = np.stack([a, np.full_like(a, n), b, np.full_like(a, n + 1)], axis=1)
    return x.astype(np.int32), table[a, b].astype(np.int32)
