"""Measure how well counterfactual answers foretell training without some samples, with the same seed and batches.

python -m experiments.counterfactual [--quick]
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import typer

from experiments.command import Seeds, command
from experiments.counterfactual import measuring
from experiments.counterfactual.sizes import QUICK, Network, Settings
from experiments.counterfactual.trainings import record_model, record_network
from experiments.evaluation.splits import marked, with_shortcut
from experiments.results import Findings, Table
from explaind_tf import measurements
from explaind_tf.analysis import evaluation
from explaind_tf.datasets import digits

NAME = "counterfactual"
# A method of the evaluation, and the name of its column.
_SHORTCUT = {"counterfactual": "counterfactual", "data influence": "ledger"}


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Measure all trainings."""
    rows: dict[str, list[dict[str, Any]]] = {}
    shortcuts: dict[str, list[dict[str, float]]] = {}
    for seed in settings.seeds:
        train, test = digits(num_test=settings.inputs, seed=seed)
        train = (train[0][: settings.samples], train[1][: settings.samples])
        for network in settings.networks:
            run_dir = runs_dir / f"{network.name}-{seed}"
            run, model = record_network(network, train, settings, seed, run_dir)
            found = measuring.measured(run, test, settings, seed)
            rows.setdefault(network.name, []).append(found | {"accuracy": _accuracy(model, test)})
            if network.halves:
                name = f"{network.name}; mean at {settings.repeats} halves"
                rows.setdefault(name, []).append(measuring.at_halves(run, test, settings, seed))
                found_shortcut = _shortcut(network, train, test, settings, seed, runs_dir)
                shortcuts.setdefault(network.name, []).append(found_shortcut)
        for name in settings.models:
            run, held_out = record_model(name, settings, seed, runs_dir / f"{name}-{seed}")
            rows.setdefault(name, []).append(measuring.measured(run, held_out, settings, seed))
    columns = ("accuracy", "smoothness", *(f"{share:.0%}" for share in settings.shares), measuring.SINGLE)
    return Findings(
        title="What leaving samples out would have changed",
        question=(
            f"Networks of {settings.units} hidden units are trained on {settings.samples} digits for {settings.steps} steps "
            f"with batches of {settings.batch}. The counterfactual answer foretells how log p(class) of {settings.inputs} "
            f"held-out digits changes if samples are left out. It is compared with the recorded training repeated with a "
            f"weight of 0 for these samples, with the same seed and batches: {settings.retrainings} times for each share, "
            f"and for {settings.singles} single samples. ResNet-9 (width 0.125, 400 digits) and the Transformer (addition "
            f"modulo 23) are trained for {settings.model_steps} steps by AdamW with ε 1e-7 and learning rate 1e-3, and "
            f"asked about {settings.model_inputs} inputs. Means over {len(settings.seeds)} seeds."
        ),
        conclusions=_conclusions(rows, settings),
        tables=[
            Table(
                "Accuracy; smoothness of the training, found without retraining on any of these subsets; Spearman's "
                "correlation of foretold with found changes over subsets that leave out a share of the samples; Pearson's "
                "for single samples; in brackets the smallest and largest of the seeds",
                ("training", *columns),
                [(name, *(_cell(found, column) for column in columns)) for name, found in rows.items()],
            ),
            Table(
                "Which zeros bear the mark that makes other digits look like zeros: area under the ROC curve (chance 0.5)",
                ("training", *_SHORTCUT.values()),
                [
                    (name, *(_cell(found, method) for method in _SHORTCUT))
                    for name, found in shortcuts.items()
                ],
            ),
        ],
        values={"rows": rows, "shortcuts": shortcuts},
    )


def _accuracy(model: keras.Model, test: tuple[np.ndarray, np.ndarray]) -> float:
    return float((model.predict(test[0], verbose=0).argmax(axis=-1) == test[1]).mean())


def _shortcut(
    network: Network,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    settings: Settings,
    seed: int,
    runs_dir: Path,
) -> dict[str, float]:
    """Train with a mark on half of the zeros, and ask why other digits with the mark look like zeros."""
    train, is_marked = with_shortcut(train, of_class=0, share=0.5, seed=seed)
    run, _ = record_network(network, train, settings, seed, runs_dir / f"shortcut-{network.name}-{seed}")
    order = run.samples.ids.astype(int)
    x, y = test
    others = marked(x[y != 0], np.ones((y != 0).sum(), bool))
    of = measurements.log_prob(np.zeros(len(others), np.int32))
    among = train[1][order] == 0
    answers = {
        "counterfactual": run.counterfactual(others, of, progress=False).response,
        "data influence": run.attribute(others, of, axes=("sample",), tolerance=1e-2, progress=False).data,
    }
    is_relevant = np.tile(is_marked[order][among], (len(others), 1))
    return {
        name: float(evaluation.auc(values.values[:, 0][:, among], is_relevant).mean())
        for name, values in answers.items()
    }


def _cell(found: Sequence[Mapping[str, float]], column: str) -> str:
    values = [one[column] for one in found if column in one]
    if not values:
        return "–"
    ends = f" ({min(values):.2f} – {max(values):.2f})" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{ends}"


def _conclusions(rows: Mapping[str, Sequence[Mapping[str, float]]], settings: Settings) -> list[str]:
    share = f"{settings.shares[min(1, len(settings.shares) - 1)]:.0%}"
    smooth = {
        name: float(np.mean([one["smoothness"] for one in found]))
        for name, found in rows.items()
        if "smoothness" in found[0]
    }
    ranked = sorted(smooth, key=lambda name: -smooth[name])
    return [
        f"{name}: smoothness {smooth[name]:.2f}, correlation at {share} left out "
        f"{np.mean([one[share] for one in rows[name]]):.2f}."
        for name in ranked
    ] + [
        "A response is the exact derivative in all of them. What it is worth depends on how smooth training is, and the "
        "smoothness tells this before any subset is left out."
    ]


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Measure how well counterfactual answers foretell training without some samples.",
    seeds=Seeds,
)

if __name__ == "__main__":
    typer.run(main)
