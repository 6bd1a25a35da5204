"""The host records of collectives: which one was open when a call was made, and what each says."""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from .events import Events
from .narrow import Column
from .operations import COLLECTIVE_NAME
from .scanner import ANNOTATION, NULL, RECORD
from .sorting import Array, Ints, Lookup, every
from .work import Work

_NESTED = 4  # records that may be open at a time on one thread
_PEER = re.compile(r"(?:send|recv) \d+\s*(?:->|<-)\s*(\d+)")


class HostRecords:
    """The host records of collectives on each thread: which one was open when a call was made."""

    def __init__(self, work: Work, events: Events) -> None:
        self.work = work
        self._details, self._base_ns = events.details, events.base_ns
        self._details.index()
        self._ids: Lookup | None = None
        self._open: dict[tuple[int, bool], tuple[array[int], array[int]]] = defaultdict(
            lambda: (array("q"), array("q"))
        )
        for span in work.each(ANNOTATION, named=f"^{RECORD}$|{COLLECTIVE_NAME}"):
            starts, spans = self._open[int(work.tid[span]), work.text(span) == RECORD]
            starts.append(int(work.start_ns[span]))
            spans.append(span)

    def of(self, record: int) -> dict[str, Any]:
        """Return the arguments of a record or annotation; empty where there are none, or for -1."""
        work = self.work
        if record < 0:
            return {}
        started_ns = int(work.start_ns[record]) - self._base_ns
        return self._details.of_host(work.text(record), started_ns, int(work.tid[record]))

    def of_annotation(self, annotation: int) -> dict[str, Any]:
        """Return what an annotation says of its collective, in its name too; empty for -1."""
        if annotation < 0:
            return {}
        name = self.work.text(annotation)
        args: dict[str, Any] = {"Collective name": name}
        told = self.of(annotation)
        dims, types = told.get("Input Dims"), told.get("Input type")
        if isinstance(dims, list) and dims and all(isinstance(n, int) for n in (dims[0] or ["?"])):
            args["In msg nelems"] = int(np.prod(dims[0], dtype=np.int64))
        if isinstance(types, list) and types:
            args["dtype"] = types[0]
        if peer := _PEER.search(name):
            args["peer"] = int(peer[1])
        return args

    def of_kernel(self, kernel: int) -> dict[str, Any]:
        """Return the arguments of a kernel that describe its collective; empty where there are none."""
        started_ns = int(self.work.start_ns[kernel]) - self._base_ns
        return self._details.of_kernel(self.work.text(kernel), started_ns)

    def labelled(self) -> Ints:
        """Return the sorted times at which something starts that names its collective."""
        return self._details.labelled() + self._base_ns

    @cached_property
    def records(self) -> list[int]:
        """All `record_param_comms` spans, in order of start."""
        return sorted(s for (_, plain), (_, spans) in self._open.items() if plain for s in spans)

    def around(self, tid: int, time_ns: int, *, plain: bool) -> int:
        """Return the innermost record open on thread `tid` at `time_ns`, or -1.

        `plain` asks for `record_param_comms`, otherwise for annotations such as `nccl:all_reduce`.
        """
        starts, spans = self._open[tid, plain]
        last = bisect_right(starts, time_ns) - 1
        for index in range(last, max(last - _NESTED, -1), -1):
            if self.work.end_ns[spans[index]] >= time_ns:
                return spans[index]
        return -1

    def around_each(self, tids: Array, times: Ints) -> Ints:
        """Return the innermost `record_param_comms` open on each thread at each time, -1 for none."""
        found = np.full(len(tids), -1)
        for tid in np.unique(tids).tolist():
            starts, spans = (np.frombuffer(held, np.int64) for held in self._open[tid, True])
            rows = np.flatnonzero(tids == tid)
            last = np.searchsorted(starts, times[rows], side="right") - 1
            for back in range(_NESTED):
                at = np.flatnonzero((last >= back) & (found[rows] < 0))
                held = spans[last[at] - back]
                is_open = self.work.end_ns[held] >= times[rows[at]]
                found[rows[at[is_open]]] = held[is_open]
        return found

    def last(self, tid: int, time_ns: int) -> int:
        """Return the record or annotation that began last on thread `tid` by `time_ns`, or -1."""
        both = (self._open[tid, plain] for plain in (False, True))
        last = ((bisect_right(starts, time_ns) - 1, starts, spans) for starts, spans in both)
        return max(((starts[i], spans[i]) for i, starts, spans in last if i >= 0), default=(0, -1))[1]

    def before(self, annotation: int) -> Iterator[int]:
        """Yield the `record_param_comms` of a thread that begin before `annotation`, back to the one before it."""
        tid, until = int(self.work.tid[annotation]), int(self.work.start_ns[annotation])
        starts, spans = self._open[tid, True]
        others, annotations = self._open[tid, False]
        alike = (
            n
            for n in range(bisect_left(others, until) - 1, -1, -1)
            if self.work.text(annotations[n]) == self.work.text(annotation)
        )
        since = next((others[n] for n in alike), None)
        for index in range(bisect_left(starts, until) - 1, -1, -1):
            if since is not None and starts[index] < since:
                return
            yield spans[index]

    def linked(self, args: dict[str, Any]) -> int:
        """Return the `record_param_comms` that a kernel's arguments name by its External id, or -1."""
        number = args.get("External id")
        if not isinstance(number, int) or abs(number) >= -NULL:
            return -1
        if self._ids is None:
            ids = Column(self.work.scratch)
            for record in self.records:
                told = self.of(record).get("External id")
                ids.append(told if isinstance(told, int) and abs(told) < -NULL else NULL)
            self._ids = Lookup(self.work.scratch, ids.values(), every(self.work.scratch, len(ids)))
        row = int(self._ids.find(np.array([number]))[0])
        return self.records[row] if row >= 0 else -1

    def annotation_in(self, record: int) -> int:
        """Return the first annotation that begins within `record` on its thread, or -1."""
        starts, spans = self._open[int(self.work.tid[record]), False]
        index = bisect_right(starts, int(self.work.start_ns[record]) - 1)
        inside = index < len(spans) and starts[index] <= self.work.end_ns[record]
        return spans[index] if inside else -1
