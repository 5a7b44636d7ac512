"""Train the modular-addition Transformer until it generalises, and look at how it gets there.

    python -m experiments.grokking [--quick]

The paper's Grokking experiment (arXiv:2505.20076): phases, layers, causes and kernel over training, and its two
interventions. For other operations see ``experiments.other_grokking``.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr

from experiments.grokking import figures
from experiments.grokking.interventions import GENERALISES, Retrained, retrain, swap
from experiments.grokking.numbers import first_at, phase_numbers
from experiments.grokking.study import (
    INNER,
    LAYERS,
    OUTER,
    Looked,
    Looking,
    Trained,
    Training,
    embedding_spectrum,
    look,
    shuffled,
    train,
)
from experiments.grokking.tasks import addition
from experiments.results import Findings, Image, Out, Quick, Table, carry_out, choose, spread

NAME = "grokking"
# What of the final model is put around the other layers as they were.
SWAPS = {
    "as it was": (),
    "unembedding": ("unembedding",),
    "embedding, unembedding": ("token_embedding", "unembedding"),
    "embedding, last linear map, unembedding": OUTER,
    "all but attention": tuple(layer for layer in LAYERS if layer != "attention"),
}
# The pattern of a kernel counts as there if it is this many times what chance gives.
TIMES_CHANCE = 3


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    retrain_steps : int
        Most steps of a model that learns around frozen layers.
    retrain_seeds : tuple of int
        Of the layers that learn.
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
    """Train, account, intervene."""
    trained = train(addition(settings.p), settings.training, runs_dir / "run", settings.seed)
    looked = look(trained, settings.looking, settings.seed)
    steps = trained.curve.step.values.tolist()
    swapped = swap(trained, settings.training, settings.seed, SWAPS, steps)
    retrained = _retrain_all(trained, settings)
    return _findings(settings, trained, looked, swapped, retrained)


def _retrain_all(trained: Trained, settings: Settings) -> dict[str, list[Retrained]]:
    final = trained.run.theta(len(trained.run.steps))
    cases: dict[str, tuple[Mapping[str, np.ndarray], tuple[str, ...]]] = {
        "nothing": (final, ()),
        "inner layers as initialised": (trained.run.theta(0), INNER),
    }
    if trained.phases:
        for name, step in (
            ("memorised", trained.phases.memorised),
            ("generalised", trained.phases.generalised),
        ):
            cases[f"inner layers when it had {name} (step {step})"] = (trained.run.theta(step), INNER)
    cases["inner layers of the end"] = (final, INNER)
    cases["outer layers of the end"] = (final, OUTER)
    return {
        name: [
            retrain(trained, settings.training, seed, weights, frozen, settings.retrain_steps)
            for seed in settings.retrain_seeds
        ]
        for name, (weights, frozen) in cases.items()
    }


def _findings(
    settings: Settings,
    trained: Trained,
    looked: Looked,
    swapped: Mapping[str, Sequence[float]],
    retrained: Mapping[str, Sequence[Retrained]],
) -> Findings:
    group = trained.task.group
    over_steps = looked.invariances(group)
    by_chance = looked.invariances(shuffled(group, settings.seed))
    phases = [phase_numbers(trained, looked, name) for name in trained.windows]
    starts = looked.kernel.step.values.tolist()
    spectra = np.array([found.spectrum for found in over_steps])
    last = looked.of_phase(list(trained.windows.values())[-1], group)
    strongest, embedded = (
        sorted((np.argsort(spectrum)[-5:] + 1).tolist())
        for spectrum in (last.spectrum, embedding_spectrum(trained, len(trained.run.steps)))
    )
    seen = _paper_findings(trained, phases, swapped, retrained)
    final = trained.curve.isel(step=-1)
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
        conclusions=[
            (
                f"Training accuracy was {final.accuracy.sel(split='training').item():.4f} at the end, validation accuracy "
                f"{final.accuracy.sel(split='validation').item():.4f}."
            ),
            *(f"{name}: {'seen' if is_seen else 'not seen'}. {measured}" for name, is_seen, measured in seen),
            (
                f"The five strongest frequencies of the kernel in the last phase are {strongest}, those of the token "
                f"embedding at the end {embedded}: {len(set(strongest) & set(embedded))} in common."
            ),
            "An entry describes this training run; that the interventions agree with it is a finding, not a consequence.",
        ],
        tables=[
            Table(
                "Phases. Data and weight decay: mean change of the log-probability of a right held-out answer, in nats. "
                "Cosines: mean over pairs of layers but the position embedding. Circulant: share of the energy "
                "of the kernel among different answers "
                f"(chance {last.chance:.3f}); five frequencies: share of the circulant part in its five strongest.",
                [
                    *("phase", "steps", "data", "weight decay", "cosine of outer layers", "of other pairs"),
                    *("circulant", "five frequencies"),
                ],
                [
                    [
                        phase["phase"],
                        f"{phase['first']} … {phase['last']}",
                        *(phase[key] for key in ("data", "weight_decay", "outer_cosine", "other_cosine")),
                        *(phase[key] for key in ("circulant_share", "concentration")),
                    ]
                    for phase in phases
                ],
            ),
            Table(
                f"Steps until the validation accuracy is {GENERALISES} when some layers are frozen and the others new "
                f"({len(settings.retrain_seeds)} seeds, at most {settings.retrain_steps} steps).",
                ["frozen", "steps", "best accuracy"],
                [
                    [name, _steps(runs), spread([max(r.accuracies) for r in runs])]
                    for name, runs in retrained.items()
                ],
            ),
        ],
        values={
            "phases": phases,
            "final_accuracy": {s: final.accuracy.sel(split=s).item() for s in ("training", "validation")},
            "paper": [{"finding": n, "seen": bool(s), "measured": m} for n, s, m in seen],
            "kernel": {
                "steps": starts,
                "circulant_share": [found.share for found in over_steps],
                "share_in_random_order": [found.share for found in by_chance],
                "concentration": [found.concentration() for found in over_steps],
                "strongest_frequencies": strongest,
                "strongest_frequencies_of_embedding": embedded,
            },
            "swap": {"steps": trained.curve.step.values, "validation_accuracy": dict(swapped)},
            "retrain": {name: [dataclasses.asdict(run) for run in runs] for name, runs in retrained.items()},
        },
        images=_images(settings, trained, looked, swapped, retrained, over_steps, by_chance, spectra),
        arrays=_arrays(trained, looked, spectra),
    )


def _paper_findings(
    trained: Trained,
    phases: Sequence[Mapping[str, Any]],
    swapped: Mapping[str, Sequence[float]],
    retrained: Mapping[str, Sequence[Retrained]],
) -> list[tuple[str, bool, str]]:
    """Return the paper's findings, whether they are seen by a criterion, and what was measured."""
    first, last = phases[0], phases[-1]
    back = -last["weight_decay"] / last["data"]
    steps = trained.curve.step.values.tolist()
    outer = "embedding, last linear map, unembedding"
    gains = np.subtract(swapped[outer], swapped["as it was"])
    reached = {name: first_at(steps, swapped[name]) for name in (outer, "as it was")}
    new, pipeline = (retrained[name] for name in ("nothing", "inner layers of the end"))
    when = (
        f"Training accuracy 1 was reached at step {trained.phases.memorised}, validation accuracy {GENERALISES} at step "
        f"{trained.phases.generalised}."
        if trained.phases
        else "The two accuracies were not reached one after the other."
    )
    return [
        ("It memorises first and generalises later", trained.phases is not None, when),
        (
            "Data and weight decay balance in the last phase",
            trained.phases is not None and 0.5 < back < 1.5,
            f"In the last phase the data moved right held-out answers by {last['data']:.2f} nats, weight decay by "
            f"{last['weight_decay']:.2f}; in the first it was {first['data']:.2f} and {first['weight_decay']:.2f}.",
        ),
        (
            "The kernel becomes cyclic in the residues",
            last["circulant_share"] > TIMES_CHANCE * last["chance"]
            and last["circulant_share"] > first["circulant_share"],
            f"{first['circulant_share']:.0%} of it was circulant in the first phase, {last['circulant_share']:.0%} in the "
            f"last (chance {last['chance']:.0%}).",
        ),
        (
            "Embedding and final layers align in the last phase",
            len(phases) > 1 and last["outer_cosine"] > max(first["outer_cosine"], last["other_cosine"]),
            f"The mean cosine of their influences was {last['outer_cosine']:.2f} in the last phase and "
            f"{first['outer_cosine']:.2f} in the first; of the other pairs of layers it was "
            f"{last['other_cosine']:.2f} in the last.",
        ),
        (
            "Final outer layers generalise around earlier inner layers",
            reached[outer] is not None and (reached["as it was"] or np.inf) > reached[outer],
            f"Put around inner layers of step {steps[int(gains.argmax())]} they raised the validation accuracy by "
            f"{gains.max():.2f}. It reached {GENERALISES} around inner layers of step {_or_never(reached[outer])}; the "
            f"model as it was reached it at step {_or_never(reached['as it was'])}.",
        ),
        (
            "Around the learnt pipeline the outer layers learn sooner",
            all(_rank(one) < _rank(other) for one, other in zip(pipeline, new, strict=True)),
            f"Steps until they generalised, with each seed: {_steps(pipeline)}; of a wholly new model: {_steps(new)}. Best "
            f"validation accuracy: {spread([max(run.accuracies) for run in pipeline])}, and "
            f"{spread([max(run.accuracies) for run in new])}.",
        ),
    ]


