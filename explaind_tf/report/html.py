"""`write_report`: a self-contained HTML page about one or more recorded runs."""

import os
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.analysis import fidelity
from explaind_tf.ledgers.conditioning import DOUBTFUL
from explaind_tf.levels import MEANING
from explaind_tf.report import calls, figures, reductions
from explaind_tf.report.both_answers import both_answers
from explaind_tf.report.elements import figure, picture, sample, table, unexplained, values
from explaind_tf.report.numbers import number, signed
from explaind_tf.report.page import page
from explaind_tf.report.section import Section
from explaind_tf.terms import term

_TITLE = "Where predictions come from: a ledger of training"

_INTRODUCTION = """
<p>A <em>ledger</em> accounts for what training did to a prediction, as the books of a company account for its money. The
value after training is the value before it plus a sum of entries. An entry says which training sample, layer, weight
or training step moved the prediction, and by how much. What these entries leave unexplained is measured, and is an
entry itself.</p>
<p class="key"><span class="up">Blue, plus</span> means that the number was raised;
<span class="down">red, minus</span> means that it was lowered. Most numbers here are changes of a
<em>log-probability</em>, in <em>nats</em>: +0.69 nats double a probability, −0.69 nats halve it. <em>Logits</em> are
the raw outputs of a model, from which its probabilities are computed.</p>
<p class="note" id="limits"><strong>What a ledger is not.</strong> A ledger describes the training that took place. The
entry of a sample is <em>not</em> the effect of training again without it: later gradients and the optimizer’s step
sizes would have been different, too.</p>
"""


def write_report(path: str | os.PathLike[str], sections: Iterable[Section]) -> None:
    """Write an HTML file that shows whether ledgers balance, and when, where and from which data predictions formed.

    The file holds everything that it shows, with plotly.js (about 4.8 MB), and works offline.

    Parameters
    ----------
    path : str or path-like
        File to write; replaced if it exists.
    sections : iterable of Section
        One for each model.

    Raises
    ------
    UnbalancedLedgerError
        If a ledger does not balance. Nothing is written then.
    ValueError
        If there is no section, or a ledger lacks an axis that its section shows.
    """
    sections = list(sections)
    if not sections:
        raise ValueError(
            "write_report got no sections, so there is nothing to report. Pass at least one, as account_for(…) makes it."
        )
    for section in sections:
        for ledger in (section.balance, section.path, section.samples, section.weights, section.groups):
            if ledger is not None:
                ledger.explaind.check()
    parts = [_section(section, f"model-{i}") for i, section in enumerate(sections)]
    links = "".join(_links(section, f"model-{i}") for i, section in enumerate(sections))
    body = f"""<a class="skip" href="#model-0">Skip to the first model</a>
<header><h1>{_TITLE}</h1>{_INTRODUCTION}
<nav aria-label="Contents"><ul>{links}</ul></nav></header>
<noscript><p class="note">The figures need JavaScript; tables and cards do not.</p></noscript>
<main>{"".join(parts)}</main>
<footer>{_versions(sections[0].balance)}</footer>"""
    Path(path).write_text(page(_TITLE, body), encoding="utf-8")


_QUESTIONS: Final = {
    "balance": "Does it balance?",
    "when": "When did the predictions form?",
    "where": "Where in the model?",
    "data": "From which training data?",
    "groups": "Which kinds of training data, and when?",
    "counterfactual": "What if a sample had been left out?",
}


def _links(section: Section, element_id: str) -> str:
    asked = [key for key in _QUESTIONS if key != "counterfactual" or section.counterfactual is not None]
    items = "".join(f'<li><a href="#{element_id}-{key}">{_QUESTIONS[key]}</a></li>' for key in asked)
    return f'<li><a href="#{element_id}">{escape(section.title)}</a><ul>{items}</ul></li>'


def _section(section: Section, element_id: str) -> str:
    parts = {
        "balance": _balance(section, element_id),
        "when": _when(section, element_id),
        "where": _where(section, element_id),
        "data": _which(section, element_id),
        "groups": _groups(section, element_id),
    }
    if section.counterfactual is not None:
        parts["counterfactual"] = both_answers(section)
    body = "".join(
        f'<section id="{element_id}-{key}" aria-label="{_QUESTIONS[key]}"><h3>{_QUESTIONS[key]}</h3>{part}</section>'
        for key, part in parts.items()
    )
    return f"""<section id="{element_id}"><h2>{escape(section.title)}</h2>
<p>{escape(section.introduction)}</p>{_what(section)}{body}</section>"""


