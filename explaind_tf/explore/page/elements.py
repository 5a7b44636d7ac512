"""Elements that the parts share. Text that comes from a run is never HTML: Dash escapes it."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from dash import dcc, html

from explaind_tf.explore.inputs import shortened
from explaind_tf.explore.pictures import data_url
from explaind_tf.report.examples import Example
from explaind_tf.report.numbers import signed

Content = Any

_SCREEN_READER: Final = "hidden-text"


def labelled(words: str) -> dict[str, Any]:
    """Return the name of an element, for screen readers."""
    return {"aria-label": words}


def text(value: Any) -> html.Bdi:
    """Return text from a run: its direction does not change that of the text around it."""
    return html.Bdi(shortened(str(value)))


def plain(value: Any) -> str:
    """Return text from a run for an attribute, such as the description of a picture."""
    return shortened(str(value))


def link(content: Content, address: str, *, is_chosen: bool = False) -> Content:
    """Return a link to another view; what is chosen already is no link."""
    if is_chosen:
        return html.Strong(content, className="here")
    return dcc.Link(content, href=address)


def links(title: str, choices: Iterable[tuple[Content, str, bool]]) -> html.Nav:
    """Return a row of links, of which one may be chosen."""
    items = [html.Li(link(content, address, is_chosen=chosen)) for content, address, chosen in choices]
    return html.Nav([html.Span(f"{title}: "), html.Ul(items)], className="choices", **labelled(title))


def hidden(words: str) -> html.Span:
    """Return words for screen readers alone."""
    return html.Span(plain(words), className=_SCREEN_READER)


def picture(example: Example, name: str) -> list[Content]:
    """Return an example's image, if it has one."""
    if example.image is None:
        return []
    return [html.Img(src=data_url(example.image), alt=f"picture of {plain(name)}")]


def example_body(example: Example, name: str) -> list[Content]:
    """Return what is seen of an input or a sample: picture, text, values."""
    found = picture(example, name)
    if example.text:
        found.append(html.Span(text(example.text)))
    if example.table:
        found.append(folded("values", [table("Values", ("", ""), example.table)]))
    return found


def change(value: float) -> html.Span:
    """Return a change with its sign, blue or red."""
    return html.Span(signed(value), className="up" if value >= 0 else "down")


def folded(title: str, content: Sequence[Content]) -> html.Details:
    """Return content that a reader can unfold."""
    return html.Details([html.Summary(title), *content], className="fold")


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[Content]]) -> html.Table:
    """Return a table whose first column names the rows."""
    head = html.Thead(html.Tr([html.Th(one, scope="col") for one in heads])) if any(heads) else None
    body = html.Tbody(
        [html.Tr([html.Th(first, scope="row"), *(html.Td(one) for one in rest)]) for first, *rest in rows]
    )
    return html.Table([part for part in (html.Caption(caption), head, body) if part is not None])


def graph(figure: dict[str, Any], element_id: str, label: str) -> html.Div:
    """Return a figure with a name for screen readers; a table beside it has its numbers."""
    drawing = dcc.Graph(
        id=element_id,
        figure=figure,
        config={"displayModeBar": False, "responsive": True, "doubleClick": False},
        style={"height": f"{figure['layout']['height']}px"},
    )
    return html.Div(drawing, role="img", **labelled(label))


def note(*content: Content) -> html.P:
    """Return a remark that should not be missed."""
    return html.P(list(content), className="note")
