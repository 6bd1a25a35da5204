"""Chakra execution traces (MLCommons) -> a trace: nodes as spans, communication nodes as collectives.

Many Chakra files have durations and no start times. Their nodes are then laid out: each starts when what it
depends on has ended and its lane is free; the report says so. Order across lanes is the source's, an edge's kind
follows from what it joins: a host's call launches GPU work, GPU work that a call depends on was waited for.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from ..schemas.errors import InputError
from ..schemas.tables import BACKENDS, TRACE_TABLES
from .chakra_model import COLLECTIVES, TYPES, Node
from .chakra_nodes import LATEST_NS, ChakraFile, parse_metadata, read_nodes
from .formats import Format, Head
from .parts import Group, Part
from .rank import RankRecord
from .sources import rank_in_name

OWN = "eidola."
"""What this project adds to nodes that it exports: exact times, lanes, and what Chakra has no name for."""
GROUPS = "comm_groups.json"
_SUFFIXES = (".et", ".et.gz", ".eg")
_RANK = re.compile(r"\.(\d+)\.(?:et|eg|json)(?:\.gz)?$")
_KINDS = TRACE_TABLES["spans"].by_name["kind"].values
_OPERATIONS = TRACE_TABLES["collectives"].by_name["operation"].values
_COPIES = ("MEM_LOAD_NODE", "MEM_STORE_NODE")
_OF_THE_HOST = ("STORAGE_NODE", "BATCH_NODE", "CHECKPOINT_NODE")
_MARKS = (b'"ctrlDeps"', b'"dataDeps"', b'"durationMicros"', b'_NODE"')
_QUOTES = "[]'\" "
_POINT_TO_POINT = {"COMM_SEND_NODE": "send", "COMM_RECV_NODE": "recv"}


def recognise(head: Head) -> bool:
    """Whether a file starts with Chakra's metadata and a node, or is JSON with a node's fields."""
    start = head.start.lstrip()
    if head.path.name == GROUPS:
        return True
    if start[:1] in (b"{", b"["):
        return b'"attr"' in start and any(mark in start for mark in _MARKS) and b'"traceEvents"' not in start
    if head.path.name.endswith(_SUFFIXES):
        return True
    size = head.start[0] if head.start else 0x80
    after = head.start[1 + size : 40 + size]
    try:
        told = parse_metadata(head.start[1 : 1 + size]) if 0 < size < 0x80 else {}
    except DecodeError:
        return False
    return bool(told) and any(mark in after[:6] for mark in (b"\x08", b"\x12"))


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[Path]:
    """Return the files given, and those in folders. Raises InputError where there is none."""
    del companions
    found = [
        file
        for path in paths
        for file in (
            sorted(f for f in path.rglob("*") if f.name.endswith(_SUFFIXES)) if path.is_dir() else [path]
        )
    ]
    found = [file for file in found if file.name != GROUPS]
    if not found:
        raise InputError(f"no *.et in {', '.join(map(str, paths))}; give Chakra's files or their folder")
    return found


def read(path: Path, alone: bool) -> list[RankRecord]:
    """Read the one rank of a file. Raises InputError where it cannot be read or does not tell its rank."""
    file = read_nodes(path)
    told = _rank(path, alone)
    rank = told or 0
    notes = [] if told is not None else [f"{path.name} does not tell its rank; 0 was taken"]
    nodes = [
        n for n in file.nodes.values() if TYPES[n.type] not in _LEFT_OUT and not n.attributes.get(f"{OWN}gap")
    ]
    if not nodes:
        raise InputError(f"{path} holds no work: all of its {len(file.nodes)} nodes are metadata")
    _lay_out(file, nodes, notes)
    spans = _merge(nodes)
    groups = _groups(file)
    parts = [part for n in nodes if (part := _part(n, spans.of[n.id], groups)) is not None]
    edges, contradicted = _edges(nodes, spans)
    _add_launches(spans, edges, parts)
    times = [t for name in ("start_ns", "end_ns") for t in spans.columns[name]]
    left = len(file.nodes) - len(nodes)
    return [
        RankRecord(
            rank,
            path,
            _small(file.metadata, f"{OWN}world_size"),
            {"backend": _backend(file)},
            spans.columns,
            edges,
            sorted(parts, key=lambda part: (part.start_ns, part.span)),
            (min(times), max(times)),
            dropped={"node without work (metadata, gap)": left} if left else {},
            truncated=file.truncated,
            contradicted=contradicted,
            notes=notes,
            clock=_clock(file),
        )
    ]


FORMAT = Format("chakra", recognise, plan, read)
_LEFT_OUT = ("INVALID_NODE", "METADATA_NODE")


def _number(told: Mapping[str, Any], name: str, least: int = 0) -> int | None:
    """Return an attribute that is a number from `least` to LATEST_NS, which fits the schema; else None."""
    value = told.get(name)
    return value if type(value) is int and least <= value <= LATEST_NS else None


def _small(told: Mapping[str, Any], name: str, least: int = 1) -> int | None:
    """Return a number that fits a column of 32 bits; else None."""
    value = _number(told, name, least)
    return value if value is not None and value < 1 << 31 else None


def _numbers(told: Mapping[str, Any], name: str) -> list[int] | None:
    value = told.get(name)
    fits = isinstance(value, list) and all(type(n) is int and 0 <= n <= LATEST_NS for n in value)
    return value if isinstance(value, list) and fits else None


def _text(told: Mapping[str, Any], name: str) -> str | None:
    value = told.get(name)
    return str(value) if value is not None else None


def _rank(path: Path, alone: bool) -> int | None:
    """Return the rank in the name: as ASTRA-sim has it, NAME.RANK.et, else rank<N>; None where one alone has none.

    Raises InputError where one of several has none.
    """
    if match := _RANK.search(path.name):
        return int(match[1])
    rank = rank_in_name(path)
    if rank is None and not alone:
        raise InputError(f"{path} does not tell its rank; name the files NAME.<rank>.et")
    return rank


def _backend(file: ChakraFile) -> str:
    """Return `gpu` for what a profiler saw, `virtual` for what a generator made up."""
    if (backend := file.metadata.get(f"{OWN}backend")) in BACKENDS:
        return str(backend)
    seen = any("rf_id" in n.attributes or "stream" in n.attributes for n in file.nodes.values())
    return "gpu" if seen else "virtual"


def _clock(file: ChakraFile) -> str | None:
    """Return the clock that this project's exports of aligned ranks share; others say nothing of theirs."""
    if file.metadata.get(f"{OWN}clock") != "aligned":
        return None
    return f"export from {_number(file.metadata, f'{OWN}origin_ns', -LATEST_NS)} ns"


