"""Views and their addresses: one is made from the other, and no address breaks the page."""

from hypothesis import given, settings
from hypothesis import strategies as st

from explaind_tf.explore.view import View, view_of

NUMBERS = st.integers(0, 10**9)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
VIEWS = st.builds(
    View,
    sort=st.sampled_from(["row", "loss", "wrong", "movement"]),
    label=st.none() | TEXTS,
    page=NUMBERS,
    inputs=st.lists(NUMBERS, max_size=4, unique=True).map(tuple),
    output=NUMBERS,
    step=st.none() | NUMBERS,
    layer=st.none() | TEXTS,
    samples=st.lists(TEXTS, max_size=4, unique=True).map(tuple),
    group=st.none() | TEXTS,
    response=st.sampled_from(["", "answer", "verdict"]),
)


@given(VIEWS)
@settings(max_examples=25)
def test_a_view_comes_back_from_its_address(view: View):
    assert view_of(view.query) == view


@given(st.text(max_size=80))
@settings(max_examples=25)
def test_any_address_is_a_view(query: str):
    view = view_of(query)
    assert view_of(view.query) == view


def test_the_default_view_has_an_empty_address():
    assert View().query == "?"
    assert view_of("") == view_of(None) == View()


def test_what_cannot_be_read_is_left_at_its_default():
    assert view_of("?sort=<script>&page=-1&input=x&input=2&step=1e3&response=all") == View(inputs=(2,))


def test_inputs_are_added_and_taken_away():
    view = View(inputs=(3,)).toggled(5)
    assert view.inputs == (3, 5)
    assert view.toggled(3).inputs == (5,)
    assert view.to(step=7) == "?input=3&input=5&step=7"
