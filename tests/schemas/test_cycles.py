"""Dependencies that go in a circle are found, and only those."""

from graphlib import CycleError, TopologicalSorter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eidola.schemas.cycles import find_cycle


def cycle(spans, edges):
    ids, starts, ends = zip(*spans, strict=True)
    before, after, kind = zip(*edges, strict=True) if edges else ((), (), ())
    types = {"before": pa.int64(), "after": pa.int64(), "kind": pa.string()}
    columns = {"before": before, "after": after, "kind": kind}
    return find_cycle(
        pa.table({"span": ids, "start_ns": starts, "end_ns": ends}),
        pa.table({name: pa.array(values, types[name]) for name, values in columns.items()}),
    )


def test_a_call_may_launch_a_kernel_and_wait_for_it():
    spans = [(1, 0, 100), (2, 10, 90)]
    assert cycle(spans, [(1, 2, "launch"), (2, 1, "sync")]) == []
    assert set(cycle(spans, [(1, 2, "launch"), (2, 1, "event")])) == {1, 2}


@pytest.mark.parametrize("kind", ["stream", "event", "thread"])
def test_a_span_that_waits_for_itself_is_a_circle(kind):
    assert set(cycle([(7, 0, 10)], [(7, 7, kind)])) == {7}
    assert set(cycle([(7, 0, 0)], [(7, 7, kind)])) == {7}


def test_edges_to_unknown_spans_are_left_out():
    assert cycle([(1, 0, 1)], [(1, 2, "event"), (2, 1, "event")]) == []
    assert cycle([(1, 0, 1)], []) == []


def test_a_chain_is_none_and_its_closing_is_one():
    spans = [(i, 10 * i, 10 * i + 5) for i in range(1000)]
    chain = [(i, i + 1, "stream") for i in range(999)]
    assert cycle(spans, chain) == []
    assert set(cycle(spans, [*chain, (999, 0, "event")])) == set(range(1000))


SPANS = st.lists(st.tuples(st.integers(0, 6), st.integers(-2, 6)), min_size=1, max_size=8)
KINDS = st.sampled_from(["stream", "event", "thread", "launch", "sync"])
EDGES = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), KINDS), max_size=14)


@settings(max_examples=300, deadline=None)
@given(SPANS, EDGES)
def test_it_agrees_with_a_sort_of_the_whole_graph(times, edges):
    """Leaving out what cannot be in a circle, by time, changes nothing; whatever the times are."""
    spans = [(i, start, start + length) for i, (start, length) in enumerate(times)]
    graph = TopologicalSorter({(i, "end"): [(i, "start")] for i in range(len(spans))})
    for before, after, kind in edges:
        if before < len(spans) and after < len(spans):
            source = (before, "start" if kind == "launch" else "end")
            graph.add((after, "end" if kind == "sync" else "start"), source)
    try:
        graph.prepare()
    except CycleError:
        assert cycle(spans, edges)
    else:
        assert cycle(spans, edges) == []
