"""Makes a section of the report from a run and some inputs: the ledgers that it shows."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf import measurements
from explaind_tf.attribution import Run
from explaind_tf.attribution.predictions import are_probabilities, final_outputs
from explaind_tf.errors import RefusedError
from explaind_tf.ledgers.response_accessor import check_draws
from explaind_tf.levels import SAMPLE
from explaind_tf.questions.options import GroupLabels
from explaind_tf.report.examples import Example, example_of
from explaind_tf.report.section import Section
from explaind_tf.runs.format import structure as struct

# More groups are hard to read and slow: each takes a gradient and a pass of every step.
_MOST_GROUPS = 12
# Probabilities of a float32 model sum to 1 up to this.
_LOG_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Asked:
    """What the report shows.

    Attributes
    ----------
    x : array or nested structure of arrays
        Held-out inputs.
    y : np.ndarray, optional
        Their classes; with them the report says which predictions are right.
    first_row : int
        Number of the first input; the names of inputs count from it.
    shown : int or sequence of int
        Inputs to show with their training samples: their number, from the first, or their positions.
    followed : int, optional
        Number of inputs, from the first, to account for by layer, group and step; by default all.
    top : int
        How many proponents and opponents to show of each input.
    groups : sequence or mapping, optional
        As for ``run.attribute``; by default the training samples' classes, if there are 2 to 12.
    grouped_by : str
        What the groups are.
    counterfactual : bool
        Whether to ask how the predictions of the shown inputs would change without samples. It costs a sweep of its own.
    retrainings : int
        How often to train again without some samples, for a verdict on that answer: 0, or 2 or more.
    share : float
        Share of the samples that each of these trainings leaves out.
    """

    x: Any
    y: np.ndarray | None = None
    first_row: int = 0
    shown: int | Sequence[int] = 4
    followed: int | None = None
    top: int = 5
    groups: GroupLabels | None = None
    grouped_by: str = "label"
    counterfactual: bool = False
    retrainings: int = 0
    share: float = 0.05

    def __post_init__(self) -> None:
        if self.retrainings:
            check_draws(self.retrainings, self.share)
            if not self.counterfactual:
                raise ValueError(
                    f"retrainings={self.retrainings} is about the counterfactual answer: add counterfactual=True, or leave "
                    f"it out. In the shell, --validate needs --counterfactual."
                )


def _no_stage(title: str) -> AbstractContextManager[None]:
    return nullcontext()


def account_for(
    run: Run,
    asked: Asked,
    *,
    title: str,
    introduction: str,
    show: Callable[[list[np.ndarray], Any], Example] | None = None,
    stage: Callable[[str], AbstractContextManager[None]] = _no_stage,
    **options: Any,
) -> Section:
    """Account for a classifier's predictions by step, layer, weight, training sample and group.

    Parameters
    ----------
    run : Run
        Of a classifier with one output of logits or log-probabilities. Its shape is (batch, classes), or (batch, positions,
        classes), of which the last position is accounted for.
    asked : Asked
        Inputs, and what to show of them.
    title, introduction : str
        Plain text.
    show : callable, optional
        Takes the flat list of arrays of one input or sample, and its class or None. Returns what the reader sees of it.
    stage : callable
        Takes a title and returns a context, which is open while that part is computed.
    **options
        Options of `Run.attribute`.

    Raises
    ------
    ValueError
        If the model is not such a classifier.
    UnbalancedLedgerError
        If a ledger does not balance.
    """
    position = _position_of(run, asked.x)
    flat = struct.as_batches(run.manifest.inputs, asked.x, "inputs")
    show = show or _example
    count = len(flat[0])
    account = _Accountant(run, stage, options)
    outputs = measurements.outputs(position=position)
    balance = account(f"all outputs of {count} held-out inputs", asked.x, outputs)
    final = balance[names.FINAL].values
    predicted = final.argmax(axis=1)

    followed = _predictions(run, flat, predicted, slice(0, asked.followed), position)
    path = account.by(followed, "layer and step", names.LAYER, names.STEP)
    positions = (
        np.arange(min(asked.shown, count)) if isinstance(asked.shown, int) else np.asarray(asked.shown)
    )
    shown = _predictions(run, flat, predicted, positions, position)
    samples = curves = None
    if run.level == SAMPLE:
        samples = account.by(shown, "training sample", names.SAMPLE, conditioning=True)
        with stage("Training curves"):
            curves = run.curves(progress=options.get("progress", True))
    weights = account.by(shown, "weight", names.PARAMETER)
    groups = _classes_of_ids(run) if asked.groups is None and run.level == SAMPLE else asked.groups
    by_group = None
    if groups is not None:
        what = f"{asked.grouped_by} and step"
        by_group = account.by(followed, what, names.GROUP, names.STEP, groups=groups)
    truth = _truth(asked.y, count, positions, position)
    return Section(
        title=title,
        introduction=introduction,
        run=run,
        curves=curves,
        balance=balance,
        unit="nats" if _are_log_probabilities(final) else "logits",
        path=path,
        samples=samples,
        weights=weights,
        groups=by_group,
        grouped_by=asked.grouped_by,
        inputs=[
            _named(show([array[i] for array in flat], label), f"input {asked.first_row + int(i)}")
            for i, label in zip(positions, truth, strict=True)
        ],
        predictions=[_verdict(int(predicted[i]), label) for i, label in zip(positions, truth, strict=True)],
        show_sample=_shower(run, show),
        top=asked.top,
        position=position,
        counterfactual=_counterfactual(account, shown, asked),
    )


@dataclass(frozen=True)
class _Predictions:
    """Some inputs, and the log-probability of the class that the model predicts for each."""

    x: Any
    log_prob: measurements.Measurement
    count: int


def _predictions(
    run: Run, flat: list[np.ndarray], predicted: np.ndarray, chosen: slice | np.ndarray, position: int | None
) -> _Predictions:
    """Return the predictions for some of the inputs.

    Parameters
    ----------
    run : Run
        The run of the model.
    flat : list of np.ndarray
        All inputs.
    predicted : np.ndarray of int
        The predicted class of each.
    chosen : slice or np.ndarray of int
        Which inputs to take.
    position : int or None
        For sequences, the position whose prediction is measured.
    """
    x = struct.pack(run.manifest.inputs, [array[chosen] for array in flat])
    classes = predicted[chosen]
    return _Predictions(x, measurements.log_prob(classes, position=position), len(classes))


@dataclass(frozen=True)
class _Accountant:
    """Makes the ledgers of a section, one after another, with the same options, and checks each."""

    run: Run
    stage: Callable[[str], AbstractContextManager[None]]
    options: dict[str, Any]

    def __call__(
        self, what: str, x: Any, measurement: measurements.Measurement, *axes: str, **more: Any
    ) -> Any:
        with self.stage(f"Account for {what}"):
            found = self.run.attribute(x, measurement, axes=axes, **more, **self.options)
            found.explaind.check()
            return found

    def by(self, predictions: _Predictions, what: str, *axes: str, **more: Any) -> Any:
        """Return the ledger of some predictions by some axes; ``what`` names the axes in words."""
        told = f"{predictions.count} predictions, by {what}"
        return self(told, predictions.x, predictions.log_prob, *axes, **more)


def _counterfactual(account: _Accountant, shown: _Predictions, asked: Asked) -> xr.Dataset | str | None:
    """Return the counterfactual answer about some predictions, with its verdict if asked for; or why there is none."""
    if not asked.counterfactual:
        return None
    shared = ("batch_size", "memory_limit", "dtype", "progress")
    options = {name: account.options[name] for name in shared if name in account.options}
    try:
        with account.stage(f"Ask what {shown.count} predictions depend on"):
            answer = account.run.counterfactual(shown.x, shown.log_prob, **options)
    except RefusedError as refused:
        return str(refused)
    if asked.retrainings:
        try:
            with account.stage(f"Train again {asked.retrainings} times without some samples"):
                answer.explaind.validate(asked.retrainings, asked.share)
        except RefusedError as refused:
            answer.attrs[names.VERDICT] = f"There is no verdict. {refused}"
    return answer


def _truth(y: np.ndarray | None, count: int, positions: np.ndarray, position: int | None) -> list[Any]:
    """Return the class of each shown input, None where it is unknown."""
    labels = None if y is None else np.asarray(y).reshape(count, -1)
    if labels is not None and position is not None:
        labels = labels[:, position, None]
    return [None if labels is None or labels.shape[1] != 1 else labels[i, 0] for i in positions]


def _position_of(run: Run, x: Any) -> int | None:
    """Return the position that is accounted for, None for a classifier of whole inputs; refuse other models."""
    outputs = final_outputs(run, x)
    if not isinstance(outputs, np.ndarray) or outputs.ndim not in (2, 3) or outputs.shape[-1] < 2:
        found = [leaf.shape for leaf in struct.leaves(run.manifest.outputs)]
        raise ValueError(
            f"The report is about classifiers; for one input, this model returns the shapes {found}. The report needs one "
            f"output of shape (classes,) or (positions, classes), with two classes or more. For other models, use "
            f"run.attribute or explaind-tf attribute."
        )
    if are_probabilities(outputs):
        raise ValueError(
            "The model's outputs look like probabilities: none is negative and they sum to 1. The report needs logits or "
            "log-probabilities, of which it takes the softmax. For probabilities, use explaind-tf attribute --measure "
            "log_prob --outputs-are probabilities."
        )
    return -1 if outputs.ndim == 3 else None


def _are_log_probabilities(final: np.ndarray) -> bool:
    return bool((np.abs(np.exp(final).sum(axis=1) - 1) < _LOG_TOLERANCE).all())


def _class_of(targets: list[np.ndarray]) -> Any:
    """Return a sample's class: its target, if that is a single number, otherwise None."""
    return targets[0].item() if len(targets) == 1 and targets[0].size == 1 else None


