"""Flows: momentum splits over sources as gradients do."""

import numpy as np
import pytest

from explaind_tf.kernel.use_rows import Update
from explaind_tf.laws import AdamWLaw, LionLaw, Moments, RMSpropLaw, SGDLaw
from explaind_tf.replay.flows import Flow, flows_at_start, total
from explaind_tf.replay.path_replay import Grouping
from explaind_tf.runs.format.step_records import Snapshot

RNG = np.random.default_rng(0)
RATE = 0.1


def update_of(law, size=4):
    after = Moments(np.zeros(size), RNG.normal(size=size), np.abs(RNG.normal(size=size)) + 0.1)
    factors = law.factors(after, after, RATE, 3)
    gain, direct = (np.asarray(x) if np.ndim(x) else x for x in (factors.gain, factors.direct))
    return Update(gain, direct, np.asarray(factors.pull), np.asarray(0.5))


@pytest.mark.parametrize(
    "law",
    [
        AdamWLaw(beta_1=0.9, beta_2=0.99, epsilon=1e-7, weight_decay=0.0),
        SGDLaw(momentum_share=0.9, nesterov=True, weight_decay=0.0),
        RMSpropLaw(momentum_share=0.9, epsilon=1e-7, weight_decay=0.0),
        LionLaw(beta_1=0.9, beta_2=0.99, weight_decay=0.0),
    ],
    ids=["AdamW", "Nesterov", "RMSprop", "Lion"],
)
def test_what_sources_do_apart_adds_up_to_what_they_do_together(law):
    update, gradients = update_of(law), RNG.normal(size=(3, 4))
    momentum = RNG.normal(size=(3, 4))
    apart = [Flow(np.zeros(4), own) for own in momentum]
    together = Flow(np.zeros(4), momentum.sum(axis=0))
    for flow, gradient in zip(apart, gradients, strict=True):
        flow.receive(gradient)
    together.receive(gradients.sum(axis=0))
    moved = sum(flow.displace(law, update) for flow in apart)
    np.testing.assert_allclose(moved, together.displace(law, update), rtol=1e-12)
    np.testing.assert_allclose(sum(flow.momentum for flow in apart), together.momentum, rtol=1e-12)


@pytest.mark.parametrize(
    "law",
    [
        SGDLaw(momentum_share=0.9, nesterov=True, weight_decay=0.0),
        RMSpropLaw(momentum_share=0.9, epsilon=1e-7, weight_decay=0.0),
        LionLaw(beta_1=0.9, beta_2=0.99, weight_decay=0.0),
    ],
    ids=["Nesterov", "RMSprop", "Lion"],
)
def test_a_known_momentum_tells_the_displacement_without_the_gradient(law):
    update, start, gradient = update_of(law), RNG.normal(size=4), RNG.normal(size=4)
    first = Flow(np.zeros(4), start)
    first.receive(gradient)
    moved = first.displace(law, update)
    second = Flow(np.zeros(4), start)
    np.testing.assert_allclose(second.reach(first.momentum, law, update), moved, rtol=1e-12)


def test_sources_before_the_run():
    theta, momentum = np.zeros(4), np.ones(4)
    plain = flows_at_start(Snapshot(theta, []), has_regularizer=False, grouping=None)
    assert list(plain) == ["data"]
    grouping = Grouping(np.zeros(3, int), 2, coupled=False)
    start = Snapshot(theta, [], momentum=momentum)
    found = flows_at_start(start, has_regularizer=True, grouping=grouping)
    assert list(found) == ["data", "rounding", "regularizer", "carryover"]
    assert found["data"].momentum.shape == (2, 4)
    np.testing.assert_array_equal(found["carryover"].momentum, momentum)


def test_the_total_of_a_split_cause_is_over_its_groups():
    np.testing.assert_array_equal(total(np.ones((2, 4))), [2.0] * 4)
    np.testing.assert_array_equal(total(np.ones(4)), np.ones(4))
