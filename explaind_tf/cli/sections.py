"""The report's section about a run of which nothing is known but its directory and some inputs."""

from typing import Any

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf import measurements
from explaind_tf.attribution import Run
from explaind_tf.cli.asking import are_probabilities, final_outputs
from explaind_tf.cli.inputs import Inputs
from explaind_tf.report import Example, Section
from explaind_tf.runs import structure as struct

_VALUES_SHOWN = 8
# Log-probabilities of a float32 model sum to 1 by so much.
_LOG_TOLERANCE = 1e-3


def section_of(run: Run, inputs: Inputs, *, shown: int, top: int, **options: Any) -> Section:
    """Account for a classifier's predictions by step, layer and training sample.

    Parameters
    ----------
    run : Run
        Of a classifier: one output (batch, classes) of logits or log-probabilities.
    inputs : Inputs
        Held-out inputs; with labels the report says which predictions are right.
    shown : int
        How many inputs are shown with their training samples, from the first.
    top : int
        How many proponents and opponents of each.
    **options
        For `Run.attribute`.

    Raises
    ------
    ValueError
        If the model is no such classifier.
    UnbalancedLedgerError
        If a ledger does not balance.
    """
    _check_classifier(run, inputs)

    def ledger(x: Any, measurement: measurements.Measurement, axis: str) -> xr.Dataset:
        found = run.attribute(x, measurement, axes=(axis,), **options)
        assert isinstance(found, xr.Dataset)  # trees come of the parameter axis alone
        found.explaind.check()
        return found

    balance = ledger(inputs.x, measurements.outputs(), names.STEP)
    final = balance[names.FINAL].values
    predicted = final.argmax(axis=1)[:shown]
    flat = [array[:shown] for array in struct.as_batches(run.manifest.inputs, inputs.x, "inputs")]
    x = struct.pack(run.manifest.inputs, flat)
    labels = None if inputs.y is None else np.asarray(inputs.y).reshape(len(inputs.y), -1)
    numbers = [inputs.first_row + i for i in range(len(predicted))]
    return Section(
        title=run.run_dir.resolve().name,
        introduction=f"A recorded run, and {len(final):,} inputs that its predictions are accounted for.",
        run=run,
        balance=balance,
        unit="nats" if _are_log_probabilities(final) else "logits",
        samples=ledger(x, measurements.log_prob(predicted), names.SAMPLE),
        layers=ledger(x, measurements.log_prob(predicted), names.LAYER),
        inputs=[_example(f"input {number}", [a[i] for a in flat]) for i, number in enumerate(numbers)],
        predictions=[
            _verdict(int(p), None if labels is None or labels.shape[1] != 1 else labels[i, 0])
            for i, p in enumerate(predicted)
        ],
        show_sample=_shower(run),
        top=top,
    )


def _check_classifier(run: Run, inputs: Inputs) -> None:
    outputs = final_outputs(run, inputs.x)
    if not isinstance(outputs, np.ndarray) or outputs.ndim != 2 or outputs.shape[1] < 2:
        found = [leaf.shape for leaf in struct.leaves(run.manifest.outputs)]
        raise ValueError(
            f"The report is about classifiers, with one output (batch, classes); this model's are of shapes {found} for an "
            f"input. Use explaind-tf attribute."
        )
    if are_probabilities(outputs):
        raise ValueError(
            "The report takes the softmax of outputs that are logits or log-probabilities; those of this model look like "
            "probabilities already. Use explaind-tf attribute --measure log_prob --outputs-are probabilities."
        )


def _are_log_probabilities(final: np.ndarray) -> bool:
    return bool((np.abs(np.exp(final).sum(axis=1) - 1) < _LOG_TOLERANCE).all())


def _shower(run: Run) -> Any:
    """Return the function from a sample's id to what a reader sees of it."""
    positions, first_rows = np.unique(run.samples.id_of_row, return_index=True)
    ids = run.samples.ids.tolist()
    row_of = {ids[position]: int(row) for position, row in zip(positions, first_rows, strict=True)}

    def show(sample_id: Any) -> Example:
        inputs, targets = run.samples.take_flat([row_of[sample_id]])
        label = targets[0][0] if len(targets) == 1 and targets[0][0].size == 1 else None
        text = "a training sample" if label is None else f"label {np.asarray(label).item():g}"
        return _example(text, [array[0] for array in inputs])

    return show


def _example(text: str, arrays: list[np.ndarray]) -> Example:
    """Return a picture of what looks like one, and the first numbers of anything else."""
    image = next((a for a in arrays if a.ndim == 3 and a.shape[2] in (1, 3) and min(a.shape[:2]) > 1), None)
    if image is not None:
        return Example(text, _stretched(image))
    values = [value for array in arrays for value in array.reshape(-1)[:_VALUES_SHOWN]][:_VALUES_SHOWN]
    more = "" if sum(array.size for array in arrays) <= _VALUES_SHOWN else ", …"
    return Example(f"{text}: {', '.join(f'{value:.3g}' for value in values)}{more}")


def _stretched(image: np.ndarray) -> np.ndarray:
    """Return pixels in [0, 1]: bytes as shares of 255, standardised ones from their darkest to their brightest."""
    if image.dtype == np.uint8:
        return image.astype(np.float32) / 255
    low, high = float(image.min()), float(image.max())
    if low >= 0 and high <= 1:
        return image.astype(np.float32)
    return ((image - low) / ((high - low) or 1)).astype(np.float32)


def _verdict(predicted: int, label: Any) -> str:
    if label is None:
        return f"The model says {predicted}."
    return f"The model says {predicted}: {'right' if predicted == label else f'wrong, it is {label}'}."
