"""What a run gave: times and totals, and the result tables made of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa

from ..schemas import RESULT_TABLES, conform
from .engine.layout import FINISHED, HOP_ROW, Final
from .fabric import Fabric
from .intervals import union_length
from .program import ACTIVITY_KINDS, Ints, Mode, Op, Program
from .waiting import Policy, WaitPolicy

Columns = dict[str, Any]
_CHUNK = 1 << 18
_COMPUTING = tuple(ACTIVITY_KINDS.index(kind) for kind in ("kernel", "copy", "phase"))
_COLLECTIVE = ACTIVITY_KINDS.index("collective")


@dataclass(frozen=True)
class Outcome:
    """A run's outcome. Times are integer picoseconds; rows are in canonical order (agent, then program)."""

    program: Program
    fabric: Fabric
    wait: WaitPolicy
    segment_bytes: int
    final: Final

    @property
    def makespan_ps(self) -> int:
        """When the last agent ended; of a stalled run, when the last call ended."""
        ends = (self.final.agents["end_ps"], self.final.rows.calls["end_ps"])
        return int(max(end.max(initial=0) for end in ends))

    @property
    def recorded(self) -> bool:
        """Whether messages and waits were recorded."""
        return len(self.final.rows.messages) == self.program.messages

    def blocked(self) -> list[tuple[int, int, int, int]]:
        """Return (agent, flag slot, expected, seen) of every agent that has not ended."""
        agents = self.final.agents
        found = np.flatnonzero(agents["flag"] != FINISHED)
        flag = agents["flag"][found]
        slot = flag - self.program.flag_first[self.program.agent_endpoint[found]]
        seen = self.final.flags[flag]
        columns = (found, slot, agents["expected"][found], seen)
        return [(int(a), int(s), int(e), int(n)) for a, s, e, n in zip(*columns, strict=True)]

    @cached_property
    def activity_times(self) -> tuple[Ints, Ints]:
        """(activities,) start and end of each activity: first call's start, last call's end."""
        activity = self.program.calls["activity"]
        inside = activity >= 0
        size = len(self.program.activities["agent"])
        start = np.full(size, np.iinfo(np.int64).max)
        end = np.full(size, -1)
        np.minimum.at(start, activity[inside], self.final.rows.calls["start_ps"][inside])
        np.maximum.at(end, activity[inside], self.final.rows.calls["end_ps"][inside])
        return np.where(end < 0, 0, start), np.maximum(end, 0)

    @cached_property
    def observed_ps(self) -> Ints:
        """(waits,) when each OBSERVE wait's flag reached its count; -1: never, or another kind of wait."""
        arrival = np.full(self.program.waits, -1, np.int64)
        if not self._has(Mode.OBSERVE) or not self.recorded:
            return arrival
        waits, rows = self.program.wait_rows(), self.program.message_rows()
        wanted = np.flatnonzero(waits["mode"] == Mode.OBSERVE)
        raising = np.flatnonzero((rows["flag"] >= 0) & (self.final.rows.messages["arrival_ps"] >= 0))
        flag = self.program.flag_first[rows["destination"][raising]] + rows["flag"][raising]
        landed = self.final.rows.messages["arrival_ps"][raising]
        order = np.lexsort((landed, flag))
        flag, landed = flag[order], landed[order]
        own = self.program.flag_first[waits["endpoint"][wanted]] + waits["flag"][wanted]
        expected = waits["expected"][wanted]
        at = np.searchsorted(flag, own) + expected - 1
        reached = (expected > 0) & (at < np.searchsorted(flag, own, side="right"))
        arrival[wanted[reached]] = landed[at[reached]]
        arrival[wanted[expected <= 0]] = 0
        return arrival

    def causality_violations(self) -> int:
        """Return how many OBSERVE waits the capture ended before their simulated arrival."""
        if not self._has(Mode.OBSERVE):
            return 0
        waits = self.program.wait_rows()
        observed = waits["mode"] == Mode.OBSERVE
        arrival = self.observed_ps[observed]
        return int(((arrival < 0) | (arrival > waits["deadline_ps"][observed])).sum())

    def _has(self, mode: Mode) -> bool:
        """Whether some wait is of this mode."""
        ops = self.program.ops
        return bool(((ops["kind"] == Op.WAIT) & (ops["mode"] == mode)).any())

    @cached_property
    def _released(self) -> Ints:
        """(waits + 1,) message that last released the agent before each wait, by canonical index; -1 none."""
        message = self.final.rows.waits["message"]
        first = self.program.wait_first[self.program.call_first]
        index = np.arange(len(message))
        last = np.maximum.accumulate(np.where(message >= 0, index, -1)) if len(message) else index
        same = last >= np.repeat(first[:-1], np.diff(first))
        after = np.where(same, message[np.maximum(last, 0)], -1)
        return np.concatenate(([-1], after)).astype(np.int64)

    def _released_before(self, call: Ints, waits_before: Ints) -> Ints:
        """Return the message that last released the agent of `call` before its wait number `waits_before`."""
        agent = self.program.calls["agent"][call]
        first = self.program.wait_first[self.program.call_first[agent]]
        return np.where(waits_before > first, self._released[waits_before], -1)

    def tables(self) -> Mapping[str, Any]:
        """Return the result tables by name, each a mapping of columns or an Arrow table.

        Each is made anew when it is taken, so that large runs hold one at a time.
        """
        makers: dict[str, Callable[[], Any]] = {
            "agents": self._agents,
            "activities": self._activities,
            "links": self._links,
            "link_use": self._link_use,
            "collectives": self._collectives,
            "gpus": self._gpus,
        }
        if self.recorded:
            makers |= {
                "messages": partial(_chunked, "messages", self.program.messages, self._messages),
                "waits": partial(_chunked, "waits", self.program.waits, self._waits),
            }
        if len(self.final.rows.hops):
            makers["hops"] = self._hops
        return _Lazy(makers)

    def _agents(self) -> Columns:
        program, agents = self.program, self.final.agents
        first = program.call_first
        return {
            "agent": np.arange(program.agents),
            "rank": program.agent_endpoint,
            "name": _named(program.names, program.agent_name),
            "start_ps": np.zeros(program.agents, np.int64),
            "end_ps": agents["end_ps"],
            "compute_ps": agents["compute_ps"],
            "wait_ps": agents["wait_ps"],
            "writes": agents["message"] - program.message_first[first[:-1]],
            "waits": agents["wait"] - program.wait_first[first[:-1]],
            "polls": agents["polls"],
        }

    def _activities(self) -> Columns:
        columns, (start, end) = self.program.activities, self.activity_times
        size = len(start)
        first_call = np.full(size, -1, np.int64)
        activity = self.program.calls["activity"]
        inside = np.flatnonzero(activity >= 0)[::-1]
        first_call[activity[inside]] = inside
        released = np.full(size, -1, np.int64)
        if self.recorded:
            known = first_call >= 0
            released[known] = self._released_before(
                first_call[known], self.program.wait_first[first_call[known]]
            )
        return {
            "activity": np.arange(size),
            "agent": columns["agent"],
            "rank": self.program.agent_endpoint[columns["agent"]],
            "kind": _named(ACTIVITY_KINDS, columns["kind"]),
            "name": _named(self.program.names, columns["name"]),
            "source": columns["source"],
            "start_ps": start,
            "end_ps": end,
            "captured_start_ns": _maybe(columns["captured_start_ns"]),
            "captured_end_ns": _maybe(columns["captured_end_ns"]),
            "released_by": released,
        }

    def _messages(self, start: int, end: int) -> Columns:
        program, rows = self.program, self.final.rows.messages[start:end]
        known = program.message_rows(start, end)
        waits_before = program.wait_first[known["call"]] + _before(program, known, Op.WAIT)
        return {
            "message": np.arange(start, start + len(rows)),
            "agent": known["agent"],
            "activity": known["activity"],
            "source_rank": known["source"],
            "destination_rank": known["destination"],
            "size_bytes": known["size_bytes"],
            "flag": known["flag"],
            "post_ps": rows["post_ps"],
            "start_ps": rows["start_ps"],
            "arrival_ps": rows["arrival_ps"],
            "queued_ps": rows["queued_ps"],
            "bottleneck_link": rows["link"],
            "released_by": self._released_before(known["call"], waits_before),
        }

    def _waits(self, start: int, end: int) -> Columns:
        known, rows = self.program.wait_rows(start, end), self.final.rows.waits[start:end]
        observe = known["mode"] == Mode.OBSERVE
        polled = self.wait.kind.name.lower() if self.wait.kind is not Policy.IDEAL else "ideal"
        kinds = np.where(observe, 1, np.where(known["mode"] == Mode.POLL, 2, 0))
        return {
            "wait": np.arange(start, start + len(rows)),
            "agent": known["agent"],
            "activity": known["activity"],
            "rank": known["endpoint"],
            "flag": known["flag"],
            "flag_name": self._flag_names(known["endpoint"], known["flag"]),
            "expected": known["expected"],
            "policy": _named(("event", "observe", polled), kinds),
            "start_ps": rows["start_ps"],
            "arrival_ps": np.where(observe, self.observed_ps[start:end], rows["arrival_ps"]),
            "end_ps": rows["end_ps"],
            "polls": rows["polls"],
            "released_by": rows["message"],
        }

    def _flag_names(self, endpoint: Ints, slot: Ints) -> pa.Array:
        """Return the name of each flag; null where it has none."""
        flag, index = np.unique(self.program.flag_first[endpoint] + slot, return_inverse=True)
        names: list[str | None] = [None] * len(flag)
        for entry in self.program.flag_names:
            ends = range(self.program.endpoints) if entry.endpoint < 0 else (entry.endpoint,)
            for end in ends:
                base = int(self.program.flag_first[end]) + entry.first
                low, high = np.searchsorted(flag, (base, base + entry.count))
                for at in range(low, high):
                    names[at] = entry.name if entry.count == 1 else f"{entry.name}[{int(flag[at]) - base}]"
        return _named(names, index)

    def _links(self) -> Columns:
        fabric, queues = self.fabric, self.final.queues[: self.fabric.links]
        names = np.array(fabric.node_names, object)
        source, destination = names[fabric.source], names[fabric.destination]
        return {
            "link": np.arange(fabric.links),
            "name": [f"{a} -> {b}" for a, b in zip(source, destination, strict=True)],
            "source": source.tolist(),
            "destination": destination.tolist(),
            "rate_mb_per_s": fabric.rate_mb_per_s,
            "latency_ps": fabric.latency_ps,
            **{name: queues[name] for name in ("wire_bytes", "segments", "busy_ps", "queued_ps")},
        }

    def _link_use(self) -> Columns:
        link, where = np.nonzero(self.final.use)
        width = self.final.bin_ps
        return {
            "link": link,
            "start_ps": where * width,
            "width_ps": np.full(len(link), width),
            "busy_ps": self.final.use[link, where],
        }

    def _collectives(self) -> Columns:
        columns, (start, end) = self.program.activities, self.activity_times
        found = np.flatnonzero(columns["collective"] >= 0)
        found = found[np.argsort(columns["collective"][found], kind="stable")]
        which = columns["collective"][found]
        known = [self.program.collectives[i] for i in which]
        return {
            "collective": which,
            "rank": self.program.agent_endpoint[columns["agent"][found]],
            **{name: [getattr(c, name) for c in known] for name in ("operation", "communicator", "sequence")},
            **{name: [getattr(c, name) for c in known] for name in ("size_bytes", "algorithm")},
            "start_ps": start[found],
            "end_ps": end[found],
            "captured_start_ns": _maybe(columns["captured_start_ns"][found]),
            "captured_end_ns": _maybe(columns["captured_end_ns"][found]),
        }

    def _gpus(self) -> Columns:
        program, size = self.program, self.program.endpoints
        kind, (start, end) = program.activities["kind"], self.activity_times
        rank = program.agent_endpoint[program.activities["agent"]]
        computing = np.isin(kind, _COMPUTING)
        busy = union_length(rank[computing], start[computing], end[computing], size)
        waiting = [(rank[kind == _COLLECTIVE], start[kind == _COLLECTIVE], end[kind == _COLLECTIVE])]
        sent, received, writes = self._traffic()
        if self.recorded and self._has(Mode.POLL):
            for low, high in _chunks(program.waits):
                known, rows = program.wait_rows(low, high), self.final.rows.waits[low:high]
                polled = known["mode"] == Mode.POLL
                waiting.append((known["endpoint"][polled], rows["start_ps"][polled], rows["end_ps"][polled]))
        waiting.append((rank[computing], start[computing], end[computing]))
        owner, begin, stop = (np.concatenate(column) for column in zip(*waiting, strict=True))
        last = np.zeros(size, np.int64)
        np.maximum.at(last, program.agent_endpoint, self.final.agents["end_ps"])
        polls = np.bincount(program.agent_endpoint, self.final.agents["polls"], size)
        return {
            "rank": np.arange(size),
            "end_ps": last,
            "compute_ps": busy,
            "exposed_ps": union_length(owner, begin, stop, size) - busy,
            "sent_bytes": sent,
            "received_bytes": received,
            "writes": writes,
            "flag_reads": polls.astype(np.int64),
        }

    def _traffic(self) -> tuple[Ints, Ints, Ints]:
        """Return (E,) payload sent, payload received and writes, to and from other endpoints."""
        size = self.program.endpoints
        sent, received, writes = np.zeros((3, size), np.int64)
        for low, high in _chunks(self.program.messages):
            known = self.program.message_rows(low, high)
            away = known["source"] != known["destination"]
            source, destination, weight = (known[n][away] for n in ("source", "destination", "size_bytes"))
            sent += np.bincount(source, weight, size).astype(np.int64)
            received += np.bincount(destination, weight, size).astype(np.int64)
            writes += np.bincount(source, minlength=size)
        return sent, received, writes

    def _hops(self) -> Columns:
        hops = self.final.rows.hops
        return {name: hops[name] for name in HOP_ROW.split()}


