"""JSON that carries the digest of its own bytes, and is read without trust.

The last entry of a sealed text is the SHA-256 of all bytes before it, in a fixed form. Every changed, added or missing
byte is detected. The seal reveals damage, but not malice: whoever writes a text can also seal it.
"""

import hashlib
import json
import math
import re
from collections import Counter
from typing import Any

from explaind_tf.errors import RunFormatError

SEAL = "manifest_sha256"

# Far more than the manifest of any model needs: one of 20,000 variables and 10,000 files of records has some 8 MiB. Parsed,
# text that is nothing but brackets takes forty times as much memory.
MOST_BYTES = 16 * 2**20
MOST_LEVELS = 100

_SEAL_FORM = re.compile(rb',\n "' + SEAL.encode() + rb'": "([0-9a-f]{64})"\n\}')


def seal(body: dict[str, Any]) -> bytes:
    """Return an object as JSON, with its digest as last entry."""
    content = json.dumps(body, indent=1, allow_nan=False).encode().removesuffix(b"\n}")
    return content + f',\n "{SEAL}": "{hashlib.sha256(content).hexdigest()}"\n}}'.encode()


def check_seal(data: bytes) -> None:
    """Check the digest of a sealed text.

    Raises
    ------
    RunFormatError
        If any byte differs from what was written.
    """
    size = len(f',\n "{SEAL}": "{"0" * 64}"\n}}')
    content, ending = data[:-size], data[-size:]
    match = _SEAL_FORM.fullmatch(ending)
    if match is None or hashlib.sha256(content).hexdigest().encode() != match.group(1):
        raise RunFormatError(
            "it is damaged: its content does not match the digest at its end, so it was changed after it was written. "
            "Restore it from a copy."
        )


def parse(data: bytes) -> Any:
    """Parse JSON, strictly.

    Raises
    ------
    ValueError
        On text that is not JSON or not UTF-8, repeated keys, numbers that are not finite, strings that are not Unicode,
        or too large or too deeply nested content. RecursionError if Python's parser gives up first.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has {len(data)} bytes, more than the limit of {MOST_BYTES}")
    body = json.loads(
        data.decode("utf-8"),
        object_pairs_hook=_object,
        parse_constant=_refuse_constant,
        parse_float=_finite,
    )
    _check_values(body)
    return body


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!a} occurs twice")
    return body


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text} is too large for a float")
    return number


def _check_values(body: Any) -> None:
    """Refuse deep nesting, and lone surrogates, which cannot be written to files or terminals."""
    values = [body]
    for _ in range(MOST_LEVELS):
        for value in values:
            if isinstance(value, str):
                value.encode()  # UnicodeEncodeError is a ValueError
        values = [
            part
            for value in values
            if isinstance(value, (dict, list))
            for part in ([*value, *value.values()] if isinstance(value, dict) else value)
        ]
        if not values:
            return
    raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
