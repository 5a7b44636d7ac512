"""The table of rows, compared with a dictionary, and its bytes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from explaind_tf.recording.observing.row_table import NO_ROW, RowTable

# Few different lowest bits, so that many searches begin at the same place and go round the end of the table.
KEYS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([1023, -1, 1023 + 2**40, 0, 2**40, 1022]))


@given(st.lists(st.lists(KEYS, max_size=40), max_size=20))
def test_keys_have_the_rows_of_their_first_appearance(batches):
    table, expected = RowTable(), {}
    for batch in batches:
        keys = np.array(batch, np.int64)
        assert table.find(keys).tolist() == [expected.get(key, NO_ROW) for key in batch]
        before = len(expected)
        for key in batch:
            expected.setdefault(key, len(expected))
        rows, new = table.rows_of(keys)
        assert rows.tolist() == [expected[key] for key in batch]
        assert [batch[i] for i in new] == list(expected)[before:]
    assert len(table) == len(expected)


def test_keys_that_begin_at_one_place_are_found_after_the_table_grew():
    keys, table = np.arange(3000) << 20, RowTable()
    for part in np.split(keys, 30):
        table.append(part)
    assert table.find(keys).tolist() == list(range(3000))
    assert (table.find(keys + 1) == NO_ROW).all()


def test_a_key_that_is_added_again_takes_a_row_and_keeps_its_first():
    table = RowTable()
    table.append(np.array([5, 7, 5]))
    table.append(np.array([7, 9]))
    assert len(table) == 5 and table.find(np.array([5, 7, 9])).tolist() == [0, 1, 4]


def test_a_row_takes_few_bytes():
    table, count = RowTable(), 100_000
    table.append(np.random.default_rng(0).integers(-(2**63), 2**63, count))
    assert table.byte_count < 28 * count
