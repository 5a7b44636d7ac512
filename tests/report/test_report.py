"""The report: one file that parses, loads nothing from elsewhere, and shows hostile text as text."""

import base64
import dataclasses
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import UnbalancedLedgerError
from explaind_tf.report import Section, calls, write_report
from tests.helpers import X
from tests.report.conftest import HOSTILE

pytestmark = pytest.mark.slow

_VOID = {"meta", "img", "br", "hr", "input", "link", "wbr"}


class Reader(HTMLParser):
    """Collects elements and text; finds elements that are left open or closed twice."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.elements)


@pytest.fixture(scope="module")
def page(section: Section, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, [section, section])
    assert path.stat().st_size < 6e6
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    return Reader(page)


def test_it_parses(page: str, reader: Reader):
    assert page.startswith("<!DOCTYPE html>")
    assert reader.open == []
    assert [reader.count(tag) for tag in ("html", "title", "main", "h1", "h2")] == [1, 1, 1, 1, 2]


def test_element_ids_are_unique(reader: Reader):
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in reader.elements if tag == "a"]
    assert links
    assert all(link.removeprefix("#") in ids for link in links)


def test_nothing_comes_from_elsewhere(page: str, reader: Reader):
    for tag, attributes in reader.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "#").startswith(("#", "data:")), (tag, attributes)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for t, a in reader.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_hostile_text_is_text(reader: Reader):
    text = " ".join(reader.text)
    assert HOSTILE in text  # as a title, a verdict
    assert f"shown {HOSTILE}" in text  # by a sample's id
    scripts = [attributes for tag, attributes in reader.elements if tag == "script"]
    # Plotly, the page's own script, and the data of each figure: 6, one for each layer, and one for each input.
    figures = [attributes for attributes in scripts if attributes.get("type") == "application/json"]
    assert (len(scripts), len(figures)) == (2 + 2 * (6 + 2 + 2), 2 * (6 + 2 + 2))
    assert all(attributes.get("src") is None for attributes in scripts)


def test_figures_have_no_text_that_plotly_would_read_as_tags(page: str):
    figures = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)
    assert len(figures) == 2 * (6 + 2 + 2)
    assert any("&lt;script" in json.dumps(json.loads(figure)) for figure in figures)  # shown as text
    for figure in figures:
        assert "<img" not in json.dumps(json.loads(figure))
        assert "<script" not in json.dumps(json.loads(figure))


def test_every_figure_says_how_to_read_it(reader: Reader):
    plots = [attributes for _, attributes in reader.elements if attributes.get("class") == "plot"]
    assert len(plots) == 2 * (6 + 2 + 2)
    for plot in plots:
        assert plot["role"] == "img"
        assert plot["tabindex"] == "0"
        assert plot["aria-label"]
    text = " ".join(reader.text)
    assert text.count("Make this figure in Python") == len(plots)


def test_it_shows_every_part(reader: Reader):
    text = " ".join(" ".join(reader.text).split())
    for part in (
        "Does it balance?",
        "When did the predictions form?",
        "Where in the model?",
        "From which training data?",
        "Which kinds of training data, and when?",
        "Training steps 6",
        "Mean KL divergence",
        "change that no other entry explains. It should be too small to see.",
        "weight decay",
        "proponents",
        "opponents",
        "not the effect of training again",
        "Each weight of a layer",
    ):
        assert part in text, part


def test_images_are_png(reader: Reader):
    images = [attributes for tag, attributes in reader.elements if tag == "img"]
    # Two sections, each with two inputs of which one is a picture; ten samples that raised or lowered each prediction.
    assert len(images) == 2 * (1 + 2 * 10)
    pixels = tf.io.decode_png(base64.b64decode(images[0]["src"].removeprefix("data:image/png;base64,")))
    assert pixels.shape[:2] == (4, 4)
    grey = next(a for a in images if a["alt"] == "a picture")
    pixels = tf.io.decode_png(base64.b64decode(grey["src"].removeprefix("data:image/png;base64,")))
    np.testing.assert_allclose(pixels, 128, atol=1)


def test_different_predictions_are_owned_up_to(section: Section, tmp_path: Path):
    balance = section.balance.copy(deep=True)
    # The outputs of the first input differ by 0.001, so the residual decides its class.
    balance.initial[0] = balance.final[0] = [0.0, 0.001]
    for term in balance.explaind._root.data_vars.keys() - {"initial", "final"}:
        balance[term][0] = 0.0
    balance.data[0, 1], balance.residual[0, 1] = -0.002, 0.002
    balance.movement[0] = 10.0
    write_report(tmp_path / "report.html", [dataclasses.replace(section, balance=balance, unit="logits")])
    text = (tmp_path / "report.html").read_text()
    assert "90.0%" in text
    assert "output for its own class is larger by at most 0.001 logits" in text


def test_an_unbalanced_ledger_is_not_reported(section: Section, tmp_path: Path):
    wrong = section.samples.assign(data=section.samples.data * 1.5)
    with pytest.raises(UnbalancedLedgerError):
        write_report(tmp_path / "report.html", [dataclasses.replace(section, samples=wrong)])
    assert not (tmp_path / "report.html").exists()


def test_the_calls_make_the_figures(section: Section, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(xtf, "open_run", lambda path: section.run)  # its functions are compiled already
    named: dict[str, Any] = {"x": X, "…": None}
    groups = "groups = dict.fromkeys(run.samples.ids, 'all')"
    made = {
        calls.balance(section): go.Waterfall,
        calls.kernel_machine(section): go.Scatter,
        calls.steps(section): go.Bar,
        calls.layer_steps(section): go.Heatmap,
        calls.layers(section): go.Bar,
        calls.weights(section, section.run.layers[0]): go.Heatmap,
        calls.samples(section, 1): go.Bar,
        re.sub("groups = ….*", groups, calls.groups(section)): go.Heatmap,
    }
    for call, kind in made.items():
        namespace = dict(named)
        *before, _ = re.split("\n(?=.*plot)", call)
        exec("\n".join(before), namespace)
        (drawing,) = (line for line in call.splitlines() if ".plot." in line)
        assert isinstance(eval(drawing, namespace).data[0], kind), call
        numbers = call.partition(drawing)[2]
        exec(numbers, namespace)


def test_a_report_without_groups_says_how_to_get_them(section: Section, tmp_path: Path):
    path = tmp_path / "report.html"
    write_report(path, [dataclasses.replace(section, groups=None)])
    assert 'axes=("group", "step")' in html.unescape(path.read_text())


def test_nothing_to_report_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no sections, so there is nothing to report"):
        write_report(tmp_path / "report.html", [])
