"""`Explain`: a callback that accounts for a few predictions during training."""

import warnings
from pathlib import Path
from typing import Any

import keras
import pandas as pd
import xarray as xr
from rich.console import Console

from explaind_tf import constants as names
from explaind_tf.attribution import Run, open_run
from explaind_tf.errors import RefusedError
from explaind_tf.event_file import EventFile
from explaind_tf.pictures import find_picture
from explaind_tf.recording import PathLogger
from explaind_tf.runs.format import structure as struct


class Explain(keras.callbacks.Callback):
    """Every few epochs, accounts for a few predictions by training sample, from what was recorded until then.

    Each ledger covers the steps since the previous one. A terminal shows a line for each input; without a terminal, nothing
    is printed. The measurement of each input goes into Keras' logs as ``probe_0`` and so on, and from there into its
    progress bar and history.

    Parameters
    ----------
    logger : PathLogger
        The logger that records this fit.
    inputs : array or nested structure of arrays, shape (inputs, ...)
        A few inputs, as the model takes them. Each costs memory for a row of all weights, and time for each step.
    measurement : Measurement or callable, optional
        As for ``run.attribute``, with one output. By default all outputs, for models that have one.
    every : int
        Epochs from one ledger to the next.
    k : int
        Most proponents and opponents to show for each input.
    tolerance : float
        As for ``run.attribute``.
    tensorboard : str or Path, optional
        Log directory of TensorBoard, for each measurement and the terms that moved it, tables of samples and, if these are
        pictures, the pictures.
    verbose : bool
        Whether to print lines on a terminal.

    Raises
    ------
    ValueError
        If ``every`` or ``k`` is not a positive integer; during training, if the measurement has several outputs.
    RefusedError
        If the run is recorded to a URL, or TensorBoard is asked for and not installed.
    UnbalancedLedgerError
        During training, if a ledger does not balance.

    Notes
    -----
    Training takes the same steps as without this callback. For each ledger, the run is opened and its functions are compiled
    again. This takes seconds, besides the time of the attribution.

    Examples
    --------
    >>> explain = xtf.Explain(logger, x_test[:3], xtf.measurements.log_prob(y_test[:3]), every=5)  # doctest: +SKIP
    >>> model.fit(train_ds, epochs=50, callbacks=[logger, explain])  # doctest: +SKIP
    """

    def __init__(
        self,
        logger: PathLogger,
        inputs: Any,
        measurement: Any = None,
        *,
        every: int = 1,
        k: int = 3,
        tolerance: float = 1e-2,
        tensorboard: str | Path | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        for name, value in (("every", every), ("k", k)):
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} must be a positive integer, such as {name}=3; got {value!r}.")
        if not isinstance(logger.run_dir, Path):
            raise RefusedError(
                f"This run is recorded to the URL {logger.run_dir}, which lacks the last steps until they are uploaded. "
                f"Explain needs them during training. Record to a local directory, or attribute when training has ended."
            )
        self._run_dir = logger.run_dir
        self._inputs = inputs
        self._measurement = measurement
        self._every, self._k, self._tolerance = every, k, tolerance
        self._file = None if tensorboard is None else EventFile(tensorboard)
        self._verbose = verbose
        self._first = 0  # first step of the next ledger

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Account for the steps since the previous ledger, if a ledger is due."""
        if (epoch + 1) % self._every:
            return
        run = _open_unfinished(self._run_dir)
        count = len(run.steps)
        if count <= self._first:
            return
        ledger = run.attribute(
            self._inputs,
            self._measurement,
            axes=(names.SAMPLE,),
            steps=slice(self._first, count),
            tolerance=self._tolerance,
            progress=False,
        )
        assert isinstance(ledger, xr.Dataset)  # only the parameter axis makes a tree
        ledger.explaind.check()
        if ledger.sizes[names.OUTPUT] != 1:
            raise ValueError(
                f"Explain shows one number for each input; this measurement has {ledger.sizes[names.OUTPUT]}. Pass a "
                f"measurement with a single output, such as measurements.log_prob(y)."
            )
        self._first = count
        table = ledger.explaind.to_pandas(self._k)
        if logs is not None:
            finals = ledger[names.FINAL].values[:, 0].tolist()
            logs |= {f"probe_{i}": value for i, value in enumerate(finals)}
        console = Console(stderr=True)
        if self._verbose and console.is_terminal:
            for line in lines(ledger, table):
                console.print(line, highlight=False, soft_wrap=True, markup=False)
        if self._file is not None:
            self._write(self._file, run, ledger, table, count)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Write what is still buffered for TensorBoard."""
        if self._file is not None:
            self._file.flush()

    def _write(self, file: EventFile, run: Run, ledger: xr.Dataset, table: pd.DataFrame, step: int) -> None:
        inputs = struct.as_batches(run.manifest.inputs, self._inputs, "inputs")
        for i in range(ledger.sizes[names.INPUT]):
            totals = {term: float(ledger.explaind.total(term)[i, 0]) for term in ledger.explaind.terms}
            values = {"measurement": float(ledger[names.FINAL][i, 0])} | totals
            file.scalars({f"probe {i}/{name}": value for name, value in values.items()}, step)
            own = table[table[names.INPUT] == i]
            columns = ["side", names.SAMPLE, "influence"]
            file.text(f"probe {i}/table", columns, own[columns].itertuples(index=False), step)
            stored = run.samples.take_flat([run.samples.row_of_id[sample] for sample in own[names.SAMPLE]])[0]
            of_probe = find_picture([array[i] for array in inputs])
            of_samples = [find_picture([array[j] for array in stored]) for j in range(len(own))]
            pictures = [picture for picture in (of_probe, *of_samples) if picture is not None]
            if len(pictures) == 1 + len(own) and len({len(picture) for picture in pictures}) == 1:
                file.images(
                    f"probe {i}/pictures", pictures, step, "The input, then proponents and opponents."
                )
        file.flush()


def lines(ledger: xr.Dataset, table: pd.DataFrame) -> list[str]:
    """Return a line for each input: its measurement before and after, and the samples that moved it most."""
    said = []
    for i in range(ledger.sizes[names.INPUT]):
        initial, final = (float(ledger[name][i, 0]) for name in (names.INITIAL, names.FINAL))
        own = table[table[names.INPUT] == i]
        ranked = ", ".join(
            f"{sample} {influence:+.2g}"
            for sample, influence in zip(own[names.SAMPLE], own["influence"], strict=True)
        )
        first, last = ledger.attrs["first_step"], ledger.attrs["last_step"]
        said.append(f"probe {i}, steps {first}–{last}: {initial:.3g} → {final:.3g}; {ranked}")
    return said


def _open_unfinished(run_dir: Path) -> Run:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was cut short.*")  # recording continues
        return open_run(run_dir)
