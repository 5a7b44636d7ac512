"""What is being computed, in words."""

from collections.abc import Sequence
from typing import Any

from dash import html

from explaind_tf.explore.asker import State
from explaind_tf.explore.page.elements import labelled, text
from explaind_tf.explore.questions import LOAD, Kind, Question

_TITLES: dict[Kind, str] = {
    "load": "The model",
    "account": "The answer about the chosen inputs",
    "where": "Layers and steps",
    "reach": "What the samples did to all inputs",
    "tokens": "The tokens of the sample",
    "counterfactual": "The counterfactual answer",
    "verdict": "The counterfactual answer and its verdict",
}
UNFINISHED = ("waiting", "running")


def status(known: Sequence[tuple[Question, State]], complaint: str, is_alive: bool, drawn: str) -> Any:
    """Return a line for each question that is not answered to the end, and the address of the view that is drawn."""
    lines = [line for question, state in known for line in _line(question, state)]
    if complaint:
        lines.append(html.Li(text(complaint)))
    if not is_alive:
        lines.append(
            html.Li("Nothing more is computed: the part that answers has ended. Start explaind-tf again.")
        )
    return html.Ul(lines, **{"data-view": drawn})  # type: ignore[arg-type]


def _line(question: Question, state: State) -> list[Any]:
    title = _TITLES[question.kind]
    if state.status == "done" or state.status == "unknown":
        return []
    if state.status == "failed":
        return [html.Li([f"{title}: ", text(state.message)], className="failed")]
    if state.status == "cancelled":
        kept = " What was known before stays." if state.stage else ""
        return [html.Li(f"{title}: cancelled.{kept}")]
    so_far = (
        "" if state.stage is None else " is there, coarse; it is being refined" if question != LOAD else ""
    )
    if state.status == "waiting":
        ahead = f"waits: {state.ahead} computed before it, one at a time" if state.ahead else "is next"
        return [html.Li(f"{title}{so_far}{',' if so_far else ''} {ahead}.")]
    return [html.Li([f"{title}{so_far or ' is being computed'}{_doing(state)}.", _bar(state, title)])]


def _doing(state: State) -> str:
    doing = state.doing
    about = "" if state.expected is None else f"; the last one took {_time(state.expected)}"
    if doing is None or not doing.total:
        return about
    left = (
        ""
        if doing.seconds_left is None or not doing.done
        else f", about {_time(doing.seconds_left)} left of it"
    )
    return f": {doing.title}, {doing.done} of {doing.total}{left}{about}"


def _bar(state: State, title: str) -> Any:
    doing = state.doing
    if doing is None or doing.total < 2:
        return None
    return html.Progress(value=str(doing.done), max=str(doing.total), **labelled(title))


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 1 else "1 s" if seconds < 1 and seconds > 0.5 else "less than 1 s"
