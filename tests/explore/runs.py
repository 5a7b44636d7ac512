"""Recorded runs of the smallest size, of each kind that can be explored."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import explaind_tf as xtf
from tests.helpers import batches, fit, initialised

RNG = np.random.default_rng(3)
SIDE, CLASSES, COUNT = 4, 3, 12
IMAGES = RNG.uniform(size=(COUNT, SIDE, SIDE, 1)).astype("float32")
LABELS = RNG.integers(0, CLASSES, COUNT)
TEST_IMAGES = RNG.uniform(size=(9, SIDE, SIDE, 1)).astype("float32")
TEST_LABELS = RNG.integers(0, CLASSES, 9)
TOKENS = RNG.integers(0, 5, (COUNT, 6))
CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

HOSTILE = (
    "<script>document.title='broken'</script>",
    '"><img src=x onerror=alert(1)>',
    "=HYPERLINK(1)",
    "\u202ereversed\u2066",
    "שלום עולם",
    "long " * 400,
    "{{7*7}} %s ${x}",
    "javascript:alert(1)",
    "a&sample=b#c?d",
    "new\nline\x00zero",
    "../../etc/passwd",
    "NaN",
)
HOSTILE_LAYER = "hidden <b>bold<img src=x> & co"


def classifier() -> keras.Model:
    return initialised(
        keras.Sequential(
            [
                keras.Input((SIDE, SIDE, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(3, activation="tanh", name="hidden"),
                keras.layers.Dense(CLASSES, name="classes"),
            ],
            name="net",
        )
    )


def record_classifier(
    run_dir: Path,
    ids: Any = None,
    *callbacks: keras.callbacks.Callback,
    optimizer: Any = None,
    eager: bool = True,
    **more: Any,
) -> Path:
    """Record a classifier of small pictures, six steps."""
    model = classifier()
    model.compile(optimizer or xtf.PathAdamW(0.05, weight_decay=0.1), loss=CROSSENTROPY, run_eagerly=eager)
    logger = xtf.PathLogger(run_dir, verbose=False, **more)
    data = batches(np.array(ids if ids is not None else range(COUNT)), (IMAGES, LABELS))
    fit(model, logger.tap(data), logger, *callbacks, epochs=2)
    return run_dir


def record_language(run_dir: Path) -> Path:
    """Record a model that predicts each next token."""
    model = initialised(
        keras.Sequential(
            [
                keras.Input((TOKENS.shape[1] - 1,), dtype="int64"),
                keras.layers.Embedding(5, 3, name="embedding"),
                keras.layers.Dense(5, name="readout"),
            ]
        )
    )
    model.compile(xtf.PathAdamW(0.05), loss=CROSSENTROPY, run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    ids = np.array([f"text {i}" for i in range(COUNT)])
    fit(model, logger.tap(batches(ids, (TOKENS[:, :-1], TOKENS[:, 1:]))), logger)
    return run_dir


def record_path(run_dir: Path) -> Path:
    """Record a training whose optimizer has no law: a run that cannot tell samples apart."""
    return record_classifier(run_dir, optimizer=keras.optimizers.SGD(0.1), require="path")


def checkpoints(directory: Path) -> Any:
    """Train, save the weights of each epoch, and open them."""
    model = classifier()
    model.compile("sgd", loss=CROSSENTROPY, run_eagerly=True)
    saved = keras.callbacks.ModelCheckpoint(str(directory / "w-{epoch}.weights.h5"), save_weights_only=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras itself raises it with NumPy 2
        fit(model, batches(IMAGES, LABELS), saved, epochs=3)
    return xtf.open_checkpoints(str(directory / "*.weights.h5"), classifier())


Recorder = Callable[[Path], Path]
