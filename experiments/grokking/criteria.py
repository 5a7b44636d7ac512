"""The paper's findings on Grokking: a criterion for each, and the measured numbers."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.grokking.interventions import (
    AS_IT_WAS,
    GENERALISES,
    NOTHING,
    PIPELINE,
    WITH_OUTER,
    Retrained,
)
from experiments.grokking.numbers import first_at
from experiments.grokking.outcome import Outcome
from experiments.results import spread

# A kernel has the pattern if its share is at least this many times the share by chance.
TIMES_CHANCE = 3


class Verdict(NamedTuple):
    """Whether a finding of the paper is confirmed, and the measured numbers."""

    finding: str
    is_seen: bool
    measured: str


def verdicts(found: Outcome) -> list[Verdict]:
    """Compare a training with the paper's findings."""
    return [
        _memorises_first(found),
        _balances(found),
        _becomes_cyclic(found),
        _aligns(found),
        _generalises_around_earlier_layers(found),
        _learns_sooner(found),
    ]


def steps_reached(runs: Sequence[Retrained]) -> str:
    """Return, as text, after how many steps each model generalised."""
    return ", ".join("not reached" if run.steps is None else str(run.steps) for run in runs)


def best_accuracies(runs: Sequence[Retrained]) -> str:
    """Return, as text, the mean of the models' best validation accuracies and its spread."""
    return spread([max(run.accuracies) for run in runs])


def _memorises_first(found: Outcome) -> Verdict:
    phases = found.trained.phases
    when = (
        f"Training accuracy 1 was reached at step {phases.memorised}, validation accuracy {GENERALISES} at step "
        f"{phases.generalised}."
        if phases
        else "The two accuracies were not reached one after the other."
    )
    return Verdict("It memorises first and generalises later", phases is not None, when)


def _balances(found: Outcome) -> Verdict:
    first, last = found.phases[0], found.phases[-1]
    back = -last["weight_decay"] / last["data"]
    return Verdict(
        "Data and weight decay balance in the last phase",
        found.trained.phases is not None and 0.5 < back < 1.5,
        f"In the last phase the data moved right held-out answers by {last['data']:.2f} nats, weight decay by "
        f"{last['weight_decay']:.2f}; in the first it was {first['data']:.2f} and {first['weight_decay']:.2f}.",
    )


def _becomes_cyclic(found: Outcome) -> Verdict:
    first, last = found.phases[0], found.phases[-1]
    return Verdict(
        "The kernel becomes cyclic in the residues",
        last["circulant_share"] > TIMES_CHANCE * last["chance"]
        and last["circulant_share"] > first["circulant_share"],
        f"{first['circulant_share']:.0%} of it was circulant in the first phase, {last['circulant_share']:.0%} in the "
        f"last (chance {last['chance']:.0%}).",
    )


def _aligns(found: Outcome) -> Verdict:
    first, last = found.phases[0], found.phases[-1]
    return Verdict(
        "Embedding and final layers align in the last phase",
        len(found.phases) > 1 and last["outer_cosine"] > max(first["outer_cosine"], last["other_cosine"]),
        f"The mean cosine of their influences was {last['outer_cosine']:.2f} in the last phase and "
        f"{first['outer_cosine']:.2f} in the first; of the other pairs of layers it was "
        f"{last['other_cosine']:.2f} in the last.",
    )


def _generalises_around_earlier_layers(found: Outcome) -> Verdict:
    steps, swapped = found.steps, found.swapped
    gains = np.subtract(swapped[WITH_OUTER], swapped[AS_IT_WAS])
    outer, as_it_was = (first_at(steps, swapped[name]) for name in (WITH_OUTER, AS_IT_WAS))
    return Verdict(
        "Final outer layers generalise around earlier inner layers",
        outer is not None and (as_it_was or np.inf) > outer,
        f"Put around inner layers of step {steps[int(gains.argmax())]} they raised the validation accuracy by "
        f"{gains.max():.2f}. It reached {GENERALISES} around inner layers of step {_or_never(outer)}; the "
        f"model as it was reached it at step {_or_never(as_it_was)}.",
    )


def _learns_sooner(found: Outcome) -> Verdict:
    new, pipeline = found.retrained[NOTHING], found.retrained[PIPELINE]
    return Verdict(
        "Around the learnt pipeline the outer layers learn sooner",
        all(_rank(one) < _rank(other) for one, other in zip(pipeline, new, strict=True)),
        f"Steps until they generalised, with each seed: {steps_reached(pipeline)}; of a wholly new model: "
        f"{steps_reached(new)}. Best validation accuracy: {best_accuracies(pipeline)}, and {best_accuracies(new)}.",
    )


def _rank(run: Retrained) -> tuple[float, float]:
    """Return a key that is smaller for a model that learnt sooner or, if none generalised, reached a higher accuracy."""
    return (np.inf if run.steps is None else run.steps, -max(run.accuracies))


def _or_never(steps: float | None) -> str:
    return "(never)" if steps is None else f"{steps:.0f}"
