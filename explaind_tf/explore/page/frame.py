"""The frame of the page: its landmarks, which the parts fill, and the HTML around it."""

from html import escape
from string import Template
from typing import Any, Final

from dash import dcc, html

from explaind_tf.explore.page.elements import labelled, text
from explaind_tf.explore.session import Session
from explaind_tf.report.page import STYLE

# Milliseconds between two looks at what is being computed.
_TICK: Final = 500

# The parts that views fill, with their headings.
PARTS: Final = {
    "inputs": "Inputs",
    "answer": "Where a prediction comes from",
    "samples": "Training samples, as one",
    "response": "What if a sample had been left out?",
    "taking": "Take it along",
}

_PAGE: Final = Template(
    """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<link rel="icon" href="data:,">
<style>$style</style>
{%css%}
</head>
<body>
{%app_entry%}
<footer>{%config%}{%scripts%}{%renderer%}</footer>
</body>
</html>
"""
)

_STYLE: Final = (
    STYLE
    + """
body { max-width: 72rem; }
h2 { margin-top: 2rem; }
header nav > ul { display: flex; }
header nav > ul > li { font-weight: 400; }
.choices ul { display: inline-flex; max-width: 100%; }
.choices li { min-width: 0; }
#answer-body td, #samples-body td { min-width: 4rem; }
bdi { overflow-wrap: anywhere; }
img { vertical-align: middle; margin-right: .5rem; }
ol.samples li > span > * { display: block; }
.choices { margin: .3rem 0; }
.here { color: var(--ink); text-decoration: none; }
.hidden-text { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
ol.samples li.chosen { outline: 3px solid var(--accent); }
ul.inputs { list-style: none; padding: 0; display: grid; gap: .5rem; }
caption { text-align: left; color: var(--soft); font-size: .93rem; }
thead th { color: var(--soft); font-size: .9rem; }
thead th:not(:first-child) { text-align: right; }
#status { position: sticky; top: 0; z-index: 5; background: var(--page); border-bottom: 1px solid var(--line); }
#status ul { list-style: none; padding: 0; margin: .2rem 0; }
#status progress { width: 12rem; max-width: 100%; margin-left: .6rem; vertical-align: middle; accent-color: var(--accent); }
button {
  font: inherit; color: var(--accent); background: var(--card); border: 1px solid var(--accent); border-radius: .3rem;
  padding: .3rem .8rem; margin: .2rem .6rem .2rem 0; cursor: pointer; min-height: 2rem; min-width: 2rem;
}
button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
.call { position: relative; }
.call .copy { position: absolute; right: .4rem; top: .4rem; }
.call pre { padding-top: 2.6rem; }
.tokens { line-height: 2; }
.token { padding: .1rem .25rem; border-radius: .2rem; }
nav a, .samples a, td a, th a { display: inline-block; min-height: 1.5rem; min-width: 1.5rem; }
"""
)


def page(title: str, entry: str) -> str:
    """Return the HTML around the page, as Dash fills it."""
    return _PAGE.substitute(title=escape(title), style=_STYLE).replace("{%app_entry%}", entry)


def frame(session: Session) -> html.Div:
    """Return the page without a view."""
    navigation = [html.Li(html.A(words, href=f"#{part}")) for part, words in PARTS.items()]
    return html.Div(
        [
            dcc.Location(id="url", refresh=False),
            dcc.Interval(id="tick", interval=_TICK, max_intervals=0),
            dcc.Store(id="drawn", data={}),
            html.A("Skip to the inputs", href="#inputs", className="skip"),
            html.Header(
                [
                    html.H1(["Explore ", text(session.about.title)]),
                    html.Div(id="facts-body"),
                    html.Nav(html.Ul(navigation), **labelled("Parts of the page")),
                ]
            ),
            html.Main([_status(), *(_part(part, words) for part, words in PARTS.items())]),
        ]
    )


def facts(session: Session) -> list[Any]:
    """Return what the page is about."""
    run, loaded = session.run, session.loaded
    steps = len(run.steps) if loaded is None else loaded.sizes.steps
    weights = sum(variable.size for variable in run.variables)
    said = f"{steps:,} training steps, {weights:,} weights in {len(run.layers)} layers. "
    if not getattr(run, "is_complete", True):
        said += (
            "It is still being recorded, or was cut short: this page is about the steps that were announced when it was "
            "opened. "
        )
    said += f"Answers are kept {session.about.where_kept}."
    return [html.P(said, className="caption")]


def _status() -> html.Section:
    buttons: list[Any] = [
        html.Button("Cancel", id="cancel", n_clicks=0, hidden=True),
        html.Button("Ask again", id="again", n_clicks=0, hidden=True),
    ]
    lines = html.Div(id="lines", role="status")
    return html.Section([lines, *buttons], id="status", **labelled("What is being computed"))


def _part(part: str, words: str) -> html.Section:
    body = html.Div(id=f"{part}-body")
    return html.Section([html.H2(words), body], id=part, **labelled(words))
