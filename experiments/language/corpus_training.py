"""Train a byte-level Transformer on the standard library, recorded with keyframes and saved as sparse checkpoints."""

from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import explaind_tf as xtf
from experiments.classifiers import compiled
from explaind_tf.datasets import Windows, standard_library
from explaind_tf.models import LanguageTransformer

RUN_DIR = "run"
CHECKPOINT = "step-{batch}.weights.h5"  # the form that keras.callbacks.ModelCheckpoint fills in


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment; the defaults are those of the full run.

    Attributes
    ----------
    steps, batch : int
        Training steps, and windows of text in a batch. Each window is used once.
    length, blocks, d_model, num_heads, d_mlp : int
        Sizes of the model, see :func:`explaind_tf.models.LanguageTransformer`.
    learning_rate, weight_decay : float
        The learning rate rises over the first twentieth of the steps and then falls to zero on a cosine.
    every : int
        Steps from one keyframe of the recording to the next.
    save_every : int
        Steps from one checkpoint to the next.
    thinned : tuple of int
        Steps between checkpoints in the thinner series that are compared: multiples of ``save_every``.
    probes : int
        Held-out windows that are accounted for.
    continuations, shown : int
        Continuations that are accounted for, and windows of training text shown for each.
    tolerance : float
        Largest residual as a share of the movement.
    seed : int
        Seed of the weights, the order of the training windows and the choice of the held-out ones.
    """

    steps: int = 300
    batch: int = 24
    length: int = 64
    blocks: int = 6
    d_model: int = 128
    num_heads: int = 4
    d_mlp: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    every: int = 25
    save_every: int = 10
    thinned: tuple[int, ...] = (50, 300)
    probes: int = 10
    continuations: int = 5
    shown: int = 4
    tolerance: float = 1e-2
    seed: int = 0

    @property
    def warmup(self) -> int:
        """Number of steps in which the learning rate rises."""
        return max(1, self.steps // 20)


QUICK = Settings(
    steps=6,
    batch=4,
    length=16,
    blocks=3,
    d_model=16,
    num_heads=2,
    d_mlp=32,
    learning_rate=1e-2,
    every=4,
    save_every=2,
    thinned=(),
    probes=2,
    continuations=2,
    shown=2,
)


@dataclass(frozen=True)
class Text:
    """The text of the experiment: training windows in order, and held-out windows."""

    train: Windows
    probes: Windows


def choose_text(settings: Settings) -> Text:
    """Return as many random windows of training text as the steps use, and held-out windows to account for."""
    rng = np.random.default_rng(settings.seed)
    train, test = standard_library(settings.length)
    rows = rng.permutation(len(train))[: settings.steps * settings.batch]
    return Text(train.take(rows), test.take(rng.permutation(len(test))[: settings.probes]))


def make_model(settings: Settings) -> keras.Model:
    """Return the compiled model, with weights by the seed."""
    keras.utils.set_random_seed(settings.seed)
    model = LanguageTransformer(
        seq_len=settings.length,
        blocks=settings.blocks,
        d_model=settings.d_model,
        num_heads=settings.num_heads,
        d_mlp=settings.d_mlp,
    )
    schedule = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate / 20,
        settings.steps,
        warmup_target=settings.learning_rate,
        warmup_steps=settings.warmup,
    )
    optimizer = xtf.PathAdamW(schedule, weight_decay=settings.weight_decay, beta_2=0.98, global_clipnorm=1.0)
    return compiled(model, optimizer)


def record(settings: Settings, text: Text, out: Path) -> keras.Model:
    """Train once, with a recording in ``out/run`` and checkpoints in ``out/checkpoints``.

    Returns
    -------
    keras.Model
        The trained model.
    """
    model = make_model(settings)
    logger = xtf.PathLogger(out / RUN_DIR, every=settings.every)
    pattern = out / "checkpoints" / CHECKPOINT
    pattern.parent.mkdir(parents=True)
    model.save_weights(checkpoint(out, 0))
    saver = keras.callbacks.ModelCheckpoint(
        pattern, save_weights_only=True, save_freq=settings.save_every, verbose=0
    )
    windows = tf.data.Dataset.from_tensor_slices((text.train.ids, (text.train.x, text.train.y)))
    batches = windows.batch(settings.batch, drop_remainder=True)
    # One epoch, since ModelCheckpoint counts the batches within an epoch.
    model.fit(logger.tap(batches), epochs=1, callbacks=[logger, saver], verbose=0, shuffle=False)
    return model


def checkpoint(out: Path, step: int) -> Path:
    """Return the path of the weights that were saved after so many steps."""
    return out / "checkpoints" / CHECKPOINT.format(batch=step)
