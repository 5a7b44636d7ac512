"""Answers as plain data, which ``--json`` prints and tables are made from."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.attribution.planner import Plan
from explaind_tf.attribution.verdicts import Smoothness, Verdict
from explaind_tf.cli.plain import plain
from explaind_tf.errors import UnbalancedLedgerError
from explaind_tf.ledgers.conditioning import DOUBTFUL

Ledger = xr.Dataset | xr.DataTree
Facts = dict[str, Any]

# A ledger in a store may be larger than memory, so it is read in blocks of this size.
_BLOCK_BYTES = 256 * 2**20
_KEPT = (names.INPUT, names.OUTPUT)


def plan_facts(plan: Plan) -> Facts:
    """Return a plan with its total time."""
    return asdict(plan) | {"seconds": plan.seconds}


def ledger_facts(ledger: Ledger, *, first_row: int, top: int) -> tuple[Facts, UnbalancedLedgerError | None]:
    """Return whether a ledger balances, its totals, and its sums and rankings along the axes that it keeps.

    Parameters
    ----------
    ledger : xarray.Dataset or xarray.DataTree
        In memory or in a store.
    first_row : int
        Number of the first input in the file that it came from.
    top : int
        Most proponents and opponents of each input and output.

    Returns
    -------
    tuple
        The facts, and the error that `check` raised, or None.
    """
    entries: list[Facts] = []
    error: UnbalancedLedgerError | None = None
    shares: dict[str, dict[Any, Facts]] = {}
    for start, part in _parts(ledger):
        try:
            part.explaind.check()
        except UnbalancedLedgerError as found:
            error = error or _in_file(found, first_row + start)
        entries += _entries(part, first_row + start, top)
        _add_shares(shares, part, ledger.sizes[names.INPUT])
    terms = {term: np.array([entry["terms"][term] for entry in entries]) for term in ledger.explaind.terms}
    moved = np.array([entry["movement"] for entry in entries])
    residual = np.abs(terms[names.RESIDUAL])
    facts = {
        **{
            key: ledger.attrs[key]
            for key in ("run_id", "measurement", "tolerance", "method", "quadrature_nodes")
        },
        "steps": [int(ledger.attrs["first_step"]), int(ledger.attrs["last_step"])],
        "inputs": int(ledger.sizes[names.INPUT]),
        "outputs": int(ledger.sizes[names.OUTPUT]),
        "balances": error is None,
        "movement": float(moved.max()),
        "residual": float(residual.max()),
        # Where the movement is 0, the share is the residual itself.
        "residual_share": float((residual / np.where(moved == 0, 1, moved)).max()),
        "mean_change": float(np.mean([entry["final"] - entry["initial"] for entry in entries])),
        "mean_terms": {term: float(values.mean()) for term, values in terms.items()},
        "mean_magnitudes": {term: float(np.abs(values).mean()) for term, values in terms.items()},
        "by": {
            axis: [{axis: label, **values} for label, values in labels.items()]
            for axis, labels in shares.items()
        },
        "poorly_conditioned": _poorly_conditioned(ledger),
        "entries": entries,
    }
    return facts, error


def _poorly_conditioned(ledger: Ledger) -> float | None:
    """Return the share of the samples' entries of which more than a tenth rests on cancelled gradients, if it is known."""
    if names.CANCELLED not in ledger or names.DATA not in ledger:
        return None
    return float((ledger.explaind.conditioning() > DOUBTFUL).mean())


