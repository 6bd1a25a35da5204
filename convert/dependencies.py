"""Edges between a rank's spans: what had to happen before what, measured where the trace says, else inferred.

Order within a lane is implied and not stored. No edge contradicts the captured times; an edge that would is
left out and counted. Every rule takes calls a block at a time, so that the memory does not grow with a rank.
"""

from collections import Counter

import numpy as np

from .edges import Edges
from .host_records import HostRecords
from .launches import Launches, by_end
from .narrow import Column
from .operations import operation_of
from .parts import Part
from .scanner import CALL
from .sorting import Array, Ints, Lookup, gathered, row_type
from .work import ON_GPU, Work

HANDOVER_NS = 50_000
"""A thread that was idle for this long, while another worked, is taken to have waited for it.

Above the gaps between two calls of one busy thread, below the time that a step's backward pass takes.
"""

_WAIT_DEPTH = 4  # collectives launched before a wait among which the one waited for is looked for


def find_edges(work: Work, records: HostRecords, parts: list[Part]) -> Edges:
    """Find all edges of a rank."""
    edges = Edges(work)
    launches = Launches(work, {part.span for part in parts})
    measured = _measured(work, launches, edges)
    if not measured["Stream Wait Event"]:
        _collective_inputs(work, launches, parts, edges)
        _stream_waits(work, launches, records, edges)
    _syncs(work, launches, edges)
    if not measured["Event Sync"]:
        _event_syncs(work, edges)
    _blocking_copies(work, edges)
    _handovers(work, edges)
    return edges


def _measured(work: Work, launches: Launches, edges: Edges) -> Counter[str]:
    """Add the edges of `cuda_sync` events, which name the record call waited for; count them by name."""
    used, syncs = Counter[str](), work.syncs
    if not syncs:
        return used
    identified = (calls[work.correlation[calls] > 0] for calls in work.find(CALL))
    calls = Lookup(work.scratch, work.correlation, identified)
    lane_of = {
        (int(work.device[span]), int(work.stream[span])): lane
        for lane, places in launches.lanes.items()
        for span in launches.spans[places[:1]].tolist()
    }
    waits, ends = (work.matching(f"^{name}$") for name in ("Stream Wait Event", "Event Sync(hronize)?"))
    for block in work.scratch.blocks(len(syncs["name"])):
        name, call, device, stream, wait_stream, record = (column[block] for column in syncs.values())
        waiter, recorder = calls.find(call), calls.find(record)
        source = _lanes(lane_of, device, wait_stream)
        known = (waiter >= 0) & (recorder >= 0) & (source >= 0)
        before = launches.on_lanes(source, launches.count(work.start_ns[recorder]))
        after = launches.on_lanes(
            _lanes(lane_of, device, stream), launches.count(work.start_ns[waiter]), first=True
        )
        rows = np.flatnonzero(known & waits[name])
        used["Stream Wait Event"] += edges.add(before[rows], after[rows], "event", "measured")
        rows = np.flatnonzero(known & ends[name])
        used["Event Sync"] += edges.add(before[rows], waiter[rows], "sync", "measured")
    return used


def _lanes(lane_of: dict[tuple[int, int], int], device: Array, stream: Array) -> Array:
    """Return the lane of each pair, -1 where no work is on it."""
    pairs, places = np.unique(np.stack([device, stream], axis=1), axis=0, return_inverse=True)
    lanes = np.array([lane_of.get((d, s), -1) for d, s in pairs.tolist()], np.int64)
    return np.asarray(lanes[places.reshape(-1)])


def _collective_inputs(work: Work, launches: Launches, parts: list[Part], edges: Edges) -> None:
    """Make each collective wait for the stream that was current when it was called.

    The process group records an event there and makes its own stream wait for it (syncStreams in PyTorch's
    ProcessGroupNCCL.cpp). The last work on that stream before the call is what it waits for.
    """
    collectives = {part.span for part in parts}
    own: dict[int, tuple[list[int], list[int]]] = {}
    for part in parts:
        launch = int(work.launch[part.span])
        if part.on_gpu and launch >= 0:
            spans, calls = own.setdefault(int(work.tid[launch]), ([], []))
            spans.append(part.span)
            calls.append(part.record if part.record >= 0 else launch)
    for tid, (spans, calls) in own.items():
        passed: dict[int, int] = {}
        for some in work.scratch.few(len(spans)):
            counts = launches.count(work.start_ns[calls[some]])
            current = _last_compute(launches, launches.threads[tid], counts, collectives, passed)
            lanes = np.where(current >= 0, work.lane[current], -1)
            edges.add(launches.on_lanes(lanes, counts), np.array(spans[some]), "event", "inferred")


