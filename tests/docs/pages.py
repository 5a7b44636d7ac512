"""The code blocks of README and the documentation, in the order in which a reader meets them.

A page is self-contained, or says ``<!-- continues: other.md -->``. Then it continues where the other page ended, with its
names and files. The languages of blocks are these:

- ``python`` and ``console`` (lines ``$ explaind-tf …``) are run.
- ``output`` is compared with what the block above it prints.
- ``sh`` are commands that continuous integration runs.
- ``text`` is not code.
"""

import contextlib
import functools
import io
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from typer.testing import CliRunner

from explaind_tf.cli import app

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
LANGUAGES = ("python", "console", "output", "sh", "text")

_CONTINUES = re.compile(r"<!-- continues: (\S+) -->")
_NUMBER = re.compile(r"[-+−]?\d+(?:\.(\d+))?(?:e[-+]?\d+)?")
# Training is repeatable on one machine. Others round differently, and Adam's first steps amplify the difference.
_RELATIVE = 0.15


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``line`` is the number of its first line of code, from 1."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def where(self) -> str:
        """The place of the block, for messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Return README and all pages of the documentation."""
    return [README, *sorted((ROOT / "docs").rglob("*.md"))]


@functools.cache
def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page in order."""
    return [
        Block(page, token.map[0] + 2, token.info.strip(), token.content)
        for token in MarkdownIt().parse(page.read_text(encoding="utf-8"))
        if token.type == "fence" and token.map is not None
    ]


def continued_page(page: Path) -> Path | None:
    """Return the page that a page continues, if there is one."""
    found = _CONTINUES.search(page.read_text(encoding="utf-8"))
    return None if found is None else (page.parent / found[1]).resolve()


def chains() -> dict[Path, list[Path]]:
    """Return, for each self-contained page with code, this page and the pages that continue it."""
    with_code = [
        page for page in pages() if any(b.language in ("python", "console") for b in blocks_of(page))
    ]
    roots = [page for page in with_code if continued_page(page) is None]
    return {root: [root, *(page for page in with_code if continued_page(page) == root)] for root in roots}


def run_page(page: Path, names: dict[str, Any], ran: dict[str, str] | None = None) -> None:
    """Run the blocks of a page in order, in the directory that is current.

    Parameters
    ----------
    page : Path
        The page.
    names : dict
        Names that earlier blocks have defined; those of the page are added.
    ran : dict, optional
        What the commands of earlier pages printed; those of the page are added. A command that several pages show is
        run for the first of them: a report takes many seconds.
    """
    printed, ran = "", {} if ran is None else ran
    for block in blocks_of(page):
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                # Line numbers in a traceback are those of the page.
                exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
            printed = stdout.getvalue()
        elif block.language == "console":
            for line in block.code.splitlines():
                ran[line] = ran[line] if line in ran else _run_command(line, block)
            printed = "".join(ran[line] for line in block.code.splitlines())
        elif block.language == "output":
            difference = difference_of(printed, block.code)
            assert difference is None, f"{block.where}: {difference}\n{printed}"


def _run_command(line: str, block: Block) -> str:
    program, *arguments = shlex.split(line.removeprefix("$ "))
    assert program == "explaind-tf", f"{block.where}: {line}"
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, f"{block.where}: {line}\n{result.output}"
    return result.stdout


def difference_of(printed: str, shown: str) -> str | None:
    """Return how the printed text differs from the page, or None if only in the last digits of numbers.

    A number may be off by 15% or by two units of the last place that is shown. The words must be the same.
    """
    words = [" ".join(_NUMBER.sub("#", text).split()) for text in (printed, shown)]
    if words[0] != words[1]:
        return f"printed {words[0]!r}, the page shows {words[1]!r}"
    found = zip(_numbers(printed), _numbers(shown), strict=True)
    off = [(a, b) for (a, _), (b, unit) in found if abs(a - b) > max(_RELATIVE * abs(b), 2 * unit)]
    return f"numbers are off (printed, shown): {off}" if off else None


def _numbers(text: str) -> Iterable[tuple[float, float]]:
    for match in _NUMBER.finditer(text):
        unit = 10.0 ** -len(match[1]) if match[1] else 1.0
        yield float(match[0].replace("−", "-")), 0.0 if "e" in match[0] else unit
