"""Checkpoints from a stranger: archives and files that lead elsewhere, or ask for more memory than they hold."""

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.types_pb2 import DT_FLOAT
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

import explaind_tf as xtf
from explaind_tf.runs.storage.tensor_bundle import check_bundle
from tests.checkpoints.saving import FORMS, build
from tests.hostile.tables import read_table, written_table

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]
KERNEL = "layers/dense/vars/0"
SHAPE = (3, 4)


def refused(
    saved: tuple[Path, object], tmp_path: Path, form: str, name: str, change: Callable[[Path], None]
) -> str:
    """Return the message with which a changed checkpoint is refused."""
    for file in saved[0].glob(FORMS[form]):
        shutil.copy(file, tmp_path)
    change(tmp_path / name)
    with pytest.raises(xtf.RunFormatError) as caught:
        xtf.open_checkpoints(str(tmp_path / FORMS[form]), build())
    return str(caught.value)


def external_link(file: h5py.File, path: Path) -> None:
    file[KERNEL] = h5py.ExternalLink(str(path), KERNEL)


def soft_link(file: h5py.File, path: Path) -> None:
    file[KERNEL] = h5py.SoftLink("/layers/dense/vars/1")


def external_storage(file: h5py.File, path: Path) -> None:
    file.create_dataset(KERNEL, SHAPE, "float32", external=[(str(path), 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, path: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "float32")
    layout[:] = h5py.VirtualSource(str(path), KERNEL, SHAPE)
    file.create_virtual_dataset(KERNEL, layout)


def unwritten(file: h5py.File, path: Path) -> None:
    file.create_dataset(KERNEL, (2**20, 2**20), "float32", chunks=(64, 64))


def squeezed(file: h5py.File, path: Path) -> None:
    data = np.zeros((2**10, 2**10), "float32")
    file.create_dataset(KERNEL, data=data, chunks=(2**10, 2**10), compression="gzip")


@pytest.mark.parametrize(
    ("form", "put", "message"),
    [
        ("weights", external_link, "vars/0' is a link to another file"),
        ("weights", soft_link, "vars/0' is a link to another place"),
        ("weights", external_storage, "vars/0' are in other files"),
        ("weights", virtual, "vars/0' are in other files"),
        ("weights", unwritten, r"vars/0' is to have the shape \(1048576, 1048576\).*holds 0 bytes"),
        ("keras", squeezed, "it holds 1,048,.* weights, and the model has"),
    ],
)
def test_hdf5_that_leads_elsewhere_or_holds_less_than_it_says(saved, tmp_path, form, put, message):
    other = saved[0] / "w-1.weights.h5"

    def change(path: Path) -> None:
        inner = tmp_path / "inner.weights.h5.tmp"
        shutil.copy(other, inner)
        with h5py.File(inner, "a") as file:
            del file[KERNEL]
            put(file, other)
        if form == "weights":
            inner.replace(path)
            return
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(inner, "model.weights.h5")
        inner.unlink()

    name = "w-2.weights.h5" if form == "weights" else "m-02.keras"
    found = refused(saved, tmp_path, form, name, change)
    assert name in found
    assert re.search(message, found), found


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(2**27))


def locked(path: Path) -> None:
    """Set the flag of a password, in the file's head and in the directory."""
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(mark)
        while start >= 0:
            data[start + place] |= 1
            start = data.find(mark, start + 1)
    path.write_bytes(data)


def outside(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../model.weights.h5", b"")
        archive.writestr("/model.weights.h5", b"")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bomb, "would unpack to 134,217,728, more than 100 times as many"),
        (locked, "encrypted"),
        (outside, "holds no model.weights.h5"),
    ],
)
def test_archives_that_are_more_or_less_than_they_say(saved, tmp_path, change, message):
    assert message in refused(saved, tmp_path, "keras", "m-02.keras", change)


def changed_entry(index: Path, change: Callable[[BundleEntryProto], object], name: str = "bias") -> None:
    """Change what an index states of a variable. Its checksums fit."""
    entries = read_table(index.read_bytes())
    key = next(key for key in entries if name in key.decode() and b".OPTIMIZER_SLOT" not in key)
    entry = BundleEntryProto.FromString(entries[key])
    change(entry)
    index.write_bytes(written_table(entries | {key: entry.SerializeToString()}))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("bundle") / "c"
    variables = {"bias": tf.Variable([1.0, 2.0]), "texts": tf.Variable(["a", "bc"])}
    tf.train.Checkpoint(**variables).write(str(prefix))
    return prefix


@pytest.fixture
def prefix(bundle: Path, tmp_path: Path) -> Path:
    for file in bundle.parent.glob("c.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / "c"


def test_a_table_is_written_as_it_was_read(prefix):
    """Otherwise the tests below would test nothing."""
    changed_entry(prefix.with_name("c.index"), lambda entry: None)
    check_bundle(prefix)
    reader = tf.train.load_checkpoint(str(prefix))
    np.testing.assert_array_equal(reader.get_tensor("bias/.ATTRIBUTES/VARIABLE_VALUE"), [1, 2])


def _sizes(*sizes: int) -> Callable[[BundleEntryProto], object]:
    def change(entry: BundleEntryProto) -> None:
        del entry.shape.dim[:]
        for size in sizes:
            entry.shape.dim.add(size=size)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_sizes(2**40), "do not fit float32 of shape"),
        (_sizes(-1), "with sizes from 0"),
        (_sizes(2**62, 2**62), "more values than can be counted"),
        (_sizes(0, 2**62, 2**62), "more values than can be counted"),
        (_sizes(*[1] * 300), "must be known"),
        (lambda entry: setattr(entry.shape, "unknown_rank", True), "must be known"),
        (lambda entry: setattr(entry, "offset", 2**40), "from byte"),
        (lambda entry: setattr(entry, "offset", -8), "from byte"),
        (lambda entry: setattr(entry, "size", 2**40), "bytes from byte"),
        (lambda entry: setattr(entry, "shard_id", 7), "it is in file 7 of 1"),
        (lambda entry: setattr(entry, "dtype", 20), "it holds resource"),
        (lambda entry: setattr(entry, "dtype", 99), "number 99, is unknown"),
    ],
)
def test_tensors_that_the_files_do_not_hold(prefix, change, message):
    changed_entry(prefix.with_name("c.index"), change)
    with pytest.raises(xtf.RunFormatError, match=rf"c\.index .*tensor 'bias.*{message}"):
        check_bundle(prefix)


def test_lengths_of_texts_that_the_files_do_not_hold(prefix):
    index, data = prefix.with_name("c.index"), prefix.with_name("c.data-00000-of-00001")
    entries = read_table(index.read_bytes())
    (entry,) = (BundleEntryProto.FromString(entries[key]) for key in entries if key.startswith(b"texts"))
    content = bytearray(data.read_bytes())
    content[entry.offset] = 100
    data.write_bytes(content)
    with pytest.raises(xtf.RunFormatError, match="its 2 texts take 102 bytes"):
        check_bundle(prefix)


def test_tensors_in_parts_are_no_larger_than_the_files(prefix):
    def divide(entry: BundleEntryProto) -> None:
        _sizes(2**30)(entry)
        entry.slices.add()
        assert entry.dtype == DT_FLOAT

    changed_entry(prefix.with_name("c.index"), divide)
    with pytest.raises(xtf.RunFormatError, match="more values than the files of data hold"):
        check_bundle(prefix)
