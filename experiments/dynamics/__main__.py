"""Add a class to the data half-way through training, and account for when and where it has an effect.

python -m experiments.dynamics [--quick]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import typer
import xarray as xr
from matplotlib.figure import Figure

import explaind_tf as xtf
from experiments.classifiers import balanced_ledger, compiled, layer_name
from experiments.command import Seeds, command
from experiments.results import Findings, Image, Table, new_figure, spread
from explaind_tf.datasets import digits

NAME = "dynamics"
LAYERS = ("conv_1", "conv_2", "hidden", "logits")
LATE, OTHERS = "late class", "other classes"


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    late : int
        The digit that is missing at first.
    before, after : int
        Training steps without and with it.
    inputs : int
        Held-out digits of the late class that are accounted for. As many of the other classes are, too.
    early : int
        Steps after the class joins that count as its beginning.
    """

    late: int = 7
    before: int = 150
    after: int = 150
    batch: int = 64
    inputs: int = 20
    early: int = 10
    tolerance: float = 1e-3
    seeds: tuple[int, ...] = (0, 1, 2)


QUICK = Settings(before=4, after=4, batch=16, inputs=2, early=2, tolerance=1e-2, seeds=(0,))


@dataclass(frozen=True)
class Recorded:
    """The recording and the ledger of one seed.

    Attributes
    ----------
    data : xr.DataArray
        Mean change of the log-probability of the right class by the gradients of training digits, in nats:
        by kind ``of`` held-out digits, ``group`` of training digits, ``layer`` and ``step``.
    probability : xr.DataArray
        Mean log-probability of the right class before each step and after the last one, ``of`` × ``step``, in nats.
    """

    data: xr.DataArray
    probability: xr.DataArray


def build(seed: int) -> keras.Model:
    """Return a compiled network of two convolutions and two dense layers."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, activation="relu", name="conv_1"),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 2, activation="relu", name="conv_2"),
            layers.Flatten(),
            layers.Dense(64, activation="relu", name="hidden"),
            layers.Dense(10, name="logits"),
        ]
    )
    return compiled(model, xtf.PathAdamW(2e-3, weight_decay=0.01))


def record(settings: Settings, run_dir: Path, seed: int) -> Recorded:
    """Train on a stream that a class joins, and account for held-out digits.

    Raises
    ------
    UnbalancedLedgerError
        If the ledger does not balance.
    """
    (x, y), (x_test, y_test) = digits(seed=seed)
    ids = np.arange(len(y))

    def stream(chosen: np.ndarray, steps: int) -> tf.data.Dataset:
        dataset = tf.data.Dataset.from_tensor_slices((ids[chosen], (x[chosen], y[chosen])))
        return dataset.shuffle(len(ids), seed=seed).repeat().batch(settings.batch).take(steps)

    is_late = y == settings.late
    dataset = stream(~is_late, settings.before).concatenate(stream(np.ones_like(is_late), settings.after))
    model, logger = build(seed), xtf.PathLogger(run_dir, verbose=False)
    model.fit(logger.tap(dataset), callbacks=[logger], verbose=0, shuffle=False)
    run = xtf.open_run(run_dir)
    rows = {
        LATE: np.flatnonzero(y_test == settings.late)[: settings.inputs],
        OTHERS: np.flatnonzero(y_test != settings.late)[: settings.inputs],
    }
    chosen = np.concatenate(list(rows.values()))
    ledger = balanced_ledger(
        run,
        x_test[chosen],
        xtf.measurements.log_prob(y_test[chosen]),
        axes=("group", "layer", "step"),
        groups={i: LATE if late else OTHERS for i, late in zip(ids, is_late, strict=True)},
        tolerance=settings.tolerance,
    )
    of = np.repeat(list(rows), [len(r) for r in rows.values()])
    ledger = ledger.isel(output=0).assign_coords(
        layer=[layer_name(path) for path in ledger.layer.values], of=("input", of)
    )
    # The sums of the ledger over the steps give the log-probabilities, so the model is not evaluated.
    terms = [ledger[term] for term in ledger.explaind.terms]
    moved = sum(term.sum([d for d in term.dims if d not in ("input", "step")]) for term in terms)
    assert isinstance(moved, xr.DataArray)
    values = np.concatenate(
        [ledger.initial.values[:, None], moved.transpose("input", "step").values], axis=1
    ).cumsum(axis=1)
    probability = xr.DataArray(values, dims=("input", "step"), coords={"of": ("input", of)})
    return Recorded(
        data=ledger.data.groupby("of").mean("input").sel(of=list(rows), layer=list(LAYERS)),
        probability=probability.groupby("of").mean("input").sel(of=list(rows)),
    )


def measure(settings: Settings, found: Recorded) -> dict[str, Any]:
    """Return the numbers of one seed."""
    data, start = found.data, settings.before
    late = abs(data.sel(group=LATE)).sum(["of", "layer"])
    acting = np.flatnonzero(late.values)
    own = data.sel(group=LATE, of=LATE)
    early, later = (
        abs(own.sel(step=slice(*steps))).sum("step")
        for steps in ((start, start + settings.early - 1), (start + settings.early, None))
    )
    return {
        "share_before": float(late.sel(step=slice(None, start - 1)).sum() / late.sum()),
        "first_step": int(late.step.values[acting[0]]),
        "own_gain": float(own.sum()),
        "own_loss_before": float(data.sel(group=OTHERS, of=LATE, step=slice(None, start - 1)).sum()),
        "effect_on_others": float(data.sel(group=LATE, of=OTHERS).sum()),
        "early_layers": {layer: float(early.sel(layer=layer) / early.sum()) for layer in LAYERS},
        "later_layers": {layer: float(later.sel(layer=layer) / later.sum()) for layer in LAYERS},
    }


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Record a training with each seed, and account for it."""
    recorded = {seed: record(settings, runs_dir / f"seed-{seed}", seed) for seed in settings.seeds}
    measured = {seed: measure(settings, found) for seed, found in recorded.items()}
    first = recorded[settings.seeds[0]]
    return Findings(
        title="A class that joins the data half-way",
        question=(
            f"A small convolutional network learns handwritten digits. Its training data hold no {settings.late} during "
            f"the first {settings.before} steps, and all digits during the {settings.after} steps after them. A forward "
            f"sweep splits the data term of held-out digits over two groups of training digits, by layer and step. Does the "
            f"late class act when it is there, and only then, and through which layers?"
        ),
        conclusions=_conclusions(settings, list(measured.values())),
        tables=[_table(settings, list(measured.values()))],
        values={"seeds": {str(seed): values for seed, values in measured.items()}},
        images=[
            Image.drawn(
                "when",
                f"The digit {settings.late} joins the data at step {settings.before}",
                _when,
                settings,
                first,
            ),
            Image.drawn(
                "where",
                f"Layers through which training digits {settings.late} act",
                _where,
                settings,
                first,
            ),
        ],
        arrays=xr.Dataset(
            {"data": first.data, "log_probability": first.probability.rename(step="steps_done")}
        ),
    )


