"""Train the modular-addition Transformer until it generalises, and study how it does.

    python -m experiments.grokking [--quick]

The paper's Grokking experiment (arXiv:2505.20076): phases, layers, causes and kernel over training, and its two
interventions. For other operations see ``experiments.other_grokking``.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr

from experiments.command import Seed, command
from experiments.grokking import phase_figures
from experiments.grokking.criteria import Verdict, best_accuracies, steps_reached, verdicts
from experiments.grokking.group_operations import addition
from experiments.grokking.interventions import (
    AS_IT_WAS,
    GENERALISES,
    NOTHING,
    PIPELINE,
    WITH_OUTER,
    Retrained,
    retrain,
    swap,
)
from experiments.grokking.numbers import phase_cells
from experiments.grokking.outcome import Outcome
from experiments.grokking.study import INNER, LAYERS, OUTER, Looking, Trained, Training, look, train
from experiments.results import Findings, Image, Table

NAME = "grokking"
# Layers that are taken from the final model; the other layers are earlier ones.
SWAPS = {
    AS_IT_WAS: (),
    "unembedding": ("unembedding",),
    "embedding, unembedding": ("token_embedding", "unembedding"),
    WITH_OUTER: OUTER,
    "all but attention": tuple(layer for layer in LAYERS if layer != "attention"),
}


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    retrain_steps : int
        Largest number of steps of a model that learns around frozen layers.
    retrain_seeds : tuple of int
        Seeds of the layers that learn.
    """

    p: int = 113
    training: Training = field(default_factory=Training)
    looking: Looking = field(default_factory=Looking)
    retrain_steps: int = 500
    retrain_seeds: tuple[int, ...] = (1, 2)
    seed: int = 0


