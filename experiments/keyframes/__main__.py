"""Record the same training with and without every step's weights, and compare the runs and their ledgers.

python -m experiments.keyframes [--quick]
"""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf
import typer

import explaind_tf as xtf
from experiments.classifiers import compiled, shuffled
from experiments.command import command
from experiments.results import Findings, Table
from explaind_tf.datasets import digits, modular_addition
from explaind_tf.models import ModularTransformer, ResNet9

NAME = "keyframes"


@dataclass(frozen=True)
class Case:
    """A model and how it is compiled."""

    name: str
    kind: str
    jit_compile: bool
    dropout: float = 0.0


# With XLA dropout is refused: XLA draws other random numbers than the replay of single samples.
CASES = (
    Case("ResNet-9, BatchNorm", "resnet9", jit_compile=False),
    Case("ResNet-9, BatchNorm, XLA", "resnet9", jit_compile=True),
    Case("Transformer, dropout", "transformer", jit_compile=False, dropout=0.1),
    Case("Transformer, XLA", "transformer", jit_compile=True),
)


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    steps : int
        Training steps of each run.
    every : int
        Steps from one keyframe to the next.
    tiny : bool
        Whether models and data are cut down.
    cases : tuple of Case
        The models.
    """

    steps: int = 200
    every: int = 25
    tiny: bool = False
    cases: tuple[Case, ...] = CASES


QUICK = Settings(steps=6, every=4, tiny=True, cases=CASES[2:3])


@dataclass(frozen=True)
class Found:
    """What was measured of a case.

    Attributes
    ----------
    size_ratio : float
        Bytes of the dense run over those of the one with keyframes, graphs and samples included.
    difference : float
        Largest difference of any two entries, as a share of the movement.
    drift : float
        Drift of the steps that were trained again, as a share of the distance between keyframes; 0 if all digests agree.
    time_ratio : float
        Seconds of attribution with keyframes over those without.
    """

    name: str
    steps: int
    every: int
    size_ratio: float
    difference: float
    drift: float
    time_ratio: float


def make(case: Case, quick: bool) -> tuple[keras.Model, tf.data.Dataset, np.ndarray, np.ndarray]:
    """Return a compiled model, training batches, and held-out inputs with their classes."""
    keras.utils.set_random_seed(0)
    if case.kind == "resnet9":
        size = 12 if quick else 16
        train, test = digits(size=size, channels=3, num_test=100, seed=0)
        width = 0.05 if quick else 0.25
        # Without noise, equal pixels of the background tie in max-pooling. XLA resolves ties in another way than the replay
        # of samples, so the logger would refuse the run.
        noise = np.random.default_rng(0).normal(scale=1e-2, size=train[0].shape).astype("float32")
        train = (train[0] + noise, train[1])
        model = ResNet9(10, input_shape=(size, size, 3), width=width, batch_norm=True)
        train = (train[0][:640], train[1][:640])
    else:
        train, test = modular_addition(23 if quick else 113, num_train=400 if quick else 2000, seed=0)
        model = ModularTransformer(23 if quick else 113, dropout=case.dropout)
    optimizer = xtf.PathAdamW(1e-3, weight_decay=0.1)
    compiled(model, optimizer, jit_compile=case.jit_compile, metrics=["accuracy"])
    return model, shuffled(train, 0).batch(64).repeat(), test[0][:5], test[1][:5]


def record(case: Case, run_dir: Path, steps: int, every: int, quick: bool) -> None:
    """Record a run."""
    model, dataset, _, _ = make(case, quick)
    logger = xtf.PathLogger(run_dir, every=every, verbose=False)
    model.fit(logger.tap(dataset), steps_per_epoch=steps, callbacks=[logger], verbose=0, shuffle=False)


def attributed(run: xtf.Run, x: np.ndarray, y: np.ndarray) -> tuple[list[Any], float]:
    """Return ledgers by step and layer and by sample, and their seconds without tracing."""

    def ask() -> list[Any]:
        of = xtf.measurements.log_prob(y)
        return [
            run.attribute(x, of, axes=axes, tolerance=1e-2, progress=False)
            for axes in (("step", "layer"), ("sample",))
        ]

    ask()
    start = time.perf_counter()
    return ask(), time.perf_counter() - start


def compare(case: Case, directory: Path, steps: int, every: int, quick: bool) -> Found:
    """Record a case with and without keyframes, and compare the runs."""
    _, _, x, y = make(case, quick)
    ledgers, seconds, sizes, drift = [], [], [], 0.0
    for distance in (1, every):
        run_dir = directory / f"{case.kind}-{case.jit_compile}-{distance}"
        record(case, run_dir, steps, distance, quick)
        run = xtf.open_run(run_dir)
        assert run.step_store.replay is not None
        found, spent = attributed(run, x, y)
        ledgers.append(found)
        seconds.append(spent)
        sizes.append(sum(path.stat().st_size for path in run_dir.rglob("*") if path.is_file()))
        drift = run.step_store.replay.drift
    differences = [
        float(np.abs(a[name] - b[name]).max() / a.movement.max())
        for a, b in zip(*ledgers, strict=True)
        for name in a.data_vars
    ]
    return Found(
        case.name, steps, every, sizes[0] / sizes[1], max(differences), drift, seconds[1] / seconds[0]
    )


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Compare runs with all weights at every step and runs with keyframes."""
    found = [
        compare(case, runs_dir, settings.steps, settings.every, settings.tiny) for case in settings.cases
    ]
    return Findings(
        title="Keyframes: the same ledger from less on the disk",
        question=(
            f"The same training of {settings.steps} steps is recorded with all weights of every step, and of every "
            f"{settings.every}th. Both runs are asked for ledgers by step and layer and by sample."
        ),
        conclusions=[
            f"Runs with keyframes are {min(f.size_ratio for f in found):.1f} to "
            f"{max(f.size_ratio for f in found):.1f} times smaller.",
            f"No entry differs by more than {max(f.difference for f in found):.1e} of the movement.",
        ],
        tables=[
            Table(
                "Size of the dense run over that with keyframes; largest difference of any two entries as a share of the "
                "movement; drift of the steps trained again; time of attribution over that of the dense run",
                ("model", "size ÷", "difference", "drift", "time ×"),
                [(f.name, f.size_ratio, f.difference, f.drift, f.time_ratio) for f in found],
            )
        ],
        values={"cases": [asdict(f) for f in found]},
    )


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Compare runs that hold every step with runs that hold keyframes.",
    steps=Annotated[int | None, typer.Option(help="Steps of each run. Default: 200.")],
    every=Annotated[int | None, typer.Option(help="Steps between keyframes. Default: 25.")],
)

if __name__ == "__main__":
    typer.run(main)
