"""The rows of the table: the parts that they run, their figures and their bars."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from experiments.benchmarks.runner import Runner
from experiments.benchmarks.settings import Json, Settings, TaskSpec


@dataclass(frozen=True)
class Check:
    """One figure beside its bar.

    Attributes
    ----------
    what : str
        The figure, with its unit.
    measured, bar : float
        The figure and its limit; NaN stands for no bar.
    at_least : bool
        Whether the bar is a lower limit.
    """

    what: str
    measured: float
    bar: float = float("nan")
    at_least: bool = False

    @property
    def passed(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        if np.isnan(self.bar):
            return None
        return bool(self.measured >= self.bar if self.at_least else self.measured <= self.bar)


@dataclass(frozen=True)
class Row:
    """What was measured for one row of the table; seconds and memory are in ``details``."""

    number: int
    work: str
    checks: list[Check]
    details: Json
    note: str = ""
    peak_mb: dict[str, float] = field(default_factory=dict)


def paper(number: int, settings: Settings, runner: Runner) -> Row:
    """Rows 1 and 2: all outputs, or the log-probability of the class, by sample, compared with the paper's procedure."""
    spec, inputs, all_outputs = settings.sampled, settings.inputs[number], number == 1
    nodes, steps = settings.paper_nodes, min(settings.paper_steps, spec.steps - 1)
    tolerance, details = _as_accurate_as_the_paper(settings, runner, inputs) if all_outputs else (1e-3, {})
    rounds = [  # alternately, so that other load affects both
        {
            "paper": runner.of_run("paper", spec, inputs=inputs, nodes=nodes, steps=steps),
            "ours": runner.of_run(
                "attribute",
                spec,
                measure="outputs" if all_outputs else "log_prob",
                inputs=inputs,
                axes=["sample"],
                tolerance=tolerance,
            ),
        }
        for _ in range(settings.repeats)
    ]
    peaks = {who: float(np.median([r[who]["peak_mb"] for r in rounds])) for who in ("ours", "paper")}
    checks = [
        Check(
            "times faster than the paper's procedure",
            _speedup(rounds, lambda ours: ours["seconds"][0]),
            25 if all_outputs else 300,
            True,
        ),
        Check("… with tracing", _speedup(rounds, lambda ours: ours["first_seconds"])),
        Check(
            "peak memory / the paper's", peaks["ours"] / peaks["paper"], 0.5 if all_outputs else float("nan")
        ),
    ]
    if all_outputs:
        residual = max(r["ours"]["residual"] for r in rounds)
        checks.append(Check("largest residual", residual, details["paper_error"]["residual"]))
    outputs = "all outputs" if all_outputs else "log-probability of the class"
    return Row(
        number,
        f"{spec.kind}, {spec.samples} samples, batch {spec.batch}, {spec.steps} steps: {outputs} of {inputs} inputs",
        checks,
        details | {"rounds": rounds},
        f"the paper's procedure timed on {steps} of {spec.steps} steps a round (its cost per step is constant); "
        f"{nodes} nodes; our tolerance {tolerance:g}",
        peaks,
    )


def _as_accurate_as_the_paper(settings: Settings, runner: Runner, inputs: int) -> tuple[float, Json]:
    """Return the tolerance at which our ledgers are as accurate as the paper's procedure, and the measurements behind it."""
    error = runner.of_run("paper_error", settings.sampled, inputs=inputs, nodes=settings.paper_nodes)
    found = runner.of_run(
        "calibrate",
        settings.sampled,
        inputs=inputs,
        tolerances=list(settings.tolerances),
        residual=error["residual"],
    )
    return found["tolerance"], {"paper_error": error, "calibration": found}


def _speedup(rounds: list[Json], seconds_of: Callable[[Json], float]) -> float:
    """Return the time of the paper's procedure over our time for a run, in the median round."""
    ratios = [
        float(np.median(r["paper"]["seconds"])) * r["ours"]["steps"] / seconds_of(r["ours"]) for r in rounds
    ]
    return float(np.median(ratios))


@dataclass(frozen=True)
class _Question:
    """A row whose cost is measured in training steps."""

    spec: str
    work: str
    measure: str
    axes: tuple[str, ...]
    bar: float
    peak_bar_mb: float = float("nan")


_QUESTIONS = {
    3: _Question("full_batch", "step × output ledger of {n} inputs, all outputs", "outputs", ("step",), 3),
    4: _Question("full_batch", "step × layer, {n} measurements", "log_prob", ("step", "layer"), 8),
    5: _Question("full_batch", "sample axis, {n} measurements", "log_prob", ("sample",), 5),
    6: _Question("resnet", "sample axis, {n} measurements", "log_prob", ("sample",), 3, 4000),
    7: _Question("resnet_norm", "BatchNorm, sample axis, {n} measurements", "log_prob", ("sample",), 6),
    8: _Question("full_batch", "groups × step, {n} inputs, all outputs", "outputs", ("group", "step"), 12),
}


