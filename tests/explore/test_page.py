"""The parts of the page hold the numbers of the run's answers, and the Python beside them gives the same."""

import io
import json
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import explaind_tf as xtf
from explaind_tf.explore import calls, questions, reading, saving
from explaind_tf.explore.app import clicked_view, draw, make_app
from explaind_tf.explore.asker import Stage
from explaind_tf.explore.inputs import Inputs, stored_samples
from explaind_tf.explore.session import Session
from explaind_tf.explore.view import View
from explaind_tf.report.numbers import signed
from explaind_tf.runs import RecordedRun
from tests.explore.conftest import settled
from tests.explore.runs import (
    COUNT,
    HOSTILE,
    HOSTILE_LAYER,
    IMAGES,
    LABELS,
    TEST_IMAGES,
    TOKENS,
    checkpoints,
    record_classifier,
    record_language,
    record_path,
)

SessionOf = Callable[..., Session]


def parts(session: Session, view: View) -> dict[str, str]:
    """Return what each part of the page holds, as the JSON that the browser gets."""
    settled(session, view)
    drawn = draw(session, view, {}, "/token/", None)
    keys = ("facts", "inputs", "answer", "samples", "response", "taking", "status")
    return {
        key: json.dumps(value, default=lambda one: one.to_plotly_json(), ensure_ascii=False)
        for key, value in zip(keys, drawn, strict=False)
    }


def numbers_of(code: str) -> xr.DataArray:
    """Run Python as a reader would paste it, and return its ``numbers``."""
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope["numbers"]


def test_the_numbers_are_those_of_the_run(image_session: Session, image_run: Path):
    view = View(inputs=(2,))
    (stage,) = settled(image_session, view).values()
    run = xtf.open_run(image_run)
    predicted = image_session.loaded.predictions.predicted[[2]]
    ledger = run.attribute(
        TEST_IMAGES[[2]],
        xtf.measurements.log_prob(predicted),
        axes=("sample", "step", "layer"),
        progress=False,
    )
    xr.testing.assert_equal(stage.ledger.drop_vars("input"), ledger.drop_vars("input"))
    shown = parts(image_session, view)["answer"]
    raised, lowered = reading.strongest(reading.entries_of(stage.ledger, 0), 8)
    theirs = ledger.explaind.proponents(8).isel(input=0, output=0)
    assert [one.key for one in raised] == theirs.sample.values[: len(raised)].tolist()
    for one in (*raised, *lowered):
        assert signed(one.value) in shown
    assert len(raised) + len(lowered) == COUNT


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(View(inputs=(2,)), marks=pytest.mark.nightly),
        View(inputs=(2, 5, 7), step=3, layer="net/classes"),
        pytest.param(View(inputs=(2,), layer="net/hidden"), marks=pytest.mark.nightly),
        pytest.param(View(inputs=(2,), step=1), marks=pytest.mark.nightly),
    ],
    ids=lambda view: view.query if isinstance(view, View) else None,
)
def test_the_copied_call_gives_the_same_numbers(image_session: Session, view: View):
    ((question, stage),) = settled(image_session, view).items()
    found = numbers_of(calls.account(image_session, view, question, stage))
    entries = reading.entries_of(stage.ledger, 0, step=view.step, layer=view.layer)
    np.testing.assert_array_equal(found.values, entries.values)
    assert found.sample.values.tolist() == entries.sample.values.tolist()


def test_the_coarse_answer_and_its_call(image_session: Session):
    from explaind_tf.explore.computing import stages_of
    from explaind_tf.progress import Progress

    view, loaded = View(inputs=(4,)), image_session.loaded
    question = questions.account_of((4,), loaded.sizes)
    coarse, fine = stages_of(loaded, image_session.inputs, question, 1e-3, Progress(False))
    assert (coarse.is_final, fine.is_final) == (False, True)
    by_layer_and_step = numbers_of(calls.account(image_session, view, question, coarse))
    by_layer = [one.value for one in reading.by_axis(coarse.ledger, "layer", 0)]
    np.testing.assert_allclose(by_layer_and_step.sum("step"), by_layer, rtol=1e-9)
    # What the coarse answer says to have missed is what it misses of the refined one.
    causes = [term for term in fine.ledger.explaind.terms if term not in ("residual", "rounding")]
    fine_total, coarse_total = (
        sum(stage.ledger.explaind.total(term).item() for term in causes) for stage in (fine, coarse)
    )
    fine_total += fine.ledger.explaind.total("rounding").item()
    left = [abs(stage.ledger.explaind.total("residual").item()) for stage in (coarse, fine)]
    assert 0 < abs(fine_total - coarse_total) <= sum(left) * (1 + 1e-6)
    stated = reading.balance_of(coarse.ledger, 0).residual_share * coarse.ledger.movement.item()
    assert stated == pytest.approx(left[0])
    fine.ledger.explaind.check()


