"""The experiments' data: determinism, disjoint splits, ranges, identities and cardinalities."""

import math
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from explaind_tf.datasets import (
    cifar2,
    cyclic_table,
    digits,
    dihedral_table,
    modular_addition,
    operation,
    subtraction_table,
    symmetric_table,
)
from explaind_tf.datasets.cifar2 import CIFAR10_CLASSES


class TestModularAddition:
    def test_spells_a_plus_b_equals(self):
        (x, y), _ = modular_addition(7, num_train=20)
        assert x.shape == (20, 4)
        assert y.shape == (20,)
        assert x.dtype == y.dtype == np.int32
        a, plus, b, equals = x.T
        assert (plus == 7).all()
        assert (equals == 8).all()
        np.testing.assert_array_equal(y, (a + b) % 7)

    def test_default_is_the_paper_split(self):
        (x_train, _), (x_test, y_test) = modular_addition()
        assert (len(x_train), len(x_test), len(y_test)) == (4000, 8769, 8769)

    def test_train_and_test_partition_all_pairs(self):
        (x_train, _), (x_test, _) = modular_addition(13, num_train=50)
        pairs = {(a, b) for a, _, b, _ in np.concatenate([x_train, x_test]).tolist()}
        assert pairs == {(a, b) for a in range(13) for b in range(13)}
        assert len(x_train) + len(x_test) == 13 * 13

    def test_num_test_leaves_the_training_set_alone(self):
        (x_all, _), (test_all, _) = modular_addition(13, num_train=50)
        (x_some, _), (test_some, _) = modular_addition(13, num_train=50, num_test=5)
        np.testing.assert_array_equal(x_some, x_all)
        np.testing.assert_array_equal(test_some, test_all[:5])

    def test_whole_table_leaves_an_empty_test_set(self):
        _, (x_test, y_test) = modular_addition(5, num_train=25)
        assert x_test.shape == (0, 4)
        assert y_test.shape == (0,)

    def test_seed_decides_the_split(self):
        first, again, other = (modular_addition(11, num_train=40, seed=s)[0][0] for s in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"p": 1}, "p=1"),
            ({"num_train": 0}, "num_train=0"),
            ({"num_train": 50}, "7 \\* 7 = 49.*num_train=50"),
            ({"num_train": 40, "num_test": 10}, "9 pairs.*num_test=10"),
            ({"num_train": 40, "num_test": -1}, "num_test=-1"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            modular_addition(**{"p": 7, **arguments})


class TestOperations:
    def test_addition_and_subtraction_undo_each_other(self):
        plus, minus = cyclic_table(7), subtraction_table(7)
        numbers = np.arange(7)
        assert [plus[minus[a, b], b] for a in numbers for b in numbers] == [
            a for a in numbers for _ in numbers
        ]
        assert (minus != minus.T).any()

    def test_permutations_compose(self):
        table = symmetric_table(3)
        elements = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
        for a, b in np.ndindex(6, 6):
            assert elements[table[a, b]] == tuple(elements[a][i] for i in elements[b])

    def test_symmetries_of_a_polygon(self):
        table = dihedral_table(5)
        corners = [lambda i, r=r: (i + r) % 5 for r in range(5)]
        corners += [lambda i, r=r: (r - i) % 5 for r in range(5)]
        images = [[move(i) for i in range(5)] for move in corners]
        for a, b in np.ndindex(10, 10):
            assert images[table[a, b]] == [images[a][i] for i in images[b]]

    @pytest.mark.parametrize("table", [cyclic_table(6), dihedral_table(4), symmetric_table(4)])
    def test_groups(self, table):
        numbers = np.arange(len(table))
        np.testing.assert_array_equal(table[0], numbers)
        np.testing.assert_array_equal(np.sort(table), np.tile(numbers, (len(table), 1)))
        np.testing.assert_array_equal(table[table], table[:, table])  # (ab)c = a(bc)

    def test_spells_any_table(self):
        table = symmetric_table(3)
        (x, y), (x_test, _) = operation(table, num_train=20, seed=3)
        assert len(x) + len(x_test) == 36
        a, sign, b, equals = x.T
        assert (sign == 6).all() and (equals == 7).all()
        np.testing.assert_array_equal(y, table[a, b])

    @pytest.mark.parametrize("table", [np.zeros((2, 3), int), [[0, 2], [1, 0]], [[0.0, 1.0], [1.0, 0.0]]])
    def test_refuses_what_is_no_table(self, table):
        with pytest.raises(ValueError, match="square array of whole numbers"):
            operation(table, num_train=1)

    def test_refuses_what_is_no_polygon(self):
        with pytest.raises(ValueError, match="n=2"):
            dihedral_table(2)

    @pytest.mark.parametrize("degree", [1, 7])
    def test_refuses_other_degrees(self, degree):
        with pytest.raises(ValueError, match=f"degree={degree}"):
            symmetric_table(degree)


class TestDigits:
    pytest.importorskip("sklearn")

    def test_default(self):
        (x_train, y_train), (x_test, y_test) = digits()
        assert x_train.shape == (1297, 8, 8, 1)
        assert x_test.shape == (500, 8, 8, 1)
        assert x_train.dtype == np.float32
        assert y_train.dtype == y_test.dtype == np.int32
        assert set(y_train.tolist()) == set(y_test.tolist()) == set(range(10))

    @pytest.mark.parametrize(("size", "channels"), [(8, 1), (32, 3), (5, 2)])
    def test_resizes_into_the_unit_interval(self, size, channels):
        (x, _), _ = digits(size=size, channels=channels, num_test=0)
        assert x.shape == (1797, size, size, channels)
        assert x.dtype == np.float32
        assert x.min() == 0
        assert 0.9 < x.max() <= 1
        assert all(np.array_equal(x[..., 0], x[..., c]) for c in range(channels))

    def test_split_is_a_partition(self):
        # No two of the 1,797 images are equal.
        (x_train, _), (x_test, _) = digits(num_test=300)
        distinct = {image.tobytes() for image in np.concatenate([x_train, x_test])}
        assert len(distinct) == 1797

    def test_seed_decides_the_split_at_any_size(self):
        labels = [digits(seed=s, size=size)[0][1] for s, size in ((1, 8), (1, 16), (2, 8))]
        np.testing.assert_array_equal(labels[0], labels[1])
        assert not np.array_equal(labels[0], labels[2])

    def test_without_scikit_learn(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
        with pytest.raises(ImportError, match=r'pip install "explaind_tf\[experiments\]"'):
            digits()

    @pytest.mark.parametrize(
        "arguments", [{"size": 0}, {"channels": 0}, {"num_test": 1797}, {"num_test": -1}]
    )
    def test_refuses(self, arguments):
        ((argument, value),) = arguments.items()
        with pytest.raises(ValueError, match=f"{argument}={value}"):
            digits(**arguments)


class TestCifar2:
    """On TFDS' mock: random images with random labels of all ten classes, the same each time."""

    @pytest.fixture(autouse=True)
    def _mocked(self, tmp_path):
        self.data_dir = tmp_path
        with tfds.testing.mock_data(num_examples=60):
            yield

    def load(self, *args, **kwargs) -> tf.data.Dataset:
        return cifar2(*args, data_dir=self.data_dir, **kwargs)

    def all_ten(self) -> dict[bytes, dict[str, np.ndarray]]:
        """The mocked CIFAR-10 by TFDS id, encoded and decoded like :func:`cifar2`'s."""
        builder = tfds.builder("cifar10", data_dir=self.data_dir)
        decode = builder.info.features["image"].decode_example
        elements = builder.as_dataset(
            split="train",
            decoders={"image": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(add_tfds_id=True),
        )
        return {
            element["tfds_id"].numpy(): {
                "image": decode(element["image"]).numpy(),
                "name": CIFAR10_CLASSES[int(element["label"])],
            }
            for element in elements
        }

    def test_keeps_the_two_classes_with_their_ids(self):
        everything = self.all_ten()
        kept = {k for k, e in everything.items() if e["name"] in ("ship", "frog")}
        elements = list(self.load(classes=("ship", "frog")))
        assert {tfds_id.numpy() for tfds_id, _ in elements} == kept
        for tfds_id, (image, label) in elements:
            original = everything[tfds_id.numpy()]
            assert ("ship", "frog")[int(label)] == original["name"]
            np.testing.assert_allclose(image, original["image"] / 255, atol=1e-6)

    def test_elements(self):
        tfds_id, (image, label) = self.load().element_spec
        assert (tfds_id.shape, tfds_id.dtype) == ((), tf.string)
        assert (image.shape, image.dtype) == ((32, 32, 3), tf.float32)
        assert (label.shape, label.dtype) == ((), tf.int32)

    def test_cardinality_is_known(self):
        n = len(list(self.load()))
        assert n > 3
        assert int(self.load().cardinality()) == n
        batched = self.load(batch_size=3)
        assert int(batched.cardinality()) == math.ceil(n / 3)
        sizes = [len(tfds_id) for tfds_id, _ in batched]
        assert sum(sizes) == n
        assert set(sizes[:-1]) == {3}

    def test_keras_applies_no_phantom_step(self):
        dataset = self.load(batch_size=3)
        model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.0), "mse")
        model.fit(dataset.map(lambda _, pair: pair), epochs=2, shuffle=False, verbose=0)
        assert int(model.optimizer.iterations) == 2 * int(dataset.cardinality())

    def test_shuffles_by_seed(self):
        def ids(**kwargs) -> list[bytes]:
            return [tfds_id.numpy() for tfds_id, _ in self.load(**kwargs)]

        in_order, first, again, other = (
            ids(),
            ids(shuffle=True, seed=1),
            ids(shuffle=True, seed=1),
            ids(shuffle=True, seed=2),
        )
        assert first == again
        assert sorted(first) == sorted(other) == sorted(in_order)
        assert len({tuple(order) for order in (in_order, first, other)}) == 3

    def test_shuffles_each_epoch_anew(self):
        dataset = self.load(shuffle=True)
        epochs = [[tfds_id.numpy() for tfds_id, _ in dataset] for _ in range(2)]
        assert epochs[0] != epochs[1]

    @pytest.mark.parametrize("classes", ["cat", ("cat",), ("cat", "cat"), ("cat", "wolf")])
    def test_refuses_other_classes(self, classes):
        with pytest.raises(ValueError, match=r"two different classes.*airplane, automobile"):
            self.load(classes=classes)

    def test_refuses_empty_batches(self):
        with pytest.raises(ValueError, match="batch_size=0"):
            self.load(batch_size=0)


def test_cifar2_says_that_the_data_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="download=False"):
        cifar2(data_dir=tmp_path, download=False)
