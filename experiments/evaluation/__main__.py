"""Evaluate the data influence, compared with other methods of data attribution.

python -m experiments.evaluation [--quick]
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import typer

import explaind_tf as xtf
from experiments.command import Seeds, command
from experiments.evaluation.retraining import Trainer, record
from experiments.evaluation.sizes import QUICK, Settings
from experiments.evaluation.splits import Split, flipped, marked, with_shortcut
from experiments.results import Findings, Image, Table, new_figure
from explaind_tf.analysis import evaluation
from explaind_tf.analysis.evaluation import Method
from explaind_tf.correlations import Interval, rank_correlation

NAME = "evaluation"
TASKS = {
    "mislabelled": "mislabelled samples (AUC)",
    "class": "same class (AUC)",
    "shortcut": "shortcut (AUC)",
    "groups": "leave-group-out",
    "subsets": "LDS",
}


def detect_mislabelled(split: Split, settings: Settings, runs_dir: Path) -> dict[str, Interval]:
    """Train with some wrong labels, and look for them."""
    seed = settings.seeds[0]
    train, is_wrong = flipped(split.train, settings.flipped, seed)
    order, methods = _of(record(train, settings, runs_dir / "flipped"), settings)
    return {
        name: evaluation.mislabelled(method, *split.test, is_wrong[order], seed=seed)
        for name, method in methods.items()
    }


def detect_shortcut(split: Split, settings: Settings, runs_dir: Path) -> dict[str, Interval]:
    """Train with a mark on half of the zeros, and ask why other digits with the mark look like zeros.

    Only zeros are ranked: a method gets no credit for finding a zero at all.
    """
    seed = settings.seeds[0]
    train, is_marked = with_shortcut(split.train, of_class=0, share=0.5, seed=seed)
    order, methods = _of(record(train, settings, runs_dir / "shortcut"), settings)
    x, y = split.test
    others = marked(x[y != 0], np.ones((y != 0).sum(), bool))
    zeros = np.zeros(len(others), np.int32)
    among = train[1][order] == 0
    is_relevant = np.tile(is_marked[order][among], (len(others), 1))
    return {
        name: evaluation.retrieval(method.influence(others, zeros)[:, among], is_relevant, seed=seed)
        for name, method in methods.items()
    }


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Evaluate all methods on all tasks.

    Raises
    ------
    ValueError
        If there is more than one seed: intervals are over samples, inputs and subsets.
    """
    if len(settings.seeds) != 1:
        raise ValueError(f"The evaluation is of one training; got the seeds {settings.seeds}.")
    seed = settings.seeds[0]
    split = Split.of(settings, seed)
    found: dict[str, Mapping[str, Interval]] = {
        "mislabelled": detect_mislabelled(split, settings, runs_dir),
        "shortcut": detect_shortcut(split, settings, runs_dir),
    }
    order, methods = _of(record(split.train, settings, runs_dir / "plain"), settings)
    influence = {name: method.influence(*split.test) for name, method in methods.items()}
    is_same = split.test[1][:, None] == split.train[1][order][None]
    found["class"] = _each(influence, lambda values: evaluation.retrieval(values, is_same, seed=seed))
    trainer = Trainer(settings, split)
    ceiling = {}
    for task, subsets in (
        ("groups", split.without_groups(settings.groups)),
        ("subsets", split.halves(settings.subsets, seed)),
    ):
        outcomes = trainer.outcomes(subsets)
        mean = outcomes.mean(axis=0)
        found[task] = _each(
            influence,
            lambda values, s=subsets, m=mean: evaluation.datamodelling(values, s[:, order], m, seed=seed),
        )
        ceiling[task] = _ceiling(outcomes)
    return Findings(
        title="What the data influence is good for",
        question=(
            f"A network of {settings.units} hidden units is trained on {settings.samples} digits for {settings.steps} "
            f"steps by AdamW. Every method gives the influence of each training sample on log p(class) of "
            f"{settings.inputs} held-out digits, and is asked the same: which labels are wrong ({settings.flipped:.0%} were "
            "flipped); which samples are of the input's class; which zeros bear a mark (half of them do), where another "
            "digit that bears it is to look like a zero; and how predictions rank after training without one of "
            f"{settings.groups} groups (samples of one class), or on {settings.subsets} random halves of the data (linear "
            f"datamodelling score), each trained {settings.repeats} times from other initial weights, with other batches."
        ),
        conclusions=_conclusions(found, ceiling),
        tables=[_table(found, ceiling)],
        values={task: _each(intervals, dataclasses.asdict) for task, intervals in found.items()}
        | {"correlation_of_two_retrainings": ceiling},
        images=[_image(found)],
    )


