"""Train the same models in float32, bfloat16 and float16, and account for what low precision did.

python -m experiments.precision [--quick]
"""

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

NAME = "precision"
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    steps : int
        Training steps of each run.
    inputs : int
        Held-out inputs.
    tolerance : float
        Tolerance of the ledgers.
    width : float
        Factor on the channels of the ResNet-9.
    modulus : int
        Modulus of the sums that the Transformer learns.
    models : tuple of str
        The models.
    """

    steps: int = 100
    inputs: int = 2
    tolerance: float = 5e-6
    width: float = 0.125
    modulus: int = 23
    models: tuple[str, ...] = ("ResNet-9 with biases", "Transformer")


QUICK = Settings(steps=4, inputs=2, tolerance=1e-3, width=0.05, models=("Transformer",))


@dataclass(frozen=True)
class Found:
    """What was found of one model in one precision. All numbers but the last are shares of the movement.

    Attributes
    ----------
    precision : float
        What the model as it is predicts beyond its float64 twin, at the end less at the start.
    rounding : float
        What the samples' gradients leave of those that the optimizer used.
    data_missed : float
        Data by samples plus rounding, less the data of a ledger without samples.
    residual : float
        Residual of the ledger without samples.
    final_missed : float
        Final value of the ledger less what the trained model itself predicts, in units of the measurement.
    """

    model: str
    policy: str
    precision: float
    rounding: float
    data_missed: float
    residual: float
    final_missed: float


def with_bias(layer: keras.layers.Layer) -> keras.layers.Layer:
    """Return a copy of a layer; a convolution gets the bias that is Keras' default."""
    config = layer.get_config()
    if isinstance(layer, keras.layers.Conv2D):
        config["use_bias"] = True
    return layer.__class__.from_config(config)


def make(name: str, settings: Settings) -> tuple[keras.Model, tf.data.Dataset, np.ndarray, np.ndarray]:
    """Return a compiled model, training batches, and held-out inputs with their classes."""
    keras.utils.set_random_seed(0)
    if name == "Transformer":
        train, test = modular_addition(settings.modulus, num_train=320, seed=0)
        model = ModularTransformer(settings.modulus, d_model=64, d_mlp=512)
    else:
        train, test = digits(size=16, channels=3, num_test=100, seed=0)
        train = (train[0][:640], train[1][:640])
        plain = ResNet9(10, input_shape=(16, 16, 3), width=settings.width, batch_norm=True)
        model = keras.models.clone_model(plain, clone_function=with_bias)
    compiled(model, xtf.PathAdamW(1e-3, weight_decay=0.1), jit_compile=False)
    dataset = shuffled(train, 0).batch(64).repeat()
    return model, dataset, test[0][: settings.inputs], test[1][: settings.inputs]


def account_for(name: str, policy: str, settings: Settings, runs_dir: Path) -> Found:
    """Train and record one model in one precision, and account for it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model, dataset, x, y = make(name, settings)
        logger = xtf.PathLogger(runs_dir / f"{name}-{policy}".replace(" ", "-"), verbose=False)
        model.fit(
            logger.tap(dataset), steps_per_epoch=settings.steps, callbacks=[logger], verbose=0, shuffle=False
        )
    finally:
        keras.config.set_dtype_policy(before)
    run = xtf.open_run(logger.run_dir)
    run.verify(progress=False)
    measured = xtf.measurements.log_prob(y)
    # In float32, the rounding of predictions alone is about 1e-5 of the movement.
    options = {"tolerance": settings.tolerance, "dtype": "float64", "progress": False}
    whole = run.attribute(x, measured, **options)
    split = run.attribute(x, measured, axes=("sample",), **options)
    data = split.explaind.total("data") + split.rounding
    logits = tf.cast(model(x, training=False), tf.float32)
    real = tf.gather(tf.nn.log_softmax(logits), y, axis=1, batch_dims=1).numpy()

    def share(values: Any) -> float:
        return float((np.abs(values) / whole.movement).max())

    return Found(
        model=name,
        policy=policy,
        precision=share(whole.precision) if "precision" in whole else 0.0,
        rounding=share(split.rounding),
        data_missed=share(data - whole.data),
        residual=share(whole.residual),
        final_missed=float(np.abs(whole.final.squeeze("output") - real).max()),
    )


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Account for each model in each precision."""
    found = [account_for(name, policy, settings, runs_dir) for name in settings.models for policy in POLICIES]
    low = [f for f in found if f.policy != "float32"]
    return Findings(
        title="Precision: what bfloat16 and float16 did to predictions",
        question=(
            f"The same models are trained for {settings.steps} steps in float32 and in mixed precision. How much of the "
            f"change of held-out log-probabilities is due to low precision?"
        ),
        conclusions=[
            f"Low precision in the forward pass did at most {max(f.precision for f in low):.1e} of the movement (the term "
            f"precision), and in gradients at most {max(f.rounding for f in low):.1e} (the term rounding).",
            f"In float32, rounding is at most {max(f.rounding for f in found if f not in low):.1e}, with biases before "
            f"BatchNormalization.",
            f"Samples and rounding together miss the data of a ledger without samples by at most "
            f"{max(f.data_missed for f in found):.1e}.",
        ],
        tables=[
            Table(
                "Largest absolute values as shares of the movement; the last column in nats: the ledger's final value less "
                "what the trained model itself predicts",
                ("model", "policy", "precision", "rounding", "data missed", "residual", "final missed"),
                [tuple(asdict(f).values()) for f in found],
            )
        ],
        values={"cases": [asdict(f) for f in found]},
    )


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Train in float32, bfloat16 and float16, and account for what low precision did.",
    steps=Annotated[int | None, typer.Option(help="Steps of each run. Default: 100.")],
)

if __name__ == "__main__":
    typer.run(main)
