"""The part of the page that a reader takes along: Python calls, files, the address."""

from typing import Any

from dash import dcc, html

from explaind_tf import constants as names
from explaind_tf.explore import calls
from explaind_tf.explore.asker import Stage
from explaind_tf.explore.page.elements import labelled
from explaind_tf.explore.questions import Question
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import View

FILES = {
    "answer.csv": "numbers as CSV",
    "answer.zarr.zip": "the whole answer as zarr",
    "answer.html": "this view as a page",
}


def taking(session: Session, view: View, known: dict[Question, Stage], prefix: str) -> list[Any]:
    """Return the calls that give the numbers shown, and links to files."""
    if not view.inputs or not any(question.kind == "account" for question in known):
        return []
    files = [
        html.Li(html.A(words, href=f"{prefix}save/{name}{view.query}", download=name))
        for name, words in FILES.items()
    ]
    return [
        html.P("Save:"),
        html.Ul(files),
        *(
            part
            for i, (title, code) in enumerate(_calls(session, view, known))
            for part in _call(title, code, i)
        ),
        html.P(
            "The address of this page, from the question mark on, is this view: whoever opens the same run and inputs may "
            "append it.",
            className="caption",
        ),
    ]


def _calls(session: Session, view: View, known: dict[Question, Stage]) -> list[tuple[str, str]]:
    chosen, found = session.chosen_samples(view), []
    for question, stage in known.items():
        if question.kind == "account":
            what = "the samples" if names.SAMPLE in stage.ledger.dims else "layers and steps"
            found.append(
                (
                    f"The numbers of {what}, in Python",
                    calls.account(session, view, question, stage),
                )
            )
        elif question.kind == "reach" and chosen:
            call = calls.reach(session, view, question, chosen, stage)
            found.append(("What the chosen samples did to each input, in Python", call))
        elif question.kind in ("counterfactual", "verdict"):
            found.append(
                ("The counterfactual answer, in Python", calls.counterfactual(session, view, question))
            )
    return found


def _call(title: str, code: str, number: int) -> list[Any]:
    element = f"call-{number}"
    return [
        html.H3(title),
        html.Div(
            [
                dcc.Clipboard(content=code, id=f"copy-{number}", title="copy", className="copy"),
                html.Pre(html.Code(code, id=element), tabIndex=0, **labelled(title), role="region"),
            ],
            className="call",
        ),
    ]