def _on_host(node: Node) -> bool:
    return bool(node.attributes.get("is_cpu_op", TYPES[node.type] in _OF_THE_HOST))


def _lane(node: Node) -> str:
    """Return the lane: as exported, else by stream or thread, else one for compute and one for communication."""
    told = node.attributes
    if lane := told.get(f"{OWN}lane"):
        return str(lane)
    if _on_host(node):
        return f"thread {told.get('tid', 0)}"
    stream = told.get("stream", told.get("tid"))
    if stream is not None:
        return f"stream {stream}"
    return "stream communication" if TYPES[node.type].startswith("COMM") else "stream compute"


def _kind(node: Node) -> str:
    if (kind := node.attributes.get(f"{OWN}kind")) in _KINDS:
        return str(kind)
    if _on_host(node):
        return "host_call"
    return "copy" if TYPES[node.type] in _COPIES else "kernel"


def _lay_out(file: ChakraFile, nodes: Sequence[Node], notes: list[str]) -> None:
    """Give nodes their start: exact where this project exported it, else in microseconds, else laid out."""
    origin = _number(file.metadata, f"{OWN}origin_ns", -LATEST_NS) or 0
    for node in nodes:
        start, duration = (_number(node.attributes, OWN + name) for name in ("start_ns", "duration_ns"))
        node.start_ns = (node.start_ns if start is None else start) + origin
        node.duration_ns = node.duration_ns if duration is None else duration
        if max(node.start_ns, node.start_ns + node.duration_ns) > LATEST_NS:
            raise InputError(
                f"{file.path}: node {node.id} has a time beyond 146 years; write the trace again"
            )
    if not any(node.dependencies for node in nodes):
        for node in nodes:  # a file with one kind of dependency means it as order
            node.dependencies = node.callers
    if len(nodes) > 1 and all(node.start_ns == origin for node in nodes):
        _schedule(file, nodes)
        notes.append(
            f"{file.path.name} holds durations and no start times: nodes were laid out by their dependencies"
        )
    elif f"{OWN}origin_ns" not in file.metadata:
        notes.append(f"{file.path.name} has times in whole microseconds")
    missing = sum(other not in file.nodes for node in nodes for other in node.dependencies)
    if missing:
        notes.append(
            f"{file.path.name}: {missing} dependencies are on nodes that it does not hold; they were left out"
        )


