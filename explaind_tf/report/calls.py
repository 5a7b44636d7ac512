"""The Python calls that make a report's figures, for readers who want to continue from them."""

from textwrap import dedent

from explaind_tf.report.section import Section

# `x` stands for the reader's inputs; everything else is in the calls.
_OUTPUTS = "outputs = run.attribute(x, xtf.measurements.outputs({position}), tolerance={tolerance:g})"
_PREDICTED = 'predicted = outputs.final.argmax("output").values'


def balance(section: Section) -> str:
    """Return the call that draws the bars of the causes."""
    return _about_predictions(section, "", "ledger.explaind.plot.balance()")


def kernel_machine(section: Section) -> str:
    """Return the call that draws model against kernel machine."""
    return "\n".join([*_head(section), "outputs.explaind.check()", "outputs.explaind.plot.kernel_machine()"])


def steps(section: Section) -> str:
    """Return the call that draws the steps."""
    ends = (
        'ledger.explaind.plot.steps(by="layer", curves=run.curves())\n'
        'ledger.data.sum("layer").mean("input")  # the numbers'
    )
    return _about_predictions(section, '"layer", "step"', ends)


def layer_steps(section: Section) -> str:
    """Return the call that draws the heat map of layers and steps."""
    ends = 'ledger.explaind.plot.layer_steps()\nledger.data.mean("input")  # the numbers'
    return _about_predictions(section, '"layer", "step"', ends)


def layers(section: Section) -> str:
    """Return the call that draws the layers."""
    ends = 'ledger.explaind.plot.layers()\nledger.data.mean("input").to_pandas()  # the numbers'
    return _about_predictions(section, '"layer",', ends)


def weights(section: Section, layer: str) -> str:
    """Return the call that draws a layer's weights."""
    return _about_predictions(section, '"parameter",', f"ledger.explaind.plot.weights({layer!r})")


def samples(section: Section, position: int) -> str:
    """Return the call that draws the samples."""
    ends = dedent(
        f"""\
        ledger.explaind.plot.samples(k={section.top}, input={position})
        ledger.explaind.to_pandas(k={section.top})  # the numbers"""
    )
    return _about_predictions(section, '"sample",', ends)


def groups(section: Section) -> str:
    """Return the call that draws the heat map of groups and steps."""
    what = section.grouped_by or "label"
    ends = 'ledger.explaind.plot.group_steps()\nledger.data.mean("input")  # the numbers'
    before = f"groups = …  # the {what} of each of run.samples.ids"
    return _about_predictions(section, '"group", "step"', ends, before=before, more=", groups=groups")


def counterfactual(section: Section) -> str:
    """Return the call that makes the counterfactual answer."""
    predicted = ", ".join(part for part in ("predicted", _position(section)) if part)
    return "\n".join(
        [
            *_head(section),
            _PREDICTED,
            f"answer = run.counterfactual(x, xtf.measurements.log_prob({predicted}))",
            f"answer.explaind.proponents(k={section.top})",
            "answer.explaind.validate(8, 0.05)  # trains 8 times without 5 % of the samples",
        ]
    )


def _head(section: Section) -> list[str]:
    return [
        "import explaind_tf as xtf  # x: the inputs, as the model takes them",
        f"run = xtf.open_run({str(section.run.run_dir)!r})",
        _OUTPUTS.format(tolerance=section.balance.attrs["tolerance"], position=_position(section)),
    ]


def _position(section: Section) -> str:
    return "" if section.position is None else f"position={section.position}"


def _about_predictions(section: Section, axes: str, ends: str, *, before: str = "", more: str = "") -> str:
    tolerance = section.path.attrs["tolerance"]
    kept = f"axes=({axes}), " if axes else ""
    predicted = ", ".join(part for part in ("predicted", _position(section)) if part)
    lines = [
        *_head(section),
        _PREDICTED,
        before,
        f"ledger = run.attribute(x, xtf.measurements.log_prob({predicted}), {kept}tolerance={tolerance:g}{more})",
        ends,
    ]
    return "\n".join(line for line in lines if line)
