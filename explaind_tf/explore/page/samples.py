"""The part of the page about chosen training samples: what they did to the chosen inputs, and to all others."""

from functools import partial
from typing import Any

import numpy as np
from dash import html

from explaind_tf import constants as names
from explaind_tf.explore import reading
from explaind_tf.explore.asker import Stage
from explaind_tf.explore.page.answers import TOP
from explaind_tf.explore.page.elements import (
    change,
    example_body,
    folded,
    hidden,
    link,
    links,
    note,
    picture,
    table,
    text,
)
from explaind_tf.explore.questions import Question
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import View
from explaind_tf.report.numbers import signed
from explaind_tf.report.reductions import unit_of

_MOST_SHOWN = 12


def samples(session: Session, view: View, known: dict[Question, Stage]) -> list[Any]:
    """Return what the chosen samples did, as far as it is known."""
    loaded = session.loaded
    if loaded is None or not loaded.sizes.samples:
        return []
    found: list[Any] = [*_groups(session, view)]
    chosen = session.chosen_samples(view)
    if not chosen:
        return [
            *found,
            html.P("Choose a training sample above, or a group, to see which inputs it helped or hurt most."),
        ]
    found.append(_title(session, view, chosen))
    by_kind = {question.kind: stage for question, stage in known.items()}
    if "account" in by_kind and names.SAMPLE in by_kind["account"].ledger.dims:
        found += _of_inputs(view, chosen, by_kind["account"])
    if "tokens" in by_kind:
        found += _tokens(session, view, chosen[0], by_kind["tokens"])
    if "reach" in by_kind:
        found += _reach(session, view, chosen, by_kind["reach"])
    return found


def _groups(session: Session, view: View) -> list[Any]:
    loaded = session.loaded
    assert loaded is not None
    if not loaded.groups:
        return [html.P(loaded.no_groups, className="caption")]
    each = [
        ([text(name), f" ({len(ids):,})"], view.to(group=name, samples=()), name == view.group)
        for name, ids in loaded.groups.items()
    ]
    return [links("Group of samples, as one", each)]


def _title(session: Session, view: View, chosen: list[Any]) -> html.Div:
    if view.group is not None:
        said: list[Any] = ["Group ", html.B(text(view.group)), f": {len(chosen):,} samples, as one. "]
    else:
        said = [f"{len(chosen)} samples, as one. " if len(chosen) > 1 else "One sample. "]
    said.append(link("Choose none", view.to(samples=(), group=None)))
    cards = []
    for key in chosen[:_MOST_SHOWN]:
        name = f"sample {key}"
        body: list[Any] = [html.Span(example_body(session.shown.sample(key), name)), html.B(text(key))]
        if view.group is None and len(chosen) > 1:
            rest = tuple(one for one in view.samples if one != str(key))
            body.append(link(["take away", hidden(f" {name}")], view.to(samples=rest)))
        cards.append(html.Li(body))
    more = len(chosen) - len(cards)
    others = [html.P(f"… and {more:,} more.", className="caption")] if more else []
    return html.Div([html.P(said), html.Ol(cards, className="samples"), *others])


def _of_inputs(view: View, chosen: list[Any], stage: Stage) -> list[Any]:
    """Return what the samples did to the chosen inputs, by layer and step."""
    ledger, unit = stage.ledger, unit_of(stage.ledger)
    which = ("samples", tuple(chosen), view.output)
    total = stage.once((*which, "all"), lambda: reading.together(ledger, chosen, view.output))
    many = f", mean of {len(view.inputs)}" if len(view.inputs) > 1 else ""
    found: list[Any] = [
        html.P(["To the chosen inputs: ", change(total), f" {unit}, over all steps and layers{many}."])
    ]
    tables = []
    for axis in (names.LAYER, names.STEP):
        if axis in ledger.dims:
            entries = stage.once((*which, axis), partial(reading.by_axis, ledger, axis, view.output, chosen))
            entries = sorted((one for one in entries if one.value), key=lambda one: -abs(one.value))[:100]
            rows = [(text(one.key), change(one.value)) for one in entries]
            tables.append(
                folded(
                    f"By {axis}",
                    [table(f"By {axis}, the strongest first, in {unit}", (axis, "change"), rows)],
                )
            )
    return [*found, html.Div(tables, className="more")]


def _tokens(session: Session, view: View, sample: Any, stage: Stage) -> list[Any]:
    """Return a sample's text with each token in the colour of what its loss did."""
    values = reading.of_tokens(stage.ledger, sample, view.output)
    words = session.shown.words_of_sample(sample, len(values))
    scale = float(np.abs(values).max()) or 1.0
    unit = unit_of(stage.ledger)
    marks: list[Any] = []
    for word, value in zip(words, values, strict=True):
        colour = "20,95,180" if value >= 0 else "190,30,55"
        shade = {"backgroundColor": f"rgba({colour},{0.45 * abs(value) / scale:.3f})"}
        marks += [html.Span(text(word), style=shade, className="token", title=signed(float(value))), " "]
    rows = [
        (f"{i}", text(word), change(float(value)))
        for i, (word, value) in enumerate(zip(words, values, strict=True))
    ]
    caption = f"What the loss at each position of this sample did to the chosen inputs, in {unit}"
    return [
        html.H3("Its tokens"),
        html.P(f"{caption}. Blue raised the number, red lowered it.", className="caption"),
        html.P(marks, className="tokens"),
        folded("Tokens, as a table", [table(caption, ("position", "token", "change"), rows)]),
    ]


def _reach(session: Session, view: View, chosen: list[Any], stage: Stage) -> list[Any]:
    ledger, unit = stage.ledger, unit_of(stage.ledger)
    helped, hurt = stage.once(
        ("reached", tuple(chosen), view.output), lambda: reading.reached(ledger, chosen, view.output, TOP)
    )
    count, every = ledger.sizes[names.INPUT], len(session.shown)
    found: list[Any] = [
        html.H3(
            "Inputs that it helped or hurt most"
            if len(chosen) == 1
            else "Inputs that they helped or hurt most"
        )
    ]
    if not stage.is_final:
        share = reading.balance_of(ledger, view.output).residual_share
        found.append(
            note(
                f"Coarse: a refined answer follows. Of an input’s movement, {share:.2%} at most is unexplained."
            )
        )
    if count < every:
        found.append(note(f"Only the first {count:,} of {every:,} inputs: more would take too much memory."))
    for words, side in (("raised", helped), ("lowered", hurt)):
        rows = []
        for one in side:
            name = session.shown.name(one.position)
            shown = [*picture(session.shown.input(one.position), name), " ", name]
            when = (
                ""
                if one.step is None
                else link(f"step {one.step}", view.to(inputs=(one.position,), step=one.step))
            )
            rows.append((link(html.Span(shown), view.to(inputs=(one.position,))), change(one.value), when))
        title = f"Inputs whose number was {words} most, in {unit}"
        empty = html.P(f"No input’s number was {words}.")
        found.append(table(title, ("input", "change", "most of it in"), rows) if rows else empty)
    return found
