"""Compiled functions are shared between models that compute the same, and the last ones are kept."""

from explaind_tf.kernel.derivatives.shared import Shared


def test_equal_keys_share_a_value_and_none_shares_nothing():
    shared, made = Shared[list](2), []

    def make():
        made.append([])
        return made[-1]

    assert shared.get("a", make) is shared.get("a", make)
    assert shared.get(None, make) is not shared.get(None, make)
    assert len(made) == 3


def test_those_used_last_are_kept():
    shared = Shared[list](2)
    first, second = shared.get("a", list), shared.get("b", list)
    assert shared.get("a", list) is first
    shared.get("c", list)  # the third lets go of the one that was used longest ago
    assert shared.get("a", list) is first
    assert shared.get("b", list) is not second