def _parts(ledger: Ledger) -> Iterator[tuple[int, Ledger]]:
    """Yield blocks of the ledger's inputs that fit into memory, each with the position of its first input."""
    count = ledger.sizes[names.INPUT]
    nodes = ledger.subtree if isinstance(ledger, xr.DataTree) else [ledger]
    size = max(1, _BLOCK_BYTES * count // max(1, sum(node.nbytes for node in nodes)))
    if size >= count:
        yield 0, ledger.load()
        return
    for start in range(0, count, size):
        yield start, ledger.isel({names.INPUT: slice(start, start + size)}, missing_dims="ignore").load()


def _in_file(error: UnbalancedLedgerError, offset: int) -> UnbalancedLedgerError:
    """Say which row input 0 of a message is, unless it is the first."""
    return UnbalancedLedgerError(f"Counting inputs from row {offset}: {error}") if offset else error


def _entries(ledger: Ledger, first_row: int, top: int) -> list[Facts]:
    root = ledger.to_dataset() if isinstance(ledger, xr.DataTree) else ledger
    totals = {term: ledger.explaind.total(term).transpose(*_KEPT).values for term in ledger.explaind.terms}
    initial, final = (root[name].transpose(*_KEPT).values for name in (names.INITIAL, names.FINAL))
    ranked = {}
    if isinstance(ledger, xr.Dataset) and names.SAMPLE in ledger.dims:
        ranked = {"proponents": ledger.explaind.proponents(top), "opponents": ledger.explaind.opponents(top)}
    return [
        {
            "row": first_row + i,
            "output": root[names.OUTPUT].values[o],
            "initial": float(initial[i, o]),
            "final": float(final[i, o]),
            "movement": float(root[names.MOVEMENT].values[i]),
            "terms": {term: float(values[i, o]) for term, values in totals.items()},
            **{name: _ranks(ranking, i, o, "influence") for name, ranking in ranked.items()},
        }
        for i in range(final.shape[0])
        for o in range(final.shape[1])
    ]


def _ranks(ranking: xr.Dataset, i: int, o: int, value: str) -> list[Facts]:
    """Return the ranked samples of one input and output, with their values under a name."""
    pairs = zip(ranking[names.SAMPLE].values[i, o], ranking["influence"].values[i, o], strict=True)
    return [{"sample": sample, value: influence} for sample, influence in pairs]


def response_facts(answer: xr.Dataset, *, first_row: int, top: int) -> Facts:
    """Return the final values of a counterfactual answer, and the samples on which they depend most.

    Parameters
    ----------
    answer : xarray.Dataset
        By sample.
    first_row : int
        Number of the first input in the file that it came from.
    top : int
        Most samples for and against each input and output.
    """
    final = answer[names.FINAL].transpose(*_KEPT).values
    ranked = {"proponents": answer.explaind.proponents(top), "opponents": answer.explaind.opponents(top)}
    return {
        "run_id": answer.attrs["run_id"],
        "measurement": answer.attrs["measurement"],
        "covers": answer.attrs["covers"],
        "inputs": int(answer.sizes[names.INPUT]),
        "outputs": int(answer.sizes[names.OUTPUT]),
        "samples": int(answer.sizes[names.SAMPLE]),
        "entries": [
            {
                "row": first_row + i,
                "output": answer[names.OUTPUT].values[o],
                "final": float(final[i, o]),
                **{name: _ranks(ranking, i, o, "response") for name, ranking in ranked.items()},
            }
            for i in range(final.shape[0])
            for o in range(final.shape[1])
        ],
    }


def verdict_facts(verdict: Verdict) -> Facts:
    """Return how well responses foretold trainings without some samples, as numbers and in a sentence."""
    return {
        "text": str(verdict),
        "correlation": verdict.correlation.value,
        "low": verdict.correlation.low,
        "high": verdict.correlation.high,
        "found_over_foretold": verdict.size,
        "retrainings": verdict.retrainings,
        "left_out": verdict.left_out,
    }


def smoothness_facts(smoothness: Smoothness) -> Facts:
    """Return how smooth a training is, as numbers and in a sentence."""
    return {"text": str(smoothness), "value": smoothness.value, "by_layer": smoothness.by_layer}


def _add_shares(shares: dict[str, dict[Any, Facts]], ledger: Ledger, inputs: int) -> None:
    """Add up the terms by layer, by step and by variable, as means over all inputs and outputs."""
    if isinstance(ledger, xr.DataTree):
        terms = ledger.explaind.terms
        for path, node in ((node.path.strip("/"), node.dataset) for node in ledger.subtree):
            for term in (term for term in terms if path and term in node):
                mean = float(node[term].sum() / inputs / node.sizes[names.OUTPUT])
                _add(shares.setdefault("variable", {}), path, term, mean)
        return
    for axis in (axis for axis in (names.LAYER, names.STEP) if axis in ledger.dims):
        for term in (term for term in ledger.explaind.terms if axis in ledger[term].dims):
            sums = ledger[term].sum([dim for dim in ledger[term].dims if dim != axis])
            for label, value in zip(ledger[axis].values, sums.values, strict=True):
                mean = float(value / inputs / ledger.sizes[names.OUTPUT])
                _add(shares.setdefault(axis, {}), plain(label), term, mean)


def _add(labels: dict[Any, Facts], label: Any, term: str, value: float) -> None:
    found = labels.setdefault(label, {})
    found[term] = found.get(term, 0.0) + value
