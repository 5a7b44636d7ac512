"""Exceptions of the package. Each says what was found, what is needed and how to get there."""


class RefusedError(ValueError):
    """Something that the ledger cannot account for, refused before it makes the ledger wrong."""


class RunFormatError(ValueError):
    """A run directory or checkpoint that is damaged, incomplete, foreign or of another format version."""


class UnbalancedLedgerError(ArithmeticError):
    """A ledger whose entries do not add up to the movement within the tolerance."""
