"""Values that JSON can hold."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from upath import UPath


def plain(value: Any) -> Any:
    """Return a value that JSON can hold; numbers that are not finite become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, (Path, UPath)) else value
