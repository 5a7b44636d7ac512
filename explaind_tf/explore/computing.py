"""Computes what the page asks: predictions first, then answers, coarse and refined.

It imports TensorFlow, so it is imported in the thread that answers, when the page is there already.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.attribution.attributable import Attributable
from explaind_tf.errors import RefusedError
from explaind_tf.explore.asker import Stage
from explaind_tf.explore.inputs import Inputs
from explaind_tf.explore.measuring import Measured, Predictions, by_default, predictions_of
from explaind_tf.explore.questions import (
    COARSE_NODES,
    COARSE_TOLERANCE,
    RETRAININGS,
    SHARE,
    WHERE,
    Question,
    Sizes,
)
from explaind_tf.levels import SAMPLE
from explaind_tf.measurements import Measurement
from explaind_tf.progress import Progress
from explaind_tf.runs import WeightPath
from explaind_tf.runs.format import structure as struct

# Reading and predicting more samples would take longer than anybody waits.
_MOST_LOOKED_AT: Final = 20_000

Measure = Callable[[Attributable, Predictions], Measured]


@dataclass(frozen=True)
class Loaded:
    """What is known once the model is loaded.

    Attributes
    ----------
    run : Attributable
        The run that is asked; only the answering thread may.
    predictions : Predictions
        What the model says of the inputs.
    measured : Measured
        What is accounted for.
    outputs : tuple of str
        Labels of the measurement's outputs.
    sizes : Sizes
        Lengths of the axes.
    about : str
        Digest of all that an answer depends on, except the question.
    groups : dict of str to tuple
        Ids of the training samples of each group that can be chosen.
    no_groups : str
        Why there are none.
    labels : dict
        The label of each training sample, as text, by id.
    """

    run: Attributable
    predictions: Predictions
    measured: Measured
    outputs: tuple[str, ...]
    sizes: Sizes
    about: str
    groups: dict[str, tuple[Any, ...]]
    no_groups: str
    labels: dict[Any, str]


def load(run: Attributable, inputs: Inputs, measure: Measure | None, tolerance: float) -> Loaded:
    """Return the model's predictions, what is accounted for, and the groups of training samples."""
    predictions = predictions_of(run, inputs.x, inputs.y)
    measured = by_default(predictions) if measure is None else measure(run, predictions)
    flat = struct.as_batches(run.manifest.inputs, inputs.x, "inputs")
    first = run.measure(_taken(run, flat, (0,)), measured.of((0,)))
    labels = _labels(run)
    groups, why = _groups(run, labels)
    has_samples = run.level == SAMPLE
    ids = len(run.samples.ids) if has_samples else 0
    tokens = 0
    if has_samples and run.graphs.functions.token_losses is not None:
        tokens = run.graphs.token_count or 1  # of samples of several lengths, their number is not known
    return Loaded(
        run=run,
        predictions=predictions,
        measured=measured,
        outputs=tuple(str(label) for label in first[names.OUTPUT].values),
        sizes=Sizes(len(flat[0]), first.sizes[names.OUTPUT], ids, len(run.steps), len(run.layers), tokens),
        about=_about(run, flat, measured, tolerance),
        groups=groups,
        no_groups=why,
        labels={key: f"{label:g}" for key, label in labels.items()},
    )


def stages_of(
    loaded: Loaded, inputs: Inputs, question: Question, tolerance: float, progress: Progress
) -> Iterator[Stage]:
    """Yield the stages of an answer: coarse, with one node in each step, then to the tolerance.

    The coarse account of inputs is by layer and step alone. A counterfactual answer has no coarse stage; its verdict comes
    after it.

    Raises
    ------
    RefusedError, ValueError, MemoryError
        As the run's methods do.
    """
    run = loaded.run
    x = _taken(run, struct.as_batches(run.manifest.inputs, inputs.x, "inputs"), question.inputs)
    measurement = loaded.measured.of(question.inputs)
    if question.kind in ("counterfactual", "verdict"):
        yield from _counterfactual(run, x, measurement, question, progress)
        return
    # Layers and steps take half the time of samples, which come with the refined answer.
    first = WHERE if question.kind == "account" else question.axes
    coarse = run.attribute(
        x, measurement, first, tolerance=COARSE_TOLERANCE, max_nodes=COARSE_NODES, progress=progress
    )
    yield Stage(_numbered(coarse, question), is_final=False)
    fine = run.attribute(x, measurement, question.axes, tolerance=tolerance, progress=progress)
    yield Stage(_numbered(fine, question), is_final=True)


