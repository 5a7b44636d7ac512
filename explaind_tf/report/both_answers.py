"""The part of the report that shows the ledger's answer beside the counterfactual one."""

from html import escape
from typing import Final

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.correlations import rank_correlation
from explaind_tf.report import calls
from explaind_tf.report.elements import folded, picture, sample
from explaind_tf.report.section import Section

_TEXT: Final = (
    "Two questions about the same prediction. On the left, the ledger: what the gradients of a sample did in the training "
    "that took place. On the right, the counterfactual answer: the derivative of the final log-probability by the weight of "
    "the sample in the loss, through the whole training. To first order, training without the sample changes the "
    "log-probability by minus this number. Both are in nats, the right ones per unit of weight. Plus means that the sample "
    "made the prediction more likely. The numbers on the left add up to a part of the change by training; those on the "
    "right do not. A verdict compares what the right ones foretell with trainings without some samples: at best, its "
    "correlation and its ratio of found to foretold change are 1."
)
# For the ledger, and for the counterfactual answer.
_SIDES: Final = {
    "up": ("made this prediction more likely", "without it, this prediction would be less likely"),
    "down": ("made this prediction less likely", "without it, this prediction would be more likely"),
}


def both_answers(section: Section) -> str:
    """Return HTML with the strongest samples of both answers side by side, for each input shown, and the verdict.

    Parameters
    ----------
    section : Section
        With the counterfactual answer, or the sentence why there is none.
    """
    answer, ledger = section.counterfactual, section.samples
    if not isinstance(answer, xr.Dataset) or ledger is None:
        return f"<p class='note'>There is no counterfactual answer about this run. {escape(str(answer))}</p>"
    entries = ledger[names.DATA]
    responses = answer[names.RESPONSE]
    rankings = {
        side: (getattr(ledger.explaind, of)(section.top), getattr(answer.explaind, of)(section.top))
        for side, of in (("up", "proponents"), ("down", "opponents"))
    }
    inputs = ""
    for i, example in enumerate(section.inputs):
        pair = [array.isel(input=i, output=0).values[None] for array in (entries, responses)]
        halves = "".join(_half(section, rankings, i, which) for which in (0, 1))
        inputs += (
            f"<details class='input'{' open' if i == 0 else ''}><summary>{picture(example)}<span>"
            f"<b>{escape(example.text)}</b> {escape(section.predictions[i])}</span></summary>"
            f"<p class='caption'>Rank correlation of the two answers over all {responses.sizes[names.SAMPLE]:,} samples: "
            f"{float(rank_correlation(*pair)[0]):.2f}.</p><div class='both'>{halves}</div></details>"
        )
    code = folded(
        "Ask in Python", f"<pre tabindex='0'><code>{escape(calls.counterfactual(section))}</code></pre>"
    )
    return f"<p>{escape(_TEXT)}</p>{_verdict(answer)}<div class='choice'>{inputs}</div>{code}"


def _half(
    section: Section, rankings: dict[str, tuple[xr.Dataset, xr.Dataset]], position: int, which: int
) -> str:
    """Return the strongest samples of one input by one of the two answers: 0 for the ledger, 1 for the other."""
    lists = ""
    for side, ranked in rankings.items():
        chosen = ranked[which].isel(input=position, output=0)
        items = "".join(
            sample(section.show_sample(label), label, float(value))
            for label, value in zip(chosen[names.SAMPLE].values, chosen["influence"].values, strict=True)
            if np.sign(value) == (1 if side == "up" else -1)
        )
        lists += f"<p class='caption'>{_SIDES[side][which]}</p>"
        lists += f"<ol class='samples'>{items}</ol>" if items else "<p>No training sample.</p>"
    title = "What it did (nats)", "What depends on it (nats per unit of weight)"
    return f"<div><h5>{title[which]}</h5>{lists}</div>"


def _verdict(answer: xr.Dataset) -> str:
    if names.VERDICT in answer.attrs:
        return f"<p class='note'>{escape(answer.attrs[names.VERDICT])}</p>"
    return (
        "<p class='note'>No verdict was asked for. How well the numbers on the right foretell training without samples "
        "depends on how smooth training is. <code>explaind-tf report … --counterfactual --validate 8</code>, or in Python "
        "<code>answer.explaind.validate(8, 0.05)</code>, trains 8 times without 5 % of the samples and compares.</p>"
    )
