"""Changes that the optimizer did not make. The part that none explains is external."""

from types import SimpleNamespace

import numpy as np
import pytest

from explaind_tf.replay import changes

STEP = SimpleNamespace(theta_stepped=np.array([1.0, 2.0]), theta_end=np.array([1.5, 2.0]))


def test_all_of_it_is_external_where_nothing_is_known():
    found = changes.changes_of(STEP)
    assert list(found) == ["external"]
    np.testing.assert_array_equal(found["external"], [0.5, 0.0])


def test_what_a_change_explains_is_no_longer_external(monkeypatch):
    monkeypatch.setattr(changes, "_CHANGES", {})
    changes.register("half", lambda step: (step.theta_end - step.theta_stepped) / 2)
    found = changes.changes_of(STEP)
    assert list(found) == ["half", "external"]
    np.testing.assert_array_equal(sum(found.values()), [0.5, 0.0])
    np.testing.assert_array_equal(found["half"], found["external"])
    with pytest.raises(ValueError, match="half"):
        changes.register("half", lambda step: step.theta_end)