def _counterfactual(
    run: Attributable, x: Any, measurement: Measurement, question: Question, progress: Progress
) -> Iterator[Stage]:
    if not hasattr(run, "counterfactual"):
        raise RefusedError(
            f"{run!r} holds no training steps, which a counterfactual answer goes back through."
        )
    answer = run.counterfactual(x, measurement, progress=progress)
    if question.kind == "counterfactual":
        yield Stage(_numbered(answer, question), is_final=True)
        return
    yield Stage(_numbered(answer, question), is_final=False)
    answer.explaind.validate(RETRAININGS, SHARE)
    yield Stage(_numbered(answer, question), is_final=True)


def _numbered(found: Any, question: Question) -> xr.Dataset:
    """Return an answer whose inputs have the positions that the page knows them by."""
    answer: xr.Dataset = found.assign_coords({names.INPUT: np.array(question.inputs)})
    return answer


def _taken(run: WeightPath, flat: list[np.ndarray], positions: tuple[int, ...]) -> Any:
    return struct.pack(run.manifest.inputs, [array[list(positions)] for array in flat])


def _about(run: WeightPath, flat: list[np.ndarray], measured: Measured, tolerance: float) -> str:
    # A run that is being recorded has more steps when it is opened again.
    known = f"{names.VERSION} {run.run_id} {run.level} {len(run.steps)} {tolerance!r} {measured.digest}"
    digest = hashlib.sha256(known.encode())
    for array in flat:
        digest.update(f"{array.dtype.str}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _labels(run: WeightPath) -> dict[Any, float]:
    """Return the label of each training sample by its id; none if a label is not one number."""
    if run.level != SAMPLE or len(run.samples) > _MOST_LOOKED_AT:
        return {}
    leaves = struct.leaves(run.manifest.targets)
    if len(leaves) != 1 or np.prod([size or 0 for size in leaves[0].shape]) != 1:
        return {}
    row_of = run.samples.row_of_id
    targets = run.samples.take_flat(list(row_of.values()))[1][0]
    return dict(zip(row_of, targets.reshape(-1).tolist(), strict=True))


def _groups(run: WeightPath, labels: dict[Any, float]) -> tuple[dict[str, tuple[Any, ...]], str]:
    """Return the groups of training samples: those of each class, and those that the trained model labels otherwise."""
    if not labels:
        return {}, (
            f"There are no groups to choose: the labels of the training samples are not single numbers, or there are more "
            f"than {_MOST_LOOKED_AT:,} samples. Choose samples one by one, or use run.attribute(…, groups=…) in Python."
        )
    if len(set(labels.values())) > 100:
        return {}, "There are no groups to choose: the training samples have more than 100 different labels."
    found: dict[str, tuple[Any, ...]] = {}
    for label in sorted(set(labels.values())):
        found[f"label {label:g}"] = tuple(key for key, one in labels.items() if one == label)
    rows = [run.samples.row_of_id[key] for key in labels]
    y = np.array(list(labels.values()))
    if (y == y.round()).all():
        inputs = run.samples.take_flat(rows)[0]
        said = predictions_of(run, struct.pack(run.manifest.inputs, inputs), y.astype(int)).predicted
        if said is not None:
            suspicious = tuple(key for key, is_so in zip(labels, said != y, strict=True) if is_so)
            if suspicious:
                found["suspicious: the trained model says otherwise than their label"] = suspicious
    return found, ""
