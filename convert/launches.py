"""GPU work in the order in which it was launched: what a stream or a thread had launched by some time.

Times and counts are arrays, and so are answers: spans, -1 where there is none.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from .sorting import Array, Ints, collected, every, gathered, grouped, order_of
from .work import ON_GPU, Work


class Launches:
    """The launched spans of a rank, (n,) `spans`, launched at `times`.

    `lanes` and `threads` hold, by lane and by launching thread, the places of their work in `spans`, ascending;
    `compute` and `communication` those of what is in `collectives` and what is not.
    """

    def __init__(self, work: Work, collectives: set[int]) -> None:
        scratch = work.scratch
        spans = collected(scratch, _launched(work), len(work))
        calls = gathered(scratch, work.launch, spans)
        times = gathered(scratch, work.start_ns, calls)
        order = order_of(
            scratch, times, every(scratch, len(spans)), lambda rows: (work.start_ns[spans[rows]],)
        )
        self.spans, self.times = gathered(scratch, spans, order), gathered(scratch, times, order)
        self._lane = gathered(scratch, work.lane, self.spans)
        self.lanes = grouped(scratch, self._lane)
        self.threads = grouped(scratch, gathered(scratch, work.tid, gathered(scratch, calls, order)))
        communicates = scratch.empty(len(spans), np.int8)
        known = np.fromiter(sorted(collectives), np.int64)
        for block in scratch.blocks(len(spans)):
            communicates[block] = np.isin(self.spans[block], known)
        kinds = grouped(scratch, communicates)
        self.compute, self.communication = (kinds.get(kind, self.spans[:0]) for kind in (0, 1))
        self._elsewhere = self._before_on_another_lane(work)

    def _before_on_another_lane(self, work: Work) -> Array:
        """Return, for each place, the last one before it whose work is on another lane, -1 where there is none."""
        out = work.scratch.empty(len(self.spans), self.spans.dtype)
        latest, lane = -1, None
        for block in work.scratch.blocks(len(self.spans)):
            lanes = self._lane[block]
            # Where a run of one lane begins, what is before is on another.
            begins = np.flatnonzero(np.diff(lanes, prepend=lanes[0] - 1 if lane is None else lane))
            if lane is None or lanes[0] != lane:
                latest = block.start - 1
            starts = np.full(len(lanes), -1)
            starts[begins] = begins + block.start - 1
            starts[0] = max(starts[0], latest)
            out[block] = np.maximum.accumulate(starts)
            latest, lane = int(out[block.stop - 1]), lanes[-1]
        return out

    def count(self, times: Ints) -> Ints:
        """Return how many spans were launched before each time."""
        return np.searchsorted(self.times, times)

    def last(self, places: Array, counts: Ints) -> Array:
        """Return the last span at `places` of the first `counts`."""
        at = np.searchsorted(places, counts.astype(places.dtype)) - 1
        return self._spans(places, at, at >= 0)

    def first(self, places: Array, counts: Ints) -> Array:
        """Return the first span at `places` after the first `counts`."""
        at = np.searchsorted(places, counts.astype(places.dtype))
        return self._spans(places, at, at < len(places))

    def _spans(self, places: Array, at: Ints, there: npt.NDArray[np.bool_]) -> Array:
        found = np.full(len(at), -1)
        found[there] = self.spans[places[at[there]]]
        return found

    def on_lanes(self, lanes: Array, counts: Ints, *, first: bool = False) -> Array:
        """Return the last span of the first `counts`, or the first one after, on each of `lanes`, -1 for none."""
        found = np.full(len(lanes), -1)
        for lane in np.unique(lanes[lanes >= 0]).tolist():
            rows = np.flatnonzero(lanes == lane)
            places = self.lanes.get(lane, self.spans[:0])
            found[rows] = (self.first if first else self.last)(places, counts[rows])
        return found

    def by_threads(self, tids: Array, counts: Ints) -> Array:
        """Return the last span of the first `counts` that each thread launched."""
        found = np.full(len(tids), -1)
        for tid in np.unique(tids).tolist():
            if tid in self.threads:
                rows = np.flatnonzero(tids == tid)
                found[rows] = self.last(self.threads[tid], counts[rows])
        return found

    def elsewhere(self, lanes: Array, counts: Ints) -> Array:
        """Return the last span of the first `counts` that is on another lane than each of `lanes`."""
        found = np.full(len(counts), -1)
        rows = np.flatnonzero(counts > 0)
        at = counts[rows] - 1
        at = np.where(self._lane[at] != lanes[rows], at, self._elsewhere[at])
        found[rows[at >= 0]] = self.spans[at[at >= 0]]
        return found


def _launched(work: Work) -> Iterator[Array]:
    for spans in work.find(*ON_GPU):
        yield spans[work.launch[spans] >= 0]


def by_end(work: Work) -> Array:
    """Return all launched spans in the order of their ends."""
    return order_of(work.scratch, work.end_ns, _launched(work), lambda rows: ())
