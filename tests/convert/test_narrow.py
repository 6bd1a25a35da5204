"""Columns in few bytes: they give back what they got, and how much is held or sorted at once changes nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eidola.convert import convert, database, find_format, narrow, work
from eidola.convert.scanner import NULL
from eidola.schemas import Trace
from eidola.schemas.tables import TRACE_TABLES

INTEGERS = st.one_of(st.integers(-300, 300), st.integers(-(2**62), 2**62), st.just(NULL))


@given(st.lists(st.lists(INTEGERS, max_size=6), max_size=5), st.lists(INTEGERS, max_size=6))
def test_a_column_gives_back_what_it_got(added, appended):
    column = narrow.Column()
    for values in added:
        column.add(np.array(values, np.int64))
    for value in appended:
        column.append(value)
    given_ = [value for values in added for value in values] + appended
    assert [value for part in column.parts() for value in part.tolist()] == given_
    assert len(column) == len(given_)


@given(st.lists(st.lists(INTEGERS, min_size=1, max_size=6), max_size=5), st.sampled_from([-1, NULL]))
def test_what_is_not_told_is_what_the_reader_asks_for(added, null):
    column = narrow.Column()
    for values in added:
        column.add(np.array(values, np.int64))
    expected = [null if value == NULL else value for values in added for value in values]
    assert column.values(null).tolist() == expected


def test_small_numbers_take_one_byte_and_what_is_not_told_none():
    assert narrow.narrow(np.arange(100)).dtype == np.int8
    assert narrow.narrow(np.array([-128, 1])).dtype == np.int16  # -128 is what stands for no value
    assert narrow.narrow(np.full(1000, NULL)).strides == (0,)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 3)), max_size=60), st.integers(1, 70))
def test_sorting_a_part_at_a_time_is_sorting(pairs, at_once):
    first, second = (np.array([pair[i] for pair in pairs], np.int64) for i in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrow, "SORTED_ROWS", at_once)
        order = narrow.order_of(first, second)
    assert order.tolist() == np.lexsort((second, first)).tolist()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("nsys/sm90_2gpu_training.sqlite", "nsys"), ("rocprofv3/mi350x_results.json.gz", "rocprofv3"),
     ("kineto/a100_nccl_rank0of2.json.gz", "kineto")],
)  # fmt: skip
def test_how_much_is_held_at_once_changes_nothing(shared, tmp_path, monkeypatch, name, kind):
    path = shared(name)
    convert(find_format(kind), [path], tmp_path / "whole")
    monkeypatch.setattr(narrow, "CHUNK_ROWS", 1000)
    monkeypatch.setattr(narrow, "SORTED_ROWS", 1000)
    monkeypatch.setattr(work, "SORTED_ROWS", 1000)
    monkeypatch.setattr(database, "BATCH_ROWS", 1000)
    monkeypatch.setattr("eidola.convert.job.ROW_GROUP_ROWS", 1000)
    convert(find_format(kind), [path], tmp_path / "parts")
    for table in TRACE_TABLES:
        assert Trace(tmp_path / "parts").read(table).equals(Trace(tmp_path / "whole").read(table)), table
