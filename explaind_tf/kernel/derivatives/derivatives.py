"""The compiled derivatives of a model: those of its measurement, and those of its losses."""

from explaind_tf.kernel.derivatives.loss import LossDerivatives
from explaind_tf.kernel.derivatives.measurement import MeasurementDerivatives
from explaind_tf.kernel.functions import PureModel


class Derivatives:
    """The compiled functions of one model and measurement.

    Parameters
    ----------
    model : PureModel
        The functions to differentiate.
    """

    def __init__(self, model: PureModel) -> None:
        self.model = model
        self.measurement = MeasurementDerivatives(model)
        self.loss = LossDerivatives(model)
