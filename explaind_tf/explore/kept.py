"""`Kept`: answers on disk, beside the run, so that nothing is computed twice."""

import json
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import Final

import platformdirs
import xarray as xr

from explaind_tf.runs.storage.files import AnyPath

_SUFFIX: Final = ".answers"
_ATTRIBUTE: Final = "explored"
_PARTIAL: Final = ".partial"
# Seconds after which nobody writes to it any more.
_ABANDONED: Final = 3600


class Kept:
    """Answers by their digest, up to a size; the one that was not read for longest goes first.

    Each is a zarr store of its own that appears whole, by renaming. So no lock is needed: several programs may keep answers
    in one directory, and one that is killed leaves no more than a directory that the next one removes.

    Parameters
    ----------
    directory : Path
        Where; made when the first answer is kept.
    limit : int
        Most bytes.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self.directory, self._limit = directory, limit

    def read(self, digest: str) -> xr.Dataset | None:
        """Return an answer, or None if there is none.

        Raises
        ------
        OSError, ValueError, KeyError
            If it is damaged. :meth:`forget` removes it.
        """
        path = self.directory / digest
        if not path.is_dir():
            return None
        with xr.open_zarr(path, consolidated=False) as opened:
            answer = opened.load()
        os.utime(path)  # it was of use
        # Texts come back in a type of NumPy that few functions take.
        texts = {name: one.astype(object) for name, one in answer.coords.items() if one.dtype.kind == "T"}
        answer = answer.assign_coords(texts)
        return answer.assign_attrs(json.loads(answer.attrs.pop(_ATTRIBUTE)))

    def write(self, digest: str, answer: xr.Dataset) -> None:
        """Keep an answer, and remove the oldest ones above the limit. One that is there already stays as it is.

        Raises
        ------
        OSError
            If the directory cannot be written to.
        """
        if (self.directory / digest).exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.directory / f"{digest}.{uuid.uuid4().hex}{_PARTIAL}"
        # Attributes as JSON text: zarr would not give lists and numbers of NumPy back as they were.
        told = {_ATTRIBUTE: json.dumps(answer.attrs, default=_plain)}
        whole = answer.drop_encoding()
        whole.attrs = told
        whole.to_zarr(partial, mode="w", zarr_format=3, consolidated=False)
        try:
            partial.rename(self.directory / digest)
        except OSError:
            # Another program kept the same answer first.
            shutil.rmtree(partial)
            if not (self.directory / digest).exists():
                raise
        self._evict(digest)

    def forget(self, digest: str) -> None:
        """Remove an answer."""
        shutil.rmtree(self.directory / digest, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a program that was killed left unfinished, an hour or more ago."""
        for path in self.directory.glob(f"*{_PARTIAL}"):
            if path.stat().st_mtime < time.time() - _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)

    def _evict(self, newest: str) -> None:
        found = [path for path in self.directory.iterdir() if path.is_dir() and not path.suffix]
        found.sort(key=lambda path: (path.name == newest, path.stat().st_mtime), reverse=True)
        used = 0
        for path in found:
            used += sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
            if used > self._limit:
                shutil.rmtree(path, ignore_errors=True)


def place_of(run_dir: AnyPath | None, run_id: str) -> tuple[Path, str]:
    """Return where answers about a run are kept, and why there.

    Parameters
    ----------
    run_dir : Path, UPath or None
        The run's directory. None if the run has none, as a series of checkpoints.
    run_id : str
        The run's identifier.

    Returns
    -------
    tuple of Path and str
        Beside the run if that directory can be written to, otherwise in the user's cache.
    """
    cache = Path(platformdirs.user_cache_dir("explaind_tf")) / "answers" / run_id
    if run_dir is None:
        return cache, "in your cache, since this path of weights has no run directory"
    if not isinstance(run_dir, Path):
        return cache, "in your cache, since the run is at a URL"
    beside = run_dir.absolute().with_name(run_dir.absolute().name + _SUFFIX)
    if os.access(beside if beside.exists() else beside.parent, os.W_OK):
        return beside, "beside the run"
    return cache, "in your cache, since the directory beside the run cannot be written to"


def _plain(value: object) -> object:
    """Return a number or array of NumPy as Python's own."""
    return value.tolist()  # type: ignore[attr-defined]
