"""A ledger that grows on disk: if the process is killed, each block is in it as a whole or not at all."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from upath import UPath

import explaind_tf as xtf
from explaind_tf import constants as names
from explaind_tf.errors import OtherWriterError
from explaind_tf.ledgers import store as stores
from explaind_tf.ledgers.store import LedgerStore
from explaind_tf.runs.storage import files, lease
from explaind_tf.runs.storage.files import remove_tree
from tests.helpers import Recorded, X, digest

Ledger = xr.Dataset | xr.DataTree
SIZES = (2, 2, 2, 1)  # the last block is shorter, as that of an attribution often is
# test_streaming.py stores a tree every time.
AXES = [("sample", "layer"), pytest.param(("step", "parameter"), marks=pytest.mark.nightly)]
IDS = ["sample-layer", "step-parameter"]


@pytest.fixture(scope="module", name="opened")
def _opened(small_run: Recorded) -> xtf.Run:
    return small_run.open()


@pytest.fixture(scope="module", params=AXES, ids=IDS, name="blocks")
def _blocks(opened: xtf.Run, request: pytest.FixtureRequest) -> list[Ledger]:
    """Ledgers of slices of the inputs; a dataset with labels that are strings, and a tree."""
    starts = np.cumsum([0, *SIZES])
    measurement = xtf.measurements.outputs()
    return [
        opened.attribute(X[start:stop], measurement, axes=request.param)
        for start, stop in itertools.pairwise(starts)
    ]


@pytest.fixture(scope="module", name="dataset")
def _dataset(opened: xtf.Run) -> xr.Dataset:
    return opened.attribute(X[:2], axes=("sample",))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.zarr"


def concat(blocks: list[Ledger]) -> Ledger:
    """Join ledgers in memory."""
    nodes = {}
    trees = [block if isinstance(block, xr.DataTree) else xr.DataTree(block) for block in blocks]
    for node in trees[0].subtree:
        parts = [tree[node.path].to_dataset(inherit=False) for tree in trees]
        joined = parts[0]
        if names.INPUT in joined.dims:
            joined = xr.concat(
                parts, names.INPUT, data_vars="minimal", coords="minimal", compat="equals", join="exact"
            )
        nodes[node.path] = joined
    root = nodes["/"]
    root[names.INPUT] = np.arange(root.sizes[names.INPUT])
    root.attrs["quadrature_nodes"] = sum(block.attrs["quadrature_nodes"] for block in blocks)
    return xr.DataTree.from_dict(nodes) if isinstance(blocks[0], xr.DataTree) else root


def assert_holds(store: LedgerStore, blocks: list[Ledger]) -> None:
    """Check every value, label and attribute, and that the ledger balances."""
    ledger = store.open()
    expected = concat(blocks)
    assert store.inputs_done == ledger.sizes[names.INPUT]
    xr.testing.assert_identical(ledger.load(), expected)
    if isinstance(expected, xr.DataTree):
        assert [node.path for node in ledger.subtree] == [node.path for node in expected.subtree]
    ledger.explaind.check()


class Killed(BaseException):
    """Not an Exception, for which zarr would clean up."""


@contextlib.contextmanager
def killed_after(writes: int) -> Iterator[Callable[[], bool]]:
    """Let a number of files be written, and none after them. Yield whether that was enough."""
    left = [writes]

    def let(plain: Callable[..., Any]) -> Callable[..., Any]:
        def rename(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return plain(*arguments)

        return rename

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "replace", let(Path.replace))
        patch.setattr(os, "link", let(os.link))
        with contextlib.suppress(Killed):
            yield lambda: left[0] >= 0
        # Zarr writes several files at once. A kill would end all of these writes, so none may go on here.
        loop = zarr.core.sync._get_loop()
        while any(not task.done() for task in asyncio.all_tasks(loop)):
            time.sleep(0.001)


def small_ledger() -> xr.Dataset:
    """Return a ledger that shows every cut: arrays with and without inputs, labels, chunks of only zeros."""
    values = np.arange(6.0).reshape(2, 3)
    return xr.Dataset(
        {"data": (("input", "layer"), values), "state": (("layer", "input"), np.zeros((3, 2)))},
        {
            "input": np.arange(2),
            "layer": np.array(["a", "b", "c"], object),
            "movement": ("input", [1.0, 2.0]),
        },
        {"quadrature_nodes": 5},
    )


def assert_equals_copies(store: LedgerStore, block: xr.Dataset, count: int) -> None:
    expected = xr.concat(
        [block] * count, "input", data_vars="minimal", coords="minimal", compat="equals", join="override"
    )
    expected = expected.assign_coords(input=np.arange(2 * count)).assign_attrs(quadrature_nodes=5 * count)
    xr.testing.assert_identical(store.open().load(), expected)
    for array in (store.path / "data", store.path / "state"):  # nothing that was cut off is left
        assert json.loads((array / "zarr.json").read_text())["shape"].count(2 * count) == 1


def fail(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_blocks_add_up_to_the_ledger_in_memory(path: Path, blocks: list[Ledger]):
    store = LedgerStore(path, "a")
    assert store.inputs_done == 0
    for done, block in enumerate(blocks, 1):
        before = block.copy(deep=True)
        store.append(block)
        assert_holds(store, blocks[:done])
        xr.testing.assert_identical(block, before)
    store.finish()
    assert_holds(store, blocks)


def test_xarray_alone_reads_the_store(path: Path, blocks: list[Ledger]):
    store = LedgerStore(path, "a")
    for block in blocks:
        store.append(block)
    is_tree = isinstance(blocks[0], xr.DataTree)
    plain = (
        xr.open_datatree(path, engine="zarr", consolidated=False, chunks=None)
        if is_tree
        else xr.open_zarr(path, consolidated=False, chunks=None)
    )
    plain.explaind.check()
    xr.testing.assert_equal(plain["movement"], concat(blocks)["movement"])


def test_a_ledger_is_read_when_it_is_used(path: Path, dataset: xr.Dataset):
    store = LedgerStore(path, "a")
    store.append(dataset)
    ledger = store.open()
    assert not ledger["data"].variable._in_memory
    np.testing.assert_array_equal(ledger["data"][1], dataset["data"][1])


def test_an_attribution_goes_on_where_another_process_stopped(path: Path, blocks: list[Ledger]):
    for count, block in enumerate(blocks):
        with LedgerStore(path, "a") as store:
            assert store.inputs_done == sum(SIZES[:count])
            store.append(block)
    LedgerStore(path, "a").finish()
    before = digest(path)
    store = LedgerStore(path, "a")
    assert store.is_complete
    assert_holds(store, blocks)
    store.finish()
    with pytest.raises(ValueError, match="complete"):
        store.append(blocks[0])
    assert digest(path) == before


def test_inputs_may_be_numbered_through(path: Path, dataset: xr.Dataset):
    store = LedgerStore(path, "a")
    store.append(dataset)
    store.append(dataset.assign_coords(input=[2, 3]))
    with pytest.raises(ValueError, match=r"from 4 or 0; found \[2, 3\]"):
        store.append(dataset.assign_coords(input=[2, 3]))
    assert store.open()["input"].values.tolist() == [0, 1, 2, 3]


class TestInterrupted:
    @pytest.mark.parametrize("committed", [0, pytest.param(1, marks=pytest.mark.nightly), 3])
    def test_between_data_and_commit(
        self, path: Path, blocks: list[Ledger], committed: int, monkeypatch: pytest.MonkeyPatch
    ):
        store = LedgerStore(path, "a")
        for block in blocks[:committed]:
            store.append(block)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(store, "_commit", fail)
            store.append(blocks[committed])
        if committed:
            assert_holds(store, blocks[:committed])
        for add in (lambda: store.append(blocks[committed]), store.finish):
            with pytest.raises(ValueError, match="open it again"):
                add()
        store.close()  # as the end of the process does
        store = LedgerStore(path, "a")
        if committed:
            assert_holds(store, blocks[:committed])
        for block in blocks[committed:]:
            store.append(block)
        assert_holds(store, blocks)

    @pytest.mark.parametrize("committed", [pytest.param(0, marks=pytest.mark.nightly), 1])
    def test_at_any_write(self, path: Path, committed: int, tmp_path: Path):
        """Zarr's files come into being by renaming. The process may be killed before each renaming."""
        block, finished = small_ledger(), False
        moments = itertools.count()
        while not finished:
            shutil.rmtree(path, ignore_errors=True)
            store = LedgerStore(path, "a")
            for _ in range(committed):
                store.append(block)
            with killed_after(next(moments)) as alive:
                store.append(block)
            finished = alive()
            store.close()
            again = LedgerStore(path, "a")
            assert again.inputs_done == 2 * (committed + finished)
            again.append(block)
            assert_equals_copies(again, block, committed + finished + 1)
        assert next(moments) > 10

    def test_while_it_is_cut_back(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        block, finished = small_ledger(), False
        moments = itertools.count()
        while not finished:
            shutil.rmtree(path, ignore_errors=True)
            store = LedgerStore(path, "a")
            store.append(block)
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(store, "_commit", fail)
                store.append(block)
            store.close()
            with killed_after(next(moments)) as alive:
                LedgerStore(path, "a")
            finished = alive()
            again = LedgerStore(path, "a")
            again.append(block)
            assert_equals_copies(again, block, 2)
        assert next(moments) > 2

    def test_store_is_no_store_before_its_root_is_whole(self, path: Path, dataset: xr.Dataset):
        path.mkdir()
        (path / f"zarr.{'0' * 32}.partial").write_text("{")
        store = LedgerStore(path, "a")
        store.append(dataset)
        store.close()
        store = LedgerStore(path, "a")
        assert_holds(store, [dataset])
        assert sorted(entry.suffix for entry in path.iterdir() if entry.is_file()) == [".json"]


class TestAtAUrl:
    """At a URL, objects are replaced as a whole, as local files are by renaming."""

    @pytest.fixture
    def url(self) -> Iterator[UPath]:
        path = UPath(f"memory://{uuid.uuid4().hex}/ledger.zarr")
        yield path
        remove_tree(path.parent)

    @pytest.mark.parametrize("committed", [0, 1])
    def test_what_was_not_committed_is_cut_off(
        self, url: UPath, committed: int, monkeypatch: pytest.MonkeyPatch
    ):
        block = small_ledger()
        store = LedgerStore(str(url), "a")
        for _ in range(committed):
            store.append(block)
        with monkeypatch.context() as patched:
            patched.setattr(store, "_commit", fail)
            with pytest.raises(KeyboardInterrupt):
                store.append(block)
        store.close()
        for count in (1, 2, 3)[committed:]:
            with LedgerStore(url, "a") as store:
                store.append(block)
            with LedgerStore(url, "a") as store:
                assert_equals_copies(store, block, count)
        with pytest.raises(ValueError, match="holds another attribution"):
            LedgerStore(url, "b")

    def test_it_is_not_begun_where_files_may_be_found_in_part(
        self, url: UPath, monkeypatch: pytest.MonkeyPatch
    ):
        (url.parent / "notes.txt").write_bytes(b"mine")
        monkeypatch.setattr(files, "_OBJECT_STORES", ())
        with pytest.raises(xtf.RefusedError, match="cannot be written to"):
            LedgerStore(url, "a")
        assert [path.name for path in url.parent.iterdir()] == ["notes.txt"]


class TestTwoWriters:
    @pytest.fixture(params=["directory", "url"])
    def place(self, request: pytest.FixtureRequest, path: Path) -> Iterator[Path | UPath]:
        if request.param == "directory":
            yield path
            return
        url = UPath(f"memory://{uuid.uuid4().hex}/ledger.zarr")
        yield url
        remove_tree(url.parent)

    def test_second_is_refused_until_the_first_is_closed(self, place: Path | UPath):
        block = small_ledger()
        with LedgerStore(place, "a") as first:
            first.append(block)
            with pytest.raises(OtherWriterError, match="is being written to by"):
                LedgerStore(place, "a")
            first.append(block)
        with pytest.raises(ValueError, match="it was closed; open it again"):
            first.append(block)
        second = LedgerStore(place, "a")
        assert_equals_copies(second, block, 2)
        second.finish()
        assert LedgerStore(place, "a").is_complete
        assert [path.name for path in place.parent.iterdir()] == ["ledger.zarr"]

    def test_one_that_was_taken_for_ended_writes_no_more(self, monkeypatch: pytest.MonkeyPatch):
        url, block = UPath(f"memory://{uuid.uuid4().hex}/ledger.zarr"), small_ledger()
        first = LedgerStore(url, "a")
        with monkeypatch.context() as patched:
            patched.setattr(lease, "STALE_SECONDS", -1.0)
            second = LedgerStore(url, "a")
        with pytest.raises(OtherWriterError, match="taken over by another writer"):
            first.append(block)
        second.append(block)
        assert_equals_copies(second, block, 1)
        remove_tree(url.parent)


def test_what_is_committed_was_forced_to_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch):
    """In this order: arrays, the mark that names them, the mark's directory entry."""
    synced: list[tuple[Path, int]] = []
    store = LedgerStore(path, "a")
    monkeypatch.setattr(
        stores, "sync_file", lambda file: synced.append((file, stores._read_mark(path).inputs_done))
    )
    for _ in range(2):
        store.append(small_ledger())
    chunks = {file for file in path.rglob("*") if file.is_file() and file.parent != path}
    assert chunks
    assert chunks <= {file for file, _ in synced}
    for done in (2, 4):  # the last things forced to the disk are those that were committed by then
        assert {(path, done), (path / "zarr.json", done)} <= set(synced)
    chunk = path / "data" / "c" / "1" / "0"
    assert (chunk, 2) in synced  # before the mark says that there are four


