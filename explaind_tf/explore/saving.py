"""What a reader takes along: the numbers of a view as CSV, its answer as zarr, and the view as a page of its own."""

import csv
import io
import tempfile
import zipfile
from html import escape
from pathlib import Path

import xarray as xr

from explaind_tf import constants as names
from explaind_tf.explore import calls, reading
from explaind_tf.explore.asker import Stage
from explaind_tf.explore.questions import Question
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import View
from explaind_tf.report.figures import heat_map
from explaind_tf.report.reductions import unit_of

_TOP = 20
# Spreadsheets read a cell that begins so as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(session: Session, view: View, question: Question, stage: Stage) -> str:
    """Return what each sample did in the view's step and layer; without samples, what each layer did in each step."""
    ledger, loaded = stage.ledger, session.loaded
    assert loaded is not None  # there is an answer
    found = io.StringIO()
    writer = csv.writer(found, lineterminator="\n")
    if names.SAMPLE in ledger.dims:
        entries = reading.entries_of(ledger, view.output, step=view.step, layer=view.layer)
        writer.writerow(["sample", "label", f"change ({unit_of(ledger)})"])
        for key, value in zip(entries[names.SAMPLE].values.tolist(), entries.values.tolist(), strict=True):
            writer.writerow([_cell(key), _cell(loaded.labels.get(key, "")), value])
        return found.getvalue()
    terms = [ledger[name] for name in ledger.explaind.terms if names.LAYER in ledger[name].dims]
    whole = sum(terms[1:], start=terms[0]).isel({names.OUTPUT: view.output}).mean(names.INPUT)
    writer.writerow(["layer", "step", f"change ({unit_of(ledger)})"])
    for layer in whole[names.LAYER].values.tolist():
        for step, value in zip(
            whole[names.STEP].values.tolist(), whole.sel({names.LAYER: layer}).values.tolist(), strict=True
        ):
            writer.writerow([_cell(layer), step, value])
    return found.getvalue()


def _cell(value: object) -> object:
    """Return a value that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def as_zarr(answer: xr.Dataset) -> bytes:
    """Return an answer as a zip of a zarr store, which ``xarray.open_zarr`` reads."""
    found = io.BytesIO()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "answer.zarr"
        answer.drop_encoding().to_zarr(path, mode="w", zarr_format=3, consolidated=False)
        with zipfile.ZipFile(found, "w", zipfile.ZIP_STORED) as archive:
            for file in sorted(path.rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(path))
    return found.getvalue()


def as_html(session: Session, view: View, question: Question, stage: Stage) -> str:
    """Return the answer as a page that holds all it shows and works offline."""
    from explaind_tf.report.elements import figure, sample, table
    from explaind_tf.report.numbers import number, signed
    from explaind_tf.report.page import page
    from explaind_tf.terms import term

    ledger, loaded, unit = stage.ledger, session.loaded, unit_of(stage.ledger)
    assert loaded is not None  # there is an answer
    call = calls.account(session, view, question, stage)
    balance = reading.balance_of(ledger, view.output)
    chosen = ", ".join(session.shown.name(i) for i in view.inputs)
    rows = [("before training", number(balance.initial))]
    rows += [(term(name).label, signed(value)) for name, value in balance.terms.items()]
    rows.append(("after training", number(balance.final)))
    how = "To the tolerance" if stage.is_final else "Coarse: one point of each step was looked at"
    left = f"{how}. Of the movement of an input, {balance.residual_share:.2%} at most is unexplained."
    parts = [
        f"<p>{escape(loaded.measured.title)}, in {escape(unit)}: {escape(chosen)}. {left}</p>",
        table(rows),
    ]
    if names.LAYER in ledger.dims and names.STEP in ledger.dims:
        drawn = heat_map(ledger, names.LAYER, output=ledger[names.OUTPUT].values[view.output], unit=unit)
        layers = reading.by_axis(ledger, names.LAYER, view.output)
        shown = [(str(one.key), signed(one.value)) for one in layers]
        caption = "Rows are layers, columns are steps. Blue raised the number, red lowered it."
        parts.append(
            figure(drawn, "heat", label="Change by layer and step", caption=caption, call=call, rows=shown)
        )
    if names.SAMPLE in ledger.dims:
        entries = reading.entries_of(ledger, view.output, step=view.step, layer=view.layer)
        only = [f"step {view.step}"] * (view.step is not None) + [f"layer {view.layer}"] * (
            view.layer is not None
        )
        for title, side in zip(("raised", "lowered"), reading.strongest(entries, _TOP), strict=True):
            cards = "".join(sample(session.shown.sample(one.key), one.key, one.value) for one in side)
            which = f" ({escape(', '.join(only))} only)" if only else ""
            parts.append(f"<h2>Samples that {title} it most{which}</h2><ol class='samples'>{cards}</ol>")
    parts.append(f"<h2>In Python</h2><pre tabindex='0'><code>{escape(call)}</code></pre>")
    title = f"{session.about.title}: {chosen}"
    return page(escape(title), f"<main><h1>{escape(title)}</h1>{''.join(parts)}</main>")