def _conclusions(settings: Settings, measured: Sequence[Mapping[str, Any]]) -> list[str]:
    largest_share = max(values["share_before"] for values in measured)
    first_steps = sorted({values["first_step"] for values in measured})
    return [
        f"The share of the late class' influence before its introduction is {largest_share!r} with "
        f"{len(measured)} seed(s); its first entry that is not zero is of step {', '.join(map(str, first_steps))}.",
        f"The other classes moved the log-probability of held-out digits {settings.late} by "
        f"{_over_seeds(measured, 'own_loss_before')} nats before; the late class raised it by "
        f"{_over_seeds(measured, 'own_gain')} nats, and moved that of other digits by "
        f"{_over_seeds(measured, 'effect_on_others')} nats.",
        f"In the first {settings.early} steps of the class {_over_seeds(measured, 'early_layers', 'logits')} of its "
        f"influence on its own digits went through the last layer, later "
        f"{_over_seeds(measured, 'later_layers', 'logits')}.",
    ]


def _table(settings: Settings, measured: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        f"Share of the influence of training digits {settings.late} on held-out ones that goes through each layer "
        f"(sum of absolute mean changes by step; mean ± standard deviation of {len(measured)} seed(s)).",
        ["layer", f"first {settings.early} steps", "later"],
        [
            [
                layer,
                _over_seeds(measured, "early_layers", layer),
                _over_seeds(measured, "later_layers", layer),
            ]
            for layer in LAYERS
        ],
    )


def _over_seeds(measured: Sequence[Mapping[str, Any]], *keys: str) -> str:
    return spread([_at(values, keys) for values in measured])


def _at(values: Mapping[str, Any], keys: tuple[str, ...]) -> float:
    found: Any = values
    for key in keys:
        found = found[key]
    return float(found)


def _when(settings: Settings, found: Recorded, title: str) -> Figure:
    figure = new_figure(10, 3.6)
    left, right = figure.subplots(1, 2)
    for of, style in ((LATE, "-"), (OTHERS, "--")):
        left.plot(found.probability.sel(of=of), style, label=f"held-out digits of the {of}")
    left.set(xlabel="training step", ylabel="log-probability of the right class (nats)")
    for group, colour in ((LATE, "C3"), (OTHERS, "C0")):
        values = found.data.sel(group=group, of=LATE).sum("layer").cumsum("step")
        right.plot(found.data.step, values, colour, label=f"training digits of the {group}")
    right.set(xlabel="training step", ylabel="nats, summed up over steps")
    right.set_title(f"what moves held-out digits {settings.late}", fontsize=10)
    for axes in (left, right):
        axes.axvline(settings.before, color="0.5", linewidth=0.8, linestyle=":")
        axes.legend(fontsize=8)
    figure.suptitle(title)
    return figure


def _where(settings: Settings, found: Recorded, title: str) -> Figure:
    figure = new_figure(10, 3.4)
    for axes, of in zip(figure.subplots(1, 2), (LATE, OTHERS), strict=True):
        for layer in LAYERS:
            values = found.data.sel(group=LATE, of=of, layer=layer).cumsum("step")
            axes.plot(found.data.step, values, label=layer)
        axes.axvline(settings.before, color="0.5", linewidth=0.8, linestyle=":")
        axes.set_title(f"on held-out digits of the {of}", fontsize=10)
        axes.set(xlabel="training step", ylabel="nats, summed up over steps")
        axes.legend(fontsize=8)
    figure.suptitle(title)
    return figure


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Add a class to the data half-way through training, and account for when and where it acts.",
    seeds=Seeds,
)

if __name__ == "__main__":
    typer.run(main)
