"""What the package makes of a changed run: the same answer, a refusal, another answer, or a traceback of something else."""

import hashlib
import io
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console

import explaind_tf as xtf
from explaind_tf.cli.plain import plain
from explaind_tf.cli.run_facts import run_facts
from explaind_tf.cli.tables import run_table
from explaind_tf.runs.graphs import loaded, training_graph
from explaind_tf.runs.graphs.graph_files import GraphContents
from tests.helpers import X
from tests.hostile.authors_word import ROUNDING, is_authors_word
from tests.hostile.mutations import Mutant
from tests.hostile.run_files import RunFiles

SAME, REFUSED, TOLD, AUTHORS = "same", "refused", "told by verify", "the author's word"
OTHER, RAW, HANG, MEMORY, CRASH = "other answer", "traceback", "hang", "memory", "crash"
GOOD = (SAME, REFUSED, TOLD, AUTHORS)

# What a run's own errors are. Others come from TensorFlow, NumPy or Python, and say nothing of the run.
_OWN = (xtf.RunFormatError, xtf.RefusedError, xtf.UnbalancedLedgerError)
# These are the package's own if a line of it raised them.
_RAISED_HERE = (ValueError, MemoryError, FileNotFoundError)
# Files in memory, where there are such: each mutant writes some twenty.
_MEMORY_DISK = next((place for place in ("/dev/shm",) if Path(place).is_dir()), None)
_PACKAGE = str(Path(xtf.__file__).parent)


@dataclass(frozen=True)
class Outcome:
    """What came of a mutant, with the message of an error."""

    name: str
    message: str = ""


@dataclass(frozen=True)
class Answer:
    """What a user learns of a run: what `info` shows, and a ledger."""

    facts: dict[str, Any]
    ledger: xr.Dataset

    def names(self) -> dict[str, Any]:
        """Return all that is no number of the ledger."""
        arrays = {
            str(name): array.values.tolist()
            for name, array in self.ledger.variables.items()
            if array.dtype.kind != "f"
        }
        return {
            **self.facts,
            "sizes": dict(self.ledger.sizes),
            "attributes": sorted(self.ledger.attrs),
            **arrays,
        }

    def distance(self, other: "Answer") -> float:
        """Return how far the ledgers are apart, as a share of the movement; infinite if they have other axes."""
        if dict(self.ledger.sizes) != dict(other.ledger.sizes):
            return float("inf")
        scale = float(other.ledger["movement"].max())
        pairs = [
            (self.ledger[name].values, array.values)
            for name, array in other.ledger.variables.items()
            if array.dtype.kind == "f"
        ]
        found = max(float(np.abs(one - two).max(initial=0)) for one, two in pairs) / scale
        return float("inf") if np.isnan(found) else found


def ask(run_dir: Path, known: dict[bytes, xr.Dataset], shown: Any = None) -> tuple[Answer, xtf.Run]:
    """Ask a run for everything it tells, as a user does who does not know where it comes from.

    A run whose records and graphs are read as those of a known one has its ledger. Facts that are those shown are not
    printed again.
    """
    run = xtf.open_run(run_dir)
    found = plain(run_facts(run))
    facts = {name: value for name, value in found.items() if name not in ("run", "bytes")}
    if facts != shown:
        Console(file=io.StringIO()).print(run_table(found))
    content = content_of(run)
    if content not in known:
        ledger = run.attribute(X[:1], axes=("sample", "layer", "step"), progress=False)
        ledger.explaind.check()
        known[content] = ledger
    return Answer(facts, known[content]), run


def content_of(run: xtf.Run) -> bytes:
    """Return a digest of all of a run that questions read: what is left out here is for information."""
    described = replace(run.manifest, created="", environment={}, level_reason="", shards=())
    digest = hashlib.sha256(repr(described).encode())
    for position in range(len(run.step_store.records)):
        digest.update(run.step_store.records.read_example(position).SerializeToString(deterministic=True))
    for step in run.steps:
        run.step_store.recorded(int(step))
    for row in range(len(run.samples)):
        sample = run.samples.read(row)
        digest.update(
            repr((sample.id, [array.tolist() for array in (*sample.inputs, *sample.targets)])).encode()
        )
    return digest.digest()


