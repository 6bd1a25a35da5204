"""Peer writes are lowered by columns at the captured GPU count, and by row at others: both say the same there."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from eidola.replay.lowering.acts import Grower
from eidola.replay.lowering.captured import captured_issues, grown_issues
from eidola.replay.lowering.flags import read_flags
from eidola.replay.lowering.items import Item, Lane, RankWork
from eidola.replay.lowering.steps import ATOMIC, DATA, FLAG, WAIT, Steps

RANKS = 3
EPOCH_NS = 1_700_000_000_000_000_000  # times of day, in ps, are no 64-bit integers


@st.composite
def works(draw: st.DrawFn) -> list[RankWork]:
    """Rank 0 writes, raises and waits in two items, which may overlap; rank 1 raises what it waits for."""
    times = st.integers(0, 300)
    kinds = st.sampled_from([DATA, DATA, FLAG, ATOMIC, WAIT])
    items, stored = [], 0
    for _ in range(2):
        begin = EPOCH_NS + draw(times)
        rows = []
        for kind, start, length in sorted(
            draw(st.lists(st.tuples(kinds, times, times), max_size=12)), key=lambda row: row[1:]
        ):
            peer, at = draw(st.integers(1, 2)), EPOCH_NS + start
            if kind == WAIT:
                rows.append((WAIT, at, at + length, -1, 0, 7, draw(st.integers(1, 4)), -1, 0))
            elif kind == DATA:
                rows.append((DATA, at, at, peer, draw(st.sampled_from([0, 1, 4096])), -1, 0, 0, 0))
            else:
                stored += 1
                flag, value = (20 + stored, 1) if kind == FLAG else (peer, 2)
                rows.append((kind, at, at, peer, 8, flag, value, -1, 0))
        steps = Steps(np.array(rows, np.int64).reshape(-1, 9), ("tiles",))
        items.append(Item(0, "phase", "work", begin, begin + draw(times), begin_ns=begin, steps=steps))
    raises = [(ATOMIC, EPOCH_NS + t, EPOCH_NS + t, 0, 8, 7, 1, -1, 0) for t in range(4)]
    other = Item(
        0, "phase", "raise", EPOCH_NS, EPOCH_NS + 9, begin_ns=EPOCH_NS, steps=Steps(np.array(raises))
    )
    mine = [Lane("a", items[:1]), Lane("b", items[1:])]
    return [RankWork(0, 0, mine, []), RankWork(1, 1, [Lane("a", [other])], []), RankWork(2, 2, [], [])]


@given(works(), st.frozensets(st.integers(1, 2)))
def test_columns_say_what_rows_say(found, distances):
    work, flags = found[0], read_flags(found, RANKS)
    grower = Grower(flags, RANKS)
    by_row = [(lane, item, grower.grow(0, item)) for lane in work.lanes for item in lane.items]
    for lane, item, traffic in by_row:
        ((_, columns),) = grower.grow_lane(work, lane)
        assert columns.acts.rows.tolist() == traffic.acts.rows.tolist()
        assert [act.step for act in columns.acts] == [act.step for act in traffic.acts]
        assert columns.rest_ps == (traffic.rest_ps if traffic.acts else item.busy_ns * 1000)
    issued = captured_issues(flags, work, distances, EPOCH_NS)
    expected = grown_issues(
        [(lane, item, traffic.acts) for lane, item, traffic in by_row], distances, EPOCH_NS
    )
    for name in ("time_ps", "distance", "size_bytes", "slot"):
        assert getattr(issued, name).tolist() == getattr(expected, name).tolist()