def _images(
    settings: Settings,
    trained: Trained,
    looked: Looked,
    swapped: Mapping[str, Sequence[float]],
    retrained: Mapping[str, Sequence[Retrained]],
    over_steps: Sequence[Any],
    by_chance: Sequence[Any],
    spectra: np.ndarray,
) -> list[Image]:
    starts = looked.kernel.step.values
    middles = {
        name: int(np.abs(starts - (window.start + window.stop) / 2).argmin())
        for name, window in trained.windows.items()
    }
    shares = {
        "residues in their order": [found.share for found in over_steps],
        "residues in a random order": [found.share for found in by_chance],
        "five strongest frequencies (of the circulant part)": [found.concentration() for found in over_steps],
    }
    entries: list[tuple[str, str, Any]] = [
        (
            "curves",
            "Accuracy and loss of training and held-out sums",
            lambda title: figures.curves(trained, title),
        ),
        (
            "layers",
            "Which layers and causes move the log-probability of right held-out answers",
            lambda title: figures.layers_and_causes(trained, looked, title),
        ),
        (
            "cosines",
            "How alike layers are in which held-out answers they move",
            lambda title: figures.similarity(trained, looked, title),
        ),
        (
            "kernel",
            "Influence of training sums on held-out sums, both ordered by residue",
            lambda title: figures.kernels(looked, middles, title, "residue"),
        ),
        (
            "structure",
            "How much of this kernel depends on the difference of residues only, and its Fourier spectrum",
            lambda title: figures.structure(
                trained, shares, spectra, starts.tolist(), over_steps[0].chance, title
            ),
        ),
        (
            "swap",
            "Layers of the end of training around the other layers as they were earlier",
            lambda title: figures.swaps(trained, trained.curve.step.values.tolist(), swapped, title),
        ),
        (
            "retrain",
            "New training around frozen layers",
            lambda title: figures.retraining(retrained, settings.training.measure_every, title),
        ),
    ]
    return [Image(name, title, draw(title)) for name, title, draw in entries]


