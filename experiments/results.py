"""Runs an experiment and writes its results, the same way for all experiments.

    python -m experiments.results

writes ``experiments/RESULTS.md`` again from the directories in ``experiments/results``. An experiment is a function of its
settings and an empty directory to record runs in. :func:`carry_out` calls it and writes ``NAME/results.json`` (settings,
provenance, all figures), ``NAME/section.md``, images, and ``NAME/arrays.zarr`` if there are arrays.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import typer
import xarray as xr
from matplotlib.figure import Figure
from rich.console import Console
from rich.markdown import Markdown

HERE = Path(__file__).parent
RESULTS_DIR = HERE / "results"
RESULTS_FILE = HERE / "RESULTS.md"
VALUES_FILE = "results.json"
SECTION_FILE = "section.md"
ARRAYS_DIR = "arrays.zarr"
_PACKAGES = ("explaind_tf", "tensorflow", "keras", "numpy", "xarray", "zarr")
# What one experiment writes must not count as an uncommitted change for the next.
_OWN_FILES = (":(exclude,glob)experiments/results/**", ":(exclude)experiments/RESULTS.md")
_DOTS_PER_INCH = 100


class Settings(Protocol):
    """A frozen dataclass of JSON values."""

    __dataclass_fields__: Any


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Table:
    """A table of the section.

    Attributes
    ----------
    caption : str
        What is shown, of what, in which units.
    columns : sequence of str
        Their headings.
    rows : sequence of sequences
        Strings are shown as they are, numbers with three significant digits.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True)
class Image:
    """A figure of the section.

    Attributes
    ----------
    name : str
        Name of the file, without its ending.
    finding : str
        What it shows, in a sentence.
    figure : matplotlib.figure.Figure
        From :func:`new_figure`.
    """

    name: str
    finding: str
    figure: Figure

    @classmethod
    def drawn(cls, name: str, finding: str, draw: Callable[..., Figure], *shown: Any) -> "Image":
        """Return the figure ``draw(*shown, finding)``, which has its finding as its title."""
        return cls(name, finding, draw(*shown, finding))


@dataclass(frozen=True)
class Findings:
    """What an experiment found.

    Attributes
    ----------
    title : str
        Title of the section.
    question : str
        What was done and why, in a few sentences.
    conclusions : sequence of str
        The conclusions, a sentence each.
    tables : sequence of Table
        In order.
    values : mapping
        All numbers that the experiment measured, as JSON values.
    images : sequence of Image
        In order.
    arrays : xarray.Dataset or None
        Numbers that are too many for JSON.
    """

    title: str
    question: str
    conclusions: Sequence[str]
    tables: Sequence[Table]
    values: Mapping[str, Any]
    images: Sequence[Image] = field(default_factory=tuple)
    arrays: xr.Dataset | None = None


def carry_out(
    name: str, experiment: Callable[[S, Path], Findings], settings: S, *, quick: bool, out: Path | None = None
) -> Path:
    """Run an experiment and write its findings.

    Parameters
    ----------
    name : str
        Name of the experiment and of its directory.
    experiment : callable
        ``(settings, runs_dir) -> Findings``. ``runs_dir`` is an empty directory that is removed afterwards.
    settings : dataclass
        All settings, seeds included.
    quick : bool
        Whether the settings are those of ``--quick``. Such results do not go into RESULTS.md.
    out : Path, optional
        Directory for the results.

    Returns
    -------
    Path
        The directory of the results.
    """
    out_dir = out or (Path("runs") if quick else RESULTS_DIR) / name
    provenance = _provenance()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as runs_dir:
        findings = experiment(settings, Path(runs_dir))
    provenance["seconds"] = round(time.perf_counter() - start, 1)
    out_dir.mkdir(parents=True, exist_ok=True)
    for image in findings.images:
        image.figure.savefig(out_dir / f"{image.name}.png", dpi=_DOTS_PER_INCH)
    if findings.arrays is not None:
        _storable(findings.arrays).to_zarr(out_dir / ARRAYS_DIR, mode="w", consolidated=False)
    result = {
        "experiment": name,
        "quick": quick,
        "settings": dataclasses.asdict(settings),
        "provenance": provenance,
        "title": findings.title,
        "question": findings.question,
        "conclusions": list(findings.conclusions),
        "tables": [dataclasses.asdict(table) for table in findings.tables],
        "images": [{"file": f"{i.name}.png", "finding": i.finding} for i in findings.images],
        "values": findings.values,
    }
    # JSON has no NaN. An experiment must use another value for a number that does not exist.
    text = json.dumps(result, indent=1, default=_as_json, allow_nan=False)
    (out_dir / VALUES_FILE).write_text(text + "\n")
    (out_dir / SECTION_FILE).write_text(section(json.loads(text)))
    console = Console()
    console.print(Markdown((out_dir / SECTION_FILE).read_text()))
    console.print(f"Results: {out_dir}", highlight=False, markup=False, soft_wrap=True)
    return out_dir


