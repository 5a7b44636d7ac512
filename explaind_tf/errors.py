"""Exceptions of the package: each message says what was found, what is needed and what to write instead."""


class RefusedError(ValueError):
    """Raised for something that the ledger cannot account for, before it makes a ledger wrong."""


class RunFormatError(ValueError):
    """Raised for a run directory or checkpoint that is damaged, incomplete, foreign or of another format version."""


class UnbalancedLedgerError(ArithmeticError):
    """Raised when the entries of a ledger do not add up to the change of a prediction within the tolerance."""


class WorkersError(RuntimeError):
    """Raised if workers did not compute a part of an answer, for another reason than the question or the run."""


class OtherWriterError(RefusedError):
    """Raised if another program writes to the same run or ledger, or wrote to it since it was read."""
