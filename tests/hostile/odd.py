"""Values that break readers."""

import random
import struct
from typing import Any

import numpy as np

INTEGERS = (
    *(0, 1, -1, 2, 3, 7, 255, 256, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**36, 2**40),
    *(2**53, 2**62, 2**63 - 1),
)
LARGER = (2**63, 2**64, -(2**63) - 1, 10**30, 10**400)
FLOATS = (
    *(0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e-45, 1e30, -1e30, 3e38, 1e300),
    *(float("nan"), float("inf"), float("-inf")),
)
TEXTS = (
    *(
        "",
        "a",
        "x" * 5000,
        "..",
        "../outside",
        "/etc/passwd",
        "a/b/c",
        "[/red]",
        "[red]",
        "<script>",
        "{}",
        "%s",
    ),
    *("\x00", "\x1b[31m", "\u202e", "é", "None", "nan", "float32", "AdamW", "steps-00000.tfrecord"),
)


def integer(rng: random.Random, old: int) -> int:
    """Return another integer of 64 bits."""
    near = rng.choice((old + 1, old - 1, old * 2, -old, old ^ 1, old ^ 64))
    found = rng.choice((near, near, rng.choice(INTEGERS), rng.randrange(-(2**63), 2**63)))
    return max(-(2**63), min(2**63 - 1, found))


def number(rng: random.Random, old: float) -> float:
    return rng.choice((old * 2, -old, old + 1e-3, old * 1.01, rng.choice(FLOATS), rng.gauss(0, 10)))


def json_value(rng: random.Random, old: Any, depth: int = 0) -> Any:
    """Return another value of JSON, often of the same type."""
    if rng.random() < 0.7 and old is not None:
        if isinstance(old, bool):
            return not old
        if isinstance(old, int):
            return rng.choice((integer(rng, old), rng.choice(LARGER)))
        if isinstance(old, float):
            found = number(rng, old)
            return found if np.isfinite(found) else old * 3
        if isinstance(old, str):
            return rng.choice((old + "x", old[:-1], old.upper(), old[::-1], rng.choice(TEXTS)))
        if isinstance(old, list) and old:
            return rng.choice((old[:-1], [*old, rng.choice(old)], old[::-1], [], old * 2, [old]))
        if isinstance(old, dict) and old:
            key = rng.choice(sorted(old, key=str))
            return rng.choice(({k: v for k, v in old.items() if k != key}, {**old, key + "x": old[key]}, {}))
    if depth > 3:
        return None
    return rng.choice(
        (
            *(None, True, False, rng.choice(INTEGERS), rng.choice(LARGER), 0.5, -1e300, rng.choice(TEXTS)),
            [json_value(rng, None, depth + 1) for _ in range(rng.randrange(3))],
            {rng.choice(TEXTS): json_value(rng, None, depth + 1) for _ in range(rng.randrange(3))},
        )
    )


def flipped(rng: random.Random, data: bytes) -> bytes:
    """Return data with one to four bytes changed, removed or added."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        place = rng.randrange(len(changed)) if changed else 0
        what = rng.randrange(4)
        if what == 0 and changed:
            changed[place] ^= 1 << rng.randrange(8)
        elif what == 1 and changed:
            changed[place] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        elif what == 2:
            del changed[place : place + rng.choice((1, 4, 8, 100))]
        else:
            changed[place:place] = rng.randbytes(rng.choice((1, 4, 8)))
    return bytes(changed)


def floats(rng: random.Random, blob: bytes, itemsize: int) -> bytes:
    """Return the bytes of an array with one of its numbers changed."""
    form = {4: "<f", 8: "<d"}[itemsize]
    count = len(blob) // itemsize
    if not count:
        return blob + bytes(itemsize)
    place = rng.randrange(count) * itemsize
    (old,) = struct.unpack_from(form, blob, place)
    with np.errstate(over="ignore"):
        value = np.float32(number(rng, old)) if itemsize == 4 else number(rng, old)
    return blob[:place] + struct.pack(form, value) + blob[place + itemsize :]
