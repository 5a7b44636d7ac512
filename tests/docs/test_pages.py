"""Every code block of README and the documentation runs, and prints what the page says it prints."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs import pages
from tests.docs.pages import Block, blocks_of, chains, continued_page, difference_of, run_page
from tests.nightly import sweep

# Keras itself raises this warning when it saves weights with NumPy 2.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

README_COMMANDS = ["pip install -e . && explaind-tf demo\n", 'pip install -e ".[test]" && pytest\n']
# Other commands that continuous integration runs.
OTHER_COMMANDS = ['pip install -e ".[docs]" && mkdocs build --strict\n']


def code_of(page: Path, language: str) -> list[str]:
    return [block.code for block in blocks_of(page) if block.language == language]


PAGES = {page.stem: (root, page) for root, chain in chains().items() for page in chain}
# What a reader runs first. The calls of the other pages have tests of their own that run every time.
CORE = ("README", "tutorial")


@pytest.fixture(scope="module")
def run_root(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[Path, dict[str, Any]]]:
    """Return a function that runs a self-contained page once, and returns its directory and names."""

    @functools.cache
    def run(root: Path) -> tuple[Path, dict[str, Any]]:
        directory, names = tmp_path_factory.mktemp(root.stem), {}
        with contextlib.chdir(directory):
            run_page(root, names)
        return directory, names

    return run


@pytest.fixture(scope="module")
def printed() -> dict[str, str]:
    """What the commands of the pages printed. A command that several pages show is run for the first of them."""
    return {}


@pytest.mark.parametrize("name", sweep(PAGES, core=CORE, daily=False))
def test_every_block_runs(name: str, run_root: Callable[..., Any], printed: dict[str, str]):
    root, page = PAGES[name]
    directory, names = run_root(root)
    if page != root:
        with contextlib.chdir(directory):
            run_page(page, dict(names), printed)


def test_every_block_is_reached():
    reached = {page for chain in chains().values() for page in chain}
    for page in pages.pages():
        assert continued_page(page) in (None, *chains()), f"{page} continues a page that continues another"
        assert page in reached or not (code_of(page, "python") or code_of(page, "console"))


def test_every_block_is_of_a_known_language():
    blocks = [block for page in pages.pages() for block in blocks_of(page)]
    assert [block.where for block in blocks if block.language not in pages.LANGUAGES] == []
    # Indented blocks, in lists or notes, would not be found.
    fences = sum(page.read_text(encoding="utf-8").count("```") for page in pages.pages())
    assert fences == 2 * len(blocks)


def test_shell_commands_are_those_of_continuous_integration():
    assert code_of(pages.README, "sh") == README_COMMANDS
    script = (pages.ROOT / ".ci/run").read_text(encoding="utf-8")
    for page in pages.pages():
        for code in code_of(page, "sh"):
            assert code in README_COMMANDS + OTHER_COMMANDS, page
    assert all(command in script for command in ("explaind-tf demo", "pytest", "mkdocs build --strict"))


def test_output_follows_what_prints_it():
    for page in pages.pages():
        blocks = blocks_of(page)
        for before, block in zip([None, *blocks], blocks, strict=False):
            if block.language == "output":
                assert before is not None and before.language in ("python", "console"), block.where


@pytest.mark.parametrize(
    ("printed", "shown", "same"),
    [
        ("a  1.234\n", "a 1.3", True),
        ("a 0.01\n", "a 0.03", True),
        ("a 1.6\n", "a 1.3", False),
        ("a −2.0\n", "a 2.0", False),
        ("b 1.3\n", "a 1.3", False),
        ("a 1.3 4\n", "a 1.3", False),
        ("a 2e-08\n", "a 1e-08", False),
        ("a 1200\n", "a 1100", True),
    ],
)
def test_output_is_held_against_the_page(printed: str, shown: str, same: bool):
    assert (difference_of(printed, shown) is None) == same


def test_a_failure_names_the_line_of_the_page(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n```python\na = 1\nraise KeyError(a)\n```\n")
    with pytest.raises(KeyError) as caught:
        run_page(page, {})
    assert caught.traceback[-1].lineno == 4  # from 0
    assert blocks_of(page) == [Block(page, 4, "python", "a = 1\nraise KeyError(a)\n")]
