"""Prune by the parameter influence, and by other scores of weights.

python -m experiments.pruning [--quick]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import typer
import xarray as xr

import explaind_tf as xtf
from experiments.classifiers import compiled, shuffled
from experiments.command import Seeds, command
from experiments.results import Findings, Image, Table, new_figure, spread
from explaind_tf.analysis import pruning
from explaind_tf.datasets import digits, modular_addition
from explaind_tf.demo import record_fit
from explaind_tf.models import ModularTransformer, ResNet9

NAME = "pruning"
MEASURES = {"accuracy": "accuracy", "agreement": "agreement with the whole model", "kl": "KL (nats)"}


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    models : tuple of str
        Names in TASKS.
    resnet_steps, transformer_steps : int
        Training steps.
    width : float
        Width of the ResNet-9.
    size : int
        Height and width of the digits.
    modulus, depth, hidden : int
        Sizes of the Transformer: p, ``d_model``, ``d_mlp``. It is trained on four fifths of all sums.
    scored, tested : int
        Training samples by which weights are scored; largest number of held-out inputs on which pruned models are compared.
    kept : tuple of float
        Shares of the weights that are kept.
    seeds : tuple of int
        Seeds of weights, batches and data.
    """

    models: tuple[str, ...] = ("resnet9", "transformer")
    resnet_steps: int = 150
    transformer_steps: int = 800
    width: float = 0.125
    size: int = 16
    modulus: int = 29
    depth: int = 64
    hidden: int = 128
    scored: int = 128
    tested: int = 500
    kept: tuple[float, ...] = (0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
    seeds: tuple[int, ...] = (0, 1, 2)


QUICK = Settings(
    models=("transformer",),
    resnet_steps=3,
    transformer_steps=3,
    width=0.03,
    size=12,
    modulus=7,
    depth=8,
    hidden=16,
    scored=4,
    tested=8,
    kept=(0.9, 0.1),
    seeds=(0,),
)


@dataclass(frozen=True)
class Task:
    """A compiled model, its training data, and held-out data."""

    title: str
    model: keras.Model
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    batch: int
    steps: int


def resnet9(settings: Settings, seed: int) -> Task:
    train, test = digits(size=settings.size, channels=1, num_test=500, seed=seed)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, settings.resnet_steps)
    return Task(
        title=f"ResNet-9 (width {settings.width:g}) on digits",
        model=compiled(
            ResNet9(10, input_shape=train[0].shape[1:], width=settings.width),
            xtf.PathAdamW(rate, weight_decay=0.01),
        ),
        train=train,
        test=test,
        batch=64,
        steps=settings.resnet_steps,
    )


