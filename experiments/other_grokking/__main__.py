"""Train on other operations than addition: does the cyclic pattern occur only with addition?

    python -m experiments.other_grokking [--quick]

The answers of subtraction modulo p are elements of the same group as those of addition, but subtraction is not commutative.
The symmetries of a polygon and the permutations are groups that are not commutative. See ``experiments.grokking`` for
addition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr

from experiments.command import Seed, command
from experiments.grokking import phase_figures
from experiments.grokking.group_operations import Task, composition, subtraction, symmetries
from experiments.grokking.interventions import AS_IT_WAS, WITH_OUTER, swap
from experiments.grokking.numbers import first_at, phase_cells, phase_numbers
from experiments.grokking.study import OUTER, Looked, Looking, Trained, Training, look, shuffled, train
from experiments.results import Findings, Image, Table
from explaind_tf.analysis import Invariance
from explaind_tf.datasets import cyclic_table

NAME = "other_grokking"
SWAPS = {AS_IT_WAS: (), WITH_OUTER: OUTER}


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    operations : tuple of str
        Names of the operations, of the three that there are.
    p, sides, degree : int
        Sizes of subtraction modulo p, the symmetries of a polygon, and permutations.
    subtraction, symmetries, composition : Training
        The training of each.
    last : int
        Steps at the beginning and at the end over which kernels are added up.
    """

    operations: tuple[str, ...] = ("subtraction", "symmetries", "composition")
    p: int = 67
    sides: int = 31
    degree: int = 4
    subtraction: Training = field(
        default_factory=lambda: Training(
            num_train=2200,
            steps=750,
            learning_rate=2e-3,
            weight_decay=2.0,
            embedding_scale=1.0,
        )
    )
    symmetries: Training = field(
        default_factory=lambda: Training(
            num_train=2700,
            num_test=1144,
            steps=1500,
            learning_rate=2e-3,
            weight_decay=2.0,
            embedding_scale=1.0,
        )
    )
    composition: Training = field(
        default_factory=lambda: Training(num_train=400, num_test=176, steps=400, embedding_scale=1.0)
    )
    looking: Looking = field(default_factory=Looking)
    last: int = 100
    seed: int = 0


# The operations differ only in their table.
QUICK = Settings(
    operations=("symmetries",),
    sides=3,
    symmetries=Training(num_train=28, num_test=8, steps=4, measure_every=2, width=8),
    looking=Looking(inputs=3, rows=3, window=2, tolerance=0.05),
    last=2,
)


