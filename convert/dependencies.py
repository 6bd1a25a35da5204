"""Edges between a rank's spans: what had to happen before what, measured where the trace says, else inferred.

Order within a lane is implied and not stored. No edge contradicts the captured times; an edge that would is
left out and counted.
"""

from array import array
from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .collectives import HostRecords, Part, operation_of
from .narrow import release
from .scanner import CALL
from .work import Ints, Queue, Work, launched, numbers, queues

HANDOVER_NS = 50_000
"""A thread that was idle for this long, while another worked, is taken to have waited for it.

Above the gaps between two calls of one busy thread, below the time that a step's backward pass takes.
"""

_WAIT_DEPTH = 4  # collectives launched before a wait among which the one waited for is looked for


_KINDS = ("event", "launch", "sync", "thread")
_ORIGINS = ("inferred", "measured")


class Edges:
    """Edges (before, after, kind) with their origin; `contradicted` counts those left out, by kind."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.contradicted: Counter[str] = Counter()
        self._before, self._after, self._told = array("q"), array("q"), array("b")
        self._type = work.launch.dtype

    def add(self, before: int, after: int, kind: str, origin: str) -> bool:
        """Add an edge unless the captured times contradict it; say whether they allow it.

        Of several that differ in their origin only, the first counts.
        """
        if before < 0 or after < 0 or before == after:
            return False
        work = self.work
        limit = work.end_ns[after] if kind == "sync" else work.start_ns[after]
        if work.end_ns[before] > limit:
            self.contradicted[kind] += 1
            return False
        self._before.append(before)
        self._after.append(after)
        self._told.append(_KINDS.index(kind) << 1 | _ORIGINS.index(origin))
        return True

    def columns(self) -> dict[str, pa.Array]:
        """Return the columns of `dependencies`, launches included, in order of (after, before, kind)."""
        launched = np.flatnonzero(self.work.launch >= 0)
        before = np.concatenate([self.work.launch[launched], self._spans(self._before)])
        after = np.concatenate([launched.astype(self._type), self._spans(self._after)])
        told = np.full(len(after), _KINDS.index("launch") << 1 | _ORIGINS.index("measured"), np.int8)
        told[len(launched) :] = np.frombuffer(self._told, np.int8)
        del launched
        order = np.lexsort((told >> 1, before, after))
        before, after, told = before[order], after[order], told[order]
        new = np.append(True, (np.diff(after) != 0) | (np.diff(before) != 0) | (np.diff(told >> 1) != 0))
        kept = slice(None) if new.all() else np.flatnonzero(new[: len(after)])
        return {
            "before": pa.array(before[kept]),
            "after": pa.array(after[kept]),
            "kind": _words(told[kept] >> 1, _KINDS),
            "origin": _words(told[kept] & 1, _ORIGINS),
        }

    def _spans(self, spans: "array[int]") -> npt.NDArray[np.integer]:
        return np.frombuffer(spans, np.int64).astype(self._type)


def _words(places: npt.NDArray[np.int8], words: tuple[str, ...]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(places), pa.array(words))


def find_edges(work: Work, records: HostRecords, parts: list[Part]) -> Edges:
    """Find all edges of a rank."""
    edges = Edges(work)
    context = _Context(work, records, parts)
    measured = _measured(context, edges)
    if not measured["Stream Wait Event"]:
        _collective_inputs(context, edges)
        _stream_waits(context, edges)
    _syncs(context, edges, measured["Event Sync"])
    _handovers(work, edges)
    del context
    release()
    return edges


class _Context:
    def __init__(self, work: Work, records: HostRecords, parts: list[Part]) -> None:
        self.work = work
        self.records = records
        self.parts = parts
        self.collective = {part.span for part in parts}
        spans = launched(work)
        self.lanes, self.threads = queues(work, spans)
        communicates = np.isin(spans, np.fromiter(self.collective, np.int64))
        self.compute = Queue(work, spans[~communicates])
        self.communication = Queue(work, spans[communicates])

    def calls(self, pattern: str) -> list[int]:
        return np.flatnonzero((self.work.kind == CALL) & self.work.matching(pattern)).tolist()

    def last_by_thread(self, tid: int, time_ns: int) -> int:
        return self.threads[tid].before(time_ns) if tid in self.threads else -1


def _measured(context: _Context, edges: Edges) -> Counter[str]:
    """Add the edges of `cuda_sync` events, which name the record call waited for; count them by name."""
    work, used = context.work, Counter[str]()
    sync = work.syncs
    if not sync.num_rows:
        return used
    named = np.concatenate([numbers(sync, n) for n in ("correlation", "wait_record")])
    found = np.flatnonzero((work.kind == CALL) & (work.correlation > 0) & np.isin(work.correlation, named))
    calls = dict(zip(work.correlation[found].tolist(), found.tolist(), strict=True))
    lane_of = {
        (int(work.device[s]), int(work.stream[s])): lane
        for lane, q in context.lanes.items()
        for s in q.spans[:1]
    }
    columns = [
        numbers(sync, n).tolist() for n in ("correlation", "device", "stream", "wait_stream", "wait_record")
    ]
    for name, call, device, stream, wait_stream, record in zip(
        sync["name"].to_pylist(), *columns, strict=True
    ):
        waiter, recorder = calls.get(call, -1), calls.get(record, -1)
        source = context.lanes.get(lane_of.get((device, wait_stream), -1))
        if waiter < 0 or recorder < 0 or source is None:
            continue
        before = source.before(int(work.start_ns[recorder]))
        if name == "Stream Wait Event":
            target = context.lanes.get(lane_of.get((device, stream), -1))
            after = target.after(int(work.start_ns[waiter])) if target else -1
            used[name] += edges.add(before, after, "event", "measured")
        elif name in ("Event Sync", "Event Synchronize"):
            used["Event Sync"] += edges.add(before, waiter, "sync", "measured")
    return used


def _collective_inputs(context: _Context, edges: Edges) -> None:
    """Make each collective wait for the stream that was current when it was called.

    The process group records an event there and makes its own stream wait for it (syncStreams in PyTorch's
    ProcessGroupNCCL.cpp). The last work on that stream before the call is what it waits for.
    """
    work = context.work
    for part in context.parts:
        if not part.on_gpu or work.launch[part.span] < 0:
            continue
        launch = int(work.launch[part.span])
        called_ns = int(work.start_ns[part.record if part.record >= 0 else launch])
        queue = context.threads[int(work.tid[launch])]
        index = queue.count_before(called_ns) - 1
        while index >= 0 and queue.spans[index] in context.collective:
            index -= 1
        if index >= 0:
            current = context.lanes[int(work.lane[queue.spans[index]])]
            edges.add(current.before(called_ns), part.span, "event", "inferred")


def _stream_waits(context: _Context, edges: Edges) -> None:
    """Make the current stream wait for another stream's latest work at each cudaStreamWaitEvent.

    Which stream and event is not in the trace. The waiting stream is taken to be that of the next work that
    any thread launches (backward ends on autograd's thread, the optimizer goes on in the main one), the event
    that of the latest work launched elsewhere before; where the call sits in the `wait` of a collective, that
    of the latest collective that the times allow. Calls within a collective's own record are covered by
    `_collective_inputs`.
    """
    work = context.work
    for call in context.calls("(?i)streamwaitevent"):
        time_ns = int(work.start_ns[call])
        record = context.records.around(int(work.tid[call]), time_ns, plain=True)
        waits = record >= 0 and _is_wait(context, record)
        after = context.compute.after(time_ns)
        if (record >= 0 and not waits) or after < 0:
            continue
        if waits:
            last = context.communication.count_before(time_ns)
            candidates = context.communication.spans[max(0, last - _WAIT_DEPTH) : last].tolist()
            candidates = [s for s in candidates if work.end_ns[s] <= work.start_ns[after]] or candidates[-1:]
        else:
            others = [q.before(time_ns) for lane, q in context.lanes.items() if lane != work.lane[after]]
            candidates = sorted(
                (s for s in others if s >= 0), key=lambda s: (work.start_ns[work.launch[s]], s)
            )
        if candidates:
            edges.add(candidates[-1], after, "event", "inferred")


def _is_wait(context: _Context, record: int) -> bool:
    """Say whether a `record_param_comms` launches nothing: it is then a wait for an earlier one."""
    name = context.records.args[record].get("Collective name")
    if name is not None:
        return operation_of(str(name)) == "wait"
    return context.records.annotation_in(record) < 0


def _syncs(context: _Context, edges: Edges, events_measured: int) -> None:
    """Keep each synchronising call from ending before the work that it waits for."""
    work = context.work
    for call in context.calls("(?i)(device|ctx)synchronize"):
        for queue in context.lanes.values():
            edges.add(queue.before(int(work.start_ns[call])), call, "sync", "inferred")
    for call in context.calls("(?i)streamsynchronize"):
        last = context.last_by_thread(int(work.tid[call]), int(work.start_ns[call]))
        if last >= 0:
            queue = context.lanes[int(work.lane[last])]
            edges.add(queue.before(int(work.start_ns[call])), call, "sync", "inferred")
    if not events_measured:
        _event_syncs(context, edges)
    # A copy to or from pageable memory, and one that is not Async, holds its caller until it is done.
    copies = np.flatnonzero((work.launch >= 0) & work.matching("(?i)^memcpy"))
    blocking = work.matching("Pageable")
    held = ~work.matching("(?i)async") & work.matching("(?i)memcpy")
    for copy in copies.tolist():
        call = int(work.launch[copy])
        if (blocking[copy] or held[call]) and work.end_ns[copy] <= work.end_ns[call]:
            edges.add(copy, call, "sync", "inferred")


def _event_syncs(context: _Context, edges: Edges) -> None:
    """Make each cudaEventSynchronize wait for the work that ended last during it; its event is not known."""
    work = context.work
    gpu = np.flatnonzero(work.launch >= 0)
    gpu = gpu[np.argsort(work.end_ns[gpu], kind="stable")]
    ends = work.end_ns[gpu]
    for call in context.calls("(?i)eventsynchronize"):
        index = int(np.searchsorted(ends, work.end_ns[call], side="right")) - 1
        if index >= 0 and ends[index] > work.start_ns[call] > work.start_ns[work.launch[gpu[index]]]:
            edges.add(int(gpu[index]), call, "sync", "inferred")


def _handovers(work: Work, edges: Edges) -> None:
    """Make a host thread wait for another that worked while it paused, and that then paused itself.

    The main thread sits in backward() while autograd's thread works; the trace shows only their calls.
    """
    calls = np.flatnonzero(work.kind == CALL)
    tids, starts, ends = work.tid[calls], work.start_ns[calls], work.end_ns[calls]
    last_end: dict[int, int] = {}
    switches = np.flatnonzero(tids[1:] != tids[:-1]) + 1
    if not len(switches):
        return
    resumes = _next_of_own_thread(tids, starts)[switches - 1].tolist()
    run_ends = np.maximum.reduceat(ends, np.concatenate([[0], switches]))
    givers, takers = tids[switches - 1].tolist(), tids[switches].tolist()
    times = zip(run_ends.tolist(), ends[switches - 1].tolist(), starts[switches].tolist(), strict=False)
    for switch, giver, taker, resumed_ns, (run_end, given_ns, taken_ns) in zip(
        switches.tolist(), givers, takers, resumes, times, strict=True
    ):
        last_end[giver] = run_end
        idle_since = last_end.get(taker)
        waited = idle_since is None or (idle_since < given_ns and taken_ns - idle_since >= HANDOVER_NS)
        if not waited or given_ns > taken_ns:
            continue
        if resumed_ns < 0 or resumed_ns - taken_ns >= HANDOVER_NS:
            edges.add(int(calls[switch - 1]), int(calls[switch]), "thread", "inferred")


def _next_of_own_thread(tids: Ints, starts: Ints) -> Ints:
    """Return when each call's thread begins its next one, -1 after its last; calls are in order of start."""
    order = np.argsort(tids, kind="stable")
    following = np.full(len(tids), -1, np.int64)
    same = tids[order[1:]] == tids[order[:-1]]
    following[order[:-1][same]] = starts[order[1:][same]]
    return following
