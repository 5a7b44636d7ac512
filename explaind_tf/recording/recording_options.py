"""The user's options of a recording."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import keras

from explaind_tf.event_file import check_installed
from explaind_tf.levels import LEVELS, Level

OnError = Literal["raise", "warn"]
# Which variables may move: patterns of their paths, or a function of a path.
Variables = str | Sequence[str] | Callable[[str], bool]


@dataclass(frozen=True)
class RecordingOptions:
    """The arguments of a :class:`PathLogger` except its directory, checked.

    Attributes
    ----------
    every : int or "auto"
        Steps from one keyframe to the next.
    disk_budget : int or None
        Bytes that the run may take when ``every`` is ``"auto"``.
    resume : bool
        Whether to continue the run that the directory holds.
    on_error : {"raise", "warn"}
        What to do when the record cannot be written.
    tensorboard : str, Path or None
        Log directory for numbers of each step.
    ids : str or None
        Key of the samples' ids in a dict of inputs.
    model : keras.Model or None
        The part of the fitted model to account for; None for all of it.
    require : {"sample", "cause", "path"} or None
        The least that the run must tell.
    retrain : bool
        Whether to keep the training step, for ``run.retrain``.
    variables : str, sequence of str, callable or None
        Patterns of the paths of the variables that may move, or a function that tells it of a path; None for all.
    """

    every: int | Literal["auto"] = 1
    disk_budget: int | None = None
    resume: bool = False
    on_error: OnError = "raise"
    tensorboard: str | Path | None = None
    ids: str | None = None
    model: keras.Model | None = None
    require: Level | None = None
    retrain: bool = True
    variables: Variables | None = None

    def __post_init__(self) -> None:
        is_count = type(self.every) is int and self.every > 0
        if not (is_count or self.every == "auto"):
            raise ValueError(f'every must be a number of steps, 1 or more, or "auto"; got {self.every!r}.')
        if self.disk_budget is not None and self.every != "auto":
            raise ValueError(
                f'disk_budget needs every="auto"; got every={self.every!r}. Give every="auto", or no disk_budget.'
            )
        if self.disk_budget is not None and not self.disk_budget > 0:
            raise ValueError(f"disk_budget must be a positive number of bytes; got {self.disk_budget!r}.")
        if self.require is not None and self.require not in LEVELS:
            raise ValueError(f"require must be one of {', '.join(LEVELS)}; got {self.require!r}.")
        if self.model is not None and not isinstance(self.model, keras.Model):
            raise ValueError(f"model must be a keras.Model; got {type(self.model).__name__}.")
        if self.on_error not in ("raise", "warn"):
            raise ValueError(f'on_error must be "raise" or "warn"; got {self.on_error!r}.')
        if self.tensorboard is not None:
            check_installed()
        patterns = self._patterns
        if not (callable(self.variables) or all(isinstance(pattern, str) for pattern in patterns)):
            raise ValueError(
                f"variables must be a pattern of paths, such as '*lora*', a list of them, or a function of a path; got "
                f"{self.variables!r}."
            )

    @property
    def _patterns(self) -> tuple[Any, ...]:
        if self.variables is None or callable(self.variables):
            return ()
        return (self.variables,) if isinstance(self.variables, str) else tuple(self.variables)

    def may_move(self, path: str) -> bool:
        """Return whether the variable of a path may move."""
        if self.variables is None:
            return True
        if callable(self.variables):
            return bool(self.variables(path))
        return any(fnmatchcase(path, pattern) for pattern in self._patterns)