class _Lazy(Mapping[str, Any]):
    """Tables that are made when they are taken."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]]) -> None:
        self._makers = makers

    def __getitem__(self, name: str) -> Any:
        return self._makers[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _chunks(rows: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of rows to handle at once, which bounds the memory of intermediate columns."""
    return ((start, min(start + _CHUNK, rows)) for start in range(0, rows, _CHUNK))


def _chunked(name: str, rows: int, make: Callable[[int, int], Columns]) -> pa.Table:
    """Return a large table, its columns made a chunk of rows at a time and kept in the schema's types."""
    table = RESULT_TABLES[name]
    parts = [conform(table, make(start, end)) for start, end in _chunks(rows)]
    return pa.concat_tables([table.schema().empty_table(), *parts])


def _before(program: Program, known: dict[str, Ints], kind: Op) -> Ints:
    """Return how many operations of `kind` the call of each row executed before it."""
    count = np.concatenate(([0], np.cumsum(program.ops["kind"] == kind)))
    block = program.calls["block"][known["call"]]
    first, end = program.block_first[block], program.block_first[block + 1]
    before: Ints = known["turn"] * (count[end] - count[first]) + count[known["op"]] - count[first]
    return before


def _maybe(values: Ints) -> pa.Array:
    """Return values as Arrow, -1 as null."""
    return pa.array(values, pa.int64(), mask=np.asarray(values) < 0)


def _named(names: Any, index: Ints) -> pa.Array:
    """Return `names[index]` without a Python loop over rows."""
    return pa.DictionaryArray.from_arrays(
        pa.array(index, pa.int32()), pa.array(list(names), pa.string())
    ).cast(pa.string())
