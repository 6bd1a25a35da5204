"""The result tables of a run, each made of its outcome: a function a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from ..schemas import RESULT_TABLES, ResultsWriter, conform
from ..schemas.store import integers
from .engine.layout import HOP_ROW
from .gpu_times import chunks, gpus
from .memory_traffic import memory, sharing
from .outcome import Outcome
from .program import ACTIVITY_KINDS, Ints, Mode

Columns = dict[str, Any]
_FEW = 64


def tables(outcome: Outcome) -> Mapping[str, Any]:
    """Return the tables that the outcome has, by name, each made when it is taken."""
    makers: dict[str, Callable[[], Any]] = {
        make.__name__: partial(make, outcome)
        for make in (agents, activities, links, link_use, collectives, gpus, memory)
    }
    if len(outcome.final.waiting):
        makers["sharing"] = partial(sharing, outcome)
    if len(outcome.final.rows.hops):
        makers["hops"] = partial(hops, outcome)
    return _Lazy(makers | {name: partial(_whole, outcome, name) for name in _chunked(outcome)})


def write(outcome: Outcome, writer: ResultsWriter) -> None:
    """Write the tables that the outcome has, the large ones made and let go a chunk of rows at a time.

    Two at a time: columns are made, hashed and encoded by code that needs no other thread to wait.
    """
    _keep_freed_memory()
    made, chunked = tables(outcome), _chunked(outcome)

    def put(name: str) -> None:
        writer.write(name, _parts(outcome, name) if name in chunked else made[name])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(put, sorted(made, key=lambda name: name not in chunked)))  # the large ones first


def agents(outcome: Outcome) -> Columns:
    """Return the table of sequences of operations."""
    program, agents = outcome.program, outcome.final.agents
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


def activities(outcome: Outcome) -> Columns:
    """Return the table of named stretches of agents."""
    columns, (start, end) = outcome.program.activities, outcome.activity_times
    size = len(start)
    activity = outcome.program.calls["activity"]
    inside = np.flatnonzero(activity >= 0)[::-1]  # so that an activity's first call is written last
    released = np.full(size, -1, np.int64)
    released[activity[inside]] = outcome.final.rows.calls["released_by"][inside]
    return {
        "activity": np.arange(size),
        "agent": columns["agent"],
        "rank": outcome.program.agent_endpoint[columns["agent"]],
        "kind": _named(ACTIVITY_KINDS, columns["kind"]),
        "name": _named(outcome.program.names, columns["name"]),
        "source": columns["source"],
        "start_ps": start,
        "end_ps": end,
        "captured_start_ns": _maybe(columns["captured_start_ns"]),
        "captured_end_ns": _maybe(columns["captured_end_ns"]),
        "released_by": released,
    }


def messages(outcome: Outcome, start: int, end: int) -> Columns:
    """Return the table of writes, rows `start` to `end`."""
    known, rows = outcome.columns.messages(start, end), outcome.final.rows.messages[start:end]
    return {
        "message": np.arange(start, end),
        "source_rank": known["source"],
        "destination_rank": known["destination"],
        "bottleneck_link": rows["link"],
        **{name: known[name] for name in ("agent", "activity", "size_bytes", "flag")},
        **{name: rows[name] for name in ("post_ps", "start_ps", "arrival_ps", "queued_ps", "released_by")},
    }


def waits(outcome: Outcome, start: int, end: int) -> Columns:
    """Return the table of waits, rows `start` to `end`."""
    known, rows = outcome.columns.waits(start, end), outcome.final.rows.waits[start:end]
    endpoint, mode = known["endpoint"], known["mode"]
    names, labels = outcome.program.flag_labels
    observe = mode == Mode.OBSERVE
    policy = np.array([{Mode.OBSERVE: 1, Mode.POLL: 2}.get(each, 0) for each in Mode], np.int32)[mode]
    arrival = rows["arrival_ps"]
    if observe.any():
        arrival = np.where(observe, outcome.observed_ps[start:end], arrival)
    return {
        "wait": np.arange(start, end),
        "rank": endpoint,
        "flag_name": _named(
            names, labels[outcome.program.flag_first[endpoint] + known["flag"]] if names else mode
        ),
        "policy": _named(("event", "observe", outcome.wait.kind.name.lower()), policy),
        "arrival_ps": arrival,
        **{name: known[name] for name in ("agent", "activity", "flag", "expected")},
        **{name: rows[name] for name in ("start_ps", "end_ps", "polls", "released_by")},
    }


def links(outcome: Outcome) -> Columns:
    """Return the table of links of the fabric."""
    fabric, queues = outcome.fabric, outcome.final.queues[: outcome.fabric.links]
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


def link_use(outcome: Outcome) -> Columns:
    """Return the table of links' use over time."""
    link, where = np.nonzero(outcome.final.use)
    width = outcome.final.bin_ps
    return {
        "link": link,
        "start_ps": where * width,
        "width_ps": np.full(len(link), width),
        "busy_ps": outcome.final.use[link, where],
    }