def _schedule(file: ChakraFile, nodes: Sequence[Node]) -> None:
    """Start each node when its dependencies have ended, its callers begun and its lane is free, by (ready, id).

    Callers that depend on what they call, as converters write them, do not count.
    """
    by_id = {node.id: node for node in nodes}
    ended = {n.id: [o for o in n.dependencies if o in by_id] for n in nodes}
    begun = {n.id: [o for o in n.callers if o in by_id and o != n.id] for n in nodes}
    followers: dict[int, list[tuple[int, bool]]] = defaultdict(list)
    for node in nodes:
        for other in ended[node.id]:
            followers[other].append((node.id, True))
        for other in begun[node.id]:
            followers[other].append((node.id, False))
    left = {n.id: [len(begun[n.id]), len(ended[n.id])] for n in nodes}
    ready = dict.fromkeys(by_id, 0)
    free: dict[str, int] = defaultdict(int)
    queue = [(0, number) for number, counts in left.items() if counts == [0, 0]]
    parked = [number for number, (calls, waits) in left.items() if calls and not waits]
    heapify(queue)
    heapify(parked)
    placed: set[int] = set()
    while queue or parked:
        time, number = heappop(queue) if queue else (-1, heappop(parked))
        if number in placed:
            continue
        placed.add(number)
        node = by_id[number]
        lane = _lane(node)
        node.start_ns = max(time, ready[number], free[lane])
        free[lane] = end = node.start_ns + node.duration_ns
        for other, waits in followers[number]:
            ready[other] = max(ready[other], end if waits else node.start_ns)
            left[other][waits] -= 1
            if left[other] == [0, 0]:
                heappush(queue, (ready[other], other))
            elif left[other][1] == 0:
                heappush(parked, other)
    if len(placed) < len(nodes):
        stuck = min(set(by_id) - placed)
        raise InputError(f"{file.path}: node {stuck} depends on itself through others; write the trace again")


class _Spans:
    """The columns of `spans`, and the span of every node."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {
            name: [] for name in ("span", "lane", "kind", "name", "launch_ns", "start_ns", "end_ns")
        }
        self.of: dict[int, int] = {}


def _merge(nodes: Sequence[Node]) -> _Spans:
    """Make a span a node; nodes that were exported as pieces of one span are that span again."""
    spans = _Spans()
    held: dict[Any, int] = {}
    columns = spans.columns
    for node in sorted(nodes, key=lambda n: (n.start_ns, n.id)):
        piece = _number(node.attributes, f"{OWN}span")
        is_piece = piece is not None and TYPES[node.type] not in _POINT_TO_POINT
        span = held.setdefault(("span", piece) if is_piece else node.id, len(columns["span"]))
        spans.of[node.id] = span
        end = node.start_ns + node.duration_ns
        if span < len(columns["span"]):
            columns["end_ns"][span] = max(columns["end_ns"][span], end)
            continue
        row = (span, _lane(node), _kind(node), node.name, None, node.start_ns, end)
        for values, value in zip(columns.values(), row, strict=True):
            values.append(value)
    return spans


def _groups(file: ChakraFile) -> dict[str, tuple[int, ...]]:
    """Return the ranks of process groups: of the metadata node that PyTorch's converter writes, and of GROUPS."""
    found: dict[str, tuple[int, ...]] = {}
    for node in file.nodes.values():
        if TYPES[node.type] == "METADATA_NODE" and "pg_name" in node.inputs:
            for group in _loads(f"[{node.inputs.strip(_QUOTES)}]"):
                if isinstance(group, dict) and isinstance(group.get("ranks"), list) and group["ranks"]:
                    found[str(group.get("pg_name"))] = tuple(group["ranks"])
    beside = file.path.with_name(GROUPS)
    if beside.is_file():
        try:
            told = json.loads(beside.read_text())
            found |= {str(name): tuple(map(int, ranks)) for name, ranks in told.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{beside} is no list of ranks a group ({error}); correct or remove it"
            ) from error
    return found


