"""Long attributions: written to a store block by block of inputs, so an interrupted one can go on."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import xarray as xr

from explaind_tf.attribution.engine import Answerer, ledger_bytes
from explaind_tf.ledgers.store import LedgerStore
from explaind_tf.measurements import Measurement
from explaind_tf.progress import Progress
from explaind_tf.questions.options import Options
from explaind_tf.runs.storage.files import AnyPath
from explaind_tf.sweeps.choose import sweeps_of
from explaind_tf.sweeps.routes import Routes
from explaind_tf.sweeps.task import Task

# Share of the memory limit that the ledger of one block may take.
_LEDGER_SHARE = 0.25


def attribute_to(
    path: str | AnyPath, task: Task, measurement: Measurement, answerer: Answerer, progress: Progress
) -> xr.Dataset | xr.DataTree:
    """Answer a task block by block into a store. It goes on where an earlier call with the same task ended.

    Raises
    ------
    OtherWriterError
        If another attribution is writing there.
    ValueError
        If there is something else at the path.
    """
    with LedgerStore(path, fingerprint(task, measurement)) as store:
        routes = answerer.choose(task, measurement)
        for part in _parts(task, routes, store.inputs_done):
            store.append(answerer.answer(part, measurement, routes, progress))
        store.finish()
    return store.open()


def _parts(task: Task, routes: Routes, done: int) -> Iterator[Task]:
    size = _inputs_at_once(task, routes)
    for start in range(done, len(task.everything), size):
        yield replace(task, everything=task.everything.take(slice(start, start + size)))


def _inputs_at_once(task: Task, routes: Routes) -> int:
    """Return the number of inputs in a block. Each block costs a pass over the path, so it is as large as memory allows."""
    per_input = ledger_bytes(task, routes) // len(task.everything)
    fitting = max(1, int(task.memory_limit * _LEDGER_SHARE) // per_input)
    # The last sweep holds the most memory.
    return min(fitting, sweeps_of(task, routes)[-1].inputs_at_once)


def fingerprint(task: Task, measurement: Measurement, **further: Any) -> str:
    """Return a digest of all that an answer depends on: run, options, measurement, inputs, and what else is given."""
    digest = hashlib.sha256(json.dumps(_asked(task, measurement) | further).encode())
    arrays = [*task.everything.inputs, *task.everything.targets]
    if task.question.groups is not None:
        arrays.append(task.question.groups.of_id)
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _asked(task: Task, measurement: Measurement) -> dict[str, Any]:
    """Return what is asked, by name. It holds every option that a ledger depends on, also new ones."""
    question = task.question
    # Several spellings of these options mean the same, so their checked form is used.
    understood: dict[str, Any] = {
        "axes": sorted(question.axes),
        "layers": question.layers,
        "steps": [question.first, question.stop],
        "groups": None if question.groups is None else [str(label) for label in question.groups.labels],
    }
    options = {
        entry.name: understood[entry.name]
        if entry.name in understood
        else described(getattr(question.options, entry.name))
        for entry in fields(Options)
        if entry.metadata["changes_ledger"]
    }
    return {
        "run": task.run.run_id,
        "measurement": [measurement.name, described(measurement.function)],
        **options,
    }


def described(value: Any) -> str:
    """Return a text for a value (for a function, with what it closes over) that is the same in every process."""
    if isinstance(value, CodeType):
        return f"{value.co_code.hex()} {value.co_names} {[described(part) for part in value.co_consts]}"
    if isinstance(value, FunctionType):
        held = [*(value.__defaults__ or ()), *(cell.cell_contents for cell in value.__closure__ or ())]
        return f"{value.__qualname__} {described(value.__code__)} {[described(part) for part in held]}"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{type(value).__qualname__} {[described(getattr(value, f.name)) for f in fields(value)]}"
    if hasattr(value, "get_config"):
        return f"{type(value).__qualname__} {value.get_config()!r}"
    # The address in memory does not belong to the value.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