def choose(settings: S, **given: Any) -> S:
    """Return the settings with the given options; an option that is None or empty was not given."""
    chosen = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items() if v}
    return dataclasses.replace(settings, **chosen)


def spread(values: Sequence[float]) -> str:
    """Return mean and standard deviation of repetitions, as text for a table."""
    if len(values) < 2:
        return _number(float(values[0]))
    return f"{_number(float(np.mean(values)))} ± {float(np.std(values, ddof=1)):.2g}"


def new_figure(width: float = 8, height: float = 4) -> Figure:
    """Return an empty figure of the given size in inches; ``figure.subplots(rows, columns)`` makes its axes."""
    return Figure(figsize=(width, height), layout="constrained")


def section(result: Mapping[str, Any], folder: str = "") -> str:
    """Return the section of an experiment in Markdown.

    Parameters
    ----------
    result : mapping
        The content of ``results.json``.
    folder : str
        Path from the document to the folder of the images.
    """
    parts = [f"## {result['title']}", result["question"]]
    for table in result["tables"]:
        parts += [f"**{table['caption']}**", _markdown(table)]
    for image in result["images"]:
        parts.append(f"![{image['finding']}]({folder}{image['file']})")
    parts.append("\n".join(f"- {sentence}" for sentence in result["conclusions"]))
    parts.append(_footer(result))
    return "\n\n".join(parts) + "\n"


def assemble(results_dir: Path = RESULTS_DIR) -> str:
    """Return RESULTS.md from the results of full runs.

    Raises
    ------
    ValueError
        If a result is that of a quick run, or of code that was not committed.
    """
    parts = [
        "# Results of the experiments\n\n"
        "Written by `python -m experiments.results` from the directories in `experiments/results`, which hold all "
        "figures (`results.json`), with the commit, settings and seeds that they were made with. "
        "Each is made anew by the command under its section.\n"
    ]
    for path in sorted(results_dir.glob(f"*/{VALUES_FILE}")):
        result = json.loads(path.read_text())
        if result["quick"]:
            raise ValueError(f"{path} is of a quick run. Only full runs belong in {results_dir}.")
        if not result["provenance"]["is_clean"]:
            raise ValueError(
                f"{path} was made by code that differs from commit {result['provenance']['commit']}. "
                "Commit first, and run the experiment again."
            )
        parts.append(section(result, f"{results_dir.name}/{path.parent.name}/"))
    return "\n".join(parts)


def main() -> None:
    """Write experiments/RESULTS.md again from the results of full runs."""
    RESULTS_FILE.write_text(assemble())
    Console().print(f"Written: {RESULTS_FILE}", highlight=False, markup=False, soft_wrap=True)


def code_state() -> dict[str, Any]:
    """Return the commit of the code, and whether the code is that of the commit."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "is_clean": not _git("status", "--porcelain", "--", ".", *_OWN_FILES),
    }


def _provenance() -> dict[str, Any]:
    return {
        **code_state(),
        "command": _command(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            **{package: importlib.metadata.version(package) for package in _PACKAGES},
        },
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        # If the load is larger than the number of cores, the machine was busy and the wall time is too long.
        "load_at_start": round(os.getloadavg()[0], 1),
    }


def _git(*arguments: str) -> str:
    # The paths are relative to the root.
    done = subprocess.run(["git", *arguments], cwd=HERE.parent, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _command() -> str:
    module = sys.modules["__main__"].__spec__
    name = sys.argv[0] if module is None else f"-m {module.name.removesuffix('.__main__')}"
    return " ".join(["python", name, *sys.argv[1:]])


def _storable(arrays: xr.Dataset) -> xr.Dataset:
    """Return the arrays with names as objects: Zarr has a stable type for objects, but none for strings of fixed length."""
    names = {name: value.astype(object) for name, value in arrays.coords.items() if value.dtype.kind in "UT"}
    return arrays.assign_coords(names)


def _as_json(value: Any) -> Any:
    """Return a NumPy value or a path as a JSON value."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no JSON value.")


def _markdown(table: Mapping[str, Any]) -> str:
    is_number = [
        not any(isinstance(row[i], str) for row in table["rows"]) for i in range(len(table["columns"]))
    ]
    lines = [
        table["columns"],
        ["---:" if number else "---" for number in is_number],
        *([_cell(value) for value in row] for row in table["rows"]),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return value.replace("|", "\\|") if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    if isinstance(value, int) or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _footer(result: Mapping[str, Any]) -> str:
    made = result["provenance"]
    settings = ", ".join(f"{name} {json.dumps(value)}" for name, value in result["settings"].items())
    unclean = "" if made["is_clean"] else " with changes that are not committed"
    return (
        f"`{made['command']}` · commit {made['commit'][:12]}{unclean} · {made['seconds']:,.0f} s on {made['cores']} cores "
        f"({made['machine']}, load {made['load_at_start']:g}) · TensorFlow {made['versions']['tensorflow']}, "
        f"Keras {made['versions']['keras']} · {settings}"
    )


if __name__ == "__main__":
    typer.run(main)