def test_a_sample_shows_the_inputs_that_it_moved(image_session: Session):
    view = View(inputs=(2,), samples=("sample 3",))
    found = settled(image_session, view)
    question, stage = next((q, s) for q, s in found.items() if q.kind == "reach")
    helped, hurt = reading.reached(stage.ledger, ["sample 3"], 0, 8)
    assert len(helped) + len(hurt) == len(TEST_IMAGES)
    assert all(one.value > 0 for one in helped) and all(one.value < 0 for one in hurt)
    shown = parts(image_session, view)["samples"]
    for one in (*helped, *hurt):
        assert signed(one.value) in shown and f"step {one.step}" in shown
    call = calls.reach(image_session, view, question, ["sample 3"], stage)
    by_input = numbers_of(call).values
    assert [by_input[one.position] for one in helped] == pytest.approx(
        [one.value for one in helped], rel=1e-12
    )


def test_a_group_is_the_sum_of_its_samples(image_session: Session):
    groups = image_session.loaded.groups
    assert {"label 0", "label 1", "label 2"} <= set(groups)
    view = View(inputs=(2,), group="label 1")
    ledger = next(s for q, s in settled(image_session, view).items() if q.kind == "account").ledger
    one_by_one = sum(reading.together(ledger, [key], 0) for key in groups["label 1"])
    assert reading.together(ledger, groups["label 1"], 0) == pytest.approx(one_by_one)
    assert f"{len(groups['label 1'])} samples, as one" in parts(image_session, view)["samples"]


def test_parts_are_drawn_again_only_if_they_change(image_session: Session):
    view = View(inputs=(2,))
    settled(image_session, view)
    *_, drawn = draw(image_session, view, {}, "/token/", None)
    again = draw(image_session, view, drawn, "/token/", None)
    assert all(type(part).__name__ == "NoUpdate" for part in again[:6])


def test_a_click_into_the_map_chooses_step_and_layer(image_session: Session):
    clicked = {"points": [{"x": 3, "y": 1}]}
    assert clicked_view(image_session, View(inputs=(2,)), clicked) == "?input=2&step=3&layer=net%2Fclasses"
    for broken in (
        None,
        {},
        {"points": []},
        {"points": [{"x": "a", "y": 9}]},
        {"points": [{"x": 1, "y": 99}]},
    ):
        assert type(clicked_view(image_session, View(inputs=(2,)), broken)).__name__ == "NoUpdate"


def test_orders_and_classes(image_session: Session):
    wrong = parts(image_session, View(sort="wrong"))["inputs"]
    assert "wrong and sure first" in wrong
    loaded = image_session.loaded
    is_wrong = loaded.predictions.predicted != image_session.inputs.y
    surest = np.where(is_wrong, loaded.predictions.probability, -1).argmax()
    assert wrong.index(f'"input {surest}"') == min(wrong.index(f'"input {i}"') for i in range(9))
    label = str(image_session.inputs.y[0])
    of_class = parts(image_session, View(label=label))["inputs"]
    count = int((image_session.inputs.y == image_session.inputs.y[0]).sum())
    assert f"Inputs 1 to {count} of {count}" in of_class
    assert "No input has the class" in parts(image_session, View(label="none"))["inputs"]


def test_an_address_of_another_run_shows_what_there_is(image_session: Session):
    shown = parts(
        image_session, View(inputs=(1, 999), step=999, layer="none", samples=("none",), group="none")
    )
    assert "input 1" in shown["answer"] and "999" not in shown["answer"]


def test_files(image_session: Session):
    app = make_app(image_session, "/token/")
    client = app.server.test_client()
    view = View(inputs=(2,), step=1)
    assert client.get("/token/save/answer.csv").status_code == 404
    stage = next(iter(settled(image_session, view).values()))
    rows = client.get(f"/token/save/answer.csv{view.query}").text.splitlines()
    entries = reading.entries_of(stage.ledger, 0, step=1)
    assert rows[0] == "sample,label,change (nats)"
    assert [float(row.split(",")[2]) for row in rows[1:]] == entries.values.tolist()
    whole = client.get(f"/token/save/answer.html{view.query}").text
    assert "step 1 only" in whole and "<h1>run: input 2</h1>" in whole
    assert client.get(f"/token/save/manifest.json{view.query}").status_code == 404


