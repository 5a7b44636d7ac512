"""``explaind-tf info``."""

from explaind_tf.cli.opening import open_to_read
from explaind_tf.cli.printing import print_facts
from explaind_tf.cli.shared_arguments import AsJson, RunDir


def info(run: RunDir, as_json: AsJson = False) -> None:
    """Show what was recorded, which axes can be asked for, and what inputs look like."""
    from explaind_tf.cli.run_facts import run_facts
    from explaind_tf.cli.tables import run_table

    found = run_facts(open_to_read(run))
    print_facts(found, as_json, lambda: [run_table(found)])
