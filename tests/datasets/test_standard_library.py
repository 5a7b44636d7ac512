"""Text of the standard library: which files are used, how they are cut, and in which set they are."""

import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from explaind_tf.datasets import Windows, standard_library
from explaind_tf.datasets.standard_library import _is_test


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library made by the tests, whose module names are real ones."""
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / name))
    root = tmp_path / "stdlib"
    root.mkdir()
    return root


def write(root: Path, **lengths: int) -> None:
    """Write files of some lengths in bytes; "__" in a name stands for "/"."""
    for name, length in lengths.items():
        path = root / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(bytes((i + len(name)) % 251 for i in range(length)))


def files(windows: Windows) -> set[str]:
    return {str(name).rsplit(":", 1)[0] for name in windows.ids}


def test_the_real_one():
    train, test = standard_library(64)
    assert len(train) > 10_000 < 50_000 and len(test) > 1_000
    assert {"os.py", "json/decoder.py"} <= files(train) | files(test)
    assert not files(train) & files(test)
    for side in (train, test):
        assert side.x.shape == side.y.shape == (len(side), 64)
        assert side.x.dtype == side.y.dtype == np.int32
        assert side.x.min() >= 0 and side.x.max() < 256
        np.testing.assert_array_equal(side.x[:, 1:], side.y[:, :-1])
        assert len(set(side.ids)) == len(side)
    name, start = str(test.ids[100]).rsplit(":", 1)
    text = (Path(sysconfig.get_path("stdlib")) / name).read_bytes()[int(start) :]
    assert bytes(test.x[100].tolist()) == text[:64]
    assert bytes(test.y[100].tolist()) == text[1:65]


def test_windows_follow_one_another_and_end_before_the_file_does(library: Path):
    write(library, abc=21, os=20, glob=9)  # glob is a test file
    assert _is_test("glob.py") and not _is_test("abc.py") and not _is_test("os.py")
    train, test = standard_library(5)
    # A window needs the byte after its last one: 21 bytes hold four windows, 20 bytes three.
    expected = [f"abc.py:{at}" for at in (0, 5, 10, 15)] + [f"os.py:{at}" for at in (0, 5, 10)]
    assert list(train.ids) == expected
    assert list(test.ids) == ["glob.py:0"]
    np.testing.assert_array_equal(train.x[1], np.arange(5, 10) + len("abc"))
    np.testing.assert_array_equal(train.y[3], np.arange(16, 21) + len("abc"))


def test_only_modules_of_the_library_are_read(library: Path):
    write(library, glob=9, json__decoder=9, json__test__cases=9, json__tests__cases=9, tkinter__font=9)
    write(library, mine=9, encodings__cp1252=9)
    write(library, **{"site-packages__os": 9, "_sysconfigdata_": 9})
    train, test = standard_library(5)
    assert files(train) | files(test) == {"glob.py", "json/decoder.py"}


def test_order_and_side_do_not_depend_on_other_files(library: Path):
    write(library, glob=9, os=9)
    before = standard_library(5)
    write(library, abc=30, copy=30)  # one on either side
    for side, earlier in zip(standard_library(5), before, strict=True):
        assert len(side) == len(earlier) + 5
        assert files(earlier) < files(side)
        assert list(side.ids) == sorted(
            side.ids, key=lambda name: (name.split(":")[0], int(name.split(":")[1]))
        )


def test_a_tenth_of_the_files_is_held_out():
    names = [f"{module}.py" for module in sys.stdlib_module_names]
    assert 0.05 < np.mean([_is_test(name) for name in names]) < 0.16


def test_take():
    train, _ = standard_library(32)
    picked = train.take(np.array([5, 2]))
    assert list(picked.ids) == [train.ids[5], train.ids[2]]
    np.testing.assert_array_equal(picked.x, train.x[[5, 2]])
    np.testing.assert_array_equal(picked.y, train.y[[5, 2]])


def test_refuses(library: Path):
    with pytest.raises(ValueError, match="length=0"):
        standard_library(0)
    write(library, abc=100)
    with pytest.raises(FileNotFoundError, match="fill a window of 5 bytes"):
        standard_library(5)
