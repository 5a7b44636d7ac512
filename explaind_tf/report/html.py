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
from explaind_tf.report import calls, figures, reductions
from explaind_tf.report.elements import figure, folded, number, picture, signed, table
from explaind_tf.report.page import page
from explaind_tf.report.section import Example, Section
from explaind_tf.terms import term

_TITLE = "Where predictions come from: a ledger of training"

_INTRODUCTION = """
<p>A <em>ledger</em> accounts for what training did to a prediction, like the books of a company account for its money: the
value after training is the value before it plus a sum of entries, and nothing is left out. An entry says which
training sample, layer, weight or training step moved the prediction, and by how much.</p>
<p class="key"><span class="up">Blue, plus</span> raised the number that is accounted for;
<span class="down">red, minus</span> lowered it. Most numbers here are changes of a <em>log-probability</em>, in
<em>nats</em>: +0.69 nats double a probability, −0.69 nats halve it. <em>Logits</em> are the raw outputs of a
model, from which its probabilities are computed.</p>
<p class="note" id="limits"><strong>What a ledger is not.</strong> It describes the training that took place. An entry is
<em>not</em> the effect of training again without that sample: later gradients, and the optimizer’s step sizes,
would have been others too.</p>
"""


def write_report(path: str | os.PathLike[str], sections: Iterable[Section]) -> None:
    """Write one HTML file: does each ledger balance, when and where did predictions form, from which data.

    The file holds everything it shows, plotly.js included (some 4.8 MB), and works offline.

    Parameters
    ----------
    path : str or path-like
        File to write; replaced if it exists.
    sections : iterable of Section
        One for each model.

    Raises
    ------
    UnbalancedLedgerError
        If a ledger does not balance; nothing is written.
    ValueError
        If there is no section, or a ledger lacks an axis that its section is about.
    """
    sections = list(sections)
    if not sections:
        raise ValueError("There is nothing to report: pass one Section or more.")
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
}


def _links(section: Section, element_id: str) -> str:
    items = "".join(f'<li><a href="#{element_id}-{key}">{text}</a></li>' for key, text in _QUESTIONS.items())
    return f'<li><a href="#{element_id}">{escape(section.title)}</a><ul>{items}</ul></li>'


def _section(section: Section, element_id: str) -> str:
    parts = {
        "balance": _balance(section, element_id),
        "when": _when(section, element_id),
        "where": _where(section, element_id),
        "data": _which(section, element_id),
        "groups": _groups(section, element_id),
    }
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
        rows.append(("Predictions are those at", "the last position of each input"))
    facts = table(rows)
    return f"{facts}<p class='caption'>Recorded in <code>{escape(str(run.run_dir))}</code></p>"


