"""Routes and plans: what an answer would do, and how that is decided."""

from dataclasses import replace

import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf.attribution.planner import _shares
from explaind_tf.attribution.shared_work import Work, share_out
from tests.helpers import X

pytestmark = pytest.mark.slow


@pytest.fixture(name="run", scope="module")
def _run(small_run):
    return small_run.open()


@pytest.fixture(name="problem", scope="module")
def _problem():
    return X[:4], xtf.measurements.log_prob([0, 1, 1, 0])


@pytest.mark.parametrize(
    ("axes", "options"),
    [
        ((), {}),
        (("step", "layer"), {}),
        (("parameter",), {"steps": range(2, 5)}),
        (("sample", "layer"), {}),
        (("group", "step"), {"groups": np.arange(len(X)) % 3}),
        (("group",), {"groups": np.arange(len(X))}),
    ],
)
def test_a_plan_says_what_is_done(run, problem, axes, options):
    plan = run.plan(*problem, axes=axes, **options)
    ledger = run.attribute(*problem, axes=axes, progress=False, **options)
    assert plan.method == ledger.attrs["method"]
    assert plan.steps == len(options.get("steps", run.steps))
    assert (plan.inputs, plan.outputs) == (4, 1)
    assert plan.nodes >= 1
    assert plan.peak_bytes > plan.ledger_bytes > 0
    assert plan.seconds == pytest.approx(plan.steps * sum(part.seconds for part in plan.passes))
    text = str(plan)
    for part in plan.passes:
        assert part.name in text and part.count > 0 and part.seconds > 0
    assert "memory" in text


def test_a_plan_for_workers(run, problem):
    plan = run.plan(*problem, axes=("sample",), workers=3)
    assert plan.shared.workers == 3 and plan.shared.moved_bytes > plan.ledger_bytes
    assert plan.shared.seconds > 0 and "3 workers" in str(plan)
    with pytest.raises(ValueError, match="workers must be 1 or more; got 0"):
        run.plan(*problem, workers=0)


WORK = Work(1.0, 60.0, 60.0, 10, 1000, 1, row_bytes=10**6, ledger_bytes=10**5, working_bytes=10**8)


def test_more_workers_help_as_long_as_there_are_parts():
    # One worker reads and does all; ten share the inputs, too; more than that share the steps alone.
    moved = share_out(WORK, 1).moved_bytes / 1e8
    assert share_out(WORK, 1).seconds == pytest.approx(121 + moved)
    assert share_out(WORK, 10).seconds == pytest.approx(1 + 6 + 6, rel=0.02)
    assert share_out(WORK, 60).seconds == pytest.approx(1 + 6 + 1 + 59 / 100, rel=0.02)
    assert 20 < share_out(WORK, 1).enough < 200
    # What is moved grows with each segment, and in the end costs more than it saves.
    assert share_out(WORK, 1000).seconds > share_out(WORK, 60).seconds
    alone = replace(WORK, inputs=1, back=0.0)
    assert share_out(alone, 8).enough == 1


def test_a_plan_refuses_what_attribute_refuses(run, problem):
    with pytest.raises(ValueError, match="Unknown axes"):
        run.plan(*problem, axes=("weather",))
    with pytest.raises(TypeError, match="colour"):
        run.plan(*problem, colour="red")


@pytest.mark.parametrize(
    ("axes", "options", "passes"),
    [
        (("sample",), {}, 1),
        (("sample", "layer"), {}, 2),
        (("group",), {"groups": np.arange(len(X)) % 3, "steps": range(2, 5)}, 1),
        ((), {"by": "learning_rate"}, 1),
    ],
)
def test_a_plan_of_a_counterfactual_answer(run, problem, axes, options, passes):
    plan = run.plan_counterfactual(*problem, axes, **options)
    answer = run.counterfactual(*problem, axes, progress=False, **options)
    assert (plan.steps, plan.inputs, plan.outputs, len(plan.passes)) == (len(run.steps), 4, 1, passes)
    assert plan.ledger_bytes == answer.response.nbytes < plan.peak_bytes
    assert all(part.seconds > 0 and part.name in str(plan) for part in plan.passes)


def test_a_plan_refuses_what_counterfactual_refuses(run, problem):
    with pytest.raises(ValueError, match="A response is by the weight"):
        run.plan_counterfactual(*problem, ("step",))
    with pytest.raises(TypeError, match="colour"):
        run.plan_counterfactual(*problem, colour="red")


@pytest.mark.parametrize("limit", [0, -5])
def test_memory_limit_must_be_positive(run, problem, limit):
    with pytest.raises(ValueError, match="memory_limit must be a positive number"):
        run.attribute(*problem, memory_limit=limit)


def test_less_memory_plans_less_memory(run, problem):
    much, little = (run.plan(*problem, axes=("sample",), memory_limit=limit) for limit in (10**9, 10**5))
    assert little.peak_bytes < much.peak_bytes


def test_shares_make_the_mean_by_straight_lines():
    tried = np.array([0, 2, 8])
    weights = _shares(tried, 10)
    assert weights.sum() == pytest.approx(1)
    line = np.arange(10)
    # The last tried step stands for those after it.
    assert weights @ tried == pytest.approx(np.minimum(line, 8).mean())
