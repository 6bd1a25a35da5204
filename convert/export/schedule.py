"""One rank of a trace as operations that each start when others have ended: what simulators of programs replay.

Spans of a lane follow each other in order of their ends, so that a call that holds others comes after them with
what time is its own. Time blocked in a synchronising call is left out, and so is time in a wait: an operation
has the time that it took after the last of what it waited for. What nothing explains, such as a host thread
between two calls, is a gap before the operation. Every edge leads from an earlier to a later operation of the
list: there are no cycles.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .job import POINT_TO_POINT, Job

_FINISH = ("stream", "event", "thread")


@dataclass(slots=True, eq=False)
class Operation:
    """One operation; its number is its place in the rank's list.

    `after` are operations that must have ended, `begun` one that must have begun, before it starts; `gap_ns` is
    the captured idle time since then. `own_ns` is how long it takes. `explained` tells whether an operation of
    another lane released it. A send or receive has peer (a rank), size and either the row of the write (`write`:
    writer and number) or of the collective (`row`).
    """

    kind: Literal["calc", "send", "recv", "collective"]
    name: str
    lane: int
    host: bool
    start_ns: int
    end_ns: int
    own_ns: int = 0
    gap_ns: int = 0
    after: list["Operation"] = field(default_factory=list)
    begun: "Operation | None" = None
    explained: bool = False
    span: int | None = None
    peer: int = -1
    size_bytes: int = 0
    row: dict[str, Any] | None = None
    write: tuple[int, int] | None = None
    number: int = -1


@dataclass
class Schedule:
    """The operations of one rank, and the names of its lanes by number."""

    rank: int
    operations: list[Operation]
    lanes: list[str]


def read_schedule(job: Job, rank: int) -> Schedule:
    """Return the operations of `rank`."""
    return _Builder(job, rank).build()


GROUP_ENDS = ("group begins", "group ends")
"""Names of the operations of 0 ns around the calls that one kernel ran."""


class _Builder:
    def __init__(self, job: Job, rank: int) -> None:
        self.job, self.rank = job, rank
        self.lanes: dict[str, int] = {}
        self.operations: list[Operation] = []
        self.last: dict[int, Operation] = {}  # of a lane
        self.first_of: dict[int, Operation] = {}  # of a span
        self.last_of: dict[int, Operation] = {}
        self.receives: dict[tuple[int, int], Operation] = {}

    def build(self) -> Schedule:
        read = self.job.trace.read
        rows = read("spans", ["span", "lane", "kind", "name", "start_ns", "end_ns"], [self.rank]).to_pylist()
        spans = {row["span"]: row for row in rows}
        edges: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for edge in read("dependencies", ["before", "after", "kind"], [self.rank]).to_pylist():
            edges[edge["after"]].append((edge["before"], edge["kind"]))
        collectives = read("collectives", ranks=[self.rank]).to_pylist()
        by_span: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in collectives:
            by_span[row["span"]].append(row)
        events = self._events()
        for row in sorted(rows, key=lambda r: (r["end_ns"], r["start_ns"], r["span"])):
            self._span(row, by_span.get(row["span"], []), events.pop(row["span"], ()), edges, spans)
        for home, found in sorted(events.items(), key=lambda item: str(item[0])):
            lane = home[1] if isinstance(home, tuple) else "memory"
            self._pieces(lane, None, found, found[0]["start_ns"], max(e["end_ns"] for e in found))
        for row in collectives:
            if row["span"] is None:
                self._collective(row, self._lane(f"collectives of {row['communicator']}"), host=False)
        self._unawaited()
        return self._ordered(edges)

    def _lane(self, name: str) -> int:
        return self.lanes.setdefault(name, len(self.lanes))

    def _events(self) -> dict[Any, list[dict[str, Any]]]:
        """Return writes and waits by span, in order of time; those of no span by (None, lane)."""
        found: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for number, row in enumerate(self.job.trace.read("writes", ranks=[self.rank]).to_pylist()):
            event = {"write": number, "start_ns": row["issue_ns"], "end_ns": row["issue_ns"], **row}
            found[_home(row)].append(event)
        for row in self.job.trace.read("waits", ranks=[self.rank]).to_pylist():
            end = row["end_ns"] if row["end_ns"] is not None else row["start_ns"]
            found[_home(row)].append({**row, "end_ns": end})
        for events in found.values():
            events.sort(key=lambda e: (e["start_ns"], e["end_ns"]))
        return found

    def _span(
        self,
        row: Mapping[str, Any],
        collectives: list[dict[str, Any]],
        events: Iterable[Mapping[str, Any]],
        edges: Mapping[int, list[tuple[int, str]]],
        spans: Mapping[int, Mapping[str, Any]],
    ) -> None:
        lane, host = self._lane(row["lane"]), row["lane"].startswith("thread")
        span = row["span"]
        if collectives:
            self.first_of[span], self.last_of[span] = self._collectives(row, collectives, lane, host)
            return
        synced = [spans[b]["end_ns"] for b, kind in edges.get(span, ()) if kind == "sync" and b in spans]
        start = max([row["start_ns"], *(min(end, row["end_ns"]) for end in synced)])
        before = len(self.operations)
        self._pieces(row["lane"], row, events, start, row["end_ns"], host=host)
        mine = [o for o in self.operations[before:] if o.kind == "calc"]
        self.first_of[span], self.last_of[span] = mine[0], mine[-1]

    def _pieces(
        self,
        lane_name: str,
        row: Mapping[str, Any] | None,
        events: Iterable[Mapping[str, Any]],
        start: int,
        end: int,
        *,
        host: bool = False,
    ) -> None:
        """Add the time from `start` to `end` of a lane, cut where it writes and where it waits."""
        lane = self._lane(lane_name)
        name, span = (row["name"], row["span"]) if row else (lane_name, None)
        captured = row["start_ns"] if row else start
        last = self.last.get(lane)
        at = max(start, last.end_ns if last else start)
        released: Operation | None = None
        for event in events:
            begin, finish = (min(max(event[t], at), max(at, end)) for t in ("start_ns", "end_ns"))
            piece = self._calc(name, lane, host, captured, begin, begin - at, span, released)
            captured, at, released = begin, finish, None
            if "write" in event:
                if event["peer"] == self.rank:
                    continue  # within its own memory
                self._add(
                    Operation(
                        "send", f"{event['kind']} write", lane, host, begin, begin, after=[piece], span=span,
                        peer=event["peer"], size_bytes=event["size_bytes"], write=(self.rank, event["write"]),
                    )
                )  # fmt: skip
            else:
                released = self._receive(event)
        self._calc(name, lane, host, captured, end, max(0, end - at), span, released)

    def _calc(
        self,
        name: str,
        lane: int,
        host: bool,
        start: int,
        end: int,
        own: int,
        span: int | None,
        released: Operation | None,
    ) -> Operation:
        last = self.last.get(lane)
        operation = Operation("calc", name, lane, host, start, end, own, span=span)
        operation.after = [o for o in (last, released) if o]
        operation.explained = released is not None
        self.last[lane] = operation
        return self._add(operation)

    def _add(self, operation: Operation) -> Operation:
        operation.number = len(self.operations)
        self.operations.append(operation)
        return operation

    def _collectives(
        self, row: Mapping[str, Any], collectives: list[dict[str, Any]], lane: int, host: bool
    ) -> tuple[Operation, Operation]:
        """Add what a kernel ran; return its first and last operation. A group's run at once, between two of 0."""
        name, start, end = row["name"], row["start_ns"], row["end_ns"]
        grouped = len(collectives) > 1
        begin = self._calc(GROUP_ENDS[0], lane, host, start, start, 0, None, None) if grouped else None
        added = []
        for collective in collectives:
            if begin:
                self.last[lane] = begin
            added.append(self._collective(collective, lane, host=host, name=name))
            added[-1].span = row["span"]
        if begin is None:
            return added[0], added[0]
        finish = self._calc(GROUP_ENDS[1], lane, host, end, end, 0, None, None)
        finish.after = [*added]
        return begin, finish

    def _collective(
        self, row: dict[str, Any], lane: int, *, host: bool, name: str | None = None
    ) -> Operation:
        kind: Literal["send", "recv", "collective"] = "collective"
        pair = self.job.pair(self.rank, row) if row["operation"] in POINT_TO_POINT else None
        if pair and len(self.job.pairs[pair]) == 2:
            kind = row["operation"]
        last = self.last.get(lane)
        start, end = row["start_ns"], row["end_ns"]
        operation = Operation(kind, name or row["operation"], lane, host, start, end, row=row)
        operation.own_ns = end - max(start, last.end_ns if last else start)
        if kind != "collective" and pair:
            operation.peer = pair[3] if kind == "send" else pair[2]
            operation.size_bytes = self.job.pairs[pair]["send"]["size_bytes"] or row["size_bytes"] or 0
        operation.after = [last] if last else []
        self.last[lane] = operation
        return self._add(operation)

    def _receive(self, wait: Mapping[str, Any]) -> Operation | None:
        """Return the receive of the write that ended `wait`, placed at the first wait that it ended."""
        flags = self.job.flags
        index = flags.releasing(self.rank, wait["flag"], wait["expected"])
        if index < 0 or int(flags.rank[index]) == self.rank:
            return None
        key = (int(flags.rank[index]), int(flags.row[index]))
        end = wait["end_ns"]
        if (held := self.receives.get(key)) and held.end_ns <= end:
            return held
        if held:
            held.start_ns, held.end_ns = min(held.start_ns, wait["start_ns"]), end
            return held
        operation = Operation(
            "recv", "incoming flag", -1, False, wait["start_ns"], end, peer=key[0], write=key
        )
        self.receives[key] = self._add(operation)
        return operation

    def _unawaited(self) -> None:
        """Add receives of the writes that no wait asked for, and the sizes of all."""
        if self.rank not in self.job.incoming:
            return
        for writer, row, size in self.job.incoming[self.rank].T.tolist():
            operation = self.receives.get((writer, row))
            if operation is None:
                at = self.job.origin_ns
                operation = Operation(
                    "recv", "incoming write", -1, False, at, at, peer=writer, write=(writer, row)
                )
                self._add(operation)
            operation.size_bytes = size

    def _ordered(self, edges: Mapping[int, list[tuple[int, str]]]) -> Schedule:
        """Sort the operations, link the edges between spans, and find the gaps."""
        self.operations.sort(key=lambda o: (o.end_ns, o.start_ns, o.number))
        for number, operation in enumerate(self.operations):
            operation.number = number
        for span, before in edges.items():
            if span in self.first_of:
                for other, kind in before:
                    if other in self.last_of:
                        self._link(self.first_of[span], other, kind)
        for operation in self.operations:
            operation.after = [o for o in dict.fromkeys(operation.after) if o.number < operation.number]
            self._find_gap(operation)
        return Schedule(self.rank, self.operations, list(self.lanes))

    def _link(self, operation: Operation, other: int, kind: str) -> None:
        last = self.last_of[other]
        operation.explained = True
        if kind != "launch" or last.end_ns <= operation.start_ns:
            operation.after.append(last)
        elif last.number < operation.number and last.own_ns == last.end_ns - last.start_ns:
            operation.begun = last  # the kernel began while its call was still running
        else:
            operation.after += [o for o in self.first_of[other].after if o.lane == last.lane]

    def _find_gap(self, operation: Operation) -> None:
        if operation.lane < 0 or (operation.kind == "send" and operation.write):
            return
        ends = [o.end_ns for o in operation.after if o.lane >= 0 or o.kind == "recv"]
        ends += [operation.begun.start_ns] if operation.begun else []
        start = operation.end_ns - operation.own_ns if operation.kind == "calc" else operation.start_ns
        operation.gap_ns = max(0, start - max(ends, default=self.job.origin_ns))


def _home(row: Mapping[str, Any]) -> Any:
    if row["span"] is not None:
        return row["span"]
    return None, "memory" if row["workgroup"] is None else f"workgroup {row['workgroup']}"
