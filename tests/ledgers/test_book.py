"""The book adds up entries over the axes that are kept."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.ledgers import book as books
from explaind_tf.ledgers.book import Book, Entry
from explaind_tf.questions.options import Options
from explaind_tf.questions.question import Question
from explaind_tf.terms import terms_of

LENGTHS = {
    names.INPUT: 2,
    names.OUTPUT: 3,
    names.SAMPLE: 4,
    names.TOKEN: 5,
    names.GROUP: 0,
    names.LAYER: 2,
    names.PARAMETER: 2,
}


def make_book(*axes: str, first_step: int = 0) -> Book:
    question = Question(Options(axes=axes), (), [], 3, 8, None, tf.float32, terms_of("recorded"))
    return Book(question, LENGTHS, first_step)


def test_dimensions_are_those_that_a_term_has_and_the_question_keeps():
    book = make_book("sample", "token", "layer", "step")
    assert book.dims("data") == ("input", "output", "sample", "token", "layer", "step")
    assert book.dims("weight_decay") == book.dims("state") == ("input", "output", "layer", "step")
    assert book.dims("residual") == ("input", "output", "step")
    assert book.dims("initial") == ("input", "output")
    by_weight = make_book("parameter")
    assert by_weight.dims("external") == ("input", "output", "parameter")
    assert by_weight.dims("state") == ("input", "output")


def test_entries_of_one_place_add_up_and_outputs_are_set():
    book = make_book("step", first_step=3)
    for value in (1.0, 2.0):
        book.add(Entry("data", slice(0, 1), 4, np.full((1, 3), value)))
        book.add(Entry("final", slice(0, 1), 4, np.full((1, 3), value)))
    assert book.arrays["data"].shape == (2, 3, 5)
    np.testing.assert_array_equal(book.arrays["data"][0, :, 1], 3.0)
    np.testing.assert_array_equal(book.arrays["final"], [[2.0] * 3, [0.0] * 3])
    assert book.arrays["data"].sum() == 9.0


def test_a_sample_that_occurs_twice_in_a_batch_counts_twice():
    book = make_book("sample")
    book.add(Entry("data", slice(1, 2), 5, np.ones((1, 3, 3)), members=np.array([2, 0, 2])))
    np.testing.assert_array_equal(book.arrays["data"][1], [[1, 0, 2, 0]] * 3)


def test_samples_may_have_fewer_tokens_than_the_axis():
    book = make_book("sample", "token")
    book.add(Entry("data", slice(0, 2), 5, np.ones((2, 3, 1, 2)), members=np.array([3])))
    np.testing.assert_array_equal(book.arrays["data"][0, 0, 3], [1, 1, 0, 0, 0])


def test_closing_books_what_is_missing_to_the_residual_of_the_last_step():
    book = make_book("step")
    book.add(Entry("final", slice(0, 2), 7, np.ones((2, 3))))
    book.add(Entry("external", slice(0, 2), 3, np.full((2, 3), 0.75)))
    book.close()
    np.testing.assert_array_equal(book.arrays["residual"][..., -1], 0.25)
    assert book.total("residual").sum() == 6 * 0.25


def test_a_ledger_that_does_not_fit_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(books, "total_memory", lambda: 2**10)
    with pytest.raises(MemoryError, match="Its largest array is 'data': 2 inputs × 3 outputs × 4 samples"):
        make_book("sample", "layer")


def test_terms_of_checkpoints_have_no_data():
    question = Question(Options(), (), [], 0, 1, None, tf.float32, terms_of("checkpoints"))
    assert set(Book(question, LENGTHS, 0).arrays) == {*terms_of("checkpoints"), "initial", "final"}
    assert replace(question, terms=terms_of("recorded")).terms[-1] == "residual"
