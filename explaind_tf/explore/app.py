"""The page as a Dash application: addresses and clicks in, parts of the page out."""

from collections.abc import Callable
from typing import Any, Final

from dash import Dash, Input, Output, State, ctx, no_update
from flask import Response, abort, request

from explaind_tf.explore import saving
from explaind_tf.explore.asker import Stage
from explaind_tf.explore.asker import State as Known
from explaind_tf.explore.page import frame
from explaind_tf.explore.page.answers import HEAT_MAP, answer
from explaind_tf.explore.page.listing import listing
from explaind_tf.explore.page.response import response
from explaind_tf.explore.page.samples import samples
from explaind_tf.explore.page.status import UNFINISHED, status
from explaind_tf.explore.page.taking import FILES, taking
from explaind_tf.explore.questions import LOAD, Question
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import View, view_of

# What each part shows of a view and of the answers: it is drawn again only if that changed.
_KINDS: Final[dict[str, tuple[str, ...]]] = {
    "facts": (),
    "inputs": (),
    "answer": ("account", "where"),
    "samples": ("account", "reach", "tokens"),
    "response": ("counterfactual", "verdict"),
    "taking": ("account", "reach", "counterfactual", "verdict"),
}


def make_app(session: Session, prefix: str) -> Dash:
    """Return the application of a session.

    Parameters
    ----------
    session : Session
        The session.
    prefix : str
        The beginning of all its addresses: ``"/token/"``.
    """
    app = Dash(
        "explaind_tf.explore",
        url_base_pathname=prefix,
        include_assets_files=False,
        include_pages_meta=False,
        serve_locally=True,
        suppress_callback_exceptions=True,  # the map is there only once there is an answer
        update_title="",
        add_log_handler=False,
        title=f"Explore {session.about.title}",
    )
    app.index_string = frame.page(f"Explore {session.about.title}", "{%app_entry%}")
    app.layout = frame.frame(session)
    parts = [Output(f"{part}-body", "children") for part in _KINDS]

    @app.callback(
        *parts,
        Output("lines", "children"),
        Output("cancel", "hidden"),
        Output("again", "hidden"),
        Output("tick", "max_intervals"),
        Output("drawn", "data"),
        Input("url", "search"),
        Input("tick", "n_intervals"),
        Input("cancel", "n_clicks"),
        Input("again", "n_clicks"),
        State("drawn", "data"),
    )
    def _draw(search: str, ticks: int, _cancel: int, _again: int, drawn: dict[str, str]) -> tuple[Any, ...]:
        return draw(session, view_of(search), drawn or {}, prefix, ctx.triggered_id, ticks or 0)

    @app.callback(
        Output("url", "search"),
        Input(HEAT_MAP, "clickData"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def _click(clicked: dict[str, Any] | None, search: str) -> Any:
        return clicked_view(session, view_of(search), clicked)

    _add_files(app, session, prefix)
    return app


def draw(
    session: Session, view: View, drawn: dict[str, str], prefix: str, act: str | None, ticks: int = 0
) -> tuple[Any, ...]:
    """Return the parts of a view that changed, what is being computed, and what is drawn now.

    Parameters
    ----------
    session : Session
        The session.
    view : View
        What to show.
    drawn : dict of str to str
        What each part shows already.
    prefix : str
        The beginning of all addresses.
    act : str or None
        ``"cancel"`` or ``"again"`` if that button was pressed.
    ticks : int
        How often the page looked so far. While something is computed, it looks once more after this answer. If it looked
        before, the browser would drop this answer.
    """
    address, view = view.query, session.sound(view)
    if act == "cancel":
        for question in session.questions(view):
            session.asker.cancel(question)
    known = session.ask(view, again=act == "again")
    stages = {question: state.stage for question, state in known if state.stage is not None}
    now = {part: _signature(session, view, known, part) for part in _KINDS}
    makers: dict[str, Callable[[], list[Any]]] = {
        "facts": lambda: frame.facts(session),
        "inputs": lambda: listing(session, view),
        "answer": lambda: answer(session, view, stages),
        "samples": lambda: samples(session, view, stages),
        "response": lambda: response(session, view, stages),
        "taking": lambda: taking(session, view, stages, prefix),
    }
    bodies = [make() if drawn.get(part) != now[part] else no_update for part, make in makers.items()]
    every = [(LOAD, session.loading), *known]
    statuses = {state.status for _, state in known}
    lines = status(every, session.complaint, session.asker.is_alive, address)
    is_busy = any(state.status in UNFINISHED for _, state in every)
    return (
        *bodies,
        lines,
        not statuses & set(UNFINISHED),
        not statuses & {"cancelled", "failed"},
        ticks + is_busy,
        now,
    )


def _signature(session: Session, view: View, known: list[tuple[Question, Known]], part: str) -> str:
    """Return a text that changes whenever a part has to be drawn again."""
    of_answers = [
        (question.kind, state.version, state.stage is not None)
        for question, state in known
        if question.kind in _KINDS[part]
    ]
    return f"{view.query} {session.loading.version} {of_answers}"


def clicked_view(session: Session, view: View, clicked: dict[str, Any] | None) -> Any:
    """Return the address of the view after a click into the map: with the step and the layer of the cell."""
    layers = session.run.layers
    try:
        point = (clicked or {})["points"][0]
        step, row = int(point["x"]), int(point["y"])
    except (KeyError, IndexError, TypeError, ValueError):
        return no_update  # a click beside the cells
    if not 0 <= row < len(layers):
        return no_update
    return view.to(step=step, layer=layers[row])


def _add_files(app: Dash, session: Session, prefix: str) -> None:
    """Let the answer of a view be saved."""

    @app.server.route(f"{prefix}save/<name>")
    def save(name: str) -> Response:
        view = session.sound(view_of(request.query_string.decode("ascii", "replace")))
        known = {q: s.stage for q, s in session.ask(view) if q.kind == "account" and s.stage is not None}
        if name not in FILES or not known:
            abort(
                404,
                "There is no such file, or no answer yet: open the view, and save once its answer is there.",
            )
        ((question, stage),) = known.items()
        content, kind = _content(name, session, view, question, stage)
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(content, mimetype=kind, headers=headers)


def _content(
    name: str, session: Session, view: View, question: Question, stage: Stage
) -> tuple[str | bytes, str]:
    if name.endswith(".csv"):
        return saving.as_csv(session, view, question, stage), "text/csv"
    if name.endswith(".zip"):
        return saving.as_zarr(stage.ledger), "application/zip"
    return saving.as_html(session, view, question, stage), "text/html"
