"""Account for a training that was never recorded, from the checkpoints that Keras saved.

python -m experiments.checkpoints [--quick]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import typer
import xarray as xr

import explaind_tf as xtf
from experiments.classifiers import balanced_ledger, compiled, shuffled
from experiments.command import Seeds, command
from experiments.results import Findings, Image, Table, new_figure
from explaind_tf.datasets import digits
from explaind_tf.models import ResNet9

NAME = "checkpoints"
# ModelCheckpoint chooses the form by the end of the file name.
FORMS = ("weights.h5", "keras")


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    width : float
        Width of the ResNet-9, which has BatchNorm.
    size : int
        Height and width of the digits.
    epochs : int
        Epochs of training; a checkpoint is saved after each.
    inputs : int
        Held-out inputs accounted for.
    tolerance : float
        Tolerance of the ledger.
    forms : tuple of str
        Ends of file names, by which ModelCheckpoint chooses the form.
    seeds : tuple of int
        Seeds of weights, batches and the split; the first is used.
    """

    width: float = 0.5
    size: int = 32
    epochs: int = 15
    inputs: int = 50
    tolerance: float = 1e-2
    forms: tuple[str, ...] = FORMS
    seeds: tuple[int, ...] = (0,)


QUICK = Settings(width=0.03, size=12, epochs=1, inputs=1, tolerance=0.1, forms=FORMS[:1])


def train(settings: Settings, directory: Path) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    """Train with Keras' own optimizer and callbacks; return the model, held-out inputs and their classes."""
    keras.utils.set_random_seed(settings.seeds[0])
    num_test = max(200, settings.inputs)
    train, test = digits(size=settings.size, channels=3, num_test=num_test, seed=settings.seeds[0])
    model = ResNet9(10, input_shape=train[0].shape[1:], width=settings.width, batch_norm=True)
    compiled(model, "adamw", metrics=["accuracy"])
    model.save_weights(directory / "epoch-00.weights.h5")
    model.save(directory / "epoch-00.keras")
    savers = [
        keras.callbacks.ModelCheckpoint(
            directory / f"epoch-{{epoch:02d}}.{form}", save_weights_only=form == "weights.h5"
        )
        for form in settings.forms
    ]
    batches = shuffled(train, settings.seeds[0]).batch(64)
    model.fit(batches, epochs=settings.epochs, callbacks=savers, shuffle=False, verbose=0)
    return model, test[0][: settings.inputs], test[1][: settings.inputs]


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Train, and compare the ledgers of both forms of checkpoints with each other and with ``predict``."""
    model, x, y = train(settings, runs_dir)
    of = xtf.measurements.log_prob(y)
    ledgers = [
        balanced_ledger(
            xtf.open_checkpoints(str(runs_dir / f"epoch-*.{form}"), model),
            x,
            of,
            axes=("layer", "step"),
            tolerance=settings.tolerance,
        )
        for form in settings.forms
    ]
    ledger = ledgers[0]
    expected = tf.nn.log_softmax(model.predict(x, verbose=0)).numpy()[np.arange(len(y)), y]
    values = {
        "residual_of_movement": _largest(ledger.explaind.total("residual") / ledger.movement),
        "final_against_predict": _largest(ledger.final.values[:, 0] - expected),
        "difference_of_forms": max(
            _largest((ledger[name] - ledgers[-1][name]) / ledger.movement) for name in ledger.data_vars
        ),
        "movement": float(ledger.movement.mean()),
        "by_weights": float(ledger.explaind.total("weights").mean()),
        "by_state": float(ledger.explaind.total("state").mean()),
        "nodes": int(ledger.attrs["quadrature_nodes"]),
    }
    return Findings(
        title="A training that was never recorded, from its checkpoints",
        question=(
            f"A ResNet-9 (width {settings.width:g}) with BatchNorm is trained on digits by `fit` with Keras' AdamW; "
            f"`ModelCheckpoint` saves it after each of {settings.epochs} epochs. Does the ledger by layer and step balance?"
        ),
        conclusions=_conclusions(values, settings),
        tables=[_table(values)],
        values=values,
        images=[_image(ledger)],
    )


def _largest(values: xr.DataArray | np.ndarray) -> float:
    return float(np.abs(values).max())


def _conclusions(values: dict[str, float], settings: Settings) -> Sequence[str]:
    return [
        f"It balances: the largest residual is {values['residual_of_movement']:.2g} of the input's movement, "
        f"where {settings.tolerance:g} was asked for.",
        f"`.weights.h5` and `.keras` give the same ledger to {values['difference_of_forms']:.1g} of the movement.",
        f"Of a mean change of {values['by_weights'] + values['by_state']:.3g} nats, {values['by_state']:.2g} are by the "
        "moving averages of BatchNorm, which no gradient trains: a ledger of weights alone would not balance.",
    ]


def _table(values: dict[str, float]) -> Table:
    rows = [
        ("largest residual / movement", values["residual_of_movement"]),
        ("largest difference from predict(), nats", values["final_against_predict"]),
        ("largest difference of .weights.h5 and .keras / movement", values["difference_of_forms"]),
        ("mean effect of trained weights, nats", values["by_weights"]),
        ("mean effect of BatchNorm's moving averages, nats", values["by_state"]),
        ("quadrature nodes", float(values["nodes"])),
    ]
    return Table(
        "Log-probability of the class of held-out digits, by layer and epoch", ("figure", "value"), rows
    )


def _image(ledger: xr.Dataset) -> Image:
    by_layer = (ledger.weights + ledger.state).mean("input").isel(output=0)
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    limit = _largest(by_layer)
    drawn = axes.pcolormesh(
        1 + by_layer["step"].values,
        np.arange(by_layer.sizes["layer"]),
        by_layer.transpose("layer", "step").values,
        cmap="RdBu",
        vmin=-limit,
        vmax=limit,
    )
    axes.set_yticks(np.arange(by_layer.sizes["layer"]), by_layer["layer"].values)
    axes.set_xlabel("epoch")
    axes.set_title("Which layer raised (blue) the right class in which epoch")
    figure.colorbar(drawn, ax=axes, label="nats, mean over inputs")
    return Image("layers", "What each layer did in each epoch", figure)


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Account for a training from its checkpoints.",
    seeds=Seeds,
)

if __name__ == "__main__":
    typer.run(main)
