"""Numbers of a run by phase, and their cells in a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.grokking.interventions import GENERALISES
from experiments.grokking.study import LAYERS, OUTER, Looked, Trained
from explaind_tf.analysis import first_reaching


def first_at(steps: Sequence[int], accuracies: Sequence[float]) -> int | None:
    """Return the first step at which a model generalises; None if it never does."""
    return first_reaching(steps, accuracies, GENERALISES)


def phase_numbers(trained: Trained, looked: Looked, name: str) -> dict[str, Any]:
    """Return the numbers of a phase."""
    window = trained.windows[name]
    in_phase = looked.balance.sel(step=looked.balance.step.isin(list(window)))
    # All inputs share the few vectors of the position embedding. If it is opposed to all other layers, any set of other
    # layers would look aligned compared with the pairs that it is in. So it is left out.
    layers = [layer for layer in LAYERS if layer != "position_embedding"]
    outer = np.array([layer in OUTER for layer in layers])
    values = looked.cosines.sel({"window": name, "layer": layers, "other_layer": layers}).values
    pairs = np.triu(np.ones_like(values, bool), 1)
    both = outer[:, None] & outer
    found = looked.of_phase(window, trained.task.group)
    return {
        "phase": name,
        "first": window.start,
        "last": window.stop - 1,
        "data": float(in_phase.sel(term="data").sum()),
        "weight_decay": float(in_phase.sel(term="weight_decay").sum()),
        "outer_cosine": float(values[pairs & both].mean()),
        "other_cosine": float(values[pairs & ~both].mean()),
        "circulant_share": found.share,
        "chance": found.chance,
        "concentration": found.concentration(),
    }


def phase_cells(phase: Mapping[str, Any]) -> list[str | float]:
    """Return a phase as cells: name, steps, data, weight decay, cosines of outer layers and of other pairs."""
    numbers = (phase[key] for key in ("data", "weight_decay", "outer_cosine", "other_cosine"))
    return [phase["phase"], f"{phase['first']} … {phase['last']}", *numbers]
