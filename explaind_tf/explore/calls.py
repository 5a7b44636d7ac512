"""The Python that gives the numbers that the page shows."""

from collections.abc import Sequence
from typing import Any

from explaind_tf import constants as names
from explaind_tf.explore.asker import Stage
from explaind_tf.explore.questions import COARSE_NODES, COARSE_TOLERANCE, RETRAININGS, SHARE, Question
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import View
from explaind_tf.runs.format import structure as struct


def account(session: Session, view: View, question: Question, stage: Stage) -> str:
    """Return Python whose ``numbers`` are those of the samples, or of layers and steps if there are no samples."""
    lines = [
        *_head(session, question.inputs),
        _attribute(session, stage),
        _chosen(view, names.DATA),
    ]
    if names.SAMPLE not in stage.ledger.dims:
        lines[-1] = 'terms = [ledger[name] for name in ledger.explaind.terms if "layer" in ledger[name].dims]'
        lines.append(
            f'numbers = sum(terms[1:], terms[0]).isel(output={view.output}).mean("input")  # by layer and step'
        )
        return "\n".join(lines)
    for axis, value in ((names.STEP, view.step), (names.LAYER, view.layer)):
        if value is not None and axis in stage.ledger.dims:
            lines.append(f"entries = entries.sel({axis}={value!r})")
    lines.append('numbers = entries.sum([dim for dim in entries.dims if dim != "sample"])')
    lines.append("numbers.to_series().sort_values()")
    return "\n".join(lines)


def reach(session: Session, view: View, question: Question, chosen: Sequence[Any], stage: Stage) -> str:
    """Return Python whose ``numbers`` are what the chosen samples did to each input."""
    return "\n".join(
        [
            *_head(session, question.inputs),
            _attribute(session, stage),
            f"chosen = {list(chosen)!r}",
            f"entries = ledger.data.isel(output={view.output}).sel(sample=chosen)",
            'numbers = entries.sum([dim for dim in entries.dims if dim != "input"])',
            "numbers.to_series().sort_values()",
        ]
    )


def counterfactual(session: Session, view: View, question: Question) -> str:
    """Return Python whose ``numbers`` are the responses."""
    lines = [
        *_head(session, question.inputs),
        "answer = run.counterfactual(x, measurement)",
        f'numbers = answer.response.isel(output={view.output}).mean("input")',
    ]
    if question.kind == "verdict":
        lines.append(f"print(answer.explaind.validate({RETRAININGS}, {SHARE}))  # trains {RETRAININGS} times")
    return "\n".join(lines)


def _head(session: Session, positions: Sequence[int]) -> list[str]:
    loaded = session.loaded
    assert loaded is not None  # there is an answer
    lines = [
        "import numpy as np",
        "import explaind_tf as xtf",
        "",
        session.about.opening,
        *session.inputs.code,
    ]
    if len(positions) < len(session.shown):
        rows = list(positions)
        if isinstance(session.run.manifest.inputs, struct.Leaf):
            lines.append(f"x = x[{rows}]")
        else:
            lines += ["import keras", f"x = keras.tree.map_structure(lambda part: part[{rows}], x)"]
    code = loaded.measured.code(list(positions))
    imports = ["import functools", "import keras"] if "keras." in code else []
    return [*lines, *imports, f"measurement = {code}"]


def _attribute(session: Session, stage: Stage) -> str:
    axes = ", ".join(f'"{axis}"' for axis in names.AXES if axis in stage.ledger.dims)
    how = f"tolerance={session.about.tolerance!r}"
    if not stage.is_final:
        how = f"tolerance={COARSE_TOLERANCE}, max_nodes={COARSE_NODES}"
    return f"ledger = run.attribute(x, measurement, axes=({axes},), {how})"


def _chosen(view: View, variable: str) -> str:
    return f'entries = ledger.{variable}.isel(output={view.output}).mean("input")'
