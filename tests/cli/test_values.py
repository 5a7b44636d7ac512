"""Values of options."""

import pytest
import typer

from explaind_tf.cli.values import to_bytes, to_names, to_slice


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2:5", slice(2, 5)),
        ("2:", slice(2, None)),
        (":5", slice(None, 5)),
        (":", slice(None)),
        ("7", slice(7, 8)),
    ],
)
def test_slices(text: str, expected: slice):
    assert to_slice(text) == expected


@pytest.mark.parametrize("text", ["", "a", "1:2:3", "-1:", "5:5", "5:2", ":0", "1.5"])
def test_slices_that_are_none(text: str):
    with pytest.raises(typer.BadParameter):
        to_slice(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000", 1000),
        ("12B", 12),
        ("4GB", 4 * 10**9),
        ("4 gb", 4 * 10**9),
        ("1.5kB", 1500),
        ("2GiB", 2 * 2**30),
        ("1TB", 10**12),
    ],
)
def test_sizes(text: str, expected: int):
    assert to_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "4XB", "-1", "0", "4 GB more"])
def test_sizes_that_are_none(text: str):
    with pytest.raises(typer.BadParameter):
        to_bytes(text)


def test_names():
    assert to_names("sample, step,") == ("sample", "step")
    assert to_names("") == ()