def _last_compute(
    launches: Launches, places: Array, counts: Ints, collectives: set[int], passed: dict[int, int]
) -> Array:
    """Return the last span at `places` of the first `counts` that is no collective.

    `passed` keeps where to go on from a collective that was met before.
    """
    found = np.full(len(counts), -1)
    for row, at in enumerate((np.searchsorted(places, counts.astype(places.dtype)) - 1).tolist()):
        index = at
        while index >= 0 and int(launches.spans[places[index]]) in collectives:
            index = passed.get(index, index - 1)
        if at >= 0:
            passed[at] = index
        if index >= 0:
            found[row] = launches.spans[places[index]]
    return found


def _stream_waits(work: Work, launches: Launches, records: HostRecords, edges: Edges) -> None:
    """Make the current stream wait for another stream's latest work at each cudaStreamWaitEvent.

    Which stream and event is not in the trace. The waiting stream is taken to be that of the next work that
    any thread launches (backward ends on autograd's thread, the optimizer goes on in the main one), the event
    that of the latest work launched elsewhere before; where the call sits in the `wait` of a collective, that
    of the latest collective that the times allow. Calls within a collective's own record are covered by
    `_collective_inputs`.
    """
    for calls in work.find(CALL, named="(?i)streamwaitevent"):
        counts = launches.count(work.start_ns[calls])
        after = launches.first(launches.compute, counts)
        record = records.around_each(work.tid[calls], work.start_ns[calls])
        rows = np.flatnonzero((record < 0) & (after >= 0))
        before = launches.elsewhere(work.lane[after[rows]], counts[rows])
        edges.add(before, after[rows], "event", "inferred")
        rows = np.flatnonzero((record >= 0) & (after >= 0))
        waits = {r: _is_wait(records, r) for r in np.unique(record[rows]).tolist()}
        rows = rows[[waits[r] for r in record[rows].tolist()]] if len(rows) else rows
        edges.add(_waited_for(work, launches, counts[rows], after[rows]), after[rows], "event", "inferred")


def _waited_for(work: Work, launches: Launches, counts: Ints, after: Array) -> Array:
    """Return the latest collective of the first `counts` that had ended when `after` began, else the latest."""
    places = launches.communication
    last = np.searchsorted(places, counts.astype(places.dtype)) - 1
    best = np.full(len(after), -1)
    for back in range(_WAIT_DEPTH - 1, -1, -1):
        at = last - back
        rows = np.flatnonzero(at >= 0)
        spans = launches.spans[places[at[rows]]]
        fits = work.end_ns[spans] <= work.start_ns[after[rows]]
        fits |= (back == 0) & (best[rows] < 0)
        best[rows[fits]] = spans[fits]
    return best


def _is_wait(records: HostRecords, record: int) -> bool:
    """Say whether a `record_param_comms` launches nothing: it is then a wait for an earlier one."""
    name = records.of(record).get("Collective name")
    if name is not None:
        return operation_of(str(name)) == "wait"
    return records.annotation_in(record) < 0


def _syncs(work: Work, launches: Launches, edges: Edges) -> None:
    """Keep each synchronising call from ending before the work that it waits for."""
    for calls in work.find(CALL, named="(?i)(device|ctx)synchronize"):
        counts = launches.count(work.start_ns[calls])
        for places in launches.lanes.values():
            edges.add(launches.last(places, counts), calls, "sync", "inferred")
    for calls in work.find(CALL, named="(?i)streamsynchronize"):
        counts = launches.count(work.start_ns[calls])
        last = launches.by_threads(work.tid[calls], counts)
        lanes = np.where(last >= 0, work.lane[last], -1)
        edges.add(launches.on_lanes(lanes, counts), calls, "sync", "inferred")


def _event_syncs(work: Work, edges: Edges) -> None:
    """Make each cudaEventSynchronize wait for the work that ended last during it; its event is not known."""
    calls_of = list(work.find(CALL, named="(?i)eventsynchronize"))
    spans = by_end(work) if calls_of else np.empty(0, np.int64)
    if not len(spans):
        return
    ends = gathered(work.scratch, work.end_ns, spans)
    for calls in calls_of:
        at = np.searchsorted(ends, work.end_ns[calls], side="right") - 1
        gpu = spans[np.maximum(at, 0)]
        began = work.start_ns[calls]
        during = (at >= 0) & (work.end_ns[gpu] > began) & (began > work.start_ns[work.launch[gpu]])
        edges.add(gpu[during], calls[during], "sync", "inferred")
        work.scratch.release()


