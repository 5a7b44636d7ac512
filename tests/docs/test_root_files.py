"""The files at the repository's root state the versions that the code has."""

import re

from explaind_tf.constants import FORMAT_VERSION, KNOWN_VERSIONS, VERSION
from tests.docs.pages import ROOT


def test_the_citation_names_the_version():
    lines = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("version:")] == [f"version: {VERSION}"]


def test_the_changelog_lists_every_version_of_the_run_format():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    versions = {int(row[0].removeprefix("| ")): row[2] for row in rows}
    assert sorted(versions) == list(range(1, FORMAT_VERSION + 1))
    assert [version for version, is_readable in versions.items() if is_readable == "yes"] == sorted(
        KNOWN_VERSIONS, reverse=True
    )


def test_hooks_before_a_commit_are_what_continuous_integration_runs():
    hooks = re.findall(
        r"^ +entry: (.+)$", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"), re.M
    )
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert len(hooks) == 4
    assert set(hooks) <= set(commands)
