"""Looks at a run in the browser: a page on this machine that shows inputs and asks the run about them."""

from importlib.util import find_spec
from typing import Final

# The packages of the extra.
_NEEDED: Final = {"dash": "dash", "PIL": "pillow", "platformdirs": "platformdirs"}

_missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
if _missing:
    raise ModuleNotFoundError(
        f'The page about a run needs {", ".join(_missing)}: pip install "explaind_tf[explore]"',
        name=_missing[0],
    )
