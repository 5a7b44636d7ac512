"""Runs the parts, each in its own process, and keeps the recorded runs that they share."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from experiments.benchmarks.settings import TaskSpec


class PartError(Exception):
    """A part ended with an error; the message is the end of what it wrote."""


class Runner:
    """Runs parts.

    Parameters
    ----------
    runs_dir : Path
        Directory of the recorded runs.
    isolated : bool
        Whether each part gets its own process. Otherwise its peak memory includes that of the other parts.
    """

    def __init__(self, runs_dir: Path, *, isolated: bool) -> None:
        self._runs_dir, self._isolated = runs_dir, isolated

    def run(self, part: str, **arguments: Any) -> dict[str, Any]:
        """Run a part and return its result.

        Raises
        ------
        PartError
            If it failed.
        """
        if not self._isolated:
            # Imports TensorFlow, which the parent of processes does not need.
            from experiments.benchmarks.parts import PARTS

            try:
                return PARTS[part](**arguments)
            except Exception as error:
                raise PartError(f"{part}: {error!r}") from error
        done = subprocess.run(
            [sys.executable, "-m", "experiments.benchmarks.parts", part, json.dumps(arguments)],
            env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise PartError(f"{part} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def of_run(self, part: str, spec: TaskSpec, **arguments: Any) -> dict[str, Any]:
        """Run a part on the recorded run of a task; the run is recorded at the first call."""
        run_dir = self._runs_dir / spec.key
        if not run_dir.exists():
            self.run("record", spec=dataclasses.asdict(spec), run_dir=str(run_dir))
        return self.run(part, spec=dataclasses.asdict(spec), run_dir=str(run_dir), **arguments)

    def new_run_dir(self, spec: TaskSpec) -> str:
        """Return a directory for a recording whose time is measured."""
        return self.run_dir(f"recording-{spec.key}")

    def run_dir(self, name: str) -> str:
        """Return the directory of a run by its name."""
        return str(self._runs_dir / name)