def transformer(settings: Settings, seed: int) -> Task:
    p = settings.modulus
    train, test = modular_addition(p, num_train=4 * p * p // 5, seed=seed)
    return Task(
        title=f"Transformer on addition modulo {p}",
        model=compiled(
            ModularTransformer(p, d_model=settings.depth, d_mlp=settings.hidden),
            xtf.PathAdamW(3e-3, weight_decay=1.0, beta_2=0.98),
        ),
        train=train,
        test=test,
        batch=256,
        steps=settings.transformer_steps,
    )


TASKS = {"resnet9": resnet9, "transformer": transformer}


def measure(name: str, settings: Settings, seed: int, run_dir: Path) -> tuple[str, xr.Dataset]:
    """Train a model, score its weights by every method, and prune it."""
    keras.utils.set_random_seed(seed)
    task = TASKS[name](settings, seed)
    batches = shuffled(task.train, seed).batch(task.batch)
    record_fit(task.model, xtf.PathLogger(run_dir, verbose=False), batches, steps=task.steps)
    run = xtf.open_run(run_dir)
    rows = np.random.default_rng(seed).permutation(len(task.train[0]))[: settings.scored]
    subject = pruning.Subject(run, *(array[rows] for array in task.train), seed=seed)
    scores = {method: score(subject) for method, score in pruning.SCORES.items()}
    x, y = (array[: settings.tested] for array in task.test)
    return task.title, pruning.prune(run, scores, settings.kept, x, y)


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Prune the models with all seeds."""
    tables, values, images, conclusions = [], {}, [], []
    for name in settings.models:
        measured = [measure(name, settings, seed, runs_dir / f"{name}-{seed}") for seed in settings.seeds]
        title = measured[0][0]
        whole = [found.attrs["accuracy"] for _, found in measured]
        found = xr.concat([found for _, found in measured], "seed", combine_attrs="drop")
        tables += [_table(title, found, scope) for scope in pruning.SCOPES]
        images.append(_image(name, title, found))
        conclusions.append(_conclusion(title, found, whole))
        values[name] = {
            "accuracy_of_the_whole": whole,
            **{measure: found[measure].values for measure in found.data_vars},
            "dims": found.accuracy.dims,
            "score": found.score.values,
            "scope": found.scope.values,
            "kept": found.kept.values,
        }
    return Findings(
        title="Pruning by the parameter influence",
        question=(
            "The weights with the lowest scores are set to zero, without training again, among all weights of the model or "
            f"within each layer. Every method scores by the same {settings.scored} training samples; the pruned model is "
            "compared with the whole one on held-out inputs. Influence is |Σ over steps of the ledger's entry of a weight|, "
            f"mean over inputs. Mean ± standard deviation over {len(settings.seeds)} seeds (weights, batches, data)."
        ),
        conclusions=[
            *conclusions,
            "The ledger says what a weight's movement did in training, not what setting it to zero does: the weight's "
            "initial value, which is taken away too, has no entry.",
        ],
        tables=tables,
        values=values,
        images=images,
    )


def _table(title: str, found: xr.Dataset, scope: str) -> Table:
    rows = [
        (method, label, *(spread(of_kept.values) for of_kept in at.transpose("kept", "seed")))
        for method in found.score.values
        for label, at in (
            (label, found[name].sel(score=method, scope=scope)) for name, label in MEASURES.items()
        )
    ]
    among = "all weights" if scope == "model" else "the weights of each layer"
    columns = ("method", "measure", *(f"{kept:g} kept" for kept in found.kept.values))
    return Table(f"{title}: the best among {among} are kept", columns, rows)


def _image(name: str, title: str, found: xr.Dataset) -> Image:
    figure = new_figure(9, 6)
    for row, scope in zip(figure.subplots(2, 2), found.scope.values, strict=True):
        for axes, measure in zip(row, ("agreement", "kl"), strict=True):
            for method in found.score.values:
                at = found[measure].sel(score=method, scope=scope)
                spread_of = at.std("seed", ddof=1).values if at.sizes["seed"] > 1 else None
                axes.errorbar(
                    found.kept, at.mean("seed"), spread_of, marker="o", ms=3, capsize=2, label=method
                )
            axes.set_xscale("log")
            axes.set_yscale("log" if measure == "kl" else "linear")
            axes.set_xlabel(f"share of weights kept, {'of all' if scope == 'model' else 'in each layer'}")
            axes.set_ylabel(MEASURES[measure])
    figure.axes[0].legend(fontsize="small")
    finding = f"{title}: {_best(found)} keeps the most predictions"
    figure.suptitle(finding)
    return Image(name, finding, figure)


def _areas(found: xr.Dataset) -> xr.DataArray:
    """Return the agreement, mean over shares kept, scopes and seeds, of each method."""
    return found.agreement.mean(["kept", "scope", "seed"])


def _best(found: xr.Dataset) -> str:
    areas = _areas(found)
    return str(areas.score.values[int(areas.values.argmax())])


def _conclusion(title: str, found: xr.Dataset, whole: list[float]) -> str:
    areas = _areas(found)
    ranking: list[Any] = [
        f"{areas.score.values[i]} {float(areas[i]):.3f}" for i in np.argsort(-areas.values, kind="stable")
    ]
    return (
        f"{title} (accuracy {spread(whole)} before pruning): mean agreement over all shares and both ways is "
        f"{', '.join(ranking)}."
    )


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Prune by parameter influence, magnitude, gradient × weight, Fisher information, and at random.",
    seeds=Seeds,
    scored=Annotated[int | None, typer.Option(help="Training samples to score by. Default: 128.")],
)

if __name__ == "__main__":
    typer.run(main)
