"""Workers that try mutants, and a watch over their time and memory."""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.hostile.probe import CRASH, HANG, MEMORY

MOST_SECONDS = 10.0
# Of the clock: other programs may take the processor, but a reader that waits for a pipe takes none.
MOST_SECONDS_OF_THE_CLOCK = 60.0
MOST_BYTES = 10**9
# A process keeps some of what it compiled. After so many mutants another one takes its place. To start one takes as long as
# two hundred mutants.
_MUTANTS_EACH = 2000
_START_SECONDS = 300.0


@dataclass(frozen=True)
class Found:
    """What came of a mutant."""

    run: str
    seed: int
    kind: str
    place: str
    outcome: str
    message: str
    seconds: float
    grown: int


class Worker:
    """A process that tries mutants of one run, and is started anew when it ends or hangs."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._tried = 0

    def _start(self) -> None:
        command = [sys.executable, "-m", "tests.hostile", "--worker", str(self._run_dir)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._lines, self._tried = queue.Queue(), 0
        threading.Thread(target=_read, args=(self._process, self._lines), daemon=True).start()
        if self._lines.get(timeout=_START_SECONDS) is None:
            raise RuntimeError(f"The worker for {self._run_dir} does not start: run {' '.join(command)}.")

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def try_mutant(self, seed: int) -> Found:
        """Return what comes of a mutant."""
        if self._process is None or self._tried >= _MUTANTS_EACH:
            self.stop()
            self._start()
        assert self._process is not None and self._process.stdin is not None
        self._tried += 1
        print(seed, file=self._process.stdin, flush=True)
        made = self._lines.get(timeout=_START_SECONDS) or {"kind": "none", "place": "none"}
        begin, busy = time.monotonic(), _processor_seconds(self._process.pid)
        while True:
            try:
                answer = self._lines.get(timeout=0.2)
                break
            except queue.Empty:
                spent = _processor_seconds(self._process.pid) - busy
                if spent > MOST_SECONDS or time.monotonic() - begin > MOST_SECONDS_OF_THE_CLOCK:
                    answer = {"outcome": HANG, "message": f"{spent:.0f} s of the processor", "grown": 0}
                    self.stop()
                    break
        if answer is None:
            assert self._process is not None
            answer = {"outcome": CRASH, "message": f"exit code {self._process.wait()}", "grown": 0}
            self._process = None
        if answer["grown"] > MOST_BYTES:
            answer["outcome"] = MEMORY
        seconds = time.monotonic() - begin
        return Found(self._run_dir.name, seed, seconds=seconds, **made, **answer)


def _read(process: subprocess.Popen[str], lines: "queue.Queue[dict[str, Any] | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(json.loads(line))
    lines.put(None)


def _processor_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def tried(run_dirs: list[Path], mutants: int, first: int, workers: int) -> Iterator[Found]:
    """Yield what comes of mutants, as it is found.

    Parameters
    ----------
    run_dirs : list of Path
        The runs; each has its share of the mutants.
    mutants, first : int
        Number of mutants, and the number of the first.
    workers : int
        Number of processes.
    """
    left: queue.Queue[int] = queue.Queue()
    for seed in range(first, first + mutants):
        left.put(seed)
    found: queue.Queue[Found | BaseException | None] = queue.Queue()

    def work() -> None:
        own = [Worker(run_dir) for run_dir in run_dirs]
        try:
            while True:
                seed = left.get_nowait()
                found.put(own[seed % len(own)].try_mutant(seed))
        except queue.Empty:
            found.put(None)
        except BaseException as error:
            found.put(error)
        finally:
            for worker in own:
                worker.stop()

    for _ in range(workers):
        threading.Thread(target=work, daemon=True).start()
    working = workers
    while working:
        item = found.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            working -= 1
        else:
            yield item