@dataclass(frozen=True)
class Case:
    """The findings for an operation.

    Attributes
    ----------
    name : str
        Name for files and values.
    swapped : mapping
        Validation accuracies of models with the final outer layers and earlier inner layers.
    """

    name: str
    task: Task
    trained: Trained
    looked: Looked
    swapped: Mapping[str, Sequence[float]]


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Train and account for each operation."""
    tasks = {
        "subtraction": (subtraction(settings.p), settings.subtraction),
        "symmetries": (symmetries(settings.sides), settings.symmetries),
        "composition": (composition(settings.degree), settings.composition),
    }
    cases = [_case(name, *tasks[name], settings, runs_dir / name) for name in settings.operations]
    found = {case.name: _numbers(case, settings) for case in cases}
    return Findings(
        title="Grokking of other operations",
        question=(
            "Is the cyclic pattern of the kernel peculiar to modular addition? The Transformer learns other operations, and "
            "is looked at in the same way. The kernel between answers is projected on the functions of g⁻¹h, which of "
            "numbers modulo p are the circulant matrices. As controls, the group's elements are put in a random order, and "
            "the answers are taken for numbers modulo their count."
        ),
        conclusions=[_conclusion(case, found[case.name], settings) for case in cases],
        tables=[
            _table_of_training(cases, found),
            _table_of_kernels(cases, found, settings),
            _table_of_phases(cases, found),
        ],
        values=found,
        images=[image for case in cases for image in _images(case, settings)],
        arrays=_arrays(cases),
    )


def _case(name: str, task: Task, training: Training, settings: Settings, run_dir: Path) -> Case:
    trained = train(task, training, run_dir, settings.seed)
    looked = look(trained, settings.looking, settings.seed)
    swapped = swap(trained, training, settings.seed, SWAPS, trained.curve.step.values.tolist())
    return Case(name, task, trained, looked, swapped)


def _numbers(case: Case, settings: Settings) -> dict[str, Any]:
    steps, group = len(case.trained.run.steps), case.task.group
    first, last = range(settings.last), range(steps - settings.last, steps)
    of_last = case.looked.of_phase(last, group)
    final = case.trained.curve.accuracy.isel(step=-1)
    over_steps = _over_steps(case, settings)
    return {
        "task": case.task.title,
        "answers": len(group),
        "accuracy": {split: final.sel(split=split).item() for split in ("training", "validation")},
        "phases": [phase_numbers(case.trained, case.looked, name) for name in case.trained.windows],
        "kernel": {
            "first": case.looked.of_phase(first, group).share,
            "last": of_last.share,
            "other_side": case.looked.of_phase(last, group.T).share,
            "random_order": case.looked.of_phase(last, shuffled(group, settings.seed)).share,
            "cyclic": case.looked.of_phase(last, cyclic_table(len(group))).share,
            "chance": of_last.chance,
            "concentration": of_last.concentration(2),
            "spectrum": of_last.spectrum,
            "steps": case.looked.kernel.step.values,
            "share": [found.share for found in over_steps["the group"]],
        },
        "swap": {
            name: first_at(case.trained.curve.step.values.tolist(), values)
            for name, values in case.swapped.items()
        },
    }


def _over_steps(case: Case, settings: Settings) -> dict[str, list[Invariance]]:
    tables = {
        "the group": case.task.group,
        "its elements in a random order": shuffled(case.task.group, settings.seed),
        "numbers modulo their count": cyclic_table(len(case.task.group)),
    }
    if (case.task.group == tables["numbers modulo their count"]).all():
        del tables["numbers modulo their count"]
    return {name: case.looked.invariances(table) for name, table in tables.items()}


def _conclusion(case: Case, found: Mapping[str, Any], settings: Settings) -> str:
    kernel, phases = found["kernel"], case.trained.phases
    learnt = (
        f"memorised at step {phases.memorised} and generalised at step {phases.generalised}"
        if phases
        else f"ended with a validation accuracy of {found['accuracy']['validation']:.2f}"
    )
    return (
        f"{case.task.title[0].upper()}{case.task.title[1:]} {learnt}; in its last {settings.last} steps the group explains "
        f"{kernel['last']:.0%} of the kernel, its elements in a random order {kernel['random_order']:.0%}, numbers modulo "
        f"{found['answers']} {kernel['cyclic']:.0%} (chance {kernel['chance']:.0%})."
    )


def _table_of_training(cases: Sequence[Case], found: Mapping[str, Any]) -> Table:
    return Table(
        "Training, and the steps at which the training accuracy was 1 and the validation accuracy 0.99; then "
        "the first step of inner layers around which the outer layers of the end generalise.",
        [
            *("operation", "answers", "sums", "steps", "training", "validation"),
            *("memorised", "generalised", "swapped"),
        ],
        [_training_row(case, found[case.name]) for case in cases],
    )


def _training_row(case: Case, found: Mapping[str, Any]) -> list[str | float]:
    phases = case.trained.phases
    return [
        case.task.title,
        len(case.task.group),
        len(case.trained.train[1]),
        len(case.trained.run.steps),
        found["accuracy"]["training"],
        found["accuracy"]["validation"],
        _or_not(phases and phases.memorised),
        _or_not(phases and phases.generalised),
        _or_not(found["swap"][WITH_OUTER]),
    ]


def _table_of_kernels(cases: Sequence[Case], found: Mapping[str, Any], settings: Settings) -> Table:
    keys = ("first", "last", "other_side", "random_order", "cyclic", "chance", "concentration")
    return Table(
        f"Share of the energy of the kernel among different answers that is invariant under the group, in the first "
        f"and last {settings.last} steps; the same in the last for f(hg⁻¹), for the elements in a random order, and "
        f"for numbers modulo their count; and the share of the two largest components of f(g⁻¹h).",
        [
            *("operation", "first", "last", "f(hg⁻¹)", "random order", "cyclic"),
            *("chance", "two components"),
        ],
        [[case.task.title, *(found[case.name]["kernel"][key] for key in keys)] for case in cases],
    )


def _table_of_phases(cases: Sequence[Case], found: Mapping[str, Any]) -> Table:
    return Table(
        "By phase: mean change of the log-probability of a right held-out answer by data and weight decay, in nats, "
        "and the mean cosine of the influences of outer layers, and of other pairs but the position embedding's.",
        [
            *("operation", "phase", "steps", "data", "weight decay"),
            *("cosine of outer layers", "of other pairs"),
        ],
        [[case.task.title, *phase_cells(phase)] for case in cases for phase in found[case.name]["phases"]],
    )


def _or_not(step: int | None) -> str:
    return "–" if step is None else str(step)


def _images(case: Case, settings: Settings) -> list[Image]:
    over_steps = _over_steps(case, settings)
    shares = {name: [found.share for found in values] for name, values in over_steps.items()}
    spectra = np.array([found.spectrum for found in over_steps["the group"]])
    starts = case.looked.kernel.step.values.tolist()
    chance = over_steps["the group"][0].chance
    title, trained = case.task.title, case.trained
    return [
        Image.drawn(
            f"{case.name}-curves",
            f"{title}: accuracy and loss of training and held-out pairs",
            phase_figures.curves,
            trained,
        ),
        Image.drawn(
            f"{case.name}-structure",
            f"{title}: share of the kernel that is invariant, and its spectrum",
            phase_figures.structure,
            *(trained, shares, spectra, starts, chance),
        ),
        Image.drawn(
            f"{case.name}-layers",
            f"{title}: which layers and causes move the log-probability of right held-out answers",
            phase_figures.layers_and_causes,
            *(trained, case.looked),
        ),
    ]


def _arrays(cases: Sequence[Case]) -> xr.Dataset:
    """Return the kernels, each with its own dimensions."""
    return xr.Dataset(
        {
            f"kernel_{case.name}": (
                (f"step_{case.name}", f"row_{case.name}", f"answer_{case.name}"),
                case.looked.kernel.values,
            )
            for case in cases
        },
        {f"step_{case.name}": case.looked.kernel.step.values for case in cases}
        | {f"row_{case.name}": case.looked.answers for case in cases},
    )


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Look at other operations than addition in the same way: is the cyclic pattern peculiar to it?",
    seed=Seed,
    operations=Annotated[
        list[str] | None, typer.Option("--operation", help="Which; may be repeated. Default: all.")
    ],
)

if __name__ == "__main__":
    typer.run(main)
