"""Elements of the report: HTML of figures, tables and pictures. Text that comes in is text, whatever it says."""

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go
import tensorflow as tf

from explaind_tf.report.section import Example


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
        It is drawn by the page's script, when it comes into view.
    element_id : str
        Unique on the page.
    label : str
        What it shows, for those who do not see it.
    caption : str
        Unit, sign, and how to read it.
    call : str
        Python.
    rows : sequence of (str, str)
        Its numbers, if a table can hold them.
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
    bare = go.Figure(drawn)
    # The page shows through, light or dark, and its style sheet colours text and lines.
    bare.update_layout(
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
    )
    found = json.loads(bare.to_json())
    found["layout"].pop("template", None)  # 7 kB for each figure, of colours that the page does not want
    # Nothing in it can end the element that it is in.
    return json.dumps(found).replace("<", "\\u003c").replace(">", "\\u003e")


def folded(title: str, content: str) -> str:
    """Return what a reader unfolds."""
    return f"<details class='fold'><summary>{escape(title)}</summary>{content}</details>"


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of (what, value)."""
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


def number(value: float) -> str:
    """Return a number as a reader wants it."""
    return f"{value:.3g}".replace("-", "−")


def signed(value: float) -> str:
    """Return a change with its sign."""
    return f"{value:+#.3g}".replace("-", "−")
