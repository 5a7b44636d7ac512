"""Turns typed values of options into what `Run` takes; a value that cannot be read is wrong usage, exit code 2."""

import re
from enum import StrEnum
from typing import Final

import typer

from explaind_tf import constants as names


class Measure(StrEnum):
    """What to measure of a prediction, see :mod:`explaind_tf.measurements`."""

    OUTPUTS = "outputs"
    LOG_PROB = "log_prob"
    MARGIN = "margin"
    LOSS = "loss"


class OutputsAre(StrEnum):
    """What the model returns."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


_UNITS: Final = {"": 1} | {
    f"{prefix}{suffix}": base**power
    for base, suffix in ((1000, "b"), (1024, "ib"))
    for power, prefix in enumerate("kmgt", start=1)
}


def to_slice(text: str) -> slice:
    """Return the slice that ``a:b``, ``a:``, ``:b`` or the single number ``a`` stands for."""
    single = re.fullmatch(r"\d+", text)
    if single:
        return slice(int(text), int(text) + 1)
    found = re.fullmatch(r"(\d*):(\d*)", text)
    if not found:
        raise typer.BadParameter(
            f"{text!r} is not a range. Write A:B, which includes A but not B, as in 0:10."
        )
    start, stop = (int(part) if part else None for part in found.groups())
    if stop is not None and stop <= (start or 0):
        raise typer.BadParameter(f"The range {text!r} is empty. In A:B, B must be larger than A, as in 0:10.")
    return slice(start, stop)


def to_bytes(text: str) -> int:
    """Return the number of bytes that ``4GB`` (10⁹), ``4GiB`` (2³⁰) or a plain number stands for."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    unit = found and _UNITS.get(found[2].removesuffix("b") if found[2] == "b" else found[2])
    if not found or unit is None or float(found[1]) * unit < 1:
        raise typer.BadParameter(
            f"{text!r} is not a size of 1 byte or more. Write bytes, or a number with kB, MB, GB or GiB, as in 4GB."
        )
    return int(float(found[1]) * unit)


def to_names(text: str) -> tuple[str, ...]:
    """Return the names in a list separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def to_axes(text: str) -> tuple[str, ...]:
    """Return the axes in a list separated by commas.

    Raises
    ------
    ValueError
        If the group axis is among them: its labels cannot be typed on a command line.
    """
    axes = to_names(text)
    if names.GROUP in axes:
        raise ValueError(
            'The axis "group" needs a label of each training sample, which a command line cannot take. Use Python: '
            'run.attribute(…, axes=("group",), groups=…).'
        )
    return axes
