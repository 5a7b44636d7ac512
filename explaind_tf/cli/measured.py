"""The options that say what about the predictions is accounted for."""

from dataclasses import dataclass, field

from explaind_tf.cli.values import Measure, OutputsAre


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What about the predictions is accounted for.

    Attributes
    ----------
    measure : Measure
        The measurement.
    outputs_are : OutputsAre, optional
        What the model returns. By default logits; outputs that look like probabilities are then refused.
    output : str, optional
        Key or position of the output to measure, for models with several.
    loss : str, optional
        Keras' name of a loss; by default the loss of training.
    """

    measure: Measure = field(
        default=Measure.OUTPUTS,
        metadata={"help": "What to account for. All but outputs need labels."},
    )
    outputs_are: OutputsAre | None = field(
        default=None,
        metadata={"help": "What the model returns. Default: logits, unless they look like probabilities."},
    )
    output: str | None = field(
        default=None,
        metadata={"help": "Key or position of the output to measure, if there are several."},
    )
    loss: str | None = field(
        default=None,
        metadata={
            "help": "Keras' name of the loss for --measure loss, with its default options. Default: the loss of training."
        },
    )
