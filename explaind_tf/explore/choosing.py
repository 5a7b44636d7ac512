"""In which order inputs are listed, and which."""

from typing import TYPE_CHECKING, Final

import numpy as np

from explaind_tf.explore.view import Sort

if TYPE_CHECKING:  # inputs are listed before TensorFlow is imported
    from explaind_tf.explore.measuring import Predictions

PER_PAGE: Final = 24

TITLES: Final[dict[Sort, str]] = {
    "row": "as in the file",
    "loss": "largest loss first",
    "wrong": "wrong and sure first",
    "movement": "largest movement first",
}


def keys_of(predictions: "Predictions", y: np.ndarray | None) -> dict[Sort, np.ndarray]:
    """Return a number for each input and order; the largest comes first. Orders that nothing is known for are left out.

    Parameters
    ----------
    predictions : Predictions
        What the model says of the inputs.
    y : np.ndarray or None
        Labels of the inputs.
    """
    found: dict[Sort, np.ndarray] = {}
    classes = classes_of(y, predictions)
    if predictions.log_probs is None:
        found["movement"] = np.abs(predictions.values[1] - predictions.values[0]).max(axis=1)
        return found
    assert predictions.predicted is not None and predictions.probability is not None
    rows = np.arange(len(predictions.predicted))
    moved = predictions.log_probs[1] - predictions.log_probs[0]
    found["movement"] = np.abs(moved[rows, predictions.predicted])
    if classes is not None:
        found["loss"] = -predictions.log_probs[1][rows, classes]
        is_wrong = predictions.predicted != classes
        # All wrong ones before all right ones; the least sure of the right ones first.
        found["wrong"] = np.where(is_wrong, 1 + predictions.probability, 1 - predictions.probability)
    return found


def classes_of(y: np.ndarray | None, predictions: "Predictions") -> np.ndarray | None:
    """Return the labels as classes, None if they are not: one whole number of a class for each input."""
    if y is None or predictions.log_probs is None:
        return None
    labels = np.asarray(y)
    if predictions.position is not None and labels.ndim == 2:
        labels = labels[:, predictions.position]
    if labels.size != len(labels) or labels.dtype.kind not in "iub":
        return None
    classes = labels.reshape(-1).astype(int)
    inside = (classes >= 0) & (classes < predictions.log_probs.shape[-1])
    return classes if inside.all() else None


def order_of(count: int, key: np.ndarray | None, labels: list[str | None], label: str | None) -> np.ndarray:
    """Return the positions of the inputs to list, in order.

    Parameters
    ----------
    count : int
        Number of inputs.
    key : np.ndarray or None
        A number for each; the largest comes first, and one that is no number last. None leaves the order as it is.
    labels : list of str or None
        The class of each.
    label : str or None
        Only inputs of this class.
    """
    order = (
        np.arange(count) if key is None else np.argsort(np.where(np.isnan(key), np.inf, -key), kind="stable")
    )
    return order if label is None else order[[labels[i] == label for i in order]]
