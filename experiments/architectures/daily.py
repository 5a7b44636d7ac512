"""Account for two architectures, others each day. Exits non-zero if one fails or does not balance.

    python -m experiments.architectures.daily

``.ci/run`` calls it. As with the nightly tests, ``EXPLAIND_TF_SEED=2026-11-28`` repeats what another day drew.
"""

import datetime
import os
import random
import sys
import tempfile
from pathlib import Path

from experiments.architectures.__main__ import errors_of, row
from experiments.architectures.processes import account_for
from experiments.architectures.registry import NAMES, SLOW
from experiments.results import code_state

_DRAWN = 2
_STEPS = 2
_LIMIT = 1200


def drawn(seed: str) -> list[str]:
    """Return the architectures of a day. Those that take longest are left to the nightly tests."""
    return random.Random(seed).sample([name for name in NAMES if name not in SLOW], _DRAWN)


def main() -> int:
    """Account for the architectures of today, print their rows, and return how many errors there are."""
    seed = os.environ.get("EXPLAIND_TF_SEED", datetime.date.today().isoformat())
    errors = []
    with tempfile.TemporaryDirectory() as runs_dir:
        for name in drawn(seed):
            found = account_for(name, _STEPS, _LIMIT, Path(runs_dir) / name) | code_state()
            print(*row(found), sep=" | ", flush=True)
            errors += errors_of(found)
    for error in errors:
        print(*error, sep=": ", file=sys.stderr)
    return len(errors)


if __name__ == "__main__":
    sys.exit(main())