class TestRefused:
    def refuse(self, path: Path, *words: str, fingerprint: str = "a") -> None:
        before = digest(path) if path.is_dir() else path.read_bytes()
        with pytest.raises(ValueError) as caught:
            LedgerStore(path, fingerprint)
        for word in (str(path), *words):
            assert word in str(caught.value)
        assert (digest(path) if path.is_dir() else path.read_bytes()) == before

    @pytest.mark.parametrize("complete", [False, True])
    def test_ledger_of_another_attribution(self, path: Path, dataset: xr.Dataset, complete: bool):
        store = LedgerStore(path, "a")
        store.append(dataset)
        if complete:
            store.finish()
        self.refuse(path, "2 inputs", "'a'", "'b'", "another path", "delete", fingerprint="b")

    def test_other_ledgers_of_zarr(self, path: Path, dataset: xr.Dataset):
        dataset.to_zarr(path, consolidated=False)
        self.refuse(path, "directory", "left unchanged", "delete")

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "{}", '{"attributes": {"ledger_store": 3}}', '{"attributes": {"ledger_store": {}}}'],
    )
    def test_root_that_is_damaged(self, path: Path, text: str):
        path.mkdir()
        (path / "zarr.json").write_text(text)
        self.refuse(path, "directory")

    def test_any_other_directory(self, small_run: Recorded):
        self.refuse(small_run.run_dir, "directory")

    def test_any_file(self, path: Path):
        path.write_text("file")
        self.refuse(path, "file")

    def test_empty_directory_is_no_other(self, path: Path, dataset: xr.Dataset):
        path.mkdir()
        store = LedgerStore(path, "a")
        with pytest.raises(ValueError, match="is empty"):
            store.open()
        store.append(dataset)
        assert_holds(store, [dataset])

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            (lambda ledger: ledger.assign_coords(sample=ledger["sample"].values[::-1]), "/sample differ"),
            (lambda ledger: ledger.isel(output=[0]), "/data, /external, /final"),
            (lambda ledger: ledger.drop_vars("state"), "/state differ"),
            (lambda ledger: ledger.assign(more=ledger["data"]), "/more differ"),
            (lambda ledger: ledger.isel(sample=slice(3)), "/data, /sample differ"),
            (lambda ledger: xr.DataTree.from_dict({"/": ledger, "net": ledger[["data"]]}), "/net differ"),
        ],
        ids=["labels", "outputs", "fewer", "more", "samples", "tree"],
    )
    def test_block_that_does_not_continue(
        self, path: Path, dataset: xr.Dataset, change: Callable[[xr.Dataset], Ledger], word: str
    ):
        store = LedgerStore(path, "a")
        store.append(dataset)
        before = digest(path)
        with pytest.raises(ValueError, match=word):
            store.append(change(dataset))
        assert digest(path) == before
        store.append(dataset)
        assert store.inputs_done == 4


def test_chunks_hold_the_inputs_of_a_block_and_are_not_too_large(
    path: Path, dataset: xr.Dataset, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(stores, "_CHUNK_BYTES", 100)
    store = LedgerStore(path, "a")
    store.append(dataset)
    store.append(dataset)
    assert dataset["data"].shape == (2, 2, 10)
    group = zarr.open_group(path, mode="r")
    chunks = {name: array.chunks for name, array in group.arrays()}
    assert (chunks["data"], chunks["input"], chunks["initial"]) == ((2, 2, 2), (2,), (2, 2))
    assert_holds(store, [dataset, dataset])
