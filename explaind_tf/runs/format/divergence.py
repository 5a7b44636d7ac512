"""Where a training stopped being finite: the run ends before that step, and its manifest says so."""

from dataclasses import dataclass
from typing import Any

from explaind_tf.runs.format.expect import expect, is_count, short

# The key in the manifest's environment.
DIVERGED = "diverged"


@dataclass(frozen=True)
class Divergence:
    """The step after which weights were NaN or infinite.

    Attributes
    ----------
    step : int
        Number of the step. The run holds the steps before it.
    began_in : str
        The first thing in this step that was not finite, in words: the data, the loss, a gradient or a weight.
    """

    step: int
    began_in: str

    @classmethod
    def in_environment(cls, environment: dict[str, Any]) -> "Divergence | None":
        """Return what a manifest's environment says; None if the training did not diverge.

        Raises
        ------
        RunFormatError
            If the entry is not valid.
        """
        found = environment.get(DIVERGED)
        if found is None:
            return None
        is_valid = (
            isinstance(found, dict)
            and set(found) == {"step", "began_in"}
            and is_count(found["step"])
            and isinstance(found["began_in"], str)
        )
        expect(is_valid, f"{DIVERGED} must have a step and the words began_in; found {short(found)}")
        return cls(found["step"], found["began_in"])

    def __str__(self) -> str:
        """Return a clause for a message."""
        return f"weights became NaN or infinite in step {self.step}, which began in {self.began_in}"
