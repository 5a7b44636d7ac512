"""The ids of contents, compared with a dictionary of queues."""

from collections import deque

import numpy as np
import pytest

from explaind_tf.recording.observing.ids_by_content import IdsByContent


def texts(ids: list[int]) -> tuple[np.ndarray, list[str]]:
    """Texts of several lengths, some empty and some not ASCII."""
    found = [["", "sample", "é" * (number % 5) + str(number)][number % 3] for number in ids]
    return np.array([text.encode() for text in found], object), found


def integers(ids: list[int]) -> tuple[np.ndarray, list[int]]:
    return np.array(ids, np.int32), ids


@pytest.mark.parametrize("kind", [integers, texts])
def test_ids_of_one_content_take_turns(kind):
    rng, known, expected = np.random.default_rng(0), IdsByContent(), {}
    for _ in range(60):
        contents = rng.integers(0, 40, 9)
        given, ids = kind(rng.integers(0, 30, 9).tolist())
        known.note(contents, given)
        for content, sample_id in zip(contents.tolist(), ids, strict=True):
            queue = expected.setdefault(content, deque())
            if sample_id not in queue:
                queue.append(sample_id)
        drawn = rng.choice(list(expected), 9)
        for content in drawn.tolist():
            expected[content].rotate(-1)
            assert known.take(np.array([content])) == [expected[content][-1]]


def test_a_content_that_did_not_pass_has_no_id():
    known = IdsByContent()
    assert known.take(np.array([1])) is None
    known.note(np.array([1]), np.array([7]))
    assert known.take(np.array([1])) == [7]
    assert known.take(np.array([1, 2])) is None