def _loads(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []


def _part(node: Node, span: int, groups: Mapping[str, tuple[int, ...]]) -> Part | None:
    """Return a communication node as a collective; the host's own calls of one are none."""
    told = node.attributes
    operation = told.get(f"{OWN}operation")
    if operation not in _OPERATIONS:
        operation = _POINT_TO_POINT.get(TYPES[node.type])
    if TYPES[node.type] == "COMM_COLL_NODE" and not operation and not _on_host(node):
        kind = _number(told, "comm_type")
        operation = COLLECTIVES[kind] if kind is not None and kind < len(COLLECTIVES) else "unknown"
    if not operation:
        return None
    peer = _small(told, f"{OWN}peer", 0)
    if peer is None and operation in ("send", "recv"):
        peer = _small(told, "comm_dst" if operation == "send" else "comm_src", 0)
    size = _number(told, f"{OWN}size_bytes")
    end = node.start_ns + node.duration_ns
    return Part(
        span,
        -1,
        str(operation),
        "chakra",
        _group(node, str(operation), groups),
        node.start_ns,
        end,
        None,
        sequence=_number(told, f"{OWN}sequence"),
        dtype=_text(told, f"{OWN}dtype"),
        size_bytes=_number(told, "comm_size") if size is None else size,
        in_split_bytes=_numbers(told, f"{OWN}in_split_bytes"),
        out_split_bytes=_numbers(told, f"{OWN}out_split_bytes"),
        peer=peer,
        algorithm=_text(told, f"{OWN}algorithm"),
        protocol=_text(told, f"{OWN}protocol"),
        channels=_small(told, f"{OWN}channels"),
        on_gpu=not _lane(node).startswith("thread"),
    )


def _group(node: Node, operation: str, groups: Mapping[str, tuple[int, ...]]) -> Group:
    number = _text(node.attributes, "pg_name")
    ranks = groups.get(number or "")
    name = _text(node.attributes, f"{OWN}communicator") or (f"group {number}" if number else None)
    if operation in ("send", "recv") and name is None:
        name = "all ranks"
    size = len(ranks) if ranks else _small(node.attributes, f"{OWN}group_size")
    return Group(name, ranks, size, None, None if name else _lane(node))


def _edges(nodes: Sequence[Node], spans: _Spans) -> tuple[dict[str, list[Any]], Counter[str]]:
    """Return the columns of `dependencies` between lanes, and how many edges the times contradict, by kind."""
    rows: dict[tuple[int, int], str] = {}
    contradicted: Counter[str] = Counter()
    lanes, start, end = (spans.columns[name] for name in ("lane", "start_ns", "end_ns"))
    for node in nodes:
        after = spans.of[node.id]
        onto_host = lanes[after].startswith("thread")
        for other, calls in [*((o, False) for o in node.dependencies), *((o, True) for o in node.callers)]:
            before = spans.of.get(other, after)
            host = lanes[before].startswith("thread")
            if lanes[before] == lanes[after] or (calls and (onto_host or not host)):
                continue  # order within a lane is implied, and calls within a thread are no order
            kind = {(1, 0): "launch", (0, 1): "sync", (1, 1): "thread", (0, 0): "event"}[host, onto_host]
            if kind == "thread" and end[before] > start[after]:
                kind = "launch"  # of a host's own worker, which began while the call was running
            first = start[before] if kind == "launch" else end[before]
            if first > (end[after] if kind == "sync" else start[after]):
                contradicted[kind] += 1
            else:
                rows[before, after] = kind
    ordered = sorted((after, before, kind) for (before, after), kind in rows.items())
    return {
        "before": [before for _, before, _ in ordered],
        "after": [after for after, _, _ in ordered],
        "kind": [kind for _, _, kind in ordered],
        "origin": ["measured"] * len(ordered),
    }, contradicted


def _add_launches(spans: _Spans, edges: Mapping[str, Sequence[Any]], parts: Sequence[Part]) -> None:
    """Say when GPU work was launched: at the start of the last call that launches it."""
    launch, start = spans.columns["launch_ns"], spans.columns["start_ns"]
    for before, after, kind in zip(edges["before"], edges["after"], edges["kind"], strict=True):
        if kind == "launch":
            launch[after] = max(start[before], launch[after] if launch[after] is not None else start[before])
    for part in parts:
        part.launch_ns = launch[part.span]