def in_training_steps(number: int, settings: Settings, runner: Runner) -> Row:
    """Rows 3 to 8: seconds per recorded step, in units of a step of plain training."""
    question, inputs = _QUESTIONS[number], settings.inputs[number]
    spec: TaskSpec = getattr(settings, question.spec)
    arguments: Json = {"measure": question.measure, "inputs": inputs, "axes": list(question.axes)}
    if number in settings.tolerance:
        arguments["tolerance"] = settings.tolerance[number]
    details: Json = {}
    if number == 3:
        details["calibration"] = runner.of_run(
            "calibrate",
            spec,
            inputs=inputs,
            tolerances=list(settings.tolerances),
            mean_kl=1e-4,
            agreement=1.0,
        )
        arguments["tolerance"] = details["calibration"]["tolerance"]
    if number == 8:
        arguments["groups"] = settings.groups
    found = runner.of_run(
        "attribute",
        spec,
        repeats=settings.repeats,
        plain_steps=settings.plain_steps[spec.kind],
        **arguments,
    )
    unit = found["training_step_seconds"]
    ratios = [s / found["steps"] / u for s, u in zip(found["seconds"], unit, strict=True)]
    first = found["first_seconds"] / found["steps"] / float(np.median(unit))
    checks = [
        Check("training steps per step", float(np.median(ratios)), question.bar),
        Check("… with tracing", first),
        Check("ledger balances to its tolerance", found["balances"], 1.0, True),
    ]
    if not np.isnan(question.peak_bar_mb):
        checks.append(Check("peak memory in MB", found["peak_mb"], question.peak_bar_mb))
    if number == 3:
        checks.append(Check("mean KL in nats", found["mean_kl"], 1e-4))
        checks.append(Check("agreement", found["agreement"], 1.0, True))
    return Row(
        number,
        f"{spec.kind}, batch {spec.batch}, {spec.steps} steps: {question.work.format(n=inputs)}",
        checks,
        details | found,
        f"training step {np.median(unit):.3g} s; tolerance {found['tolerance']:g}, {found['nodes']} nodes",
        {"ours": found["peak_mb"]},
    )


def recording(number: int, settings: Settings, runner: Runner) -> Row:
    """Row 9: a recorded training step in units of a plain one."""
    checks, details, notes = [], {}, []
    for spec in settings.recorded:
        found = runner.run(
            "recording",
            spec=dataclasses.asdict(spec),
            run_dir=runner.new_run_dir(spec),
            # The difference is a few per cent and machines are seldom idle, so there are more and shorter repeats here.
            repeats=3 * settings.repeats,
        )
        ratios = [r / p for r, p in zip(found["recorded"], found["plain"], strict=True)]
        checks.append(
            Check(f"{spec.kind}, batch {spec.batch}: recorded / plain", float(np.median(ratios)), 1.10)
        )
        details[spec.kind] = found
        notes.append(f"{spec.kind} {np.median(found['plain']):.3g} s plain")
    peaks = {kind: found["peak_mb"] for kind, found in details.items()}
    return Row(number, "recording each step against plain fit", checks, details, "; ".join(notes), peaks)


def growth(number: int, settings: Settings, runner: Runner) -> Row:
    """Row 10: time and memory of the sample axis when steps, samples or measurements are doubled."""
    base, inputs = settings.growth, settings.inputs[number]
    variants = {
        "base": (base, inputs),
        "steps": (dataclasses.replace(base, steps=2 * base.steps), inputs),
        "samples": (dataclasses.replace(base, samples=2 * base.samples, batch=2 * base.batch), inputs),
        "measurements": (base, 2 * inputs),
    }
    rounds = [
        {
            # The question takes a second or two and machines are seldom idle, so it is asked several times in each round.
            name: runner.of_run(
                "attribute", spec, measure="log_prob", inputs=count, axes=["sample"], repeats=settings.repeats
            )
            for name, (spec, count) in variants.items()
        }
        for _ in range(settings.repeats)
    ]
    checks = []
    for name in ("steps", "samples", "measurements"):
        times = [np.median(r[name]["seconds"]) / np.median(r["base"]["seconds"]) for r in rounds]
        peaks = [r[name]["peak_mb"] / r["base"]["peak_mb"] for r in rounds]
        checks.append(Check(f"time, {name} doubled", float(np.median(times)), 2.1))
        bar = float("nan") if name == "measurements" else 1.05
        checks.append(Check(f"peak memory, {name} doubled", float(np.median(peaks)), bar))
    peaks_mb = {name: float(np.median([r[name]["peak_mb"] for r in rounds])) for name in variants}
    work = f"{base.kind}, {base.samples} samples, full batch, {base.steps} steps, {inputs} measurements: growth of row 5"
    return Row(number, work, checks, {"rounds": rounds}, "", peaks_mb)


