"""Rows in which something other than the optimizer's step changes weights."""

from collections.abc import Iterator
from typing import Any

import keras

from tests.contract.rows.row import WITH, Row, options_of
from tests.contract.rows.small_models import dense


class SetsWeights(keras.callbacks.Callback):
    """Scales all weights after the third step."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if int(self.model.optimizer.iterations) == 3:
            self.model.set_weights([0.9 * weight for weight in self.model.get_weights()])


def shrink(model: keras.Model) -> None:
    """Set other weights, as loading a file would."""
    model.set_weights([0.9 * weight for weight in model.get_weights()])


def changed_by_others() -> Iterator[Row]:
    """Callbacks, averages of weights, and weights set by hand."""
    family, external = "weights changed outside the optimizer", {"terms": WITH["external"]}

    def best():
        return [keras.callbacks.EarlyStopping("loss", patience=0, min_delta=9.0, restore_best_weights=True)]

    yield Row(
        family,
        "EarlyStopping(restore_best_weights=True)",
        dense,
        callbacks=best,
        logger_first=False,
        **external,
    )
    average = options_of(0.05, use_ema=True, ema_momentum=0.5)
    yield Row(family, "use_ema", dense, options=average, **external)
    swap = lambda: [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]  # noqa: E731
    yield Row(family, "SwapEMAWeights", dense, options=average, callbacks=swap, **external)
    overwrite = options_of(0.05, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2)
    yield Row(family, "use_ema, ema_overwrite_frequency", dense, options=overwrite, **external)
    yield Row(family, "set_weights in a callback", dense, callbacks=lambda: [SetsWeights()], **external)
    yield Row(family, "weights loaded between two fits", dense, fits=2, between=shrink, **external)
