"""Facts as tables, for people."""

from collections.abc import Callable
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from explaind_tf import constants as names
from explaind_tf.levels import MEANING
from explaind_tf.terms import all_terms

Facts = dict[str, Any]

# Predictions that are shown one by one; --json has them all.
_MOST_SHOWN: Final = 10


def _table(title: str, *columns: str, caption: str = "", show_header: bool = True) -> Table:
    table = Table(
        title=escape(title),
        title_justify="left",
        caption=caption,
        caption_justify="left",
        show_header=show_header,
    )
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and show_header else "left", overflow="fold")
    return table


def run_table(facts: Facts) -> Table:
    """Return a table of a run's facts."""
    table = _table(f"{facts['run']}", "what", "value", show_header=False)
    weights = f"{facts['weights']:,} in {len(facts['variables'])} variables of {len(facts['layers'])} layers"
    constants = ", ".join(f"{key}={value}" for key, value in facts["optimizer"].get("constants", {}).items())
    losses = ", ".join(f"{loss['name']} ({loss['reduction']})" for loss in facts["loss"].get("losses", []))
    rows = {
        "run id": facts["run_id"],
        "recorded": f"{facts['created']}, {facts['status']}",
        "steps": f"{facts['steps']:,}"
        + (f", all weights every {facts['every']} steps" if facts["every"] > 1 else ""),
        "diverged": _divergence(facts["diverged"]),
        "samples": f"{facts['samples']:,} ({facts['contents']:,} different contents)",
        "weights": weights,
        "layers": "\n".join(facts["layers"]),
        "optimizer": f"{facts['optimizer']['law']}({constants})"
        if facts["optimizer"]["law"]
        else "not known",
        "loss": losses + (" and regularisers" if facts["loss"].get("has_regularizer") else ""),
        "inputs": "\n".join(map(_tensor, facts["inputs"])),
        "targets": "\n".join(map(_tensor, facts["targets"])),
        "outputs": "\n".join(map(_tensor, facts["outputs"])),
        "level": f"{facts['level']}: {MEANING[facts['level']]}",
        "why no more": facts["level_reason"],
        "axes": ", ".join(facts["axes"]) or "none: the run has no complete step",
        "not allowed": ", ".join(facts["unlisted_operations"]),
        "size on disk": f"{facts['bytes']:,} bytes",
        "environment": ", ".join(_fact(key, value) for key, value in facts["environment"].items()),
    }
    for what, value in rows.items():
        if value:
            table.add_row(what, escape(_printable(str(value))))
    return table


def _divergence(found: Facts | None) -> str:
    return "" if found is None else f"in step {found['step']:,}, which began in {found['began_in']}"


def _fact(name: str, value: Any) -> str:
    """Return a fact in words, with its parts."""
    if isinstance(value, dict):
        parts = (
            f"{key} {part:.2g}" if isinstance(part, float) else f"{key} {part}" for key, part in value.items()
        )
        return f"{name.replace('_', ' ')}: {', '.join(parts)}"
    return f"{name} {', '.join(map(str, value)) if isinstance(value, list) else value}"