def _what(section: Section) -> str:
    run = section.run
    weights = sum(variable.size for variable in run.variables)
    rows = [
        ("Training steps", f"{len(run.steps):,}"),
        ("Distinct training samples used", f"{len(run.samples):,}"),
        (f"Trainable weights, in {len(run.layers)} layers", f"{weights:,}"),
    ]
    if section.position is not None:
        rows.append(("Predictions are for", "the last position of each input"))
    facts = table(rows)
    return f"{facts}<p class='caption'>Recorded in <code>{escape(str(run.run_dir))}</code></p>"


def _balance(section: Section, element_id: str) -> str:
    ledger, path, unit = section.balance, section.path, section.unit
    found = fidelity(ledger)
    inputs, outputs = (f"{ledger.sizes[dim]:,}" for dim in (names.INPUT, names.OUTPUT))
    text = (
        f"Yes. For each of {inputs} held-out inputs and each of {outputs} outputs, the entries add up to the change by "
        f"training. What they leave unexplained is at most {100 * ledger.attrs['tolerance']:.3g}% of the movement of the "
        f"input: the farthest that any of its outputs got from its start during training. This bounds the sum of the "
        f"entries; a single entry may be off by more."
    )
    compared = table(
        [
            ("Largest change of an output by training", f"{found.movement:.3g} {unit}"),
            ("Largest residual: change that no other entry explains", f"{found.residual:.3g} {unit}"),
            ("… as a share of the largest change", f"{found.residual / (found.movement or 1):.2%}"),
            ("Inputs for which model and ledger predict the same class", f"{found.agreement:.1%}"),
            ("Mean KL divergence between their probabilities", f"{found.mean_kl:.2g} nats"),
        ]
    )
    shown = [term(name) for name, value in found.terms.items() if value or name == names.RESIDUAL]
    meanings = "".join(f"<dt>{escape(cause.label)}</dt><dd>{escape(cause.meaning)}</dd>" for cause in shown)
    count = path.sizes[names.INPUT]
    bars = figure(
        figures.balance(path, unit="nats"),
        f"{element_id}-terms",
        label="Bars from the log-probability before training to that after it, one for each cause",
        caption=f"Log-probability of the class that the trained model predicts, in nats, mean of {count} inputs. Read from "
        f"the top: its value before training, what each cause added (blue) or took (red), and its value after training. "
        f"The bar “{term(names.RESIDUAL).label}” is the residual: change that no other entry explains. It should be too "
        f"small to see.",
        call=calls.balance(section),
        rows=[
            ("before training", number(float(path[names.INITIAL].mean()))),
            *(
                (term(name).label, signed(float(path.explaind.total(name).mean())))
                for name in path.explaind.terms
            ),
            ("after training", number(float(path[names.FINAL].mean()))),
        ],
    )
    points = figure(
        figures.kernel_machine(ledger, unit=unit),
        f"{element_id}-machine",
        label="Outputs rebuilt from the ledger against outputs of the trained model",
        caption=f"Each point is one output of one input, in {unit}. Horizontal: the output of the trained model. Vertical: "
        f"the output before training plus all entries except the residual. This sum over training samples is known as "
        f"the kernel machine. On the dotted line both are equal; the distance from the line is the residual. Points "
        f"near the line, and equal predictions, restate that the residual is small.{_difference(ledger, unit)}",
        call=calls.kernel_machine(section),
    )
    return (
        f"<p>{escape(text)}</p>{unexplained(ledger)}{bars}<dl class='terms'>{meanings}</dl>{points}{compared}"
    )


def _difference(ledger: xr.Dataset, unit: str) -> str:
    """Say by how much the model prefers its own class where the kernel machine predicts another."""
    final = ledger[names.FINAL]
    theirs = ledger.explaind.reconstruct().argmax(names.OUTPUT)
    gap = float((final.max(names.OUTPUT) - final.isel({names.OUTPUT: theirs})).max())
    if gap == 0:
        return ""
    return (
        f" Where the two predict different classes, the model’s output for its own class is larger by at most {gap:.2g} "
        f"{unit}."
    )


