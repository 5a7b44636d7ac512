"""The contract: whatever Keras does to a weight, the ledger balances or the training is refused in time.

Each row is trained twice: recorded, and with the plain Keras optimizer. The ledger must then agree with what is known
without it: the trained weights, the model's own outputs before and after, sums over samples, and which entries a training
can have.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import xarray as xr

import explaind_tf as xtf
from explaind_tf import constants as names
from tests.contract.level_cases import CASES
from tests.contract.rows import ROWS, Row, optimizer_class
from tests.helpers import dtype_policy, totals

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("many_at_once")]

TABLE = Path(__file__).parents[2] / "docs" / "contract.md"

Ledgers = dict[tuple[str, ...], xr.Dataset]  # by the axes that are kept


def dataset(row: Row) -> tf.data.Dataset:
    """Return shuffled batches of 4 + 4 + 2 samples, in the same order at every call."""
    floating = "float64" if row.policy == "float64" else "float32"
    arrays = tf.nest.map_structure(
        lambda array: array.astype(floating) if array.dtype.kind == "f" else array, row.arrays()
    )
    return row.wrap(tf.data.Dataset.from_tensor_slices(arrays).shuffle(10, seed=3).batch(4))


def build(row: Row, *, recorded: bool) -> keras.Model:
    """Return a compiled model with the same initial weights at every call."""
    keras.utils.set_random_seed(1)
    with row.scope():
        model = row.model()
        optimizer = optimizer_class(row, recorded=recorded)(**row.options())
        # XLA rounds differently. The rows that test it set jit_compile themselves.
        model.compile(optimizer, **({"loss": "mse", "jit_compile": False} | row.compile()))
    row.prepare(model)
    return model


def train(row: Row, model: keras.Model, batches: tf.data.Dataset, *logger: xtf.PathLogger) -> None:
    """Fit the model with the row's callbacks, between-fit changes and arguments of ``fit``."""
    for number in range(row.fits):
        if number > 0:
            row.between(model)
        arguments = {"epochs": 3, "verbose": 0, "shuffle": False} | row.fit()
        others = row.callbacks()
        callbacks = [*logger, *others] if row.logger_first else [*others, *logger]
        model.fit(batches, callbacks=callbacks, **arguments)


def inputs_of(row: Row) -> Any:
    """Return the first two inputs of the training set."""
    (x, *_) = next(iter(dataset(row).unbatch().batch(2)))
    return tf.nest.map_structure(lambda tensor: tensor.numpy(), x)


def outputs(model: keras.Model, x: Any) -> np.ndarray:
    """Return all outputs of the live model, flat, (inputs, O)."""
    found = tf.nest.flatten(model(x, training=False))
    return np.concatenate([np.reshape(part, (len(part), -1)) for part in found], axis=1)


def hold_to_the_contract(row: Row, run_dir: Path) -> None:
    """Train and record a row, and check its ledgers.

    Raises
    ------
    RefusedError
        If the row is refused.
    AssertionError, UnbalancedLedgerError
        If the contract is broken.
    """
    x = inputs_of(row)
    model = build(row, recorded=True)
    initial = outputs(model, x)  # the first call builds subclassed models
    logger = xtf.PathLogger(run_dir, verbose=False)
    train(row, model, logger.tap(dataset(row), **row.tap), logger)
    final = outputs(model, x)
    if not row.tap:  # plain Keras has no tap that takes class weights
        assert_trained_as_by_keras(row, model, x)

    run = xtf.open_run(run_dir)
    run.verify(progress=False)
    ledgers = ledgers_of(row, run, x)
    # The live model and the exported graph compute outputs in different orders of operations.
    slack = {"atol": 1e-12 if row.policy == "float64" else 1e-5, "rtol": 0}
    np.testing.assert_allclose(ledgers[()].initial.values, initial, **slack)
    np.testing.assert_allclose(ledgers[()].final.values, final, **slack)
    assert_sums_agree(row, ledgers)
    if row.tokens:
        assert_tokens_add_up_to_samples(row, ledgers)
    else:
        with pytest.raises(ValueError, match="no token axis"):
            run.attribute(x, axes=("sample", "token"), progress=False)
    assert_terms_are_those_of_the_row(row, ledgers[()])


def assert_trained_as_by_keras(row: Row, model: keras.Model, x: Any) -> None:
    """Check that plain Keras, without a logger, reaches the same weights bit for bit."""
    plain = build(row, recorded=False)
    outputs(plain, x)
    train(row, plain, dataset(row))
    for ours, theirs in zip(model.variables, plain.variables, strict=True):
        if "seed_generator" not in ours.path:
            np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


def ledgers_of(row: Row, run: xtf.Run, x: Any) -> Ledgers:
    """Return a ledger for each route: without axes, without samples, with samples, and with tokens if there are any."""
    asked: list[tuple[str, ...]] = [(), ("step", "layer"), ("sample", "step")]
    if row.tokens:
        asked.append(("sample", "token"))
    return {axes: run.attribute(x, axes=axes, tolerance=row.tolerance, progress=False) for axes in asked}


