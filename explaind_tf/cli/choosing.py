"""Makes the measurement that a command line names, and checks what the model returns.

Only commands that ask a run import it, when they run: it imports TensorFlow, which takes seconds.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf import measurements
from explaind_tf.attribution import Run
from explaind_tf.attribution.predictions import are_probabilities, final_outputs
from explaind_tf.cli.inputs import Inputs
from explaind_tf.cli.measured import Measured
from explaind_tf.cli.values import Measure, OutputsAre
from explaind_tf.measurements import Measurement
from explaind_tf.runs.format import structure as struct


def choose_measurement(
    run: Run,
    inputs: Inputs,
    measured: Measured,
) -> Measurement:
    """Return the measurement that options ask for.

    Parameters
    ----------
    run : Run
        The run that is asked.
    inputs : Inputs
        With labels, for all measures but ``outputs``.
    measured : Measured
        The options.

    Raises
    ------
    ValueError
        If labels are missing, options contradict each other, or the outputs are not what the options say they are.
    """
    measure, outputs_are, output = measured.measure, measured.outputs_are, measured.output
    if measured.loss is not None and measure is not Measure.LOSS:
        raise ValueError(
            f"--loss {measured.loss} was given with --measure {measure}. --loss belongs to --measure loss: pass both, or "
            f"neither."
        )
    if measure is Measure.OUTPUTS:
        return measurements.outputs()
    if inputs.y is None:
        raise ValueError(
            f"--measure {measure} needs labels, and these inputs have none. Save them as y beside the inputs in an .npz: "
            f"np.savez(file, x=…, y=…)."
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
        raise ValueError(
            "--measure margin needs logits, and --outputs-are says that the model returns probabilities. Use --measure "
            "log_prob."
        )
    return measurements.margin(inputs.y, output=picked)


def _check_kind(run: Run, inputs: Inputs, output: str | int | None, said: OutputsAre | None) -> None:
    """Refuse probabilities that would be taken for logits, and the reverse. ``--outputs-are logits`` is not checked."""
    found = _pick(final_outputs(run, inputs.x), output)
    if found is None or said is OutputsAre.LOGITS:
        return
    if said is None and are_probabilities(found):
        raise ValueError(
            "The model's outputs look like probabilities: none is negative and they sum to 1. If they are probabilities, "
            "pass --outputs-are probabilities; if they are logits, pass --outputs-are logits."
        )
    if said is OutputsAre.PROBABILITIES and found.shape[-1] > 1 and not are_probabilities(found):
        raise ValueError(
            "The model's outputs are not probabilities: some are negative, or they do not sum to 1. If they are "
            "logits, pass --outputs-are logits."
        )


def _pick(outputs: Any, output: str | int | None) -> np.ndarray | None:
    """Return the output to measure; None if that is unclear, which the measurement itself refuses."""
    if isinstance(outputs, dict) and isinstance(outputs.get(output), np.ndarray):
        return outputs[output]
    flat = tf.nest.flatten(outputs)
    position = 0 if output is None and len(flat) == 1 else output
    return flat[position] if isinstance(position, int) and -len(flat) <= position < len(flat) else None


def _loss(
    run: Run, name: str | None, outputs_are: OutputsAre | None, check: Callable[[], None]
) -> Callable[..., tf.Tensor]:
    """Return the Keras loss of that name, with its default options except ``from_logits``."""
    trained = [entry["name"] for entry in run.manifest.loss["losses"]]
    if name is None and len(trained) != 1:
        raise ValueError(
            f"The run was trained with {len(trained)} losses, and one is needed: name it with --loss, one of {trained}."
        )
    name = name or trained[0]
    try:
        function = keras.losses.get(name)
    except ValueError:
        function = None
    if not callable(function):
        raise ValueError(
            f"Keras has no loss {name!r}. Pass the name of a loss of Keras with --loss, or use measurements.loss(…) in "
            f"Python."
        )
    if isinstance(function, keras.losses.Loss):
        function = function.call
    if "from_logits" not in inspect.signature(function).parameters:
        return function
    if outputs_are is None and not _has_classes(run):
        raise ValueError(
            f"{name} takes logits or probabilities, and a model that returns one number may return either. Say which with "
            f"--outputs-are logits or --outputs-are probabilities."
        )
    check()
    return functools.partial(function, from_logits=outputs_are is not OutputsAre.PROBABILITIES)


def _has_classes(run: Run) -> bool:
    return all((leaf.shape or (1,))[-1] != 1 for leaf in struct.leaves(run.manifest.outputs))