def _when(section: Section, element_id: str) -> str:
    path = section.path
    start, end = float(path[names.INITIAL].mean()), float(path[names.FINAL].mean())
    chart = figure(
        figures.steps(path, by=names.LAYER, curves=section.curves, unit="nats"),
        f"{element_id}-steps",
        label="Change of the log-probability in each training step, by layer, above loss and learning rate",
        caption=f"Each bar is a training step, or a few neighbouring ones: how much they changed the log-probability of the "
        f"predicted class, in nats, mean of {path.sizes[names.INPUT]} inputs. Colours say through which layer; "
        f"“{term(names.RESIDUAL).label}” is the residual of a step. Above zero, the step made the prediction more likely; "
        f"below zero, less likely. All bars add up to the change from {number(start)} to {number(end)}. A gradient counts "
        f"in the step where it took effect: momentum spreads it over later steps. Below, over the same steps: the loss "
        f"of the training batch, and the optimizer’s learning rate.",
        call=calls.steps(section),
    )
    return chart


def _where(section: Section, element_id: str) -> str:
    path, count = section.path, section.path.sizes[names.INPUT]
    heat = figure(
        figures.heat_map(path, names.LAYER, unit="nats"),
        f"{element_id}-heat",
        label="Change of the log-probability by layer and training step",
        caption=f"A row for each layer, the first layer on top; a column for each training step. Blue: the change of this "
        f"layer’s weights in this step made the predicted class more likely; red: less likely. In nats, mean of {count} "
        f"inputs. One cell in a hundred exceeds the colour scale; otherwise the first steps would hide the others.",
        call=calls.layer_steps(section),
    )
    bars = figure(
        figures.layers(path, unit="nats"),
        f"{element_id}-layers",
        label="Change of the log-probability by layer",
        caption=f"The same, summed over all steps. Right of zero, what this layer learnt made the prediction more likely. "
        f"Colours say what moved its weights. In nats, mean of {count} inputs.",
        call=calls.layers(section),
        rows=_rows_by_layer(path),
    )
    each = "".join(
        f'<details name="{element_id}-weights"{" open" if i == 0 else ""}><summary>{escape(layer)}</summary>'
        f"{chart}</details>"
        for i, (layer, chart) in enumerate(_weights(section, element_id))
    )
    shown = section.weights.sizes[names.INPUT]
    return (
        f"{heat}{bars}<h4>Each weight of a layer</h4><p>Choose a layer. A cell is one weight, or a block of neighbouring "
        f"ones if there are too many for a screen. Columns are the layer’s units or filters, rows are their inputs. Blue: "
        f"the changes of this weight during training made the predictions more likely; red: less likely. In nats, mean of "
        f"the {shown} inputs shown below.</p><div class='choice'>{each}</div>"
    )


def _weights(section: Section, element_id: str) -> Iterable[tuple[str, str]]:
    for i, layer in enumerate(section.run.layers):
        if not figures.weights_of_layer(section.weights, layer):
            continue  # BatchNorm without scale and centre has only state
        yield (
            layer,
            figure(
                figures.weights(section.weights, layer, unit="nats"),
                f"{element_id}-weights-{i}",
                label=f"Change of the log-probability by each weight of {layer}",
                caption="",
                call=calls.weights(section, layer),
            ),
        )


def _rows_by_layer(path: xr.Dataset) -> list[tuple[str, str]]:
    found = reductions.terms_by(path, names.LAYER).to_array().sum("variable")
    return [
        (str(layer), signed(float(value)))
        for layer, value in zip(found[names.LAYER].values, found.values, strict=True)
    ]


def _which(section: Section, element_id: str) -> str:
    if section.samples is None:
        return _why_no_samples(section)
    strongest = {
        "up": section.samples.explaind.proponents(section.top),
        "down": section.samples.explaind.opponents(section.top),
    }
    text = (
        f"Choose a held-out input to see the training samples that moved its prediction most. The number of a sample is "
        f"its influence: how much all its uses in training together changed the log-probability of the class that the "
        f"model predicts for this input, in nats. The influences of all {section.samples.sizes[names.SAMPLE]:,} samples "
        f"add up to the entry “{term(names.DATA).label}”; large ones of opposite sign may cancel."
    )
    cards = "".join(_input(section, i, strongest, element_id) for i in range(len(section.inputs)))
    return f"""<p>{escape(text)}</p><div class="choice">{cards}</div>
<p class="note">Training again without a sample would not simply remove its influence: see
<a href="#limits">what a ledger is not</a>.</p>"""


def _why_no_samples(section: Section) -> str:
    run = section.run
    return (
        f"<p>This run was recorded at the level “{run.level}”: it tells changes {escape(MEANING[run.level])}, and not which "
        f"training samples made them.</p><p class='caption'>{escape(run.manifest.level_reason)}</p>"
    )


_SIDES: Final = {"up": "made this prediction more likely", "down": "made this prediction less likely"}


