"""The results of a training in numbers: phases, the pattern in its kernel, interventions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.grokking.interventions import Retrained
from experiments.grokking.numbers import phase_numbers
from experiments.grokking.study import Looked, Trained, embedding_spectrum, shuffled
from explaind_tf.analysis import Invariance


@dataclass(frozen=True)
class Pattern:
    """How far the kernel depends only on the difference of two answers.

    Attributes
    ----------
    over_steps, by_chance : sequence of Invariance
        Invariance of each window of steps, and the same with the answers in a random order.
    last : Invariance
        Invariance of the last phase.
    strongest, embedded : list of int
        The five strongest frequencies of the kernel in the last phase, and of the token embedding at the end.
    """

    over_steps: Sequence[Invariance]
    by_chance: Sequence[Invariance]
    last: Invariance
    strongest: list[int]
    embedded: list[int]

    @classmethod
    def of(cls, trained: Trained, looked: Looked, seed: int) -> "Pattern":
        """Analyse the kernel of a run; the seed is that of the random order."""
        group = trained.task.group
        last = looked.of_phase(list(trained.windows.values())[-1], group)
        return cls(
            over_steps=looked.invariances(group),
            by_chance=looked.invariances(shuffled(group, seed)),
            last=last,
            strongest=_strongest(last.spectrum),
            embedded=_strongest(embedding_spectrum(trained, len(trained.run.steps))),
        )

    @property
    def spectra(self) -> np.ndarray:
        """Shares of the components, shape (windows, components)."""
        return np.array([found.spectrum for found in self.over_steps])

    @property
    def shares(self) -> dict[str, list[float]]:
        """The curves of the pattern over training, by their labels."""
        return {
            "residues in their order": [found.share for found in self.over_steps],
            "residues in a random order": [found.share for found in self.by_chance],
            "five strongest frequencies (of the circulant part)": [
                found.concentration() for found in self.over_steps
            ],
        }

    def to_json(self) -> dict[str, Any]:
        """Return the numbers over training, and the frequencies."""
        return {
            "circulant_share": [found.share for found in self.over_steps],
            "share_in_random_order": [found.share for found in self.by_chance],
            "concentration": [found.concentration() for found in self.over_steps],
            "strongest_frequencies": self.strongest,
            "strongest_frequencies_of_embedding": self.embedded,
        }


@dataclass(frozen=True)
class Outcome:
    """A training, its analysis, and the results of the interventions.

    Attributes
    ----------
    phases : sequence of mapping
        Numbers of each phase, see :func:`experiments.grokking.numbers.phase_numbers`.
    swapped : mapping
        By the layers taken from the final model, validation accuracies over the steps that the other layers are from.
    retrained : mapping
        By the frozen layers, a new training with each seed.
    """

    trained: Trained
    looked: Looked
    phases: Sequence[Mapping[str, Any]]
    pattern: Pattern
    swapped: Mapping[str, Sequence[float]]
    retrained: Mapping[str, Sequence[Retrained]]

    @classmethod
    def of(
        cls,
        trained: Trained,
        looked: Looked,
        swapped: Mapping[str, Sequence[float]],
        retrained: Mapping[str, Sequence[Retrained]],
        seed: int,
    ) -> "Outcome":
        """Combine all results; the seed is that of the random order of answers."""
        phases = [phase_numbers(trained, looked, name) for name in trained.windows]
        return cls(trained, looked, phases, Pattern.of(trained, looked, seed), swapped, retrained)

    @property
    def steps(self) -> list[int]:
        """The steps at which the accuracies were measured."""
        return self.trained.curve.step.values.tolist()


def _strongest(spectrum: np.ndarray) -> list[int]:
    return sorted((np.argsort(spectrum)[-5:] + 1).tolist())
