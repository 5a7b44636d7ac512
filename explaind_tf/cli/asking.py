"""From names on a command line to a run and a measurement, with checks that a script cannot make by looking."""

import functools
import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf import measurements
from explaind_tf.attribution import Run, open_run
from explaind_tf.attribution.predictions import are_probabilities, final_outputs
from explaind_tf.cli.exits import say
from explaind_tf.cli.inputs import Inputs
from explaind_tf.cli.values import Measure, OutputsAre
from explaind_tf.measurements import Measurement
from explaind_tf.runs.format import structure as struct


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The options that say what about the predictions is accounted for.

    Attributes
    ----------
    measure : Measure
        The measurement.
    outputs_are : OutputsAre, optional
        By default logits, where the outputs do not look like probabilities.
    output : str, optional
        Key or position of an output, of models that have several.
    loss : str, optional
        Keras' name of a loss; by default the one that was trained with.
    """

    measure: Measure = field(
        default=Measure.OUTPUTS,
        metadata={"help": "What to account for. All but outputs need labels."},
    )
    outputs_are: OutputsAre | None = field(
        default=None, metadata={"help": "What the model returns. Default: logits, checked."}
    )
    output: str | None = field(
        default=None,
        metadata={"help": "Key or position of the output that is measured, if there are several."},
    )
    loss: str | None = field(
        default=None,
        metadata={
            "help": "Keras' name of the loss that --measure loss means, with its default options. Default: that of training."
        },
    )


def open_for_shell(run_dir: str) -> Run:
    """Open a run; what Python would warn of is said in a line on the error stream."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = open_run(run_dir)
    for warning in caught:
        say("[bold yellow]Warning:[/]", str(warning.message))
    return run


def choose_measurement(
    run: Run,
    inputs: Inputs,
    measured: Measured,
) -> Measurement:
    """Return the measurement that options ask for.

    Parameters
    ----------
    run : Run
        What is asked.
    inputs : Inputs
        With labels, for all measures but ``outputs``.
    measured : Measured
        The options.

    Raises
    ------
    ValueError
        If labels are missing, or outputs are not what they are said to be: the ledger would be of something else.
    """
    measure, outputs_are, output = measured.measure, measured.outputs_are, measured.output
    if measured.loss is not None and measure is not Measure.LOSS:
        raise ValueError("--loss belongs to --measure loss.")
    if measure is Measure.OUTPUTS:
        return measurements.outputs()
    if inputs.y is None:
        raise ValueError(
            f"--measure {measure} needs labels: put them beside the inputs, as y, in an .npz (np.savez(file, x=…, y=…))."
        )
    picked = int(output) if output is not None and output.lstrip("-").isdigit() else output
    if measure is Measure.LOSS:
        function = _loss(
            run, measured.loss, outputs_are, lambda: _check_kind(run, inputs, picked, outputs_are)
        )
        return measurements.loss(function, inputs.y, output=picked)
    _check_kind(run, inputs, picked, outputs_are)
    are_logits = outputs_are is not OutputsAre.PROBABILITIES
    if measure is Measure.LOG_PROB:
        return measurements.log_prob(inputs.y, from_logits=are_logits, output=picked)
    if not are_logits:
        raise ValueError("--measure margin is of logits, and the model returns probabilities. Use log_prob.")
    return measurements.margin(inputs.y, output=picked)


def _check_kind(run: Run, inputs: Inputs, output: str | int | None, said: OutputsAre | None) -> None:
    """Refuse probabilities that would be taken for logits, and the reverse. That they are logits may be insisted on."""
    found = _pick(final_outputs(run, inputs.x), output)
    if found is None or said is OutputsAre.LOGITS:
        return
    if said is None and are_probabilities(found):
        raise ValueError(
            "The model's outputs look like probabilities: none is negative and they sum to 1. If they are, pass "
            "--outputs-are probabilities, otherwise --outputs-are logits."
        )
    if said is OutputsAre.PROBABILITIES and found.shape[-1] > 1 and not are_probabilities(found):
        raise ValueError(
            "The model's outputs are no probabilities: some are negative, or they do not sum to 1."
        )


def _pick(outputs: Any, output: str | int | None) -> np.ndarray | None:
    """Return the output that is meant; None where that is not clear, which the measurement refuses."""
    if isinstance(outputs, dict) and isinstance(outputs.get(output), np.ndarray):
        return outputs[output]
    flat = tf.nest.flatten(outputs)
    position = 0 if output is None and len(flat) == 1 else output
    return flat[position] if isinstance(position, int) and -len(flat) <= position < len(flat) else None


def _loss(
    run: Run, name: str | None, outputs_are: OutputsAre | None, check: Callable[[], None]
) -> Callable[..., tf.Tensor]:
    """Return a loss by its name, with its options as Keras has them by default but for ``from_logits``."""
    trained = [entry["name"] for entry in run.manifest.loss["losses"]]
    if name is None and len(trained) != 1:
        raise ValueError(
            f"The run was trained with {len(trained)} losses: say which with --loss, of {trained}."
        )
    name = name or trained[0]
    try:
        function = keras.losses.get(name)
    except ValueError:
        function = None
    if not callable(function):
        raise ValueError(
            f"Keras knows no loss {name!r}. Say which with --loss, or ask in Python: measurements.loss(…)."
        )
    if isinstance(function, keras.losses.Loss):
        function = function.call
    if "from_logits" not in inspect.signature(function).parameters:
        return function
    if outputs_are is None and not _has_classes(run):
        # One number between 0 and 1 may be either.
        raise ValueError(
            f"{name} is of logits or of probabilities: say with --outputs-are which the model returns."
        )
    check()
    return functools.partial(function, from_logits=outputs_are is not OutputsAre.PROBABILITIES)


def _has_classes(run: Run) -> bool:
    return all((leaf.shape or (1,))[-1] != 1 for leaf in struct.leaves(run.manifest.outputs))
