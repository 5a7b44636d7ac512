"""The part of the report that shows the counterfactual answer beside the ledger's."""

import dataclasses
import html
from pathlib import Path

import pytest
import xarray as xr

import explaind_tf as xtf
from explaind_tf import RefusedError, measurements
from explaind_tf.report import Asked, Section, account_for, write_report
from tests.helpers import LABELS, X
from tests.report.conftest import HOSTILE
from tests.report.test_report import Reader

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def answer(section: Section) -> xr.Dataset:
    return section.run.counterfactual(X[:2], measurements.log_prob(LABELS[:2]), progress=False)


def page_of(section: Section, tmp_path: Path) -> str:
    write_report(tmp_path / "report.html", [section])
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def part_of(page: str) -> str:
    """Return the part about the counterfactual answer."""
    (part,) = (part for part in page.split("<section ") if part.startswith('id="model-0-counterfactual"'))
    return part.partition("</section>")[0]


def test_both_answers_are_shown(section: Section, answer: xr.Dataset, tmp_path: Path):
    page = page_of(dataclasses.replace(section, counterfactual=answer), tmp_path)
    reader = Reader(page)
    assert reader.open == []
    assert 'href="#model-0-counterfactual"' in page
    part = part_of(page)
    assert "<script" not in part
    assert f"shown {html.escape(HOSTILE)}" in part
    # Two inputs. Each of ten samples stands on both sides once, under plus or under minus.
    assert part.count("What it did (nats)") == part.count("nats per unit of weight)") == 2
    responses = answer.response.isel(input=0, output=0)
    assert part.count("<li>") == 2 * 2 * 10
    for sign, chosen in (("+", responses.max()), ("−", responses.min())):
        assert f"{sign}{abs(float(chosen)):#.3g}" in part
    assert "No verdict was asked for" in part and "--validate 8" in part
    assert "run.counterfactual(x, xtf.measurements.log_prob(predicted))" in html.unescape(part)


def test_the_verdict_is_shown(section: Section, answer: xr.Dataset, tmp_path: Path):
    told = answer.assign_attrs(verdict="Rank correlation & more")
    part = part_of(page_of(dataclasses.replace(section, counterfactual=told), tmp_path))
    assert "Rank correlation &amp; more" in part
    assert "No verdict" not in part


def test_a_refusal_is_a_sentence(section: Section, tmp_path: Path):
    part = part_of(page_of(dataclasses.replace(section, counterfactual=HOSTILE), tmp_path))
    assert "There is no counterfactual answer" in part
    assert html.escape(HOSTILE) in part


def test_it_is_left_out_unless_asked_for(section: Section, tmp_path: Path):
    assert "model-0-counterfactual" not in page_of(section, tmp_path)


def test_a_verdict_needs_the_question():
    with pytest.raises(ValueError, match="--validate needs --counterfactual"):
        Asked(X, retrainings=2)


def test_refusals_are_sentences_of_the_section(section: Section, monkeypatch: pytest.MonkeyPatch):
    asked = Asked(X[:2], shown=1, counterfactual=True, retrainings=2)
    told = {"title": "A model", "introduction": "", "progress": False}
    found = account_for(section.run, asked, **told)
    # By day tests keep no training step.
    assert isinstance(found.counterfactual, xr.Dataset)
    assert found.counterfactual.attrs["verdict"].startswith("There is no verdict. ")
    assert found.counterfactual.sizes["input"] == 1

    def refuse(self: xtf.Run, *arguments: object, **options: object) -> xr.Dataset:
        raise RefusedError("Why not.")

    monkeypatch.setattr(xtf.Run, "counterfactual", refuse)
    assert account_for(section.run, asked, **told).counterfactual == "Why not."