def _printable(text: str) -> str:
    """Return a text in which what controls a terminal is written out. A run's names may hold it."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def _tensor(tensor: Facts) -> str:
    sizes = ", ".join("?" if size is None else str(size) for size in tensor["shape"][1:])
    return f"{tensor['name']}: {tensor['dtype']}({', '.join(filter(None, ('batch', sizes)))})"


def ledger_tables(facts: Facts, *, top: int) -> list[Table]:
    """Return the balance of a ledger, and a table for each axis that it keeps."""
    tables = [_balance(facts)]
    tables += [_by_axis(axis, rows, top) for axis, rows in facts["by"].items()]
    if any("proponents" in entry for entry in facts["entries"]):
        tables.append(_samples(facts["entries"]))
    return tables


def _balance(facts: Facts) -> Table:
    first, last = facts["steps"]
    table = _table(
        f"{facts['measurement']} of {facts['inputs']:,} inputs × {facts['outputs']:,} outputs, steps {first} to {last}",
        "final − initial =",
        "mean",
        "mean |…|",
    )
    for term, mean in facts["mean_terms"].items():
        magnitude = facts["mean_magnitudes"][term]
        if magnitude or term == names.RESIDUAL:
            table.add_row(term, f"{mean:+.4g}", f"{magnitude:.4g}")
    table.add_section()
    table.add_row("sum", f"{facts['mean_change']:+.4g}", "")
    table.add_row("largest movement", f"{facts['movement']:.4g}", "")
    verdict = "balances" if facts["balances"] else "DOES NOT BALANCE"
    table.add_row("largest |residual|", f"{facts['residual']:.4g}", "")
    table.add_row(
        "largest |residual| / movement",
        f"{facts['residual_share']:.2g}",
        f"{verdict} to {facts['tolerance']:g}",
    )
    if facts["poorly_conditioned"] is not None:
        table.add_row("entries of samples on cancelled gradients", f"{facts['poorly_conditioned']:.1%}", "")
    return table


def _by_axis(axis: str, rows: list[Facts], top: int) -> Table:
    terms = [term for term in all_terms() if any(row.get(term) for row in rows)]
    # Only the strongest steps or layers, in their own order.
    strength = sorted(rows, key=lambda row: -abs(sum(row.get(term, 0.0) for term in terms)))
    shown = [row for row in rows if any(row is strong for strong in strength[:top])]
    caption = (
        "" if len(shown) == len(rows) else f"the {len(shown)} strongest of {len(rows)}; --top shows more"
    )
    table = _table(f"Mean change by {axis}", axis, *terms, caption=caption)
    for row in shown:
        table.add_row(escape(str(row[axis])), *(f"{row.get(term, 0.0):+.4g}" for term in terms))
    return table


def _samples(entries: list[Facts]) -> Table:
    def change(entry: Facts) -> str:
        return f"{entry['initial']:.3f} → {entry['final']:.3f}"

    columns = ("before → after", "proponents", "opponents")
    return _rankings("Training samples", columns, entries, change, "influence")


def _rankings(
    title: str, columns: tuple[str, str, str], entries: list[Facts], value: Callable[[Facts], str], of: str
) -> Table:
    """Return a table with a row for each prediction: its value, and the samples for and against it.

    Parameters
    ----------
    title : str
        The table's title.
    columns : tuple of str
        Headings of the value, the proponents and the opponents.
    entries : list of dict
        The predictions.
    value : callable
        Takes an entry and returns its value in words.
    of : str
        The key of a sample's number.
    """
    shown = entries[:_MOST_SHOWN]
    caption = (
        "" if len(shown) == len(entries) else f"{len(shown)} of {len(entries)} predictions; --json has all"
    )
    table = _table(title, "row", "output", *columns, caption=caption)
    for entry in shown:
        table.add_row(
            str(entry["row"]),
            escape(str(entry["output"])),
            value(entry),
            *(escape(_ranking(entry[side], of)) for side in ("proponents", "opponents")),
            end_section=True,
        )
    return table


def _ranking(samples: list[Facts], of: str) -> str:
    return "\n".join(f"{sample[of]:+.4g} {sample['sample']}" for sample in samples)


def response_tables(facts: Facts) -> list[Table | str]:
    """Return a counterfactual answer: a table of the predictions, and what is known of its worth."""
    what = (
        f"{facts['measurement']} of {facts['inputs']:,} inputs × {facts['outputs']:,} outputs after training, by the "
        f"weights of {facts['samples']:,} samples in {facts['covers']}"
    )
    columns = ("final", "falls without", "rises without")
    found: list[Table | str] = [
        _rankings(what, columns, facts["entries"], lambda entry: f"{entry['final']:.4g}", "response"),
        "A number is the response: to first order, leaving the sample out changes the value by minus this number.",
    ]
    if facts["smoothness"] is not None:
        found.append(f"{facts['smoothness']['text']} (1: first order holds; 0: it does not.)")
    if facts["verdict"] is not None:
        found.append(facts["verdict"]["text"])
    else:
        found.append(
            "No verdict. How well do these numbers foretell training without samples? --validate 8 trains 8 times "
            "without 5 % of the samples, and compares."
        )
    return found
