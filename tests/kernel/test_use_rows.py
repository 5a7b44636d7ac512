"""The recursion of the reverse sweep, compared with its sum written out."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel import use_rows
from explaind_tf.kernel.use_rows import RowsByEffect, RowsByUse, Update, UpdateRows

MEMORY, GAIN = 0.9, 0.1


@pytest.fixture(name="updates")
def _updates():
    rng = np.random.default_rng(0)
    return [
        UpdateRows(
            step=step,
            # Steps 0 and 1 are not accounted for.
            phi=tf.constant(rng.normal(size=(3, 4))) if step > 1 else None,
            update=Update(gain, direct, rng.normal(size=4), scale),
        )
        for step, gain, direct, scale in (
            (5, GAIN, 0.0, np.array(0.5)),
            (4, GAIN, -0.2, np.array(0.5)),
            (3, rng.uniform(size=4), 0.0, np.array(0.5)),
            (2, GAIN, rng.uniform(size=4), rng.uniform(size=4)),
            (1, GAIN, 0.0, np.array(1.0)),
            (0, rng.uniform(size=4), -0.2, np.array(2.0)),
        )
    ]


def _effect(use, later):
    """Return how far a unit of gradient at one update moves the measurements in the step of another."""
    if later.phi is None:
        return 0.0
    age = use.step - later.step
    rows = MEMORY**-age * use.update.gain * later.phi.numpy() * later.update.pull
    return (rows + (later.update.direct * later.phi.numpy() if later is use else 0)) * use.update.scale


@pytest.mark.parametrize("worth_fusing", [0, 10**9])
def test_rows_by_use_are_those_of_all_later_effects(updates, monkeypatch, worth_fusing):
    monkeypatch.setattr(use_rows, "_WORTH_FUSING", worth_fusing)
    rows = RowsByUse(MEMORY)
    for position, use in enumerate(updates):
        found = rows.take(use)
        expected = sum(_effect(use, later) for later in updates[: position + 1])
        gradient = found[use.step].of_gradient()
        np.testing.assert_allclose(gradient.rows * gradient.factor, expected, atol=1e-12)


def test_rows_by_effect_are_told_apart(updates):
    rows = RowsByEffect(MEMORY)
    for position, use in enumerate(updates):
        found, accounted = rows.take(use), [u for u in updates[: position + 1] if u.phi is not None]
        assert found.keys() == {later.step for later in accounted}
        for later in accounted:
            effect = found[later.step].of_gradient()
            np.testing.assert_allclose(effect.rows * effect.factor, _effect(use, later), atol=1e-12)


def test_uses_that_cannot_matter_any_more_say_so(updates):
    rows = RowsByUse(1e-9)
    assert rows.take(updates[0]) is not None
    assert rows.take(updates[4]) is not None
    assert rows.take(updates[5]) is None


def test_an_optimizer_that_forgets_nothing_keeps_all_rows(updates):
    assert RowsByUse(1e-9, forgets=False).take(updates[0]) is not None
    rows = {True: RowsByEffect(1e-9), False: RowsByEffect(1e-9, forgets=False)}
    found = {forgets: [own.take(update) for update in updates[:4]] for forgets, own in rows.items()}
    assert [len(taken) for taken in found[True]] == [1, 2, 2, 2]
    assert [len(taken) for taken in found[False]] == [1, 2, 3, 4]


def test_what_the_momentum_gained_tells_the_gradient(updates):
    """Of momentum and of gradient the same entries follow, where a gradient adds something to the momentum."""
    for update in updates[:4]:
        (effect,) = RowsByUse(MEMORY).take(update).values()
        gradient, momentum = effect.of_gradient(), effect.of_momentum()
        gained = update.update.gain * update.update.scale
        np.testing.assert_allclose(
            gradient.rows * gradient.factor, momentum.rows * momentum.factor * gained, atol=1e-12
        )
    nothing = Update(np.array([0.0, 2.0]), np.array([1.0, 1.0]), np.ones(2), np.array(1.0))
    np.testing.assert_array_equal(nothing.direct_of_gained(), [0.0, 0.5])


def test_uses_before_anything_is_accounted_for_have_no_rows(updates):
    assert RowsByUse(MEMORY).take(updates[4]) == {}