QUICK = Settings(
    p=5,
    training=Training(num_train=18, num_test=7, steps=8, measure_every=4, width=8),
    looking=Looking(inputs=3, rows=3, window=2, tolerance=0.05),
    retrain_steps=4,
    retrain_seeds=(1,),
)


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Train and record, account for the training, and carry out both interventions."""
    trained = train(addition(settings.p), settings.training, runs_dir / "run", settings.seed)
    looked = look(trained, settings.looking, settings.seed)
    steps = trained.curve.step.values.tolist()
    swapped = swap(trained, settings.training, settings.seed, SWAPS, steps)
    retrained = _retrain_all(trained, settings)
    found = Outcome.of(trained, looked, swapped, retrained, settings.seed)
    seen = verdicts(found)
    return Findings(
        title=f"Grokking of addition modulo {settings.p}",
        question=(
            f"The one-layer Transformer is trained on {settings.training.num_train:,} sums, all in each batch, with AdamW "
            f"(weight decay {settings.training.weight_decay:g}), and recorded. Which layers, which causes and which "
            f"training sums move the log-probability of the right answer of held-out sums, and when? Entries by layer are "
            f"of {settings.looking.inputs} held-out sums, those by training sum of {settings.looking.rows}; all ledgers "
            f"balance to {settings.looking.tolerance:g} of the movement, and cover every step. The initial token embedding "
            f"is {settings.training.embedding_scale:g} times that of the model's default, so that it memorises first."
        ),
        conclusions=_conclusions(found, seen),
        tables=[_table_of_phases(found), _table_of_retraining(settings, found)],
        values=_values(found, seen),
        images=_images(settings, found),
        arrays=_arrays(found),
    )


def _retrain_all(trained: Trained, settings: Settings) -> dict[str, list[Retrained]]:
    final = trained.run.theta(len(trained.run.steps))
    cases: dict[str, tuple[Mapping[str, np.ndarray], tuple[str, ...]]] = {
        NOTHING: (final, ()),
        "inner layers as initialised": (trained.run.theta(0), INNER),
    }
    if trained.phases:
        for name, step in (
            ("memorised", trained.phases.memorised),
            ("generalised", trained.phases.generalised),
        ):
            cases[f"inner layers when it had {name} (step {step})"] = (trained.run.theta(step), INNER)
    cases[PIPELINE] = (final, INNER)
    cases["outer layers of the end"] = (final, OUTER)
    return {
        name: [
            retrain(trained, settings.training, seed, weights, frozen, settings.retrain_steps)
            for seed in settings.retrain_seeds
        ]
        for name, (weights, frozen) in cases.items()
    }


def _conclusions(found: Outcome, seen: list[Verdict]) -> list[str]:
    final, pattern = _final_accuracy(found), found.pattern
    return [
        f"Training accuracy was {final['training']:.4f} at the end, validation accuracy {final['validation']:.4f}.",
        *(f"{each.finding}: {'seen' if each.is_seen else 'not seen'}. {each.measured}" for each in seen),
        f"The five strongest frequencies of the kernel in the last phase are {pattern.strongest}, those of the token "
        f"embedding at the end {pattern.embedded}: {len(set(pattern.strongest) & set(pattern.embedded))} in common.",
        "An entry describes this training run; that the interventions agree with it is a finding, not a consequence.",
    ]


def _table_of_phases(found: Outcome) -> Table:
    return Table(
        "Phases. Data and weight decay: mean change of the log-probability of a right held-out answer, in nats. "
        "Cosines: mean over pairs of layers but the position embedding. Circulant: share of the energy "
        "of the kernel among different answers "
        f"(chance {found.pattern.last.chance:.3f}); five frequencies: share of the circulant part in its five strongest.",
        [
            *("phase", "steps", "data", "weight decay", "cosine of outer layers", "of other pairs"),
            *("circulant", "five frequencies"),
        ],
        [
            [*phase_cells(phase), *(phase[key] for key in ("circulant_share", "concentration"))]
            for phase in found.phases
        ],
    )


def _table_of_retraining(settings: Settings, found: Outcome) -> Table:
    return Table(
        f"Steps until the validation accuracy is {GENERALISES} when some layers are frozen and the others new "
        f"({len(settings.retrain_seeds)} seeds, at most {settings.retrain_steps} steps).",
        ["frozen", "steps", "best accuracy"],
        [[name, steps_reached(runs), best_accuracies(runs)] for name, runs in found.retrained.items()],
    )


def _values(found: Outcome, seen: list[Verdict]) -> dict[str, Any]:
    return {
        "phases": found.phases,
        "final_accuracy": _final_accuracy(found),
        "paper": [{"finding": v.finding, "seen": bool(v.is_seen), "measured": v.measured} for v in seen],
        "kernel": {"steps": found.looked.kernel.step.values.tolist(), **found.pattern.to_json()},
        "swap": {"steps": found.trained.curve.step.values, "validation_accuracy": dict(found.swapped)},
        "retrain": {
            name: [dataclasses.asdict(run) for run in runs] for name, runs in found.retrained.items()
        },
    }


def _final_accuracy(found: Outcome) -> dict[str, float]:
    final = found.trained.curve.accuracy.isel(step=-1)
    return {split: final.sel(split=split).item() for split in ("training", "validation")}


def _images(settings: Settings, found: Outcome) -> list[Image]:
    trained, looked, pattern = found.trained, found.looked, found.pattern
    steps = looked.kernel.step.values.tolist()
    return [
        Image.drawn(
            "curves", "Accuracy and loss of training and held-out sums", phase_figures.curves, trained
        ),
        Image.drawn(
            "layers",
            "Which layers and causes move the log-probability of right held-out answers",
            phase_figures.layers_and_causes,
            *(trained, looked),
        ),
        Image.drawn(
            "cosines",
            "How alike layers are in which held-out answers they move",
            phase_figures.similarity,
            *(trained, looked),
        ),
        Image.drawn(
            "kernel",
            "Influence of training sums on held-out sums, both ordered by residue",
            phase_figures.kernels,
            *(trained, looked),
        ),
        Image.drawn(
            "structure",
            "How much of this kernel depends on the difference of residues only, and its Fourier spectrum",
            phase_figures.structure,
            *(trained, pattern.shares, pattern.spectra, steps, pattern.over_steps[0].chance),
        ),
        Image.drawn(
            "swap",
            "Layers of the end of training around the other layers as they were earlier",
            phase_figures.swaps,
            *(trained, found.steps, found.swapped),
        ),
        Image.drawn(
            "retrain",
            "New training around frozen layers",
            phase_figures.retraining,
            *(found.retrained, settings.training.measure_every),
        ),
    ]


def _arrays(found: Outcome) -> xr.Dataset:
    """Return the arrays that the figures show."""
    looked, curve = found.looked, found.trained.curve.rename(step="measured")
    cosine = looked.cosines_over_steps
    return xr.Dataset(
        {
            "accuracy": curve.accuracy,
            "loss": curve.loss,
            "layer_share": looked.shares,
            "balance": looked.balance,
            "cosine": cosine.rename(window="step").assign_coords(step=cosine.window.values.astype(int)),
            "kernel": looked.kernel,
            "kernel_spectrum": (("step", "component"), found.pattern.spectra),
        },
        {"row_answer": ("row", looked.answers)},
    )


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Train the modular-addition Transformer until it generalises, and look at how it gets there.",
    seed=Seed,
    retrain_steps=Annotated[int | None, typer.Option(help="Most steps of a new training.")],
)

if __name__ == "__main__":
    typer.run(main)
