"""The sources of Python's standard library: real text that comes with Python."""

import sys
import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Modules that are tables rather than text, and those that some distributions of Python package apart or leave out.
_LEFT_OUT = {
    *("encodings", "pydoc_data"),
    *("distutils", "ensurepip", "idlelib", "lib2to3", "tkinter", "turtle", "turtledemo", "venv"),
}
_TEST_FOLDERS = {"test", "tests"}
# About one file in this many is a test file.
_TEST_IN = 10


@dataclass(frozen=True)
class Windows:
    """Windows of text and, for each byte of a window, the byte that follows it.

    Attributes
    ----------
    x, y : np.ndarray of int32, shape (windows, length)
        Bytes from 0 to 255. ``y[:, t]`` follows ``x[:, t]``, so ``x[:, t + 1] == y[:, t]``.
    ids : np.ndarray of str, shape (windows,)
        Where the window begins: ``"json/decoder.py:128"`` is at byte 128 of that file.
    """

    x: npt.NDArray[np.int32]
    y: npt.NDArray[np.int32]
    ids: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: npt.NDArray[np.integer]) -> "Windows":
        """Return some of the windows.

        Parameters
        ----------
        rows : array of int, shape (k,)
            Their positions.

        Returns
        -------
        Windows
            In the order of ``rows``.
        """
        return Windows(self.x[rows], self.y[rows], self.ids[rows])


def standard_library(length: int = 64) -> tuple[Windows, Windows]:
    """Return training and test windows from the sources of the running Python's standard library.

    Files come in the order of their paths. Each is cut into consecutive windows without overlap, and a rest that fills
    no window is dropped. A file belongs to one set as a whole. A checksum of its path decides which, so every Python
    that has the file has it in the same set. Tests, packages that not every installation has, and modules that are mere
    tables are left out.

    Parameters
    ----------
    length : int, default 64
        Bytes in a window.

    Returns
    -------
    train, test : tuple of Windows
        In the order of files and within them, not shuffled. Python 3.11 gives about 100,000 windows of 64 bytes for
        training. The text differs from one version of Python to the next.

    Raises
    ------
    ValueError
        If ``length`` is below 1.
    FileNotFoundError
        If this Python has no sources (they may be in a zip file), or too few to fill a window of each set.

    Examples
    --------
    >>> train, test = standard_library()
    >>> train.x.shape[1], bytes(train.x[0, 1:].tolist()) == bytes(train.y[0, :-1].tolist())
    (64, True)
    """
    if length < 1:
        raise ValueError(f"`length`, the bytes in a window, must be at least 1. Received: length={length}.")
    root = Path(sysconfig.get_path("stdlib"))
    sides: tuple[list[tuple[str, npt.NDArray[np.uint8]]], ...] = ([], [])
    for name in _sources(root):
        text = np.frombuffer((root / name).read_bytes(), np.uint8)
        sides[_is_test(name)].append((name, text))
    return _windows(sides[0], length, root), _windows(sides[1], length, root)


def _sources(root: Path) -> list[str]:
    """Return the paths of the files below the root, in order, with "/" on every system."""
    modules = sys.stdlib_module_names - _LEFT_OUT
    # Not everything below the root, where installed packages may be as well.
    files = [root / f"{module}.py" for module in modules]
    files += [path for module in modules for path in (root / module).rglob("*.py")]
    paths = (path.relative_to(root) for path in files if path.is_file())
    return sorted(path.as_posix() for path in paths if not _TEST_FOLDERS.intersection(path.parts))


def _is_test(name: str) -> bool:
    return zlib.crc32(name.encode()) % _TEST_IN == 0


def _windows(files: list[tuple[str, npt.NDArray[np.uint8]]], length: int, root: Path) -> Windows:
    rows, ids = [], []
    for name, text in files:
        # A window also needs the byte after its last one.
        for start in range(0, len(text) - length, length):
            rows.append(text[start : start + length + 1])
            ids.append(f"{name}:{start}")
    if not rows:
        raise FileNotFoundError(
            f"In {root}, too few .py files of the standard library fill a window of {length} bytes: the training and the "
            f"test set need at least one each. Use a Python whose library is installed as .py files, or a smaller `length`."
        )
    windows = np.stack(rows).astype(np.int32)
    return Windows(windows[:, :-1], windows[:, 1:], np.array(ids))
