"""The data of the evaluation: digits, with wrong labels or a mark, and subsets of them."""

from dataclasses import dataclass

import numpy as np

from experiments.evaluation.sizes import Settings
from explaind_tf.datasets import digits

Labelled = tuple[np.ndarray, np.ndarray]
CLASSES = 10


@dataclass(frozen=True)
class Split:
    """Training samples, and held-out inputs, with their classes."""

    train: Labelled
    test: Labelled

    @classmethod
    def of(cls, settings: Settings, seed: int) -> "Split":
        """Return digits."""
        train, test = digits(num_test=settings.inputs, seed=seed)
        return cls(tuple(array[: settings.samples] for array in train), test)

    def without_groups(self, count: int) -> np.ndarray:
        """Return which samples remain when each group, samples of one class, is left out, shape (groups, samples)."""
        labels = self.train[1]
        groups = np.zeros(len(labels), int)
        parts = max(1, count // CLASSES)
        for label in range(CLASSES):
            rows = np.flatnonzero(labels == label)
            groups[rows] = label * parts + np.arange(len(rows)) % parts
        return np.stack([groups != group for group in np.unique(groups)[:count]])

    def halves(self, count: int, seed: int) -> np.ndarray:
        """Return random halves of the samples, shape (count, samples)."""
        ranks = np.random.default_rng(seed).random((count, len(self.train[1]))).argsort(axis=1)
        return ranks < len(self.train[1]) // 2


def flipped(train: Labelled, share: float, seed: int) -> tuple[Labelled, np.ndarray]:
    """Return the samples with some labels set to another class, and whether each label was."""
    rng = np.random.default_rng(seed)
    x, y = train
    is_wrong = np.zeros(len(y), bool)
    is_wrong[rng.permutation(len(y))[: round(share * len(y))]] = True
    others = (y + rng.integers(1, CLASSES, len(y))) % CLASSES
    return (x, np.where(is_wrong, others, y).astype(y.dtype)), is_wrong


def with_shortcut(train: Labelled, *, of_class: int, share: float, seed: int) -> tuple[Labelled, np.ndarray]:
    """Return the samples with a white corner on some images of one class, and whether each has one."""
    x, y = train
    members = np.random.default_rng(seed).permutation(np.flatnonzero(y == of_class))
    is_marked = np.zeros(len(y), bool)
    is_marked[members[: max(1, round(share * len(members)))]] = True
    return (marked(x, is_marked), y), is_marked


def marked(x: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return images with a white corner of 2 × 2 pixels on some of them."""
    found = x.copy()
    found[which, :2, :2] = 1
    return found
