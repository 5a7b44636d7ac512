"""Places of variables in the tree of a ledger by weight."""

from explaind_tf import constants as names
from explaind_tf.terms import OUTPUT_DESCRIPTIONS, SAMPLE_DESCRIPTIONS, all_terms


def node_path(path: str) -> str:
    """Return the place of a variable in a tree: its path, with an underscore after names that ledgers use."""
    # In xarray no node may have the name of a variable or dimension of its parent.
    taken = {*OUTPUT_DESCRIPTIONS, *SAMPLE_DESCRIPTIONS, *all_terms(), *names.AXES}
    taken |= {names.INPUT, names.OUTPUT, names.MOVEMENT}
    return "/".join(f"{part}_" if part in taken else part for part in path.split("/"))