def _blocking_copies(work: Work, edges: Edges) -> None:
    """Make the caller of a copy to or from pageable memory, or of one that is not Async, wait until it is done."""
    pageable, asynchronous, copying = (
        work.matching(pattern) for pattern in ("Pageable", "(?i)async", "(?i)memcpy")
    )
    for copies in work.find(*ON_GPU, named="(?i)^memcpy"):
        copies = copies[work.launch[copies] >= 0]
        calls = work.launch[copies]
        names = work.name[calls]
        held = pageable[work.name[copies]] | (~asynchronous[names] & copying[names])
        held &= work.end_ns[copies] <= work.end_ns[calls]
        edges.add(copies[held], calls[held], "sync", "inferred")


def _handovers(work: Work, edges: Edges) -> None:
    """Make a host thread wait for another that worked while it paused, and that then paused itself.

    The main thread sits in backward() while autograd's thread works; the trace shows only their calls.
    """
    tid, first, last, end = _runs(work)
    if len(tid) < 2:
        return
    before, resumed = _neighbours(work, tid, first)
    for block in work.scratch.blocks(len(tid) - 1):
        giver, taker = last[block], first[block.start + 1 : block.stop + 1]
        given, taken = work.end_ns[giver], work.start_ns[taker]
        earlier = before[block.start + 1 : block.stop + 1]
        idle_since = end[earlier]
        waited = (earlier < 0) | ((idle_since < given) & (taken - idle_since >= HANDOVER_NS))
        paused = (resumed[block] < 0) | (resumed[block] - taken >= HANDOVER_NS)
        rows = np.flatnonzero(waited & paused & (given <= taken))
        edges.add(giver[rows], taker[rows], "thread", "inferred")


def _runs(work: Work) -> tuple[Array, ...]:
    """Return thread, first and last call and latest end of every run of calls, in order, that one thread made."""
    columns = [Column(work.scratch) for _ in range(4)]
    open_run: list[Array] = [np.empty(0, np.int64)] * 4
    for calls in work.find(CALL):
        tids = work.tid[calls]
        begins = np.flatnonzero(np.append(True, tids[1:] != tids[:-1]))
        lasts = np.append(begins[1:], len(calls)) - 1
        ends = np.maximum.reduceat(work.end_ns[calls], begins)
        runs = [np.array(c) for c in (tids[begins], calls[begins], calls[lasts], ends)]
        if len(open_run[0]) and open_run[0][0] == runs[0][0]:
            runs[1][0] = open_run[1][0]
            runs[3][0] = max(open_run[3][0], runs[3][0])
            open_run = [c[:0] for c in open_run]
        for column, held, new in zip(columns, open_run, runs, strict=True):
            column.add(np.concatenate([held, new[:-1]]))
        open_run = [c[-1:] for c in runs]
    for column, held in zip(columns, open_run, strict=True):
        column.add(held)
    tid, first, last, end = (column.values() for column in columns)
    return tid, first, last, end


def _neighbours(work: Work, tid: Array, first: Array) -> tuple[Array, Ints]:
    """Return each run's place of its thread's run before, and when its thread's next one starts; -1 for none."""
    scratch = work.scratch
    before = scratch.empty(len(tid), row_type(len(tid)))
    resumed = scratch.empty(len(tid), np.int64)
    for block in scratch.blocks(len(tid)):
        resumed[block] = -1
    latest: dict[int, int] = {}
    for block in scratch.blocks(len(tid)):
        order = np.argsort(tid[block], kind="stable")
        threads, places = tid[block][order], order + block.start
        begins = np.flatnonzero(np.append(True, threads[1:] != threads[:-1]))
        earlier = np.append(-1, places[:-1])
        earlier[begins] = [latest.get(thread, -1) for thread in threads[begins].tolist()]
        latest |= dict(zip(threads.tolist(), places.tolist(), strict=True))
        before[places] = earlier
        known = earlier >= 0
        resumed[earlier[known]] = work.start_ns[first[places[known]]]
    return before, resumed
