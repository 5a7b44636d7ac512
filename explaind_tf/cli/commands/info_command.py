"""``explaind-tf info``."""

from explaind_tf.cli import asking, facts, tables
from explaind_tf.cli.printing import print_facts
from explaind_tf.cli.shared_arguments import AsJson, RunDir


def info(run: RunDir, as_json: AsJson = False) -> None:
    """Show what was recorded, which axes can be asked for, and what inputs look like."""
    found = facts.run_facts(asking.open_for_shell(run))
    print_facts(found, as_json, lambda: [tables.run_table(found)])
