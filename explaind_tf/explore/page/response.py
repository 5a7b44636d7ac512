"""The part of the page with the counterfactual answer: how the prediction depends on the samples."""

from typing import Any

import xarray as xr
from dash import html

from explaind_tf import constants as names
from explaind_tf.explore import reading
from explaind_tf.explore.asker import Stage
from explaind_tf.explore.page.answers import TOP, ranked
from explaind_tf.explore.page.elements import link, note
from explaind_tf.explore.questions import Question
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import View
from explaind_tf.report.reductions import unit_of


def response(session: Session, view: View, known: dict[Question, Stage]) -> list[Any]:
    """Return the counterfactual answer about the chosen inputs, or how to ask for it."""
    loaded = session.loaded
    if loaded is None or not view.inputs or not loaded.sizes.samples:
        return []
    found: list[Any] = [
        html.P(
            "Another question: how would the prediction be if a sample had been left out? It takes a sweep back through the "
            "whole training. The verdict also trains again a few times without some samples, and compares."
        )
    ]
    if not view.response:
        return [
            *found,
            html.P(
                [
                    link("Ask it", view.to(response="answer")),
                    " · ",
                    link("Ask it, with its verdict", view.to(response="verdict")),
                ]
            ),
        ]
    found.append(html.P(link("Do without it", view.to(response=""))))
    stage = next(
        (stage for question, stage in known.items() if question.kind in ("counterfactual", "verdict")), None
    )
    return found if stage is None else found + _answer(session, view, stage.ledger)


def _answer(session: Session, view: View, answer: xr.Dataset) -> list[Any]:
    unit = unit_of(answer)
    entries = answer[names.RESPONSE].isel({names.OUTPUT: view.output}).mean(names.INPUT)
    raised, lowered = reading.strongest(entries, TOP)
    found: list[Any] = []
    if names.VERDICT in answer.attrs:
        found.append(note(str(answer.attrs[names.VERDICT])))
    elif view.response == "answer":
        found.append(note("No verdict was asked for: ", link("ask for it", view.to(response="verdict")), "."))
    found.append(
        html.P(
            f"The derivative of the number by the weight of a sample in the loss, in {unit} per unit of weight. To first "
            f"order, leaving the sample out changes the number by minus this.",
            className="caption",
        )
    )
    for words, side in (("lower", raised), ("higher", lowered)):
        title = html.H3(f"Samples without which the number would be {words}")
        found += ranked(session, view, title, side, "No training sample.")
    return found
