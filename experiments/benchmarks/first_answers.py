"""Parts for the first answers about a model: what a new user waits for, against the training with its tracing.

All take and return plain JSON values. Each must run in a process of its own: what one has traced, another need not trace.
Times are of the processor, since other work on the machine changes them less than those of the clock.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

import explaind_tf as xtf
from experiments.benchmarks.long_runs import deep_model
from experiments.benchmarks.settings import Json
from explaind_tf.kernel.derivatives import compiled
from explaind_tf.models import ModularTransformer, ResNet9

_STEPS, _BATCH, _CLASSES, _SIDE, _FEATURES = 4, 8, 10, 64, 8


def _dense() -> keras.Model:
    layers = [keras.Input((_FEATURES,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(_CLASSES)]
    return keras.Sequential(layers)


def _mobilenet(*, is_frozen: bool) -> keras.Model:
    body = keras.applications.MobileNetV2(
        input_shape=(_SIDE, _SIDE, 3), alpha=0.35, weights=None, include_top=False, pooling="avg"
    )
    body.trainable = not is_frozen
    images = keras.Input((_SIDE, _SIDE, 3))
    return keras.Model(images, keras.layers.Dense(_CLASSES)(body(images)))


def _convnext() -> keras.Model:
    return keras.applications.ConvNeXtTiny(
        weights=None, input_shape=(_SIDE, _SIDE, 3), classes=_CLASSES, classifier_activation=None
    )


MODELS: dict[str, Callable[[], keras.Model]] = {
    "dense": _dense,
    "100 layers": lambda: deep_model(100, outputs=_CLASSES),
    "transformer": lambda: ModularTransformer(_CLASSES),
    "resnet9": lambda: ResNet9(_CLASSES, input_shape=(32, 32, 3)),
    "mobilenet, frozen": lambda: _mobilenet(is_frozen=True),
    "mobilenet": lambda: _mobilenet(is_frozen=False),
    "convnext": _convnext,
}


def train_first(name: str) -> Json:
    """Train a new model with the optimizer of Keras, and note what that takes with its tracing."""
    model = _compiled(name, keras.optimizers.AdamW(1e-3))
    return {"seconds": _seconds(lambda: _fit(model))}


def record_first(name: str, run_dir: str) -> Json:
    """Record the same training."""
    model = _compiled(name, xtf.PathAdamW(1e-3))
    return {"seconds": _seconds(lambda: _fit(model, xtf.PathLogger(run_dir, verbose=False)))}


def ask_first(run_dir: str, *, axes: list[str], inputs: int) -> Json:
    """Open a run and ask for all outputs of some inputs, twice; note how many functions were traced each time.

    Returns
    -------
    dict
        ``open``, ``first``, ``again``: seconds. ``traced``: compiled functions of the first question, and of the second.
    """
    traced = _TraceCount()
    opened: list[xtf.Run] = []
    found: Json = {"open": _seconds(lambda: opened.append(xtf.open_run(Path(run_dir))))}
    (run,) = opened
    x, _ = run.samples.take(range(inputs))
    counts = []
    for name in ("first", "again"):
        found[name] = _seconds(lambda: run.attribute(x, axes=tuple(axes), progress=False).explaind.check())
        counts.append(traced.since_last())
    return found | {"traced": counts}


class _TraceCount:
    """Counts the functions that the kernel has traced."""

    def __init__(self) -> None:
        self._count = self._seen = 0
        before = compiled.Compiled.__init__

        def counting(own: compiled.Compiled, function: Callable[..., Any], signature: list[Any]) -> None:
            def traced(*arguments: Any) -> Any:
                self._count += 1
                return function(*arguments)

            before(own, traced, signature)

        compiled.Compiled.__init__ = counting  # type: ignore[method-assign]

    def since_last(self) -> int:
        """Return how many were traced since the last time."""
        new, self._seen = self._count - self._seen, self._count
        return new


def _compiled(name: str, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)
    return model


def _fit(model: keras.Model, *callbacks: keras.callbacks.Callback) -> None:
    rng, count = np.random.default_rng(0), _STEPS * _BATCH
    shape = (count, *model.input_shape[1:])
    is_text = keras.backend.is_int_dtype(model.inputs[0].dtype)
    x = rng.integers(0, _CLASSES, shape) if is_text else rng.standard_normal(shape, np.float32)
    y = rng.integers(0, _CLASSES, count)
    model.fit(x, y, batch_size=_BATCH, shuffle=False, verbose=0, callbacks=list(callbacks))


def _seconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start