def _balance(section: Section, element_id: str) -> str:
    ledger, path, unit = section.balance, section.path, section.unit
    found = fidelity(ledger)
    inputs, outputs = (f"{ledger.sizes[dim]:,}" for dim in (names.INPUT, names.OUTPUT))
    text = (
        f"Yes. For each of {inputs} held-out inputs and each of {outputs} outputs the entries add up to the change by "
        f"training, and what they leave unexplained is within {100 * ledger.attrs['tolerance']:.3g}% of how far the "
        f"outputs of that input went."
    )
    compared = table(
        [
            ("Movement: largest change of an output by training", f"{found.movement:.3g} {unit}"),
            ("Largest residual: change that no entry explains", f"{found.residual:.3g} {unit}"),
            ("… as a share of the movement", f"{found.residual / (found.movement or 1):.2%}"),
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
        caption=f"Log-probability that the model gives to the class it finally predicts; mean of {count} inputs, in nats. "
        f"Read from the top: where it was before training, what each cause added (blue) or took (red), and where it "
        f"ended. The residual should be all but invisible.",
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
        caption=f"Each point is one output of one input, in {unit}. Across: what the trained model says. Up: the output "
        f"before training plus all entries but the residual, a sum over training samples that is known as the "
        f"kernel machine. On the dotted line they are equal; the distance from it is the residual."
        f"{_difference(ledger, unit)}",
        call=calls.kernel_machine(section),
    )
    return f"<p>{escape(text)}</p>{bars}<dl class='terms'>{meanings}</dl>{points}{compared}"


def _difference(ledger: xr.Dataset, unit: str) -> str:
    """Say how close a call it was where model and kernel machine predict different classes."""
    final = ledger[names.FINAL]
    theirs = ledger.explaind.reconstruct().argmax(names.OUTPUT)
    gap = float((final.max(names.OUTPUT) - final.isel({names.OUTPUT: theirs})).max())
    if gap == 0:
        return ""
    return (
        f" Where they predict different classes, the model prefers its own to that of the ledger by {gap:.2g} {unit} or "
        f"less."
    )


def _when(section: Section, element_id: str) -> str:
    path = section.path
    start, end = float(path[names.INITIAL].mean()), float(path[names.FINAL].mean())
    chart = figure(
        figures.steps(path, by=names.LAYER, curves=section.curves, unit="nats"),
        f"{element_id}-steps",
        label="Change of the log-probability in each training step, by layer, above loss and learning rate",
        caption=f"A bar for each training step: by how much it changed the log-probability of the finally predicted class, "
        f"in nats, mean of {path.sizes[names.INPUT]} inputs; its colours say through which layer. Above zero the step "
        f"made the prediction more likely, below zero less likely. All bars add up to the change from {number(start)} to "
        f"{number(end)}. A gradient counts when it took effect: momentum spreads it over later steps. Below, over "
        f"the same steps: the loss of the batch that was trained on, and the optimizer’s learning rate.",
        call=calls.steps(section),
    )
    return chart


def _where(section: Section, element_id: str) -> str:
    path, count = section.path, section.path.sizes[names.INPUT]
    heat = figure(
        figures.heat_map(path, names.LAYER, unit="nats"),
        f"{element_id}-heat",
        label="Change of the log-probability by layer and training step",
        caption=f"A row for each layer, first layer on top, a column for each training step. Blue: the change of this "
        f"layer’s weights in this step made the finally predicted class more likely; red: less likely. In nats, mean of "
        f"{count} inputs. One cell in a hundred is beyond the scale, so that the first steps do not hide the others.",
        call=calls.layer_steps(section),
    )
    bars = figure(
        figures.layers(path, unit="nats"),
        f"{element_id}-layers",
        label="Change of the log-probability by layer",
        caption=f"The same, summed over all steps: right of zero, what this layer learnt made the prediction more likely. "
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
        f"ones where there are too many for a screen: columns are the layer’s units or filters, rows what they "
        f"take in. Blue: the way of this weight through training made the predictions more likely; red: less likely. In "
        f"nats, mean of the {shown} inputs shown below.</p><div class='choice'>{each}</div>"
    )


def _weights(section: Section, element_id: str) -> Iterable[tuple[str, str]]:
    for i, layer in enumerate(section.run.layers):
        if not figures.weights_of_layer(section.weights, layer):
            continue  # BatchNorm without scale and centre has a state only
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
    strongest = {
        "up": section.samples.explaind.proponents(section.top),
        "down": section.samples.explaind.opponents(section.top),
    }
    text = (
        f"Choose an input that the model was not trained on, to see the training samples that moved its prediction most. "
        f"The number of a sample is its influence: by how much all its uses in training together changed the "
        f"log-probability of the class that the model predicts for this input, in nats. The influences of all "
        f"{section.samples.sizes[names.SAMPLE]:,} samples add up to the entry “{term(names.DATA).label}”."
    )
    cards = "".join(_input(section, i, strongest, element_id) for i in range(len(section.inputs)))
    return f"""<p>{escape(text)}</p><div class="choice">{cards}</div>
<p class="note">Training again without a sample would not simply take its influence away: see
<a href="#limits">what a ledger is not</a>.</p>"""


_SIDES: Final = {"up": "made this prediction more likely", "down": "made it less likely"}


def _input(section: Section, position: int, strongest: Mapping[str, xr.Dataset], element_id: str) -> str:
    example, ledger = section.inputs[position], section.samples.isel(input=position, output=0)
    before, after = float(ledger[names.INITIAL]), float(ledger[names.FINAL])
    entries = {name: float(ledger[name].sum()) for name in section.samples.explaind.terms}
    parts = ", ".join(
        f"{term(name).label} {signed(value)}"
        for name, value in entries.items()
        if value or name == names.RESIDUAL
    )
    summary = (
        f"Probability of this prediction: {np.exp(before):.1%} before training, {np.exp(after):.1%} after; as a "
        f"log-probability {number(before)} and {number(after)}. The change of {signed(after - before)} nats is the sum of: "
        f"{parts}."
    )
    lists, labels = "", {}
    for side, ranking in strongest.items():
        chosen = ranking.isel(input=position, output=0)
        items = ""
        for label, value in zip(chosen[names.SAMPLE].values, chosen["influence"].values, strict=True):
            if (value > 0) == (side == "up"):
                labels[label] = (shown := section.show_sample(label)).text
                items += _sample(shown, label, float(value))
        none = "<p>None: no training sample did.</p>"
        lists += (
            f"<h5>Training samples that {_SIDES[side]} ({'proponents' if side == 'up' else 'opponents'})</h5>"
        )
        lists += f"<ol class='samples'>{items}</ol>" if items else none
    bars = figure(
        figures.samples(section.samples, k=section.top, input=position, labels=labels, unit="nats"),
        f"{element_id}-samples-{position}",
        label=f"Influence of the strongest training samples on {example.text}",
        caption="The same samples as bars, in nats: blue made the prediction more likely, red less likely.",
        call=calls.samples(section, position),
    )
    opened = " open" if position == 0 else ""
    return f"""<details class="input" name="{element_id}-inputs"{opened}><summary>{picture(example)}<span>
<b>{escape(example.text)}</b> {escape(section.predictions[position])}</span></summary>{_values(example)}
<p class="caption">{escape(summary)}</p>{lists}{bars}</details>"""


def _sample(example: Example, label: Any, influence: float) -> str:
    direction = "up" if influence >= 0 else "down"
    return (
        f"<li>{picture(example)}<b>{escape(example.text)}</b>{_values(example)}"
        f'<span class="{direction}">{signed(influence)}</span><small>{escape(str(label))}</small></li>'
    )


def _values(example: Example) -> str:
    if not example.table:
        return ""
    return folded("values", table(example.table))


def _groups(section: Section, element_id: str) -> str:
    if section.groups is None:
        text = (
            "Training samples were not put into groups for this report. Any label will do, a class or a source, one "
            "for each training sample:"
        )
        return f"<p>{text}</p><pre><code>{escape(calls.groups(section))}</code></pre>"
    count = section.groups.sizes[names.INPUT]
    heat = figure(
        figures.heat_map(section.groups, names.GROUP, unit="nats"),
        f"{element_id}-group-steps",
        label=f"Change of the log-probability by {section.grouped_by} of the training samples and training step",
        caption=f"A row for each {section.grouped_by} of the training samples, a column for each training step. Blue: the "
        f"gradients of these samples made the finally predicted class more likely in this step; red: less likely. In "
        f"nats, mean of {count} inputs. Effects of weight decay and the like are not in this figure.",
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
