"""Makes a session of a run and inputs, and opens its page."""

import warnings
import webbrowser
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from explaind_tf.explore.inputs import Inputs, Shown, stored_samples
from explaind_tf.explore.kept import Kept, place_of
from explaind_tf.explore.server import Server
from explaind_tf.explore.session import About, Session
from explaind_tf.runs import RecordedRun, WeightPath

if TYPE_CHECKING:  # the page is there before TensorFlow is imported
    from explaind_tf.attribution.attributable import Attributable
    from explaind_tf.explore.computing import Measure

KEEP_BYTES: Final = 10**9
TOLERANCE: Final = 1e-3


def explore(
    run: "Attributable",
    x: Any = None,
    y: Any = None,
    measurement: Any = None,
    *,
    tolerance: float = TOLERANCE,
    vocabulary: Sequence[str] | None = None,
    port: int = 0,
    browser: bool = True,
    keep: int = KEEP_BYTES,
) -> Server:
    """Open a page about a run on this machine; see :meth:`explaind_tf.Run.explore`."""
    from explaind_tf.measurements import as_measurement

    inputs = stored_samples(run) if x is None else Inputs(x, None if y is None else np.asarray(y))
    reader: WeightPath = run
    if isinstance(run, RecordedRun):
        opened = run
        reader = _quietly(lambda: RecordedRun(opened.run_dir, trust_graph=opened._trust_graph))
    measure: Measure | None = None
    if measurement is not None:
        from explaind_tf.explore.measuring import as_given

        given = as_given(as_measurement(measurement))
        measure = lambda *_: given  # noqa: E731 - a name for one value
    session = make_session(
        reader,
        inputs,
        # The run that was given stays free to be asked by others at the same time.
        None if isinstance(run, RecordedRun) else lambda: run,
        measure=measure,
        tolerance=tolerance,
        vocabulary=vocabulary,
        keep=keep,
    )
    server = Server(session, port=port)
    server.start()
    if browser:
        webbrowser.open(server.url)
    return server


def make_session(
    reader: WeightPath,
    inputs: Inputs,
    open_to_ask: "Callable[[], Attributable] | None" = None,
    *,
    measure: "Measure | None" = None,
    tolerance: float = TOLERANCE,
    vocabulary: Sequence[str] | None = None,
    keep: int = KEEP_BYTES,
) -> Session:
    """Return a session.

    Parameters
    ----------
    reader : WeightPath
        The run as the page reads it. Nothing else may read it.
    inputs : Inputs
        What is looked at.
    open_to_ask : callable, optional
        Opens the run that is asked; by default the one that the reader reads.
    measure : callable, optional
        Says what is accounted for.
    tolerance : float
        Of the refined answers.
    vocabulary : sequence of str, optional
        The text of each token.
    keep : int
        Most bytes of answers on disk.
    """
    run_dir = getattr(reader, "run_dir", None)
    directory, where = place_of(run_dir, reader.run_id)
    title = reader.run_id if run_dir is None else run_dir.name
    opening = "# run: as it was opened" if run_dir is None else f"run = xtf.open_run({str(run_dir)!r})"
    about = About(title, opening, tolerance, f"{where} ({directory})")
    shown = Shown(reader, inputs, vocabulary)
    return Session(about, shown, open_to_ask or (lambda: _open_again(reader)), measure, Kept(directory, keep))


def _open_again(reader: WeightPath) -> "Attributable":
    from explaind_tf.attribution import open_run

    assert isinstance(reader, RecordedRun)
    return _quietly(lambda: open_run(reader.run_dir, trust_graph=reader._trust_graph))


def _quietly(open_it: Callable[[], Any]) -> Any:
    """Open a run whose warnings were shown when it was opened first."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return open_it()
