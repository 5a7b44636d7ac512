"""Kernels on groups: what is invariant is found, and nothing else."""

import numpy as np
import pytest

from explaind_tf.analysis import components, invariance
from explaind_tf.datasets import cyclic_table, dihedral_table, subtraction_table, symmetric_table

pytestmark = pytest.mark.slow

GROUPS = {"cyclic": cyclic_table(7), "dihedral": dihedral_table(5), "symmetric": symmetric_table(3)}
RNG = np.random.default_rng(0)


def inverse(table: np.ndarray) -> np.ndarray:
    return np.argmax(table == 0, axis=1)


@pytest.fixture(params=list(GROUPS))
def table(request):
    return GROUPS[request.param]


def test_an_invariant_kernel_is_so_entirely(table):
    n = len(table)
    f, rows = RNG.normal(size=n), np.array([4, 1, 2])
    kernel = np.array([[f[table[inverse(table)[g], h]] for h in range(n)] for g in rows])
    found = invariance(kernel, rows, table)
    assert found.share == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found.profile[1:], f[1:] - f[1:].mean(), atol=1e-12)
    assert found.profile[0] == 0
    assert found.spectrum.sum() == pytest.approx(1)
    assert found.concentration(len(found.spectrum)) == pytest.approx(1)


@pytest.mark.parametrize("table", [dihedral_table(5), symmetric_table(3)])
def test_the_transposed_table_finds_the_other_side(table):
    n = len(table)
    f = RNG.normal(size=n)
    kernel = np.array([[f[table[h, inverse(table)[g]]] for h in range(n)] for g in range(n)])
    assert invariance(kernel, np.arange(n), table.T).share == pytest.approx(1, abs=1e-12)
    assert invariance(kernel, np.arange(n), table).share < 0.9


def test_one_row_after_the_other_by_hand():
    kernel = np.array([[9.0, 1.0, 3.0], [5.0, 9.0, 7.0]])
    found = invariance(kernel, np.array([0, 1]), cyclic_table(3))
    # By difference 0, 1, 2: [9, 1, 3] and [9, 7, 5]; without the first and the mean of the rest [-1, 1] and [1, -1].
    assert found.share == 0
    assert found.chance == 0.5
    np.testing.assert_array_equal(found.spectrum, [0])


def test_own_answers_and_levels_of_rows_do_not_count(table):
    n = len(table)
    rows, kernel = np.arange(n), RNG.normal(size=(n, n))
    changed = kernel + RNG.normal(size=(n, 1)) + 5 * np.eye(n)
    assert invariance(changed, rows, table).share == pytest.approx(invariance(kernel, rows, table).share)


def test_random_kernels_are_at_chance():
    table = cyclic_table(101)
    found = [invariance(RNG.normal(size=(10, 101)), np.arange(10), table) for _ in range(20)]
    # Each share is a mean of 100 squares of normal variables; the mean of 20 shares varies by about 3 %.
    assert np.mean([f.share for f in found]) == pytest.approx(found[0].chance, rel=0.15)


def test_a_wave_is_of_its_frequency():
    n, frequency = 13, 4
    differences = np.arange(n) - np.arange(n)[:, None]
    found = invariance(np.cos(2 * np.pi * frequency * differences / n), np.arange(n), cyclic_table(n))
    # The diagonal is left out, which spreads a part of the wave over all other frequencies.
    assert found.spectrum.argmax() == frequency - 1
    assert found.share == pytest.approx(1)


def test_components_of_a_cyclic_group_are_waves_by_frequency():
    n = 8
    numbers, parts = np.arange(n), components(cyclic_table(n))
    assert len(parts) == n // 2 + 1
    for frequency, part in enumerate(parts):
        for wave in (np.cos, np.sin):
            values = wave(2 * np.pi * frequency * numbers / n)
            np.testing.assert_allclose(part @ values, values, atol=1e-12)


def test_components_are_orthogonal_and_complete(table):
    parts = components(table)
    np.testing.assert_allclose(parts.sum(axis=0), np.eye(len(table)), atol=1e-12)
    for i, j in np.ndindex(len(parts), len(parts)):
        np.testing.assert_allclose(parts[i] @ parts[j], parts[i] if i == j else 0, atol=1e-12)


def test_the_constants_come_first_whatever_the_order_of_the_elements(table):
    order = RNG.permutation(len(table))
    for ordered in (table, np.argsort(order)[table[np.ix_(order, order)]]):
        np.testing.assert_allclose(components(ordered)[0], 1 / len(table), atol=1e-12)


def test_components_of_permutations_have_squared_dimensions():
    # The irreducible representations of S4 are of dimension 1, 3, 2, 3, 1, by the character of a transposition.
    assert [round(np.trace(part)) for part in components(symmetric_table(4))] == [1, 9, 4, 9, 1]


# Each element once in each row and column, an identity, but not associative.
LOOP = np.array([[0, 1, 2, 3, 4], [1, 0, 3, 4, 2], [2, 4, 0, 1, 3], [3, 2, 4, 0, 1], [4, 3, 1, 2, 0]])


@pytest.mark.parametrize("table", [subtraction_table(5), np.zeros((3, 3), int), LOOP])
def test_refuses_what_is_no_group(table):
    with pytest.raises(ValueError, match="not that of a group"):
        components(table)


def test_refuses_kernels_of_another_shape():
    with pytest.raises(ValueError, match=r"\(2, 5\); got \(2, 4\)"):
        invariance(np.ones((2, 4)), np.arange(2), cyclic_table(5))