def assert_sums_agree(row: Row, ledgers: Ledgers) -> None:
    """Check that each ledger balances, and that its terms add up to those of the ledger without axes."""
    whole = ledgers[()]
    movement = float(whole.movement.max())
    for axes, ledger in ledgers.items():
        ledger.explaind.check(row.tolerance)
        assert (names.ROUNDING in ledger.explaind.terms) == ("sample" in axes)
        if "sample" in axes and row.policy == "float64":
            assert float(np.abs(ledger.explaind.total(names.ROUNDING)).max()) <= row.most_rounding * movement
        found = totals(ledger)
        for term in (term for term in found if term != names.RESIDUAL):
            # Other routes sum the same integrals, so only rounding differs: 1e-5 of the movement in float32.
            np.testing.assert_allclose(
                found[term].transpose(*whole[term].dims),
                whole[term],
                rtol=0,
                atol=(1e-10 if row.policy == "float64" else 1e-5) * movement,
                err_msg=f"{term} of {axes}",
            )


def assert_tokens_add_up_to_samples(row: Row, ledgers: Ledgers) -> None:
    """Check that each token has an entry, and that the tokens of a sample add up to the sample's entry."""
    tokens, samples = ledgers["sample", "token"].data, ledgers["sample", "step"].data
    assert tokens.sizes[names.TOKEN] == row.tokens
    np.testing.assert_allclose(
        tokens.sum(names.TOKEN),
        samples.sum(names.STEP),
        rtol=0,
        atol=1e-10 * float(ledgers[()].movement.max()),
    )


def assert_terms_are_those_of_the_row(row: Row, whole: xr.Dataset) -> None:
    """Check that the row's terms are not zero and all others are."""
    movement = float(whole.movement.max())
    for term in whole.explaind.terms[:-1]:
        if term == names.PRECISION:  # of the size of rounding in most rows
            assert term in row.terms
            continue
        is_there = bool(np.abs(whole[term]).max() > 1e-7 * movement)
        assert is_there == (term == names.DATA or term in row.terms), f"{term}: {whole[term]}"


_IN_A_PROCESS = """
import sys, pathlib
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * {devices})
import explaind_tf as xtf
from tests.contract.rows import ROWS
from tests.contract.test_contract import hold_to_the_contract
from tests.helpers import dtype_policy, totals
(row,) = [row for row in ROWS if row.name == {name!r}]
try:
    with dtype_policy(row.policy):
        hold_to_the_contract(row, pathlib.Path({run_dir!r}))
except xtf.RefusedError as error:
    sys.exit(f"RefusedError: {{error}}")
"""


def hold_in_a_process(row: Row, run_dir: Path) -> None:
    """Do the same in a new process, for settings that must be made before TensorFlow starts."""
    code = _IN_A_PROCESS.format(devices=row.logical_devices, name=row.name, run_dir=str(run_dir))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if last.startswith("RefusedError: "):
        raise xtf.RefusedError(last.removeprefix("RefusedError: "))
    assert done.returncode == 0, done.stderr


# Rows that take longer than all of a day's sample: they are never in it.
LONG = ("LSTM", "GRU", "Bidirectional", "SeparableConv2D", "MultiHeadAttention, attention mask")
# Families whose first row trains with AdamW alone, as all first rows do that change something else.
ALIKE = ("optimizers", "learning rate", "models", "precision and devices")


def cases() -> Iterator[Any]:
    """Yield all rows. The first of each other family runs every time, the others at night.

    The row that needs a process is tried in that of tests/cli/test_cli_processes.py every time.
    """
    seen: set[str] = set(ALIKE)
    for row in ROWS:
        is_core = row.family not in seen
        seen.add(row.family)
        is_short = row.name not in LONG and row.logical_devices == 1
        marks = () if is_core else pytest.mark.nightly(daily=is_short)
        yield pytest.param(row, id=f"{row.family}: {row.name}", marks=marks)


@pytest.mark.parametrize("row", list(cases()))
# Keras' LearningRateScheduler reads the learning rate in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
def test_contract(row: Row, tmp_path: Path):
    run_dir = tmp_path / "run"
    hold = hold_to_the_contract if row.logical_devices == 1 else hold_in_a_process
    with dtype_policy(row.policy):
        if row.refused is None:
            hold(row, run_dir)
            return
        with pytest.raises(xtf.RefusedError, match=row.refused):
            hold(row, run_dir)
    assert not run_dir.exists()


def test_table_says_what_the_suite_checks():
    """Check that docs/contract.md is up to date; ``python -m tests.contract.table`` writes it."""
    lines = [
        re.split(r" \| ", line.strip("| "), maxsplit=1)
        for line in TABLE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith(("| row", "| training", "| ---"))
    ]
    said = {name: outcome for name, outcome in lines}
    assert len(said) == len(ROWS) + len(CASES)
    for name, case in CASES.items():
        assert said[name] == case.level
    for row in ROWS:
        assert said[row.name].startswith(row.outcome), row.name


def test_only_rows_of_replicas_are_refused():
    assert {row.family for row in ROWS if row.refused is not None} == {"several replicas"}
