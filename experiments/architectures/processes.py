"""Accounts for architectures, each in a process of its own, and keeps what was found."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.results import code_state


def account_for(name: str, steps: int, limit: int, run_dir: Path) -> dict[str, Any]:
    """Account for an architecture in a process of its own.

    Parameters
    ----------
    name : str
        The architecture.
    steps : int
        Training steps.
    limit : int
        Seconds after which it is given up.
    run_dir : Path
        Where the run is recorded; must not exist.

    Returns
    -------
    dict
        The fields of the last ``Account`` that the process printed, as far as there is one, ``name``, and ``answers``.
        If the process did not come to its end, ``error`` says why.
    """
    module = "experiments.architectures.accounting"
    call = [sys.executable, "-m", module, name, str(steps), str(run_dir)]
    env = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
    out_file, error_file = run_dir.with_suffix(".out"), run_dir.with_suffix(".err")
    with out_file.open("w") as out, error_file.open("w") as err:
        try:
            code = subprocess.run(call, env=env, stdout=out, stderr=err, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            code = None
    printed = out_file.read_text().splitlines()
    found = json.loads(printed[-1]) if printed else {"name": name, "answers": []}
    if code is None:
        return found | {"error": f"not done after {limit} seconds"}
    if code:
        told = error_file.read_text().strip().splitlines() or ["nothing was written"]
        return found | {"error": f"ended with {code}: {told[-1]}"}
    return found


def kept_or_found(name: str, steps: int, limit: int, run_dir: Path, keep: Path) -> dict[str, Any]:
    """Return what is kept of an architecture in the directory ``keep``, or account for it and keep that.

    What was found of another number of steps, or by code that was not committed, is found again. So is what has an error.
    """
    path = keep / (re.sub(r"\W+", "-", name).lower() + ".json")
    if path.exists():
        kept = json.loads(path.read_text())
        if kept.get("steps") == steps and kept["is_clean"] and not _errors(kept):
            return kept
    made_by = {**code_state(), "load_at_start": round(os.getloadavg()[0], 1)}
    found = account_for(name, steps, limit, run_dir) | made_by
    keep.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _errors(found: dict[str, Any]) -> list[str]:
    told = [found.get("error", ""), *(answer["error"] for answer in found["answers"])]
    return [error for error in told if error]
