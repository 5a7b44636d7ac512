"""The part of the page that lists the inputs."""

from typing import Any

import numpy as np
from dash import html

from explaind_tf.explore import choosing
from explaind_tf.explore.page.elements import example_body, hidden, link, links, note, plain, text
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import Sort, View
from explaind_tf.report.numbers import number

# More classes than this are not listed.
_MOST_CLASSES = 40


def listing(session: Session, view: View) -> list[Any]:
    """Return the inputs in the order of a view, those of its class, one page of them."""
    keys = _keys(session)
    labels = session.shown.labels
    # An order may be of no use here, or not known yet.
    sort = view.sort if view.sort in keys else "row"
    order = choosing.order_of(len(labels), keys.get(sort), labels, view.label)
    pages = max(1, -(-len(order) // choosing.PER_PAGE))
    page = min(view.page, pages - 1)
    chosen = order[page * choosing.PER_PAGE : (page + 1) * choosing.PER_PAGE]
    found: list[Any] = [note(session.inputs.note)] if session.inputs.note else []
    found += [_orders(session, view, sort, keys), *_classes(view, labels)]
    if not len(order):
        none = f"No input has the class {plain(view.label)}. "
        return [*found, html.P([none, link("Show all inputs", view.to(label=None, page=0))])]
    first = page * choosing.PER_PAGE + 1
    said = f"Inputs {first} to {first + len(chosen) - 1} of {len(order):,}, {choosing.TITLES[sort]}."
    found.append(html.P(said, className="caption"))
    found.append(html.Ol([_card(session, view, int(i), keys) for i in chosen], className="samples"))
    return found + _pages(view, page, pages)


def _keys(session: Session) -> dict[Any, np.ndarray]:
    loaded = session.loaded
    return {} if loaded is None else choosing.keys_of(loaded.predictions, session.inputs.y)


def _orders(session: Session, view: View, chosen: Sort, keys: dict[Any, np.ndarray]) -> Any:
    known = [sort for sort in choosing.TITLES if sort == "row" or sort in keys]
    row = links(
        "Order", [(choosing.TITLES[sort], view.to(sort=sort, page=0), sort == chosen) for sort in known]
    )
    if session.loaded is None:
        return html.Div([row, html.P("More orders are there once the model is loaded.", className="caption")])
    missing = [choosing.TITLES[sort] for sort in choosing.TITLES if sort not in known]
    if not missing:
        return row
    why = f"Not for these inputs: {', '.join(missing)}. These orders need labels, and a model that returns classes."
    return html.Div([row, html.P(why, className="caption")])


def _classes(view: View, labels: list[str | None]) -> list[Any]:
    known = sorted({label for label in labels if label is not None}, key=lambda text: (len(text), text))
    if not 1 < len(known) <= _MOST_CLASSES:
        return []
    every = [("all", view.to(label=None, page=0), view.label is None)]
    return [
        links(
            "Class",
            [*every, *((text(one), view.to(label=one, page=0), one == view.label) for one in known)],
        )
    ]


def _card(session: Session, view: View, position: int, keys: dict[Any, np.ndarray]) -> html.Li:
    name, is_chosen = session.shown.name(position), position in view.inputs
    body = [
        html.Span(example_body(session.shown.input(position), name)),
        link(html.B(name), view.to(inputs=(position,)), is_chosen=view.inputs == (position,)),
        html.Small(said_of(session, position)),
    ]
    if keys:
        known = {
            "loss": ("loss", "nats"),
            "movement": ("movement", "nats" if "loss" in keys else ""),
        }
        facts = [
            f"{known[k][0]} {number(float(keys[k][position]))} {known[k][1]}" for k in known if k in keys
        ]
        body.append(html.Small(", ".join(facts)))
    if view.inputs and view.inputs != (position,):
        verb = "take away" if is_chosen else "add"
        body.append(link([verb, hidden(f" {name}")], view.toggled(position).query))
    return html.Li(body, className="chosen" if is_chosen else "")


def said_of(session: Session, position: int) -> list[Any]:
    """Return the label of an input, and what the model says of it."""
    label, loaded = session.shown.label(position), session.loaded
    known: list[Any] = [] if label is None else ["label ", text(label)]
    if loaded is None or loaded.predictions.predicted is None:
        return known
    predictions = loaded.predictions
    assert predictions.predicted is not None and predictions.probability is not None
    predicted, probability = predictions.predicted[position], predictions.probability[position]
    known += [" · " if known else "", f"the model says {predicted}, {probability:.0%}"]
    classes = choosing.classes_of(session.inputs.y, predictions)
    if classes is not None:
        known.append(" · right" if classes[position] == predicted else " · wrong")
    return known


def _pages(view: View, page: int, pages: int) -> list[Any]:
    if pages == 1:
        return []
    near = [("earlier inputs", view.to(page=page - 1), False)] if page else []
    near += [("more inputs", view.to(page=page + 1), False)] if page + 1 < pages else []
    return [links(f"Page {page + 1} of {pages}", near)]
