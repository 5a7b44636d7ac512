"""HTML of the report's figures, tables and pictures; text that is passed in is escaped."""

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go
import tensorflow as tf
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.ledgers.unexplained import unexplained_steps
from explaind_tf.report.examples import Example
from explaind_tf.report.figures.style import bare
from explaind_tf.report.numbers import signed
from explaind_tf.terms import term


def figure(
    drawn: go.Figure,
    element_id: str,
    *,
    label: str,
    caption: str,
    call: str,
    rows: Sequence[tuple[str, str]] = (),
) -> str:
    """Return a figure with its caption, its numbers and the call that makes it.

    Parameters
    ----------
    drawn : plotly.graph_objects.Figure
        The page's script draws it when it comes into view.
    element_id : str
        Unique on the page.
    label : str
        What the figure shows, for readers who cannot see it.
    caption : str
        Unit, sign, and how to read the figure.
    call : str
        The Python call that makes the figure.
    rows : sequence of (str, str)
        The figure's numbers, if a table can hold them.
    """
    numbers = folded("The numbers", table(rows)) if rows else ""
    said = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    code = folded("Make this figure in Python", f"<pre tabindex='0'><code>{escape(call)}</code></pre>")
    return (
        f'<figure><div class="plot" id="{element_id}" role="img" tabindex="0" aria-label="{escape(label)}" '
        f'style="height:{drawn.layout.height}px"></div>'
        f'<script type="application/json" data-for="{element_id}">{_json(drawn)}</script>{said}'
        f'<div class="more">{numbers}{code}</div></figure>'
    )


def _json(drawn: go.Figure) -> str:
    # No text in it can close the script element around it.
    return json.dumps(bare(drawn)).replace("<", "\\u003c").replace(">", "\\u003e")


def folded(title: str, content: str) -> str:
    """Return HTML that a reader can unfold."""
    return f"<details class='fold'><summary>{escape(title)}</summary>{content}</details>"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table with a row for each pair of name and value."""
    cells = "".join(
        f'<tr><th scope="row">{escape(what)}</th><td>{escape(value)}</td></tr>' for what, value in rows
    )
    return f"<table><tbody>{cells}</tbody></table>"


def picture(example: Example) -> str:
    """Return an example's image, if it has one."""
    if example.image is None:
        return ""
    pixels = tf.image.convert_image_dtype(np.clip(example.image, 0, 1), tf.uint8, saturate=True)
    data = base64.b64encode(tf.io.encode_png(pixels).numpy()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(example.text)}">'


def sample(example: Example, label: Any, value: float) -> str:
    """Return a training sample as an item of a list, with a signed number and its label."""
    direction = "up" if value >= 0 else "down"
    return (
        f"<li>{picture(example)}<b>{escape(example.text)}</b>{values(example)}"
        f'<span class="{direction}">{signed(value)}</span><small>{escape(str(label))}</small></li>'
    )


def values(example: Example) -> str:
    """Return an example's values, if it is a row of a table."""
    return folded("values", table(example.table)) if example.table else ""


def unexplained(ledger: xr.Dataset) -> str:
    """Say which steps the optimizer's law does not explain, if any."""
    count, steps = unexplained_steps(ledger)
    if not count:
        return ""
    return (
        f"<p class='note'>The optimizer’s law does not explain {count} of the steps ({steps}): something else set "
        f"weights within them. What it misses is entered under “{escape(term(names.EXTERNAL).label)}”.</p>"
    )
