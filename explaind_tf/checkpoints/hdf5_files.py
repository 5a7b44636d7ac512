"""Files in HDF5, looked into before Keras reads them.

Such a file can name other files as the place of its data, and can state arrays that it does not hold. Reading them would
copy foreign files into weights, or take all memory.
"""

from collections.abc import Iterator
from pathlib import Path

import h5py

# Zeros become a thousand times smaller by the compressions of HDF5.
_MOST_TIMES = 1100


def stored_weights(file: Path) -> int:
    """Return the number of weights in a file, without those of optimizers.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it leads to other files, or states an array that it does not hold. The message names the place.
    """
    with h5py.File(file, "r") as stored:
        return sum(
            int(dataset.size or 0) for name, dataset in _datasets(stored) if not _is_of_optimizer(name)
        )


def _is_of_optimizer(name: str) -> bool:
    return any(part.endswith(("optimizer", "optimizer_weights")) for part in name.split("/"))


def _datasets(stored: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yield all arrays with their names, each after a check. A group that holds itself is entered once."""
    entered, waiting = set(), [("", stored)]
    while waiting:
        way, group = waiting.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in entered:
            continue
        entered.add(address)
        for name in group:
            place = f"{way}/{name}".lstrip("/")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
                raise ValueError(f"{place!r} is a link to {kind}; a file of weights must hold them itself")
            item = group[name]
            if isinstance(item, h5py.Dataset):
                _check(place, item)
                yield place, item
            elif isinstance(item, h5py.Group):
                waiting.append((place, item))


def _check(place: str, dataset: h5py.Dataset) -> None:
    if dataset.is_virtual or dataset.external:
        raise ValueError(
            f"the values of {place!r} are in other files; a file of weights must hold them itself"
        )
    held, stated = dataset.id.get_storage_size(), (dataset.size or 0) * dataset.dtype.itemsize
    is_filtered = dataset.id.get_create_plist().get_nfilters() > 0
    if stated > held * (_MOST_TIMES if is_filtered else 1):
        raise ValueError(
            f"{place!r} is to have the shape {dataset.shape}, {stated:,} bytes, but the file holds {held:,} bytes of it"
        )