def _arrays(trained: Trained, looked: Looked, spectra: np.ndarray) -> xr.Dataset:
    """Return what the figures show."""
    curve = trained.curve.rename(step="measured")
    cosine = looked.cosines_over_steps
    arrays = xr.Dataset(
        {
            "accuracy": curve.accuracy,
            "loss": curve.loss,
            "layer_share": looked.shares,
            "balance": looked.balance,
            "cosine": cosine.rename(window="step").assign_coords(step=cosine.window.values.astype(int)),
            "kernel": looked.kernel,
            "kernel_spectrum": (("step", "component"), spectra),
        },
        {"row_answer": ("row", looked.answers)},
    )
    # Zarr has a stable type for strings as objects, not for those of a fixed length.
    names = {name: value.astype(object) for name, value in arrays.coords.items() if value.dtype.kind == "U"}
    return arrays.assign_coords(names)


def _rank(run: Retrained) -> tuple[float, float]:
    """Return what is smaller for a model that learnt sooner or, if none generalised, further."""
    return (np.inf if run.steps is None else run.steps, -max(run.accuracies))


def _or_never(steps: float | None) -> str:
    return "(never)" if steps is None else f"{steps:.0f}"


def _steps(runs: Sequence[Retrained]) -> str:
    return ", ".join("not reached" if run.steps is None else str(run.steps) for run in runs)


def main(
    quick: Quick = False,
    out: Out = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and data.")] = None,
    retrain_steps: Annotated[int | None, typer.Option(help="Most steps of a new training.")] = None,
) -> None:
    """Train the modular-addition Transformer until it generalises, and look at how it gets there."""
    settings = choose(QUICK if quick else Settings(), seed=seed, retrain_steps=retrain_steps)
    carry_out(NAME, experiment, settings, quick=quick, out=out)


if __name__ == "__main__":
    typer.run(main)
