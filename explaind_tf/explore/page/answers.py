"""The part of the page that shows the answer about the chosen inputs."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import xarray as xr
from dash import html

from explaind_tf import constants as names
from explaind_tf.explore import reading
from explaind_tf.explore.asker import Stage
from explaind_tf.explore.page.elements import (
    change,
    example_body,
    folded,
    graph,
    hidden,
    link,
    links,
    note,
    table,
    text,
)
from explaind_tf.explore.page.listing import said_of
from explaind_tf.explore.questions import Question
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import View
from explaind_tf.levels import MEANING
from explaind_tf.report.figures import heat_map
from explaind_tf.report.figures.style import bare
from explaind_tf.report.numbers import number
from explaind_tf.report.reductions import bins_of, unit_of
from explaind_tf.terms import term

HEAT_MAP: Final = "heat"
TOP: Final = 8
_MOST_ROWS: Final = 100


def answer(session: Session, view: View, known: dict[Question, Stage]) -> list[Any]:
    """Return the answer about the chosen inputs, as far as it is known."""
    if not view.inputs:
        return [
            html.P(
                "Choose an input above to see which training samples, layers and steps made its prediction."
            )
        ]
    found: list[Any] = [html.Ul([_chosen(session, i) for i in view.inputs], className="inputs")]
    stage = next((stage for question, stage in known.items() if question.kind == "account"), None)
    if stage is None:
        return found
    where = next((stage for question, stage in known.items() if question.kind == "where"), None)
    ledger = stage.ledger
    found += [_balance(session, view, stage), *_outputs(session, view), _only(view)]
    split = stage if names.LAYER in ledger.dims else where
    if split is not None:
        found += _where(view, split)
    return found + _samples(session, view, stage)


def _chosen(session: Session, position: int) -> html.Li:
    name = session.shown.name(position)
    return html.Li(
        [*example_body(session.shown.input(position), name), html.B(name), " ", *said_of(session, position)]
    )


def _balance(session: Session, view: View, stage: Stage) -> html.Div:
    found = stage.once(("balance", view.output), lambda: reading.balance_of(stage.ledger, view.output))
    unit = unit_of(stage.ledger)
    loaded = session.loaded
    assert loaded is not None  # there is an answer
    many = f", mean of {len(view.inputs)} inputs" if len(view.inputs) > 1 else ""
    how = (
        f"To the tolerance of {session.about.tolerance:g}"
        if stage.is_final
        else "Coarse: one point of each step was looked at, and a refined answer follows"
    )
    said = (
        f"{how}. What the entries leave unexplained is {found.residual_share:.2%} of the movement of an input, at most. "
        f"This bounds their sum; a single entry may be off by more."
    )
    rows: list[tuple[Any, Any]] = [("before training", number(found.initial))]
    rows += [
        (term(name).label, change(value))
        for name, value in found.terms.items()
        if value or name == names.RESIDUAL
    ]
    rows.append(("after training", number(found.final)))
    title = f"How training changed {loaded.measured.title}, in {unit}{many}"
    return html.Div(
        [html.P(said, className="caption" if stage.is_final else "note"), table(title, ("", ""), rows)]
    )


def _outputs(session: Session, view: View) -> list[Any]:
    loaded = session.loaded
    assert loaded is not None
    if len(loaded.outputs) < 2:
        return []
    labels = list(enumerate(loaded.outputs))[:_MOST_ROWS]
    return [links("Output", [(text(label), view.to(output=i), i == view.output) for i, label in labels])]


def _only(view: View) -> Any:
    """Say which step and layer the samples below are of, with a way back."""
    if view.step is None and view.layer is None:
        return html.P("All steps and layers. Choose one in the map or in its tables.", className="caption")
    said: list[Any] = ["Only "]
    if view.step is not None:
        said += [html.B(f"step {view.step}"), " (", link("all steps", view.to(step=None)), ")"]
    if view.layer is not None:
        said += [", " if view.step is not None else "", "layer ", html.B(text(view.layer))]
        said += [" (", link("all layers", view.to(layer=None)), ")"]
    return html.P(said)


def _where(view: View, stage: Stage) -> list[Any]:
    ledger, unit = stage.ledger, unit_of(stage.ledger)
    drawn = stage.once(("map", view.output), lambda: _map(ledger, view.output, unit))
    drawn = drawn | {"layout": drawn["layout"] | {"shapes": _marks(view, ledger)}}
    by_layer, by_step = (
        stage.once((axis, view.output), partial(reading.by_axis, ledger, axis, view.output))
        for axis in (names.LAYER, names.STEP)
    )
    step_of = (
        "Where samples are told apart, the step of an entry is the one that used the sample."
        if names.SAMPLE in ledger.dims
        else "The step of an entry is the one in which the prediction moved."
    )
    caption = (
        f"A row for each layer, the first on top; a column for each step. Blue: what the layer learnt in the step raised "
        f"the number; red: lowered it. In {unit}. {step_of} Click a cell, or choose in the tables."
    )
    layers = [
        (
            link(text(one.key), view.to(layer=str(one.key)), is_chosen=view.layer == str(one.key)),
            change(one.value),
        )
        for one in by_layer
    ]
    tables = [
        folded(
            "Layers, as a table",
            [table(f"Change through each layer, in {unit}", ("layer", "change"), layers)],
        ),
        folded("Steps, as a table", [_steps(view, by_step, unit)]),
    ]
    label = "Change by layer and training step; the tables that follow have its numbers"
    return [
        html.H3("Where and when"),
        html.Figure([graph(drawn, HEAT_MAP, label), html.Figcaption(caption)]),
        html.Div(tables, className="more"),
    ]


def _steps(view: View, entries: list[reading.Entry], unit: str) -> Any:
    """Return the table of steps; of many, the strongest."""
    title = f"Change in each step, in {unit}"
    if len(entries) > _MOST_ROWS:
        entries = sorted(entries, key=lambda one: -abs(one.value))[:_MOST_ROWS]
        title = f"The {_MOST_ROWS} strongest steps, in {unit}"
    rows = [
        (link(f"step {one.key}", view.to(step=one.key), is_chosen=view.step == one.key), change(one.value))
        for one in entries
    ]
    return table(title, ("step", "change"), rows)


def _map(ledger: xr.Dataset, output: int, unit: str) -> dict[str, Any]:
    return bare(heat_map(ledger, names.LAYER, output=ledger[names.OUTPUT].values[output], unit=unit))


def _marks(view: View, ledger: xr.Dataset) -> list[dict[str, Any]]:
    """Return frames around the chosen step and layer."""
    look = {"type": "rect", "line": {"color": "#8A94A0", "width": 2}}
    marks = []
    if view.step is not None:
        bins = bins_of(ledger[names.STEP].values)
        width = (bins.centers[1] - bins.centers[0]) / 2 if len(bins.centers) > 1 else 0.5
        at = float(bins.centers[abs(bins.centers - view.step).argmin()])
        marks.append(look | {"x0": at - width, "x1": at + width, "y0": 0, "y1": 1, "yref": "paper"})
    if view.layer is not None:
        row = [str(layer) for layer in ledger[names.LAYER].values].index(view.layer)
        marks.append(look | {"y0": row - 0.5, "y1": row + 0.5, "x0": 0, "x1": 1, "xref": "paper"})
    return marks


def _samples(session: Session, view: View, stage: Stage) -> list[Any]:
    title, ledger = html.H3("Training samples"), stage.ledger
    loaded = session.loaded
    if not stage.is_final and loaded is not None and loaded.sizes.samples:
        return [title, note("They follow with the refined answer.")]
    if names.SAMPLE not in ledger.dims:
        return [title, no_samples(session)]
    found: list[Any] = [title]
    missing = [axis for axis in (names.STEP, names.LAYER) if axis not in ledger.dims]
    asked = [axis for axis in missing if getattr(view, axis) is not None]
    if asked:
        told = (
            f"The samples below are not split by {' and '.join(asked)}: for all samples at once that would take too much "
            f"memory. In Python, ask for fewer inputs, or for layers= and steps= of their own."
        )
        found.append(note(told))
    entries = reading.entries_of(ledger, view.output, step=view.step, layer=view.layer)
    raised, lowered = reading.strongest(entries, TOP)
    unit = unit_of(ledger)
    found.append(
        html.P(
            f"What the gradients of a sample did to the number, in {unit}: plus raised it. All {entries.size:,} samples "
            f"together: {number(float(entries.sum()))}.",
            className="caption",
        )
    )
    found += ranked(session, view, html.H4("Samples that raised it most"), raised, "No training sample did.")
    found += ranked(
        session, view, html.H4("Samples that lowered it most"), lowered, "No training sample did."
    )
    return found


def ranked(
    session: Session, view: View, title: Any, entries: Sequence[reading.Entry], nobody: str
) -> list[Any]:
    """Return a title and the cards of some training samples under it, or the sentence that there are none."""
    cards = [_sample_card(session, view, one) for one in entries]
    return [title, html.Ol(cards, className="samples") if cards else html.P(nobody)]


def _sample_card(session: Session, view: View, one: reading.Entry) -> html.Li:
    """Return a training sample with its number, and links that choose it."""
    key = str(one.key)
    is_chosen = key in view.samples and view.group is None
    body = [
        html.Span(example_body(session.shown.sample(one.key), f"sample {key}")),
        link(html.B(text(key)), view.to(samples=(key,), group=None), is_chosen=is_chosen),
        change(one.value),
    ]
    if view.samples and not is_chosen:
        more = (*view.samples, key)
        body.append(link(["add", hidden(f" sample {key}")], view.to(samples=more, group=None)))
    return html.Li(body, className="chosen" if is_chosen else "")


def no_samples(session: Session) -> Any:
    """Say why there are no samples, and what can be asked instead."""
    run = session.run
    why = run.manifest.level_reason or (
        "Checkpoints hold neither the batches nor the optimizer's state, and only these tell what a sample did."
    )
    return note(
        f"This run cannot tell training samples apart. It tells changes {MEANING[run.level]}: choose a layer or a step "
        f"above. ",
        text(why),
    )
