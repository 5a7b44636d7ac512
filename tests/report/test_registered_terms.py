"""A term of another package is in every figure and table, like the terms of this package."""

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

from explaind_tf import constants as names
from explaind_tf import terms
from explaind_tf.analysis import fidelity
from explaind_tf.cli import answer_facts, tables
from explaind_tf.demo import fidelity_table
from explaind_tf.report import Section, html
from tests.helpers import Recorded
from tests.report.figures.test_figures import by_layer_and_step

AVERAGING = terms.Term(
    name="averaging",
    axes=frozenset((names.LAYER, names.STEP)),
    label="averaged weights",
    colour="#123456",
    description="change by averaging weights",
    meaning="the last steps put together",
)


@pytest.fixture(name="ledger")
def _ledger(monkeypatch: pytest.MonkeyPatch) -> xr.Dataset:
    """Return a ledger in which averaging moved every prediction by 1."""
    monkeypatch.setattr(terms, "_TABLE", dict(terms._TABLE))
    terms.register(AVERAGING)
    found = by_layer_and_step()
    found[names.MOVEMENT] = "input", np.ones(found.sizes["input"])
    found[AVERAGING.name] = xr.full_like(found[names.WEIGHT_DECAY], 1 / (3 * 6))
    found[names.RESIDUAL] = xr.zeros_like(found[names.RESIDUAL])
    found[names.FINAL] = found[names.INITIAL] + sum(map(found.explaind.total, found.explaind.terms))
    attributes = ("run_id", "method", "quadrature_nodes", "first_step", "last_step")
    return found.assign_attrs(dict.fromkeys(attributes, 0))


def printed(table: object) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_in_figures(ledger: xr.Dataset):
    for figure in (ledger.explaind.plot.layers(), ledger.explaind.plot.steps(by="term")):
        (bars,) = (trace for trace in figure.data if trace.name == AVERAGING.label)
        assert bars.marker.color == AVERAGING.colour
    (bars,) = ledger.explaind.plot.balance().data
    assert f"{AVERAGING.label} +1" in bars.y


@pytest.mark.slow
def test_in_the_report(ledger: xr.Dataset, small_run: Recorded):
    section = Section(
        title="",
        introduction="",
        run=small_run.open(),
        curves=None,
        balance=ledger,
        unit="logits",
        path=ledger,
        samples=None,
        weights=xr.DataTree(),
        inputs=[],
        predictions=[],
        show_sample=None,
    )
    told = html._balance(section, "model-0")
    assert f"<dt>{AVERAGING.label}</dt><dd>{AVERAGING.meaning}</dd>" in told
    assert f'<th scope="row">{AVERAGING.label}</th><td>+1.00</td>' in told


def test_in_tables_of_the_command_line(ledger: xr.Dataset):
    found, error = answer_facts.ledger_facts(ledger, first_row=0, top=3)
    assert error is None
    assert found["mean_terms"][AVERAGING.name] == pytest.approx(1)
    balance, *by_axis = map(printed, tables.ledger_tables(found, top=3))
    assert len(by_axis) == 2
    for table in (balance, *by_axis):
        assert AVERAGING.name in table


def test_in_the_table_of_the_demo(ledger: xr.Dataset):
    assert f"mean |{AVERAGING.label}|" in printed(fidelity_table("", fidelity(ledger), ledger, "nats"))
