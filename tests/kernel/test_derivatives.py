"""The compiled derivatives against loops of GradientTape, in float64."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel import contractions, trials
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch, Block, PureModel, StepPath, TrainingPoint
from explaind_tf.kernel.quadrature.nodes import Quadrature, by_node, nodes_and_weights

SIZE, STATE = 4 * 5 + 5 * 3, 3


def _measure(variables, constants, inputs, targets):
    first, second, state = variables
    return tf.tanh(inputs[0] @ first) @ second * tf.exp(state)


def _losses(variables, constants, inputs, targets, weights, scales):
    outputs = _measure(variables, constants, inputs, [])
    return scales[0] * weights[0] * tf.reduce_sum((outputs - targets[0]) ** 2, axis=1)


def _coupled_losses(variables, constants, inputs, targets, weights, scales):
    outputs = _measure(variables, constants, inputs, [])
    outputs = outputs - tf.reduce_mean(outputs, axis=0)
    return scales[0] * weights[0] * tf.reduce_sum((outputs - targets[0]) ** 2, axis=1)


def _model(losses=_losses):
    return PureModel(
        measure=_measure,
        losses=losses,
        loss_scales=lambda variables, constants, inputs, targets, weights: (
            1 / tf.reduce_sum(weights[0])[None]
        ),
        regularizer=lambda variables, constants, inputs: tf.reduce_sum(variables[0] ** 2),
        trained=(tf.TensorSpec((4, 5), tf.float64), tf.TensorSpec((5, 3), tf.float64)),
        state=(tf.TensorSpec((STATE,), tf.float64),),
        constants=(),
        inputs=(tf.TensorSpec((None, 4), tf.float64),),
        measure_targets=(),
        loss_targets=(tf.TensorSpec((None, 3), tf.float64),),
        loss_weights=(tf.TensorSpec((None,), tf.float64),),
    )


@pytest.fixture(name="problem")
def _problem():
    rng = np.random.default_rng(0)
    start = rng.normal(size=SIZE + STATE)
    displacement = 0.1 * rng.normal(size=SIZE + STATE)
    path = StepPath(start, start + displacement, displacement, [])
    samples = [rng.normal(size=(6, 4))], [rng.normal(size=(6, 3))], [rng.uniform(0.5, 2, 6)]
    batch = Batch(*samples, np.array([1 / 6]))
    return path, Block([rng.normal(size=(5, 4))], []), batch, rng


def _unpack(point):
    return [tf.reshape(point[:20], (4, 5)), tf.reshape(point[20:35], (5, 3)), point[35:]]


def _arguments(batch):
    return batch.inputs, batch.targets, batch.weights, batch.scales


def _jacobian(function, point):
    variable = tf.constant(point)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(variable)
        values = function(variable)
    return tape.jacobian(values, variable, experimental_use_pfor=False).numpy()


@pytest.mark.parametrize("count", [1, 4, 5])  # few directions have a graph for their number
def test_measures_and_jvps_along_a_path_equal_the_jacobian(problem, count):
    path, block, _, rng = problem
    derivatives = Derivatives(_model())

    def jacobian(t):
        point = path.start + t * path.displacement
        return _jacobian(lambda z: _measure(_unpack(z), [], block.inputs, []), point)

    nodes, owners = np.array([0.3, 0.8, 0.1, 0.3]), np.array([2, 4, 0, 1])
    table = by_node(nodes, owners)
    assert table.nodes.tolist() == [0.1, 0.3, 0.8]  # inputs 1 and 2 are measured together
    directions = rng.normal(size=(count, SIZE + STATE))
    found = derivatives.measurement.path_jvp(path, table, directions, block)
    expected = np.stack([jacobian(t)[i] @ directions.T for t, i in zip(nodes, owners, strict=True)])
    np.testing.assert_allclose(found, expected[table.order].swapaxes(1, 2), atol=1e-12)
    measured = [
        _measure(_unpack(path.start + t * path.displacement), [], block.inputs, [])[i]
        for t, i in zip(nodes, owners, strict=True)
    ]
    np.testing.assert_allclose(
        derivatives.measurement.path_values(path, table, block), np.stack(measured)[table.order], atol=1e-12
    )


@pytest.mark.parametrize(("by_rule", "stacked"), [(False, 1), (True, 1), (True, 2), (True, 100)])
def test_rows_of_inputs_with_quadratures_of_their_own_equal_the_jacobian(problem, by_rule, stacked):
    path, block, _, rng = problem
    keys = [(0, 0), (1, 1), (2, 1), (1, 0), (0, 0)]
    pairs = [(np.full(3 ** key[0], i), *nodes_and_weights(*key)) for i, key in enumerate(keys)]
    quadrature = Quadrature.of_pairs(*map(np.concatenate, zip(*reversed(pairs), strict=True)), len(keys))
    derivatives, expected = Derivatives(_model()), []
    for i, key in enumerate(keys):
        nodes, weights = nodes_and_weights(*key)
        points = (path.start + t * path.displacement for t in nodes)
        jacobians = (_jacobian(lambda z: _measure(_unpack(z), [], block.inputs, []), z)[i] for z in points)
        expected.append(sum(w * jacobian for w, jacobian in zip(weights, jacobians, strict=True)))
    rows = derivatives.measurement.path_rows(path, quadrature, block, by_rule=by_rule, stacked=stacked)
    np.testing.assert_allclose(rows, expected, atol=1e-12)
    if not by_rule:
        return
    directions = rng.normal(size=(2, SIZE + STATE))
    products = derivatives.measurement.path_products(path, quadrature, directions, block, stacked=stacked)
    cuts = np.cumsum(derivatives.model.sizes)[:-1]
    by_variable = [
        np.einsum("boz,kz->bok", e, d)
        for e, d in zip(
            np.split(np.stack(expected), cuts, axis=-1), np.split(directions, cuts, axis=-1), strict=True
        )
    ]
    np.testing.assert_allclose(products, np.stack(by_variable, axis=-1), atol=1e-12)


@pytest.mark.parametrize("by_rule", [False, True])
def test_sample_gradients_sum_to_the_batch_gradient(problem, by_rule):
    path, _, batch, _ = problem
    derivatives = Derivatives(_model())
    jacobian = _jacobian(lambda z: _losses(_unpack(z), [], *_arguments(batch)), path.start)
    expected = jacobian[:, :SIZE]
    found = derivatives.loss.sample_gradients(path.start, [], batch, by_rule=by_rule)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(
        derivatives.loss.coupled_gradients(path.start, [], batch), expected, atol=1e-12
    )
    gradient = derivatives.loss.gradient(path.start, [], batch)
    np.testing.assert_allclose(gradient, expected.sum(axis=0), atol=1e-12)


def test_regularizer_gradient_leaves_the_state_out(problem):
    path, *_ = problem
    gradient = Derivatives(_model()).loss.regularizer_gradient(path.start, [], [np.zeros((1, 4))]).numpy()
    np.testing.assert_allclose(gradient[:20], 2 * path.start[:20])
    assert gradient.shape == (SIZE,)
    assert not gradient[20:].any()


@pytest.mark.parametrize("partition", [[[(0, 35)]], [[(0, 20)], [(20, 30), (30, 35)]], [[(0, 35)], []]])
def test_all_routes_contract_alike_part_by_part(problem, partition):
    path, _, batch, rng = problem
    derivatives = Derivatives(_model())
    rows = tf.constant(rng.normal(size=(3, SIZE)))
    gradients = derivatives.loss.sample_gradients(path.start, [], batch, by_rule=False).numpy()
    expected = np.stack(
        [
            sum((rows.numpy()[:, a:b] @ gradients[:, a:b].T for a, b in part), np.zeros((3, 6)))
            for part in partition
        ],
        axis=-1,
    )
    at = TrainingPoint(path.start, [], batch)
    for route in ("rules", "loop", "jvp"):
        found = contractions.ROUTES[route].contract(derivatives.loss, at, rows, partition)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gradients_come_in_chunks_of_bounded_size(problem):
    path, _, batch, _ = problem
    derivatives = Derivatives(_model())
    whole = derivatives.loss.sample_gradients(path.start, [], batch, by_rule=False).numpy()
    at = TrainingPoint(path.start, [], batch)
    chunks = list(contractions.ROUTES["rules"].gradient_chunks(derivatives.loss, at, 4 * SIZE * 8))
    assert [len(gradients) for _, gradients in chunks] == [3, 3]  # of about equal size
    np.testing.assert_allclose(np.concatenate([g for _, g in chunks]), whole, atol=1e-14)


def test_coupled_samples_are_noticed_and_differentiated_within_their_batch(problem):
    path, _, batch, rng = problem
    alone, coupled = Derivatives(_model()), Derivatives(_model(_coupled_losses))
    assert not trials.samples_are_coupled(alone.loss, path.start, [], batch)
    assert trials.samples_are_coupled(coupled.loss, path.start, [], batch)
    jacobian = _jacobian(lambda z: _coupled_losses(_unpack(z), [], *_arguments(batch)), path.start)[:, :SIZE]
    rows = tf.constant(rng.normal(size=(2, SIZE)))
    at = TrainingPoint(path.start, [], batch)
    found = contractions.ROUTES["jvp"].contract(coupled.loss, at, rows, [[(0, SIZE)]])
    np.testing.assert_allclose(found[..., 0], rows.numpy() @ jacobian.T, atol=1e-12)
    gradients = coupled.loss.coupled_gradients(path.start, [], batch)
    np.testing.assert_allclose(gradients, jacobian, atol=1e-12)


def test_samples_without_weight_do_not_hide_that_others_are_coupled(problem):
    path, _, batch, _ = problem
    weights = np.array([0.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    batch = Batch(batch.inputs, batch.targets, [weights], batch.scales)
    assert trials.samples_are_coupled(Derivatives(_model(_coupled_losses)).loss, path.start, [], batch)
    assert not trials.samples_are_coupled(Derivatives(_model()).loss, path.start, [], batch)


def test_functions_are_traced_once_whatever_the_batch_size(problem):
    path, block, batch, _ = problem
    derivatives = Derivatives(_model())
    for size in (5, 3, 1):
        quadrature = Quadrature.same(size, 1)
        part = batch.part(0, size)
        for by_rule in (False, True):
            derivatives.measurement.path_rows(path, quadrature, block.take(slice(0, size)), by_rule=by_rule)
            derivatives.loss.sample_gradients(path.start, [], part, by_rule=by_rule)
        table, inputs = quadrature.by_node()[0], block.take(slice(0, size))
        derivatives.measurement.path_jvp(path, table, path.displacement[None], inputs)
        derivatives.measurement.path_values(path, table, inputs)
        derivatives.loss.contract(path.start, [], part, path.start[None, :SIZE])
    for attribute in (*vars(derivatives.measurement).values(), *vars(derivatives.loss).values()):
        for function in attribute.values() if isinstance(attribute, dict) else [attribute]:
            if hasattr(function, "experimental_get_tracing_count"):
                assert function.experimental_get_tracing_count() <= 1


def test_broadcasting_matmuls_do_not_abort_the_process_with_onednn_on():
    # tf.vectorized_map aborts here (heap corruption in oneDNN's batch matmul), so it runs in a process of its own.
    program = textwrap.dedent(
        """
        import numpy as np, tensorflow as tf
        from explaind_tf.kernel.derivatives.derivatives import Derivatives
        from explaind_tf.kernel.functions import Batch, Block, PureModel, StepPath
        from explaind_tf.kernel.quadrature.nodes import Quadrature

        def measure(variables, constants, inputs, targets):
            (weight,) = variables
            keys = tf.matmul(inputs[0], weight)                       # rank 3 x rank 2
            scores = tf.nn.softmax(tf.matmul(keys, inputs[0], transpose_b=True))
            return tf.reduce_sum(tf.matmul(scores, keys), axis=1)

        def losses(variables, constants, inputs, targets, weights, scales):
            return scales[0] * tf.reduce_sum(measure(variables, constants, inputs, targets) ** 2, axis=1)

        def scales(variables, constants, inputs, targets, weights):
            return tf.ones(1)

        spec = tf.TensorSpec((None, 8, 64))
        model = PureModel(measure, losses, scales, None, (tf.TensorSpec((64, 64)),), (), (), (spec,), (), ())
        derivatives = Derivatives(model)
        rng = np.random.default_rng(0)
        point = rng.normal(size=4096).astype("float32") / 8
        x = rng.normal(size=(32, 8, 64)).astype("float32")
        path = StepPath(point, point, point, [])
        batch = Batch([x], [], [], np.ones(1, "float32"))
        for _ in range(3):
            for by_rule in (False, True):
                quadrature = Quadrature.same(4)
                derivatives.measurement.path_rows(path, quadrature, Block([x[:4]], []), by_rule=by_rule)
                derivatives.loss.sample_gradients(point, [], batch, by_rule=by_rule)
            derivatives.loss.jvp(point, [], batch, np.stack([point] * 4))
        print("survived")
        """
    )
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "survived" in done.stdout
