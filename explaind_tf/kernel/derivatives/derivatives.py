"""The compiled derivatives of a model: those of its measurement, and those of its losses."""

from typing import NamedTuple

from explaind_tf.kernel.derivatives.loss import LossDerivatives
from explaind_tf.kernel.derivatives.measurement import MeasurementDerivatives
from explaind_tf.kernel.derivatives.shared import Shared
from explaind_tf.kernel.derivatives.step_adjoint import StepAdjoint, Stepping
from explaind_tf.kernel.functions import PureModel

# Models whose compiled functions are kept when nothing uses them: to trace a function takes seconds, to keep it megabytes.
_KEPT = 8
_MEASUREMENTS: Shared[MeasurementDerivatives] = Shared(_KEPT)
_LOSSES: Shared[LossDerivatives] = Shared(_KEPT)
_STEPS: Shared[StepAdjoint] = Shared(_KEPT)


class Precisions(NamedTuple):
    """One model and measurement in two precisions, which are often the same.

    Attributes
    ----------
    analysed : Derivatives
        In the precision of the analysis: float32, or float64.
    as_trained : Derivatives
        As training computes, be it in bfloat16 or float16.
    """

    analysed: "Derivatives"
    as_trained: "Derivatives"

    @property
    def differ(self) -> bool:
        """Whether the analysis computes in another precision than training."""
        return self.analysed is not self.as_trained


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

    def of_steps(self, stepping: Stepping) -> StepAdjoint:
        """Return the compiled adjoints of the model's training steps."""
        key = None if self.model.losses_key is None else (self.model.losses_key, stepping)
        return _STEPS.get(key, lambda: StepAdjoint(self.model, stepping))
