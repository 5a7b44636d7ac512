"""The demo: trains two models, accounts for their predictions, and writes a report."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xarray as xr
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from explaind_tf import constants as names
from explaind_tf.analysis import Fidelity, fidelity
from explaind_tf.attribution import open_run
from explaind_tf.attribution.predictions import final_outputs
from explaind_tf.datasets import digits, modular_addition
from explaind_tf.models import ModularTransformer, ResNet9
from explaind_tf.optimizers import PathAdamW
from explaind_tf.progress import Progress
from explaind_tf.recording import PathLogger
from explaind_tf.report import Asked, Example, Section, account_for, write_report
from explaind_tf.terms import term

REPORT_FILE = "report.html"


@dataclass(frozen=True)
class DemoSettings:
    """Sizes of the demo. The defaults take one to two minutes on two idle cores.

    Attributes
    ----------
    digits_side, digits_width, digits_steps, digits_batch, digits_inputs : int, float, int, int, int
        ResNet-9 on handwritten digits: side of an image, width of the model, training steps, batch size, and number of
        held-out inputs to account for.
    modulus, addition_width, addition_samples, addition_steps, addition_batch, addition_inputs : int
        The same for the Transformer on modular addition.
    digits_tolerance, addition_tolerance : float
        Tolerance of each model's ledgers: largest residual, as a share of an input's movement.
    followed : int
        Number of held-out inputs to account for by layer and step, and by group and step.
    shown_inputs, top : int
        Number of inputs to show with their training samples, and most samples of either sign for each.
    """

    digits_side: int = 16
    digits_width: float = 0.125
    digits_steps: int = 40
    digits_batch: int = 64
    digits_inputs: int = 50
    digits_tolerance: float = 1e-2
    modulus: int = 113
    addition_width: int = 512
    addition_samples: int = 1000
    addition_steps: int = 60
    addition_batch: int = 256
    addition_inputs: int = 100
    addition_tolerance: float = 1e-3
    followed: int = 8
    shown_inputs: int = 4
    top: int = 5


@dataclass(frozen=True)
class _Task:
    """A model, its training, and how a reader sees its samples."""

    directory: str
    title: str
    introduction: str
    unit: str
    build: Callable[[], keras.Model]
    optimizer: Callable[[], PathAdamW]
    ids: list[str]
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    steps: int
    batch: int
    tolerance: float
    show: Callable[[list[np.ndarray], Any], Example]
    groups: list[str]
    grouped_by: str


def run_demo(
    out_dir: str | Path, *, seed: int = 0, console: Console, settings: DemoSettings | None = None
) -> Path:
    """Train a narrow ResNet-9 and a small Transformer, and account for what they predict.

    Parameters
    ----------
    out_dir : str or Path
        Directory for the two run directories and ``report.html``.
    seed : int
        Seed of the weights, the order of the batches, and the split of the data.
    console : rich.console.Console
        Where progress and tables are printed.
    settings : DemoSettings, optional
        Sizes, by default those of ``DemoSettings()``.

    Returns
    -------
    Path
        Path of the report.

    Raises
    ------
    FileExistsError
        If a run directory is not empty. Nothing is trained then.
    UnbalancedLedgerError
        If a ledger does not balance.
    """
    settings = settings or DemoSettings()
    out_dir = Path(out_dir)
    tasks = (_digits_task(settings, seed), _addition_task(settings, seed))
    # All of them before the first training: a directory in use should not end the demo halfway.
    loggers = [PathLogger(out_dir / task.directory, verbose=False) for task in tasks]
    sections = [
        _account_for(task, logger, settings, seed, console)
        for task, logger in zip(tasks, loggers, strict=True)
    ]
    report = out_dir / REPORT_FILE
    with _stage(console, "Write the report"):
        write_report(report, sections)
    return report


def record_fit(
    model: keras.Model, logger: PathLogger, dataset: tf.data.Dataset, *, steps: int, ids: str | None = None
) -> None:
    """Train a compiled model for a number of steps, with recording and a progress bar.

    Parameters
    ----------
    model : keras.Model
        Compiled with a path optimizer.
    logger : PathLogger
        Logger of a new run directory.
    dataset : tf.data.Dataset
        Batches of one epoch; repeated as often as the steps need.
    steps : int
        Number of training steps.
    ids : str, optional
        As for ``PathLogger.tap``.
    """
    with Progress(True).task("Train", steps) as advance:
        model.fit(
            logger.tap(dataset.repeat(), ids),
            steps_per_epoch=steps,
            callbacks=[
                logger,
                keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: advance()),
            ],
            verbose=0,
            shuffle=False,  # the dataset shuffles itself; Keras warns that it cannot
        )


def fidelity_table(title: str, found: Fidelity, ledger: xr.Dataset, unit: str) -> Table:
    """Return a table for a console that compares a model with its kernel machine.

    Parameters
    ----------
    title : str
        Title of the model.
    found : Fidelity
        The comparison to show.
    ledger : xarray.Dataset
        The ledger that was compared.
    unit : str
        Unit of the model's outputs.

    Returns
    -------
    rich.table.Table
    """
    table = Table(
        title=f"{escape(title)}: model and kernel machine",
        title_justify="left",
        show_header=False,
        min_width=66,
        caption="kernel machine: initial outputs + all entries except the residual, the change that they do not explain",
        caption_justify="left",
    )
    table.add_column("what")
    table.add_column("value", justify="right")
    inputs, outputs = (ledger.sizes[dim] for dim in (names.INPUT, names.OUTPUT))
    table.add_row("held-out inputs × outputs", f"{inputs:,} × {outputs:,}")
    table.add_row("both predict the same class", f"{found.agreement:.1%}")
    table.add_row("mean KL divergence", f"{found.mean_kl:.2g} nats")
    table.add_row("largest change of an output by training", f"{found.movement:.3g} {unit}", end_section=True)
    for name, value in found.terms.items():
        table.add_row(f"mean |{term(name).label}|", f"{value:.3g} {unit}")
    table.add_section()
    table.add_row("largest |residual|", f"{found.residual:.3g} {unit}")
    table.add_row("… as a share of the largest change", f"{found.residual / (found.movement or 1):.2%}")
    return table


def _digits_task(settings: DemoSettings, seed: int) -> _Task:
    side, steps = settings.digits_side, settings.digits_steps
    train, test = digits(size=side, channels=1, seed=seed)
    return _Task(
        directory="resnet9-digits",
        title="ResNet-9 on handwritten digits",
        introduction=(
            f"A narrow ResNet-9 was trained to recognise handwritten digits: scikit-learn’s real scans, enlarged to "
            f"{side}×{side} pixels. The optimizer was AdamW, with batches of {settings.digits_batch}. The outputs are "
            f"ten logits."
        ),
        unit="logits",
        build=lambda: ResNet9(10, input_shape=(side, side, 1), width=settings.digits_width),
        optimizer=lambda: PathAdamW(keras.optimizers.schedules.CosineDecay(2e-3, steps), weight_decay=0.01),
        ids=[f"train-{i:04d}" for i in range(len(train[1]))],
        train=train,
        test=(test[0][: settings.digits_inputs], test[1][: settings.digits_inputs]),
        steps=steps,
        batch=settings.digits_batch,
        tolerance=settings.digits_tolerance,
        show=lambda arrays, label: Example(f"digit {label}", arrays[0]),
        groups=[f"digit {label}" for label in train[1]],
        grouped_by="digit",
    )


def _addition_task(settings: DemoSettings, seed: int) -> _Task:
    p = settings.modulus
    train, test = modular_addition(
        p, num_train=settings.addition_samples, num_test=settings.addition_inputs, seed=seed
    )
    return _Task(
        directory=f"transformer-mod{p}",
        title=f"Transformer on addition modulo {p}",
        introduction=(
            f"A one-layer Transformer was trained on {settings.addition_samples:,} of the {p * p:,} sums a + b modulo "
            f"{p}, with AdamW, strong weight decay and batches of {settings.addition_batch}. Its outputs are "
            f"{p + 2} log-probabilities, in nats. It needs thousands of steps to find the rule. After "
            f"{settings.addition_steps} it has begun to memorise, and most of its predictions for sums that it was "
            f"not trained on are wrong. The ledger accounts for wrong predictions as exactly as for right ones."
        ),
        unit="nats",
        build=lambda: ModularTransformer(p, d_mlp=settings.addition_width),
        optimizer=lambda: PathAdamW(1e-3, weight_decay=4.0, beta_2=0.98),
        ids=[f"{tokens[0]}+{tokens[2]}" for tokens in train[0]],
        train=train,
        test=test,
        steps=settings.addition_steps,
        batch=settings.addition_batch,
        tolerance=settings.addition_tolerance,
        show=lambda arrays, label: Example(f"{arrays[0][0]} + {arrays[0][2]} = {label}"),
        groups=[f"a + b {'<' if tokens[0] + tokens[2] < p else '≥'} {p}" for tokens in train[0]],
        grouped_by="kind of sum",
    )


def _account_for(
    task: _Task, logger: PathLogger, settings: DemoSettings, seed: int, console: Console
) -> Section:
    console.rule(task.title)
    with _stage(console, f"Train for {task.steps} steps, recording each"):
        _train(task, logger, seed)
    run = open_run(logger.run_dir)
    console.print(escape(repr(run)), highlight=False, soft_wrap=True)
    with _stage(console, "Verify the recording by replaying every step"):
        run.verify()

    x, y = task.test
    predicted = final_outputs(run, x, len(x)).argmax(axis=1)
    section = account_for(
        run,
        Asked(
            x,
            y,
            shown=_pick_inputs(predicted, y, settings.shown_inputs).tolist(),
            followed=settings.followed,
            top=settings.top,
            groups=dict(zip(task.ids, task.groups, strict=True)),
            grouped_by=task.grouped_by,
        ),
        title=task.title,
        introduction=task.introduction,
        show=task.show,
        stage=lambda title: _stage(console, title),
        tolerance=task.tolerance,
    )
    console.print(fidelity_table(task.title, fidelity(section.balance), section.balance, task.unit))
    console.print(_proponents_table(section))
    return section


def _train(task: _Task, logger: PathLogger, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    model = task.build()
    model.compile(task.optimizer(), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    dataset = tf.data.Dataset.from_tensor_slices((task.ids, task.train))
    dataset = dataset.shuffle(len(task.ids), seed=seed).batch(task.batch)
    record_fit(model, logger, dataset, steps=task.steps)


def _pick_inputs(predicted: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return positions of the first right and the first wrong predictions, half of each if there are enough."""
    right, wrong = np.flatnonzero(predicted == labels), np.flatnonzero(predicted != labels)
    wrong = wrong[: max(count // 2, count - len(right))]
    return np.concatenate([right[: count - len(wrong)], wrong])


def _proponents_table(section: Section) -> Table:
    table = Table(
        title=f"{escape(section.title)}: top proponents",
        title_justify="left",
        caption="influence: change of the predicted class’ log-probability by all uses of a training sample",
        caption_justify="left",
    )
    table.add_column("held-out input")
    table.add_column("log-probability\nbefore → after")
    table.add_column("training sample and influence (nats)")
    assert section.samples is not None  # the demo records samples
    ranking = section.samples.explaind.proponents(3).isel(output=0)
    for position, (example, verdict) in enumerate(zip(section.inputs, section.predictions, strict=True)):
        ledger = section.samples.isel(input=position, output=0)
        chosen = ranking.isel(input=position)
        proponents = [
            f"{influence:+.3f} {section.show_sample(sample).text} ({sample})"
            for sample, influence in zip(chosen[names.SAMPLE].values, chosen["influence"].values, strict=True)
        ]
        table.add_row(
            escape(f"{example.text}\n{verdict}"),
            f"{float(ledger[names.INITIAL]):.3f} → {float(ledger[names.FINAL]):.3f}",
            escape("\n".join(proponents)),
            end_section=True,
        )
    return table


@contextmanager
def _stage(console: Console, title: str) -> Iterator[None]:
    """Print what is being done, and how long it took."""
    console.print(f"[bold]{escape(title)}[/] …", highlight=False)
    start = time.perf_counter()
    yield
    console.print(f"  done in {time.perf_counter() - start:.1f} s", style="dim", highlight=False)
