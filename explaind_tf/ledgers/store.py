"""A ledger on disk that grows by blocks of inputs, so an interrupted attribution can go on."""

import json
import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.storage import FsspecStore

from explaind_tf import constants as names
from explaind_tf.runs.storage.files import AnyPath, as_path, remove_tree, require_whole_files, sync_file
from explaind_tf.runs.storage.lease import Lease
from explaind_tf.runs.storage.lock import DirectoryLock, Lock

_MARK = "ledger_store"  # attribute of the root group by which a store is known as ours
_NODES = "quadrature_nodes"
_ROOT = "/"
_UNFINISHED = f"*.{'[0-9a-f]' * 32}.partial"  # what zarr leaves if it is killed before it renames a file
_CLOCK_SECONDS = 3.0  # some file systems note times so coarsely
_WRITER = ".writer.json"  # beside a store at a URL: within it, zarr would take it for an array
_CHUNK_BYTES = 64 * 2**20  # a reader always decodes whole chunks


@dataclass(frozen=True)
class _Mark:
    """What is committed: the groups in order, and the number of inputs in each of their arrays."""

    fingerprint: str
    inputs_done: int = 0
    complete: bool = False
    groups: list[str] = field(default_factory=list)


class LedgerStore:
    """A zarr store to which ledgers of blocks of inputs are appended, by one process at a time.

    What a process has committed survives if it is killed, and in a local directory a power cut, too. Opening the store
    again cuts off what was being appended. A store that is not complete is locked until it is complete or closed.

    Parameters
    ----------
    path : str, Path or UPath
        A path where there is nothing, for a new store, or the store of an attribution with the same fingerprint.
    fingerprint : str
        Digest of all that the ledger depends on: run, question, measurement, inputs.

    Raises
    ------
    OtherWriterError
        If another attribution is writing to the store.
    ValueError
        If there is something else at the path, which is left unchanged. Or if the file system might show files that
        are only partly written.
    """

    def __init__(self, path: str | AnyPath, fingerprint: str) -> None:
        self.path = as_path(path)
        require_whole_files(self.path)
        self._lock: Lock | None = None
        self._store = _zarr_store(self.path)
        self._mark, self._is_appending = self._found(fingerprint) or _Mark(fingerprint), False
        if self.is_complete:
            return
        self._lock = _lock_of(self.path)
        self._lock.acquire()
        try:
            self._begin(self._found(fingerprint))  # another program may have written since
        except BaseException:
            self.close()
            raise

    def _found(self, fingerprint: str) -> _Mark | None:
        """Return the mark of the store that is there, or None if there is nothing."""
        found = _read_mark(self.path)
        if found and found.fingerprint != fingerprint:
            raise ValueError(
                f"{self.path} holds another attribution: {found.inputs_done} inputs with fingerprint {found.fingerprint!r}; "
                f"needed is {fingerprint!r}. Run, question, measurement or inputs differ. Choose another path, or delete it."
            )
        return found

    def _begin(self, found: _Mark | None) -> None:
        if found:
            self._mark = found
        else:
            zarr.create_group(self._store, zarr_format=3, attributes={_MARK: asdict(self._mark)})
        if self.is_complete:
            self.close()
        else:
            self._cut_back()

    def __enter__(self) -> "LedgerStore":
        """Return the store, for a block that closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Let others write to the store. It can still be read."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    @property
    def inputs_done(self) -> int:
        """Number of inputs whose ledgers are in the store."""
        return self._mark.inputs_done

    @property
    def is_complete(self) -> bool:
        """Whether :meth:`finish` was called."""
        return self._mark.complete

    def append(self, ledger: xr.Dataset | xr.DataTree) -> None:
        """Append the ledger of the next inputs and commit it.

        Parameters
        ----------
        ledger : xarray.Dataset or xarray.DataTree
            Its inputs are numbered from 0 or from ``inputs_done``. Variables without the dimension ``input`` must equal
            those of the first block. The attributes of the first block are kept, and the first ``diagnosis``.
            ``quadrature_nodes`` adds up, where there are any.

        Raises
        ------
        ValueError
            If the ledger does not continue those before, the store is complete, or the last append failed.
        """
        self._check_writable()
        blocks, done = _by_group(ledger, self.inputs_done), self.inputs_done
        own: dict[Any, Any] = {**ledger.attrs, _MARK: asdict(self._mark)}
        if done:
            self._check_continues(blocks)
            own = zarr.open_group(self._store, mode="r").attrs.asdict()
            if names.DIAGNOSIS in ledger.attrs:
                own.setdefault(names.DIAGNOSIS, ledger.attrs[names.DIAGNOSIS])
        nodes = {}
        if _NODES in ledger.attrs:
            nodes[_NODES] = int(ledger.attrs[_NODES] + (own[_NODES] if done else 0))
        self._is_appending, began = True, time.time()
        for group, block in blocks.items():
            block.attrs = own if group == _ROOT else {}  # xarray writes all attributes anew, also the mark
            # Consolidated metadata would have to be committed too, and zarr warns about it.
            if not done:
                chunks = {name: {"chunks": _chunks(array)} for name, array in block.variables.items()}
                block.to_zarr(self._store, group=group, mode="a", encoding=chunks, consolidated=False)
            elif names.INPUT in block.dims:
                block.to_zarr(self._store, group=group, append_dim=names.INPUT, consolidated=False)
        self._sync(began)
        self._commit(nodes, inputs_done=done + ledger.sizes[names.INPUT], groups=list(blocks))

    def finish(self) -> None:
        """Mark the store complete: the ledgers of all inputs are in it."""
        if not self.is_complete:
            self._check_writable()
            self._commit({}, complete=True)
        self.close()

    def open(self) -> xr.Dataset | xr.DataTree:
        """Return the ledger of all inputs so far, a tree if the blocks were trees. Values are read when they are used."""
        if not self.inputs_done:
            raise ValueError(f"{self.path} is empty: append the ledger of some inputs first.")
        # open_datatree would order the nodes as the file system does, not as the model does.
        nodes = {group: self._open_group(group) for group in self._mark.groups}
        del nodes[_ROOT].attrs[_MARK]
        return nodes[_ROOT] if len(nodes) == 1 else xr.DataTree.from_dict(nodes)

    def _open_group(self, group: str) -> xr.Dataset:
        found = xr.open_zarr(self._store, group=group, chunks=None, consolidated=False)
        return found.isel({names.INPUT: slice(self.inputs_done)}, missing_dims="ignore")

    def _check_writable(self) -> None:
        if self.is_complete or self._is_appending or self._lock is None:
            why = "the last append failed" if self._is_appending else "it was closed"
            why = "it is complete" if self.is_complete else f"{why}; open it again to go on"
            raise ValueError(f"Nothing can be appended to {self.path}: {why}.")
        self._lock.require()

    def _commit(self, attributes: dict[str, int], **changes: Any) -> None:
        mark, began = replace(self._mark, **changes), time.time()
        # All attributes are in one file, which zarr replaces by renaming: the commit is atomic.
        zarr.open_group(self._store, mode="r+").update_attributes({_MARK: asdict(mark), **attributes})
        self._sync(began)
        self._mark, self._is_appending = mark, False

    def _sync(self, since: float) -> None:
        """Force to the disk what was written since a time. In an object store, what was written is kept."""
        if isinstance(self.path, Path):
            for path in (self.path, *self.path.rglob("*")):
                if path.stat().st_mtime >= since - _CLOCK_SECONDS:
                    sync_file(path)

    def _cut_back(self) -> None:
        """Remove what was written after the last commit."""
        done = self.inputs_done
        unfinished: list[AnyPath] = [*self.path.rglob(_UNFINISHED)]
        for path in unfinished:
            remove_tree(path)
        for path in () if done else [path for path in self.path.iterdir() if path.is_dir()]:
            remove_tree(path)  # the next first block chooses chunks and metadata anew
        for _, array in zarr.open_group(self._store, mode="r+").members(max_depth=None):
            if isinstance(array, zarr.Array):
                sizes = zip(getattr(array.metadata, "dimension_names", None) or (), array.shape, strict=True)
                shape = tuple(min(size, done) if dim == names.INPUT else size for dim, size in sizes)
                if shape != array.shape:
                    array.resize(shape)

    def _check_continues(self, blocks: dict[str, xr.Dataset]) -> None:
        differing = sorted(set(self._mark.groups) ^ set(blocks))
        for group in () if differing else blocks:
            # With no inputs selected, only what must be equal remains: other dimensions, and values without inputs.
            both = (self._open_group(group), blocks[group])
            old, new = (one.isel({names.INPUT: slice(0)}, missing_dims="ignore").variables for one in both)
            equal = [name for name in old if name in new and old[name].equals(new[name])]
            differing += [f"{group.rstrip('/')}/{name}" for name in sorted({*old, *new} - {*equal}, key=str)]
        if differing:
            raise ValueError(
                f"This ledger does not continue the {self.inputs_done} inputs in {self.path}: {', '.join(differing)} "
                f"differ in name, dimensions or values. Append ledgers of one run and one question only."
            )


def _zarr_store(path: AnyPath) -> Path | FsspecStore:
    if isinstance(path, Path):
        return path
    return FsspecStore.from_url(str(path), storage_options=dict(path.storage_options))


def _lock_of(path: AnyPath) -> Lock:
    if isinstance(path, Path):
        path.mkdir(parents=True, exist_ok=True)
        return DirectoryLock(path)
    return Lease(path.with_name(path.name + _WRITER), str(path))


def _read_mark(path: AnyPath) -> _Mark | None:
    """Return the mark of a store, or None if there is nothing or no whole root group."""
    try:
        return _Mark(**json.loads((path / "zarr.json").read_bytes())["attributes"][_MARK])
    except (OSError, ValueError, KeyError, TypeError):
        if not path.exists() or (path.is_dir() and all(p.match(_UNFINISHED) for p in path.iterdir())):
            return None
        raise ValueError(
            f"{path} is a {'directory' if path.is_dir() else 'file'} that holds no ledger begun by attribute(); it was left "
            f"unchanged. Choose a path where there is nothing, or delete what is there."
        ) from None


def _by_group(ledger: xr.Dataset | xr.DataTree, first_input: int) -> dict[str, xr.Dataset]:
    """Return the datasets of a ledger by group, with inputs numbered from ``first_input``."""
    found, numbers = ledger.coords[names.INPUT], np.arange(ledger.sizes[names.INPUT])
    if not any(np.array_equal(found, start + numbers) for start in (0, first_input)):
        raise ValueError(
            f"Inputs must be numbered from {first_input} or 0; found {found.values[:5].tolist()} …."
        )
    tree = ledger if isinstance(ledger, xr.DataTree) else xr.DataTree(ledger)
    # Chunk sizes read from another store would not fit.
    blocks = {node.path: node.to_dataset(inherit=False).drop_encoding() for node in tree.subtree}
    blocks[_ROOT] = blocks[_ROOT].assign_coords({names.INPUT: found.copy(data=first_input + numbers)})
    return blocks


def _chunks(array: xr.Variable) -> tuple[int, ...]:
    """Return a chunk shape that holds all inputs of a block: the next block then begins with a new chunk."""
    shape = {dim: max(1, size) for dim, size in array.sizes.items()}
    for dim in sorted(set(shape) - {names.INPUT}, key=lambda dim: shape[dim], reverse=True):
        parts = math.ceil(array.dtype.itemsize * math.prod(shape.values()) / _CHUNK_BYTES)
        shape[dim] = max(1, shape[dim] // parts)
    return tuple(shape.values())