def _of(run: xtf.Run, settings: Settings) -> tuple[np.ndarray, Mapping[str, Method]]:
    """Return the position of each sample of a run in the training set, and the methods."""
    return run.samples.ids.astype(int), evaluation.methods(run, seed=settings.seeds[0])


def _each(values: Mapping, function: Callable) -> dict:
    return {name: function(value) for name, value in values.items()}


def _ceiling(outcomes: np.ndarray) -> float | None:
    """Return how well one retraining ranks another: their correlation over subsets, mean over inputs."""
    if len(outcomes) < 2:
        return None
    return float(rank_correlation(outcomes[0].T, outcomes[1].T).mean())


def _table(found: Mapping[str, Mapping[str, Interval]], ceiling: Mapping[str, float | None]) -> Table:
    rows = [
        (
            name,
            *(f"{i.value:.2f} ({i.low:.2f} – {i.high:.2f})" for i in (found[task][name] for task in TASKS)),
        )
        for name in found["class"]
    ]
    last = ["" if ceiling.get(task) is None else f"{ceiling[task]:.2f}" for task in TASKS]
    return Table(
        "Area under the ROC curve (chance 0.5) and rank correlation with retraining (chance 0), with bootstrap intervals of "
        "95 % over samples, over inputs, or over subsets and inputs",
        ("method", *TASKS.values()),
        [*rows, ("one retraining against another", *last)],
    )


def _conclusions(
    found: Mapping[str, Mapping[str, Interval]], ceiling: Mapping[str, float | None]
) -> list[str]:
    sentences = []
    for task, label in TASKS.items():
        ranked = sorted(found[task], key=lambda name: -found[task][name].value)
        ours, best = found[task]["data influence"], found[task][ranked[0]]
        place = ranked.index("data influence") + 1
        sentences.append(
            f"{label}: best is {ranked[0]} with {best.value:.2f}; data influence has {ours.value:.2f} ({ours.low:.2f} – "
            f"{ours.high:.2f}) and comes {place} of {len(ranked)}."
        )
    sentences.append(
        "The ledger describes the training that took place; it does not promise the effect of another training. The last "
        "two columns measure how far it foretells it all the same."
    )
    return sentences


def _image(found: Mapping[str, Mapping[str, Interval]]) -> Image:
    figure = new_figure(12, 4)
    names = list(found["class"])
    places = np.arange(len(names))[::-1]
    for axes, (task, label) in zip(figure.subplots(1, len(TASKS), sharey=True), TASKS.items(), strict=True):
        intervals = [found[task][name] for name in names]
        middle = np.array([i.value for i in intervals])
        # The percentile interval of a skewed statistic may not contain it.
        sides = [
            np.maximum(0, middle - [i.low for i in intervals]),
            np.maximum(0, [i.high for i in intervals] - middle),
        ]
        colors = ["tab:red" if "influence" in name else "tab:blue" for name in names]
        axes.barh(places, middle, xerr=sides, color=colors, capsize=2)
        axes.axvline(0 if task in ("groups", "subsets") else 0.5, color="black", lw=0.8)
        axes.set_xlabel(label)
    figure.axes[0].set_yticks(places, names)
    wins = [
        task
        for task in TASKS
        if max(found[task], key=lambda name: found[task][name].value).endswith("influence")
    ]
    finding = f"Entries of the ledger (red) are the best of {len(names)} methods in {len(wins)} of {len(TASKS)} tasks"
    figure.suptitle(finding)
    return Image("methods", finding, figure)


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Measure detection and the linear datamodelling score of all methods.",
    seeds=Seeds,
)

if __name__ == "__main__":
    typer.run(main)