def collectives(outcome: Outcome) -> Columns:
    """Return the table of ranks' parts in operations."""
    columns, (start, end) = outcome.program.activities, outcome.activity_times
    found = np.flatnonzero(columns["collective"] >= 0)
    found = found[np.argsort(columns["collective"][found], kind="stable")]
    which = columns["collective"][found]
    known = [outcome.program.collectives[i] for i in which]
    return {
        "collective": which,
        "rank": outcome.program.agent_endpoint[columns["agent"][found]],
        **{name: [getattr(c, name) for c in known] for name in ("operation", "communicator", "sequence")},
        **{name: [getattr(c, name) for c in known] for name in ("size_bytes", "algorithm")},
        "start_ps": start[found],
        "end_ps": end[found],
        "captured_start_ns": _maybe(columns["captured_start_ns"][found]),
        "captured_end_ns": _maybe(columns["captured_end_ns"][found]),
    }


def hops(outcome: Outcome) -> Columns:
    """Return the table of segments on links."""
    hops = outcome.final.rows.hops
    return {name: hops[name] for name in HOP_ROW.split()}


def _keep_freed_memory() -> None:
    """Free one large array: glibc then keeps smaller ones, instead of giving each chunk's pages back to the system.

    See M_MMAP_THRESHOLD in mallopt(3): the threshold follows the largest block freed, up to 32 MiB. It saves 48,000
    page faults in 4 million rows.
    """
    np.empty(24 << 20, np.uint8)


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


def _chunked(outcome: Outcome) -> dict[str, tuple[Callable[[Outcome, int, int], Columns], int]]:
    """Return how the large tables that the outcome has are made, and how many rows they have."""
    program = outcome.program
    if not outcome.recorded:
        return {}
    return {"messages": (messages, program.messages), "waits": (waits, program.waits)}


def _parts(outcome: Outcome, name: str) -> Iterator[Columns]:
    """Yield the columns of a large table, a chunk of rows at a time."""
    make, rows = _chunked(outcome)[name]
    return (make(outcome, start, end) for start, end in chunks(rows))


def _whole(outcome: Outcome, name: str) -> pa.Table:
    """Return a large table whole, its columns kept in the schema's types."""
    table = RESULT_TABLES[name]
    parts = [conform(table, part) for part in _parts(outcome, name)]
    return pa.concat_tables([table.schema().empty_table(), *parts])


def _maybe(values: Ints) -> pa.Array:
    """Return values as Arrow, -1 as null."""
    return integers(values.astype(np.int64), values >= 0)


def _named(names: Sequence[str], index: Ints) -> pa.Array:
    """Return `names[index]`, encoded; null where the index is negative. A large dictionary has those that occur."""
    if not names:
        return pa.nulls(len(index), pa.dictionary(pa.int32(), pa.string()))
    codes = integers(index.astype(np.int32, copy=False), index >= 0)
    if len(names) <= _FEW:
        return pa.DictionaryArray.from_arrays(codes, pa.array(names, pa.string()))
    found = codes.dictionary_encode()
    return pa.DictionaryArray.from_arrays(found.indices, pa.array(names, pa.string()).take(found.dictionary))