class Probe:
    """Asks changed runs, and compares the answers with that of the run as it was.

    Parameters
    ----------
    run_dir : Path
        The run as it was. Its graphs are loaded once, and again only where their files differ.
    """

    def __init__(self, run_dir: Path) -> None:
        self.files = RunFiles.read(run_dir)
        self._loaded: dict[tuple[str, str], Any] = {}
        self._is_kept = True  # what is loaded of the run as it was, from here on not of others
        self._known: dict[bytes, xr.Dataset] = {}
        with self._graphs_kept(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._expected, run = ask(run_dir, self._known)
            run.verify(progress=False)
            self._functions = run.graphs.functions
        self._is_kept = False

    def outcome(self, mutant: Mutant) -> Outcome:
        """Return what comes of a mutant."""
        with tempfile.TemporaryDirectory(prefix="hostile-", dir=_MEMORY_DISK) as directory:
            run_dir = Path(directory) / "run"
            mutant.files.write(run_dir)
            return self._asked(run_dir, mutant)

    def _asked(self, run_dir: Path, mutant: Mutant) -> Outcome:
        try:
            with self._graphs_kept(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                answer, run = ask(run_dir, dict(self._known), self._expected.facts)
                distance = answer.distance(self._expected)
                others = _other_names(answer, self._expected)
                if not others and distance <= ROUNDING:
                    return Outcome(SAME)
                try:
                    run.verify(progress=False)
                except _OWN as error:
                    return Outcome(TOLD, str(error))
        except Exception as error:
            return Outcome(REFUSED if _is_own(error) else RAW, _told(error))
        told = f"the ledger by {distance:.2g} of the movement, and {others}"
        is_forward = mutant.place.startswith("graphs: ") and self._differs_in_predictions_alone(run)
        place = "graphs: the forward pass" if is_forward else mutant.place
        return Outcome(AUTHORS if is_authors_word(place, distance) else OTHER, told)

    def _differs_in_predictions_alone(self, run: xtf.Run) -> bool:
        """Return whether the functions of losses are those of the run as it was, and the forward pass is another."""
        own, found = self._functions, run.graphs.functions
        return found.losses_digest == own.losses_digest and found.forward.digest != own.forward.digest

    @contextmanager
    def _graphs_kept(self) -> Iterator[None]:
        """Load graphs with the same files only once, and look at them once: it takes longer than all else."""
        owners = {"Graphs": loaded, "TrainingGraph": training_graph, "of": GraphContents}
        before = {name: getattr(owner, name) for name, owner in owners.items()}

        def kept(name: str) -> Any:
            def load(path: Path, **options: Any) -> Any:
                key = name, _digest(path)
                if key in self._loaded:
                    return self._loaded[key]
                found = before[name](path, **options)
                if self._is_kept:
                    self._loaded[key] = found
                return found

            return load

        try:
            for name, owner in owners.items():
                setattr(owner, name, kept(name))
            yield
        finally:
            for name, owner in owners.items():
                setattr(owner, name, before[name])


def _digest(directory: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _is_own(error: Exception) -> bool:
    if isinstance(error, _OWN):
        return True
    last = traceback.extract_tb(error.__traceback__)[-1]
    return type(error) in _RAISED_HERE and last.filename.startswith(_PACKAGE) and "raise" in (last.line or "")


def _told(error: Exception) -> str:
    if _is_own(error):
        return str(error)
    return "".join(traceback.format_exception(error)[-6:])


def _other_names(found: Answer, expected: Answer) -> list[str]:
    """Return what differs beside the numbers."""
    one, two = found.names(), expected.names()
    return [key for key in two if one.get(key) != two[key]] + [key for key in one if key not in two]
