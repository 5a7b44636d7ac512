"""The compiled derivatives of a model: those of its measurement, and those of its losses."""

from explaind_tf.kernel.derivatives.loss import LossDerivatives
from explaind_tf.kernel.derivatives.measurement import MeasurementDerivatives
from explaind_tf.kernel.derivatives.shared import Shared
from explaind_tf.kernel.functions import PureModel

# Models whose compiled functions are kept when nothing uses them: to trace a function takes seconds, to keep it megabytes.
_KEPT = 8
_MEASUREMENTS: Shared[MeasurementDerivatives] = Shared(_KEPT)
_LOSSES: Shared[LossDerivatives] = Shared(_KEPT)


class Derivatives:
    """The compiled functions of one model and measurement, shared with models of the same keys.

    Parameters
    ----------
    model : PureModel
        The functions to differentiate.
    """

    def __init__(self, model: PureModel) -> None:
        self.model = model
        self.measurement = _MEASUREMENTS.get(model.measure_key, lambda: MeasurementDerivatives(model))
        self.loss = _LOSSES.get(model.losses_key, lambda: LossDerivatives(model))
