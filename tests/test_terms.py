"""The table of terms has everything that figures, tables and ledgers need of a term."""

import re

import pytest

from explaind_tf import constants as names
from explaind_tf import terms
from explaind_tf.terms import all_terms, term, terms_in, terms_of


@pytest.mark.parametrize("name", all_terms())
def test_every_term_is_told_in_full(name):
    row = term(name)
    assert row.name == name
    assert row.label and row.description and row.meaning and row.sources
    assert re.fullmatch("#[0-9A-F]{6}", row.colour)
    assert row.axes <= set(names.AXES)


def test_terms_of_a_source_end_with_the_residual():
    assert terms_of("recorded") == (
        "data",
        "rounding",
        "weight_decay",
        "regularizer",
        "carryover",
        "external",
        "state",
        "precision",
        "jumps",
        "residual",
    )
    assert terms_of("checkpoints") == ("weights", "state", "precision", "jumps", "residual")


def test_a_ledger_must_have_the_terms_of_its_source():
    assert terms_in({"data", "rounding", "regularizer", "precision", "jumps"}) == terms_of("recorded")
    # Ledgers without samples lack the one, and those of earlier versions. Runs of the level "cause" do not know the other.
    assert not {"rounding", "regularizer"} & set(terms_in({"data"}))
    assert terms_in({"weights", "precision", "jumps"}) == terms_of("checkpoints")


def test_an_optional_term_counts_where_it_is(monkeypatch):
    monkeypatch.setattr(terms, "_TABLE", dict(terms._TABLE))
    terms.register(terms.Term("later", frozenset(), "l", "#000000", "d", "m", is_optional=True))
    assert "later" not in terms_in({"data"})
    assert "later" in terms_in({"data", "later"})
    assert terms_of("recorded")[-2:] == ("later", "residual")


def test_unknown_names_are_not_hidden():
    with pytest.raises(KeyError):
        term("unheard_of")