def test_the_saved_answer_is_the_whole_ledger(image_session: Session, tmp_path: Path):
    stage = next(iter(settled(image_session, View(inputs=(2,))).values()))
    zipfile.ZipFile(io.BytesIO(saving.as_zarr(stage.ledger))).extractall(tmp_path)
    xr.testing.assert_equal(xr.open_zarr(tmp_path, consolidated=False).load(), stage.ledger)


def test_what_was_answered_is_found_again(image_session: Session, image_run: Path, session_of: SessionOf):
    view = View(inputs=(2,))
    settled(image_session, view)
    again = session_of(RecordedRun(image_run), image_session.inputs)
    ((_, state),) = again.ask(view)
    assert state.status == "done", "read from the disk, not computed"
    other = session_of(RecordedRun(image_run), image_session.inputs, tolerance=1e-2)
    assert other.ask(view)[0][1].status != "done"


@pytest.mark.nightly
def test_a_damaged_answer_is_told_and_computed_again(
    image_session: Session, image_run: Path, session_of: SessionOf
):
    view = View(inputs=(6,))
    settled(image_session, view)
    again = session_of(RecordedRun(image_run), image_session.inputs)
    (question,) = again.questions(view)
    kept = again.kept.directory / questions.digest_of(question, again.loaded.about) / "zarr.json"
    while not kept.exists():  # it is written once the answer is shown
        threading.Event().wait(0.02)
    kept.write_text("{")
    assert settled(again, view)[question].is_final
    assert "damaged" in parts(again, view)["status"]


@pytest.mark.nightly
def test_hostile_text_stays_text(tmp_path: Path, session_of: SessionOf):
    run_dir = record_classifier(tmp_path / "run", HOSTILE)
    session = session_of(RecordedRun(run_dir), Inputs(TEST_IMAGES, np.array(HOSTILE[:9])))
    for sample in (HOSTILE[0], HOSTILE[5]):
        view = View(inputs=(0, 1), samples=(sample,))
        assert session.chosen_samples(view) == [sample]
        shown = parts(session, view)
        assert "dangerously" not in "".join(shown.values()).lower()
        assert "\u202e" not in shown["inputs"] + shown["answer"] + shown["samples"]
        stage = next(s for q, s in settled(session, view).items() if q.kind == "account")
        question = session.questions(view)[0]
        page = saving.as_html(session, view, question, stage)
        assert "<script>document.title" not in page and "<img src=x" not in page
        csv = saving.as_csv(session, view, question, stage)
        assert "'=HYPERLINK" in csv


def test_hostile_layers_stay_text(image_session: Session):
    from explaind_tf.explore.page.answers import answer

    view = View(inputs=(2,))
    ((question, stage),) = settled(image_session, view).items()
    renamed = stage.ledger.assign_coords(layer=[HOSTILE_LAYER, "net/classes"])
    shown = json.dumps(
        answer(image_session, view, {question: Stage(renamed, is_final=True)}),
        default=lambda one: one.to_plotly_json(),
    )
    # Plotly reads tags in texts, so there the name is escaped. Elsewhere Dash escapes it.
    graph = shown[shown.index('"data"') : shown.index('"layout"')]
    assert "<b>" not in graph and "&lt;b&gt;" in graph


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["path", "checkpoints"])
def test_without_samples_the_page_says_what_can_be_asked(kind: str, tmp_path: Path, session_of: SessionOf):
    if kind == "path":
        session = session_of(RecordedRun(record_path(tmp_path / "run")), Inputs(TEST_IMAGES))
    else:
        run = checkpoints(tmp_path)
        session = session_of(run, Inputs(TEST_IMAGES), open_to_ask=lambda: run)
    view = View(inputs=(1,), step=0, samples=("x",), response="answer")
    shown = parts(session, view)
    assert "cannot tell training samples apart" in shown["answer"]
    assert "choose a layer or a step" in shown["answer"]
    assert shown["samples"] == shown["response"] == "[]"
    ((question, stage),) = settled(session, view).items()
    if kind == "path":
        call = calls.account(session, view, question, stage).replace(
            "# x: the inputs, as they were given", "from tests.explore.runs import TEST_IMAGES as x"
        )
        by_layer = [one.value for one in reading.by_axis(stage.ledger, "layer", 0)]
        np.testing.assert_allclose(numbers_of(call).sum("step").values, by_layer, rtol=1e-12)
    assert "layer,step,change" in saving.as_csv(session, view, question, stage)


