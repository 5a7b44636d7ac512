"""The garbage collector while a question is answered."""

import gc
import weakref

import pytest

from explaind_tf.old_objects import old_objects_aside


class Node:
    """Is garbage in a circle."""

    def __init__(self) -> None:
        self.own = self


def test_old_objects_are_set_aside_and_come_back():
    old, before = Node(), gc.get_freeze_count()
    seen = weakref.ref(old)
    with old_objects_aside():
        assert gc.get_freeze_count() > 1000
        del old
        new = weakref.ref(Node())
        gc.collect()
        assert new() is None and seen() is not None
    assert gc.get_freeze_count() == before
    gc.collect()
    assert seen() is None


def test_they_come_back_after_an_error():
    with pytest.raises(RuntimeError, match="within"), old_objects_aside():
        raise RuntimeError("within")
    assert not gc.get_freeze_count()


def test_what_somebody_else_froze_stays_so():
    gc.freeze()
    count = gc.get_freeze_count()
    try:
        with old_objects_aside(), old_objects_aside():
            assert gc.get_freeze_count() <= count
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()
