"""Checks of values from a file, with errors that name what is wrong."""

import re
import reprlib
from collections.abc import Collection
from typing import Any

from explaind_tf.errors import RunFormatError


def expect(condition: bool, message: str) -> None:
    """Check a condition.

    Raises
    ------
    RunFormatError
        With the message, if the condition does not hold.
    """
    if not condition:
        raise RunFormatError(f"{message}.")


def text(body: dict[str, Any], key: str) -> str:
    """Return an entry that must be a string."""
    expect(isinstance(body[key], str), f"{key} must be a string; found {short(body[key])}")
    return body[key]


def fields(body: Any, known: Collection[str], what: str) -> None:
    """Check that a value is an object with no other fields than those that are known.

    Raises
    ------
    RunFormatError
        If it is not.
    """
    expect(isinstance(body, dict), f"{what} must be an object; found {short(body)}")
    unknown = sorted(set(body) - set(known))
    expect(not unknown, f"{what} has unknown fields {short(unknown)}; it may have {', '.join(known)}")


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number from 0 to 2⁶³ − 1."""
    return type(value) is int and 0 <= value < 2**63


def is_sha256(value: Any) -> bool:
    """Return whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def short(value: Any) -> str:
    """Return a value for a message, abbreviated if it is long."""
    return reprlib.repr(value)
