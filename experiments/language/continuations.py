"""Which text the model has a continuation from: influence of single bytes of the training windows."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.datasets import Windows

# Bytes that must agree for a place of the training text to count as the same: the one that is predicted and those before it.
SAME = 3


@dataclass(frozen=True)
class Continuation:
    """What the model is given, and what it should go on with."""

    prompt: str
    text: str

    @property
    def title(self) -> str:
        """The two for a reader, with a bar between them."""
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
        Prompt and continuation at the beginning, zeros after them. What comes later changes no earlier prediction.
    asked : np.ndarray of float32, shape (continuations, length)
        1 where ``y`` is a byte of the continuation.
    """

    x: np.ndarray
    y: np.ndarray
    asked: np.ndarray


def pose(continuations: tuple[Continuation, ...], length: int) -> Questions:
    """Spell continuations as bytes; of prompts that are too long the end is kept."""
    text = np.zeros((len(continuations), length + 1), np.int32)
    asked = np.zeros((len(continuations), length), np.float32)
    for row, continuation in enumerate(continuations):
        spelled = (continuation.prompt + continuation.text).encode()[-(length + 1) :]
        text[row, : len(spelled)] = list(spelled)
        asked[row, len(spelled) - 1 - len(continuation.text.encode()) : len(spelled) - 1] = 1
    return Questions(text[:, :-1], text[:, 1:], asked)


@dataclass(frozen=True)
class Source:
    """A window of training text, and what each of its bytes did to a continuation.

    Attributes
    ----------
    id : str
        File, and position in it.
    text : bytes
        The bytes that were predicted.
    influence : np.ndarray
        Of predicting each of these bytes, in nats; positive made the continuation more likely.
    """

    id: str
    text: bytes
    influence: np.ndarray


@dataclass(frozen=True)
class Account:
    """Where a continuation comes from.

    Attributes
    ----------
    continuation : Continuation
    initial, final, data : float
        Log-probability before and after training, and what the training text did to it, in nats.
    same_tokens, same_influence : float
        Share of the training bytes that are predicted where the text is the same (SAME bytes agree), and their share of the
        influence of all bytes.
    same_target_influence : float
        Share of the influence of all places where the byte is the same, whatever stands before it.
    top_windows_influence : float
        Share of the influence that the strongest hundredth of the windows has, net of signs.
    pushed, pulled : float
        Sum of all positive and of all negative entries of single bytes, in nats.
    sources : tuple of Source
        The windows that raised it most.
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
        """How many times the influence of an average byte one has where the text is the same; None if it never is."""
        return self.same_influence / self.same_tokens if self.same_tokens else None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, and the ids and influences of the sources."""
        numbers = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if field.name not in ("continuation", "sources")
        }
        sources = [{"id": source.id, "influence": float(source.influence.sum())} for source in self.sources]
        return {"continuation": self.continuation.title, **numbers, "lift": self.lift, "sources": sources}


def account(ledger: xr.Dataset, row: int, continuation: Continuation, train: Windows, shown: int) -> Account:
    """Sum up the entries of one continuation.

    Parameters
    ----------
    ledger : xarray.Dataset
        With the axes sample and token; its samples are named as the training windows.
    row : int
        Which of its inputs.
    continuation : Continuation
        What that input is.
    train : Windows
        The training text.
    shown : int
        How many windows to return as sources.
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
    """Return where the training text has a byte of the continuation after the same bytes, and where after any.

    Returns
    -------
    same, same_target : np.ndarray of bool, shape (windows, length)
        Of predicted bytes.
    """
    spelled = np.frombuffer((continuation.prompt + continuation.text).encode(), np.uint8).astype(np.int32)
    windows = np.concatenate([train.x, train.y[:, -1:]], axis=1)
    same = np.zeros(train.y.shape, bool)
    same_target = np.zeros(train.y.shape, bool)
    for end in range(len(spelled) - len(continuation.text.encode()), len(spelled)):
        wanted = spelled[end - SAME + 1 : end + 1]
        found = (np.lib.stride_tricks.sliding_window_view(windows, SAME, axis=1) == wanted).all(axis=2)
        same[:, SAME - 2 :] |= found  # the last of the bytes is predicted at the position before it
        same_target |= train.y == wanted[-1]
    return same, same_target