@pytest.mark.nightly
def test_tokens_are_shown_with_what_each_did(tmp_path: Path, session_of: SessionOf):
    run_dir = record_language(tmp_path / "run")
    words = ["zero", "one", "<two>", "three", "four"]
    session = session_of(RecordedRun(run_dir), Inputs(TOKENS[:3, :-1]), vocabulary=words)
    view = View(inputs=(1,), samples=("text 4",))
    stage = next(s for q, s in settled(session, view).items() if q.kind == "tokens")
    values = reading.of_tokens(stage.ledger, "text 4", 0)
    assert values.sum() == pytest.approx(
        reading.together(
            settled(session, View(inputs=(1,)))[session.questions(view)[0]].ledger, ["text 4"], 0
        ),
        rel=1e-3,
    )
    shown = parts(session, view)
    for token, value in zip(TOKENS[4, 1:], values, strict=True):
        assert words[token] in shown["samples"] and signed(float(value)) in shown["samples"]
    assert " ".join(words[token] for token in TOKENS[1, :-1]) in shown["inputs"]


@pytest.mark.nightly
def test_without_inputs_stored_samples_are_looked_at(image_run: Path, tmp_path: Path):
    run = RecordedRun(image_run)
    inputs = stored_samples(run)
    np.testing.assert_array_equal(inputs.x, IMAGES)
    np.testing.assert_array_equal(inputs.y.reshape(-1), LABELS)
    assert "training samples" in inputs.note
    with pytest.raises(xtf.RefusedError, match="stores no training samples"):
        stored_samples(checkpoints(tmp_path))


@pytest.mark.nightly
def test_a_run_that_is_being_recorded_is_explored_up_to_its_last_step(tmp_path: Path):
    import keras

    from explaind_tf.explore.page.frame import facts

    seen: list[str] = []

    def look(batch: int, logs: Any) -> None:
        if batch != 2 or seen:
            return
        session = _quietly_made(tmp_path / "run")
        view = View(inputs=(0,), samples=("1",))
        stages = settled(session, view)
        account = next(s for q, s in stages.items() if q.kind == "account")
        seen.append(f"{account.ledger.sizes['step']} {json.dumps(facts(session), default=str)}")
        assert session.asker.close(60)

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=look)
    record_classifier(tmp_path / "run", None, callback)
    assert "still being recorded" in seen[0]
    assert 1 <= int(seen[0].split()[0]) <= 3


def _quietly_made(run_dir: Path) -> Session:
    from tests.explore.conftest import made

    with pytest.warns(UserWarning, match="still running"):
        reader = RecordedRun(run_dir)
    return made(reader, Inputs(TEST_IMAGES))


def test_runs_open_their_page(image_run: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    run = xtf.open_run(image_run)
    page = run.explore(TEST_IMAGES, measurement=xtf.measurements.margin([0] * len(TEST_IMAGES)))
    assert opened == [page.url]
    assert page.url in page._repr_html_() and page.url in repr(page)
    settled(page.session)
    assert page.session.loaded.measured.title == "the measurement 'margin'"
    assert page.session.loaded.run is not run, "the run may be asked meanwhile"
    assert page.close()


@pytest.mark.nightly
def test_the_counterfactual_answer_and_its_verdict(tmp_path: Path, session_of: SessionOf):
    run_dir = record_classifier(
        tmp_path / "run", [f"sample {i}" for i in range(COUNT)], eager=False, retrain=True
    )
    session = session_of(RecordedRun(run_dir), Inputs(TEST_IMAGES))
    view = View(inputs=(2,), response="answer")
    question, stage = next((q, s) for q, s in settled(session, view).items() if q.kind == "counterfactual")
    predicted = session.loaded.predictions.predicted[[2]]
    theirs = xtf.open_run(run_dir).counterfactual(
        TEST_IMAGES[[2]], xtf.measurements.log_prob(predicted), progress=False
    )
    np.testing.assert_array_equal(stage.ledger.response.values, theirs.response.values)
    shown = parts(session, view)["response"]
    assert "No verdict was asked for" in shown
    for value in theirs.explaind.proponents(3).influence.values.reshape(-1):
        assert signed(float(value)) in shown
    call = calls.counterfactual(session, view, question).replace(
        "# x: the inputs, as they were given", "from tests.explore.runs import TEST_IMAGES as x"
    )
    np.testing.assert_array_equal(numbers_of(call).values, stage.ledger.response.mean("input").values[0])
    verdict = View(inputs=(2,), response="verdict")
    judged = next(s for q, s in settled(session, verdict).items() if q.kind == "verdict")
    assert judged.ledger.attrs["verdict"] in parts(session, verdict)["response"].replace('\\"', '"')
