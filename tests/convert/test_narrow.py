"""Columns in few bytes: they give back what they got, in memory and on disk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.convert import narrow
from eidola.convert.scanner import NULL
from eidola.convert.scratch import Scratch

INTEGERS = st.one_of(st.integers(-300, 300), st.integers(-(2**62), 2**62), st.just(NULL))


@given(st.lists(st.lists(INTEGERS, max_size=6), max_size=5), st.lists(INTEGERS, max_size=6), st.booleans())
def test_a_column_gives_back_what_it_got(added, appended, on_disk):
    with pytest.MonkeyPatch.context() as patch:
        if on_disk:
            patch.setattr("eidola.convert.scratch.IN_MEMORY_BYTES", 0)
        column = narrow.Column(Scratch())
    for values in added:
        column.add(np.array(values, np.int64))
    for value in appended:
        column.append(value)
    given_ = [value for values in added for value in values] + appended
    assert [value for part in column.parts() for value in part.tolist()] == given_
    assert len(column) == len(given_)


@given(st.lists(st.lists(INTEGERS, min_size=1, max_size=6), max_size=5), st.sampled_from([-1, NULL]))
def test_what_is_not_told_is_what_the_reader_asks_for(added, null):
    column = narrow.Column(Scratch())
    for values in added:
        column.add(np.array(values, np.int64))
    expected = [null if value == NULL else value for values in added for value in values]
    assert column.values(null).tolist() == expected


def test_small_numbers_take_one_byte_and_what_is_not_told_none():
    assert narrow.narrow(np.arange(100)).dtype == np.int8
    assert narrow.narrow(np.array([-128, 1])).dtype == np.int16  # -128 is what stands for no value
    assert narrow.narrow(np.full(1000, NULL)).strides == (0,)
