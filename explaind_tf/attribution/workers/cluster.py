"""Clients of Dask: of a scheduler that runs, or of worker processes on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Read by TensorFlow and NumPy when they start. Without them, each worker would use all cores.
_ONE_THREAD = {
    name: "1"
    for name in (
        "TF_NUM_INTRAOP_THREADS",
        "TF_NUM_INTEROP_THREADS",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    )
}


@contextmanager
def client_of(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """Open a client for a block.

    Parameters
    ----------
    workers : int, optional
        Number of processes to start on this machine, with a thread each.
    scheduler : str, optional
        Address of a scheduler that runs, such as ``"tcp://10.0.0.1:8786"``.

    Yields
    ------
    dask.distributed.Client or None
        None if neither is given.

    Raises
    ------
    ValueError
        If both are given.
    ModuleNotFoundError
        If Dask is not installed.
    """
    if workers is None and scheduler is None:
        yield None
        return
    if workers is not None and scheduler is not None:
        raise ValueError("Give a number of workers to start here, or the address of a scheduler; got both.")
    try:
        from dask.distributed import Client, LocalCluster
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'Workers need Dask: pip install "explaind_tf[distributed]"', name=error.name
        ) from error
    if scheduler is not None:
        with Client(scheduler) as client:
            yield client
        return
    with (
        LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=":0", env=_ONE_THREAD
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client
