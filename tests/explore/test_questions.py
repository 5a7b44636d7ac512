"""Which questions a view asks: as much as fits into memory."""

from explaind_tf.explore import questions
from explaind_tf.explore.questions import Sizes
from explaind_tf.explore.view import View


def test_what_fits_into_memory_is_asked():
    digits = Sizes(inputs=100, outputs=1, samples=1300, steps=80, layers=9)
    assert questions.account_of((1,), digits).axes == ("sample", "step", "layer")
    assert questions.reach_of(digits).axes == ("sample", "step")
    large = Sizes(inputs=10**4, outputs=1, samples=10**5, steps=10**4, layers=50)
    assert questions.account_of((1,), large).axes == ("sample",)
    assert [q.kind for q in questions.questions_of(View(inputs=(1,)), large)] == ["account", "where"]
    reach = questions.reach_of(large)
    assert reach.axes == ("sample",) and 1 <= len(reach.inputs) < 10**4