def _classes_of_ids(run: Run) -> dict[Any, str] | None:
    """Return the class of each sample by id; None without classes, or unless there are 2 to 12."""
    leaves = struct.leaves(run.manifest.targets)
    if len(leaves) != 1 or np.prod([size or 0 for size in leaves[0].shape]) != 1:
        return None
    found = {}
    for sample_id, row in run.samples.row_of_id.items():
        label = _class_of([array[0] for array in run.samples.take_flat([row])[1]])
        found[sample_id] = f"{label:g}"
        if len(set(found.values())) > _MOST_GROUPS:
            return None
    return found if len(set(found.values())) > 1 else None


def _shower(run: Run, show: Callable[[list[np.ndarray], Any], Example]) -> Callable[[Any], Example]:
    """Return a function that takes a sample's id and returns what the reader sees of it."""
    row_of = run.samples.row_of_id

    def show_sample(sample_id: Any) -> Example:
        inputs, targets = run.samples.take_flat([row_of[sample_id]])
        return show([array[0] for array in inputs], _class_of([array[0] for array in targets]))

    return show_sample


def _named(example: Example, name: str) -> Example:
    return Example(f"{name}: {example.text}" if example.text else name, example.image, example.table)


def _example(arrays: list[np.ndarray], label: Any) -> Example:
    """Return a picture if an array looks like one, otherwise the first numbers."""
    text = "" if label is None else f"label {np.asarray(label).item():g}"
    return example_of(arrays, text)


def _verdict(predicted: int, label: Any) -> str:
    if label is None:
        return f"The model says {predicted}."
    return f"The model says {predicted}: {'right' if predicted == label else f'wrong, it is {label}'}."
