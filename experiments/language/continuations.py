"""The training text behind a continuation: influence of single bytes of the training windows."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.datasets import Windows

# A place of the training text counts as the same if the predicted byte and those before it, so many in all, agree.
SAME = 3


@dataclass(frozen=True)
class Continuation:
    """A prompt, and the text that should follow it."""

    prompt: str
    text: str

    @property
    def title(self) -> str:
        """Prompt and continuation for a reader, with a bar between them."""
        return f"{self.prompt}|{self.text}".replace("\n", "⏎").strip()


CONTINUATIONS = (
    Continuation("import sys\nimp", "ort"),
    Continuation("    def __init__(se", "lf"),
    Continuation("        retu", "rn"),
    Continuation("        if x is No", "ne"),
    Continuation("            raise ValueErr", "or("),
)


@dataclass(frozen=True)
class Questions:
    """Continuations as the model takes them.

    Attributes
    ----------
    x, y : np.ndarray of int32, shape (continuations, length)
        Prompt and continuation at the beginning, zeros after them. Later bytes change no earlier prediction.
    asked : np.ndarray of float32, shape (continuations, length)
        1 where ``y`` is a byte of the continuation.
    """

    x: np.ndarray
    y: np.ndarray
    asked: np.ndarray


def pose(continuations: tuple[Continuation, ...], length: int) -> Questions:
    """Encode continuations as bytes; of a prompt that is too long, the end is kept."""
    text = np.zeros((len(continuations), length + 1), np.int32)
    asked = np.zeros((len(continuations), length), np.float32)
    for row, continuation in enumerate(continuations):
        spelled = (continuation.prompt + continuation.text).encode()[-(length + 1) :]
        text[row, : len(spelled)] = list(spelled)
        asked[row, len(spelled) - 1 - len(continuation.text.encode()) : len(spelled) - 1] = 1
    return Questions(text[:, :-1], text[:, 1:], asked)


@dataclass(frozen=True)
class Source:
    """A window of training text, and the influence of each of its bytes on a continuation.

    Attributes
    ----------
    id : str
        File, and position in it.
    text : bytes
        The bytes that were predicted.
    influence : np.ndarray
        Influence of the loss at each of these bytes, in nats; positive made the continuation more likely.
    """

    id: str
    text: bytes
    influence: np.ndarray


@dataclass(frozen=True)
class Account:
    """The origin of a continuation in the training text.

    Attributes
    ----------
    continuation : Continuation
    initial, final, data : float
        Log-probability before and after training, and its change by the training text, in nats.
    same_tokens, same_influence : float
        Share of the training bytes at places where the text is the same (SAME bytes agree), and their share of the
        influence of all bytes.
    same_target_influence : float
        Share of the influence of all places where the byte is the same, whatever precedes it.
    top_windows_influence : float
        Share of the influence that the strongest hundredth of the windows has, where positive and negative entries cancel.
    pushed, pulled : float
        Sum of all positive and of all negative entries of single bytes, in nats.
    sources : tuple of Source
        The windows that raised the log-probability most.
    """

    continuation: Continuation
    initial: float
    final: float
    data: float
    same_tokens: float
    same_influence: float
    same_target_influence: float
    top_windows_influence: float
    pushed: float
    pulled: float
    sources: tuple[Source, ...]

    @property
    def lift(self) -> float | None:
        """Influence of a byte where the text is the same, over that of an average byte; None if the text never is."""
        return self.same_influence / self.same_tokens if self.same_tokens else None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, and the ids and influences of the sources, as JSON values."""
        numbers = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("continuation", "sources")
        }
        sources = [{"id": source.id, "influence": float(source.influence.sum())} for source in self.sources]
        return {"continuation": self.continuation.title, **numbers, "lift": self.lift, "sources": sources}


def account(ledger: xr.Dataset, row: int, continuation: Continuation, train: Windows, shown: int) -> Account:
    """Add up the entries of one continuation.

    Parameters
    ----------
    ledger : xarray.Dataset
        Ledger with the axes sample and token, whose samples have the ids of the training windows.
    row : int
        Position of the input.
    continuation : Continuation
        The continuation at this position.
    train : Windows
        The training text.
    shown : int
        Number of windows to return as sources.
    """
    entry = ledger.isel({names.INPUT: row}).squeeze(names.OUTPUT, drop=True)
    influence = entry[names.DATA].sel({names.SAMPLE: train.ids}).transpose(names.SAMPLE, names.TOKEN).values
    of_window = influence.sum(axis=1)
    total = float(of_window.sum())
    order = np.argsort(-of_window, kind="stable")
    same, same_target = same_places(train, continuation)
    return Account(
        continuation=continuation,
        initial=float(entry[names.INITIAL]),
        final=float(entry[names.FINAL]),
        data=total,
        same_tokens=float(same.mean()),
        same_influence=float(influence[same].sum() / total),
        same_target_influence=float(influence[same_target].sum() / total),
        top_windows_influence=float(of_window[order[: max(1, len(order) // 100)]].sum() / total),
        pushed=float(influence[influence > 0].sum()),
        pulled=float(influence[influence < 0].sum()),
        sources=tuple(
            Source(str(train.ids[i]), bytes(train.y[i].tolist()), influence[i]) for i in order[:shown]
        ),
    )


def same_places(train: Windows, continuation: Continuation) -> tuple[np.ndarray, np.ndarray]:
    """Return where the training text has a byte of the continuation after the same bytes, and where after any bytes.

    Returns
    -------
    same, same_target : np.ndarray of bool, shape (windows, length)
        For each predicted byte.
    """
    spelled = np.frombuffer((continuation.prompt + continuation.text).encode(), np.uint8).astype(np.int32)
    windows = np.concatenate([train.x, train.y[:, -1:]], axis=1)
    same = np.zeros(train.y.shape, bool)
    same_target = np.zeros(train.y.shape, bool)
    for end in range(len(spelled) - len(continuation.text.encode()), len(spelled)):
        wanted = spelled[end - SAME + 1 : end + 1]
        found = (np.lib.stride_tricks.sliding_window_view(windows, SAME, axis=1) == wanted).all(axis=2)
        same[:, SAME - 2 :] |= found  # the last of these bytes is predicted at the position before it
        same_target |= train.y == wanted[-1]
    return same, same_target
