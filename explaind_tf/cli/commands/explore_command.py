"""``explaind-tf explore``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explaind_tf.cli.exits import say
from explaind_tf.cli.measured import Measured
from explaind_tf.cli.opening import open_to_read
from explaind_tf.cli.option_groups import Only
from explaind_tf.cli.shared_arguments import Rows, RunDir
from explaind_tf.cli.values import Measure, to_bytes
from explaind_tf.questions.options import Options

if TYPE_CHECKING:
    from explaind_tf.explore.inputs import Inputs
    from explaind_tf.runs import RecordedRun


def explore(
    run: RunDir,
    inputs: Annotated[
        str | None,
        typer.Option(
            "--inputs",
            metavar="FILE|tfds:NAME/SPLIT",
            help="As for explaind-tf attribute. Default: some of the training samples that the run stores.",
        ),
    ] = None,
    *,
    rows: Rows = None,
    measure: Annotated[
        Measure | None,
        typer.Option(
            help="What to account for. Default: the log-probability of the predicted class, or all outputs if there are no "
            "classes."
        ),
    ] = None,
    measured: Annotated[Measured, Only("outputs_are", "output", "loss")],
    options: Annotated[Options, Only("tolerance")],
    vocabulary: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The text of each token, one a line, for models that take tokens."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Whether to open the page in a browser.")] = True,
    keep: Annotated[
        int,
        typer.Option(
            parser=to_bytes, metavar="SIZE", help="Most bytes of answers to keep on disk.", show_default="1GB"
        ),
    ] = "1GB",  # type: ignore[assignment]
    host: Annotated[
        str,
        typer.Option(help="Address to serve on. Any but this machine's own needs --i-know-who-can-reach-it."),
    ] = "127.0.0.1",
    i_know_who_can_reach_it: Annotated[
        bool,
        typer.Option(
            "--i-know-who-can-reach-it",
            help="With --host: whoever reaches it and knows the address sees inputs and training samples, unencrypted, and "
            "can use this machine to compute.",
        ),
    ] = False,
) -> None:
    """Open a page on this machine that shows predictions and answers where they come from, while you click."""
    from explaind_tf.cli.inputs import check_source

    if inputs is not None:
        check_source(inputs)
    _check_host(host, i_know_who_can_reach_it)
    from explaind_tf.explore.opening import make_session
    from explaind_tf.explore.server import Server, serve

    reader = open_to_read(run)
    read = _read(reader, inputs, rows)
    session = make_session(
        reader,
        read,
        measure=None if measure is None else _measure(measure, measured, read),
        tolerance=options.tolerance,
        vocabulary=None if vocabulary is None else vocabulary.read_text(encoding="utf-8").splitlines(),
        keep=keep,
    )

    def opened(address: str) -> None:
        say("[bold]Page:[/]", address)
        say("Ctrl-C", "ends it. Who knows the address sees the samples of the run.")
        if browser:
            import webbrowser

            webbrowser.open(address)

    serve(Server(session, host=host, port=port), opened)


def _check_host(host: str, is_known: bool) -> None:
    if host in ("127.0.0.1", "localhost") or is_known:
        return
    raise ValueError(
        f"--host {host} lets others in the network reach the page. Who knows its address sees the inputs and the training "
        f"samples, unencrypted, and can use this machine to compute. If you want that, add --i-know-who-can-reach-it. "
        f"A safe way from another machine: leave --host out and forward the port, ssh -L PORT:127.0.0.1:PORT HOST."
    )


def _read(reader: "RecordedRun", source: str | None, rows: slice | None) -> "Inputs":
    """Return the inputs, and the Python that reads them."""
    from explaind_tf.cli.inputs import LABELS, leaf_names, read_inputs
    from explaind_tf.explore.inputs import Inputs, stored_samples
    from explaind_tf.runs.format import structure as struct

    if source is None:
        if rows is not None:
            raise ValueError(
                "--rows was given without --inputs, whose rows it chooses. Pass both, or neither."
            )
        return stored_samples(reader)
    chosen = rows or slice(None)
    read = read_inputs(source, reader.manifest.inputs, chosen)
    part = "" if rows is None else f"[{rows.start or 0}:{'' if rows.stop is None else rows.stop}]"
    code = [f"# x, y: {source}, rows {part or 'all'}"]
    if source.endswith(".npz"):
        names = [f'file["{name}"]{part}' for name in leaf_names(reader.manifest.inputs)]
        code = [f"file = np.load({source!r})"]
        if isinstance(reader.manifest.inputs, struct.Leaf):
            code.append(f"x = {names[0]}")
        else:
            code.append(f"x = [{', '.join(names)}]  # nest them as the model takes them")
        code += [f'y = file["{LABELS}"]{part}'] * (read.y is not None)
    elif source.endswith(".npy"):
        code = [f"x = np.load({source!r}){part}"]
    return Inputs(read.x, read.y, read.first_row, code)


def _measure(measure: Measure, measured: Measured, read: "Inputs") -> Any:
    """Return a function that makes the measurement, once the model is loaded."""
    from dataclasses import replace

    def chosen(run: Any, predictions: Any) -> Any:
        from explaind_tf.cli.choosing import choose_measurement
        from explaind_tf.explore.measuring import Measured as Chosen

        made = choose_measurement(run, read, replace(measured, measure=measure))  # type: ignore[arg-type]
        said = "" if measured.output is None else f", output={made.function.output!r}"  # type: ignore[attr-defined]
        if measure is Measure.LOG_PROB and measured.outputs_are == "probabilities":
            said += ", from_logits=False"
        first = f"{_loss_code(run, measured)}, " if measure is Measure.LOSS else ""
        labels = "" if measure is Measure.OUTPUTS else "y[{rows}]"
        code = f"xtf.measurements.{measure}({first}{labels}{said})"
        return Chosen(
            made, lambda rows: code.replace("{rows}", str(list(rows))), f"the measurement {measure}"
        )

    return chosen


def _loss_code(run: Any, measured: Measured) -> str:
    """Return Python for the loss that is measured."""
    import inspect

    import keras

    name = measured.loss or run.manifest.loss["losses"][0]["name"]
    function = keras.losses.get(name)
    called = function.call if isinstance(function, keras.losses.Loss) else function
    if "from_logits" not in inspect.signature(called).parameters:
        return repr(name)
    are_logits = measured.outputs_are != "probabilities"
    return f"functools.partial(keras.losses.get({name!r}), from_logits={are_logits})"