def _input(section: Section, position: int, strongest: Mapping[str, xr.Dataset], element_id: str) -> str:
    assert section.samples is not None  # the caller looked
    example, ledger = section.inputs[position], section.samples.isel(input=position, output=0)
    before, after = float(ledger[names.INITIAL]), float(ledger[names.FINAL])
    entries = {name: float(ledger[name].sum()) for name in section.samples.explaind.terms}
    parts = ", ".join(
        f"{term(name).label} {signed(value)}"
        for name, value in entries.items()
        if value or name == names.RESIDUAL
    )
    summary = (
        f"Probability of this prediction: {np.exp(before):.1%} before training, {np.exp(after):.1%} after (as a "
        f"log-probability, {number(before)} and {number(after)}). The change of {signed(after - before)} nats is the sum "
        f"of: {parts}."
    )
    lists, labels = "", {}
    for side, ranking in strongest.items():
        chosen = ranking.isel(input=position, output=0)
        items = ""
        for label, value in zip(chosen[names.SAMPLE].values, chosen["influence"].values, strict=True):
            if (value > 0) == (side == "up"):
                labels[label] = (shown := section.show_sample(label)).text
                items += sample(shown, label, float(value))
        none = "<p>No training sample did.</p>"
        lists += (
            f"<h5>Training samples that {_SIDES[side]} ({'proponents' if side == 'up' else 'opponents'})</h5>"
        )
        lists += f"<ol class='samples'>{items}</ol>" if items else none
    lists += _conditioning(section.samples, position, list(labels))
    bars = figure(
        figures.samples(section.samples, k=section.top, input=position, labels=labels, unit="nats"),
        f"{element_id}-samples-{position}",
        label=f"Influence of the strongest training samples on {example.text}",
        caption="The same samples as bars, in nats: blue made the prediction more likely, red less likely.",
        call=calls.samples(section, position),
    )
    opened = " open" if position == 0 else ""
    return f"""<details class="input" name="{element_id}-inputs"{opened}><summary>{picture(example)}<span>
<b>{escape(example.text)}</b> {escape(section.predictions[position])}</span></summary>{values(example)}
<p class="caption">{escape(summary)}</p>{lists}{bars}</details>"""


def _conditioning(ledger: xr.Dataset, position: int, shown: list[Any]) -> str:
    """Return a note on the influences of the samples shown that rest on cancelled gradients, if any does."""
    if names.CANCELLED not in ledger or not shown:
        return ""
    share = ledger.explaind.conditioning().isel(input=position, output=0).sel(sample=shown)
    count = int((share > DOUBTFUL).sum())
    if not count:
        return ""
    return (
        f"<p class='note'>{count} of these {len(shown)} influences rest by more than {DOUBTFUL:.0%} on weights whose "
        f"gradients nearly cancelled in their batch. Another seed or precision may rank these samples otherwise.</p>"
    )


def _groups(section: Section, element_id: str) -> str:
    if section.groups is None:
        text = (
            "This report has no groups of training samples. In Python, pass a label for each training sample, such as its "
            "class or its source:"
        )
        return f"<p>{text}</p><pre><code>{escape(calls.groups(section))}</code></pre>"
    count = section.groups.sizes[names.INPUT]
    heat = figure(
        figures.heat_map(section.groups, names.GROUP, unit="nats"),
        f"{element_id}-group-steps",
        label=f"Change of the log-probability by {section.grouped_by} of the training samples and training step",
        caption=f"A row for each {section.grouped_by} of the training samples; a column for each training step. Blue: the "
        f"gradients of these samples made the predicted class more likely in this step; red: less likely. In nats, mean of "
        f"{count} inputs. This is the entry “{term(names.DATA).label}” alone, without weight decay, for example.",
        call=calls.groups(section),
        rows=_rows_by_group(section.groups),
    )
    return heat


def _rows_by_group(groups: xr.Dataset) -> list[tuple[str, str]]:
    data = groups[names.DATA].mean([names.INPUT, names.OUTPUT])
    totals = data.sum([dim for dim in data.dims if dim != names.GROUP])
    return [
        (str(label), signed(float(value)))
        for label, value in zip(totals[names.GROUP].values, totals.values, strict=True)
    ]


def _versions(ledger: xr.Dataset) -> str:
    versions = (f"{name} {ledger.attrs[name]}" for name in ("explaind_tf", "tensorflow", "keras"))
    return f"<p>Made with {escape(', '.join(versions))}.</p>"