def counterfactual(number: int, settings: Settings, runner: Runner) -> Row:
    """Row 11: a counterfactual answer in training steps per recorded step, and its memory as steps are doubled."""
    checks, details, peaks = [], {}, {}

    def ask(spec: TaskSpec, inputs: int, repeats: int) -> Json:
        plain_steps = settings.plain_steps[spec.kind]
        return runner.of_run("counterfactual", spec, inputs=inputs, repeats=repeats, plain_steps=plain_steps)

    base = settings.growth
    for spec in (base, dataclasses.replace(settings.resnet, steps=min(8, settings.resnet.steps))):
        for inputs, bar in ((1, 3), (settings.inputs[number], 15)):
            found = ask(spec, inputs, settings.repeats)
            unit = found["training_step_seconds"]
            ratios = [s / found["steps"] / u for s, u in zip(found["seconds"], unit, strict=True)]
            name = f"{spec.kind}, {inputs} measurements"
            checks.append(Check(f"{name}: training steps per step", float(np.median(ratios)), bar))
            details[name], peaks[name] = found, found["peak_mb"]
    for times in (2, 4):
        found = ask(dataclasses.replace(base, steps=times * base.steps), 1, 0)
        name = f"{base.kind}, {times}x the steps"
        growth = found["peak_mb"] / details[f"{base.kind}, 1 measurements"]["peak_mb"]
        checks.append(Check(f"{name}: peak memory", growth, 1.05))
        details[name], peaks[name] = found, found["peak_mb"]
    return Row(number, "counterfactual answers, by sample", checks, details, peak_mb=peaks)


def long_runs(number: int, settings: Settings, runner: Runner) -> Row:
    """Row 12: memory and time as steps, samples and layers grow."""
    short, long = settings.long_steps
    sizes = {
        "short": {"steps": short, "layers": 4},
        "long": {"steps": long, "layers": 4},
        "deep": {"steps": 4, "layers": settings.layers},
    }
    details: Json = {}
    for name, size in sizes.items():
        run_dir = runner.run_dir(f"long-{name}")
        details[name] = runner.run("record_long", run_dir=run_dir, batch=settings.long_batch, **size)
        details[name] |= {"opening": runner.run("open_long", run_dir=run_dir)}
        details[name] |= {"asking": runner.run("ask_long", run_dir=run_dir, steps=min(10, size["steps"]))}
    recorded, opened = (
        details["long"]["resident_mb"],
        [details[name]["opening"] for name in ("short", "long")],
    )
    seconds = [float(np.median(found["seconds"])) for found in opened]
    checks = [
        Check("memory while recording / after the first thousand steps", max(recorded) / recorded[0], 1.05),
        Check("memory of opening / that of the short run", opened[1]["peak_mb"] / opened[0]["peak_mb"], 1.2),
        Check("time of opening / that of the short run", seconds[1] / seconds[0], 10),
        Check("files / those of the short run", details["long"]["files"] / details["short"]["files"], 1),
    ]
    for name, found in details.items():
        checks += [
            Check(f"{name}: bytes on disk in MB", found["bytes"] / 1e6),
            Check(f"{name}: open in ms", 1000 * float(np.median(found["opening"]["seconds"]))),
            Check(f"{name}: info in s", found["asking"]["info_seconds"]),
            Check(f"{name}: attribute ten steps in s", found["asking"]["attribute_seconds"]),
        ]
    work = (
        f"{long:,} steps on {long * settings.long_batch:,} samples against {short:,} steps; a model of "
        f"{details['deep']['layers']:,} layers"
    )
    peaks = {name: found["peak_mb"] for name, found in details.items()}
    return Row(number, work, checks, details, peak_mb=peaks)


# Bars of first answers, in trainings with their tracing.
_FIRST = {
    (name, question): bar
    for name in ("mobilenet, frozen", "mobilenet")
    for question, bar in (("in total", 1.0), ("by sample", 2.0))
}


def first_answers(number: int, settings: Settings, runner: Runner) -> Row:
    """Row 13: the first answers about a model, in trainings of four steps with their tracing."""
    checks, details = [], {}
    questions: dict[str, list[str]] = {"in total": [], "by sample": ["sample"], "by layer": ["layer"]}
    for name, inputs in settings.first.items():
        run_dir = runner.run_dir(f"first-{name.replace(' ', '-')}")
        of_model = {
            "training": runner.run("train_first", name=name),
            "recording": runner.run("record_first", name=name, run_dir=run_dir),
        }
        unit = of_model["training"]["seconds"]
        checks.append(Check(f"{name}: recording", of_model["recording"]["seconds"] / unit))
        for question, axes in questions.items():
            found = runner.run("ask_first", run_dir=run_dir, axes=axes, inputs=inputs)
            of_model[question] = found
            bar = _FIRST.get((name, question), float("nan"))
            checks += [
                Check(f"{name}: first answer {question}", found["first"] / unit, bar),
                Check(f"{name}: again {question}", found["again"] / unit),
                Check(f"{name}: functions traced again {question}", found["traced"][1], 0),
            ]
        details[name] = of_model
    return Row(number, "first answers, in processor time of a training with its tracing", checks, details)


ROWS: dict[int, Callable[[int, Settings, Runner], Row]] = {
    1: paper,
    2: paper,
    **dict.fromkeys(_QUESTIONS, in_training_steps),
    9: recording,
    10: growth,
    11: counterfactual,
    12: long_runs,
    13: first_answers,
}
